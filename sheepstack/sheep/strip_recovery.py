"""Bringing strips to where the map says they belong.

A strip is fetched from whoever has it, or computed from enough others of the same version.
Strips count only where no whole copy of their object is left: see
:mod:`sheepstack.sheep.strip_keeper`.
"""

import logging

from sheepstack.redundancy.erasure import BadStrip, code_of, pack_strip, unpack_strip
from sheepstack.sheep.waiter import Waiter
from sheepstack.store.errors import NoObject, StoreError
from sheepstack.wire import oid as oids
from sheepstack.wire import peer
from sheepstack.wire.peer import PeerFlag, PeerOp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)


class StripRecovery:
    """``ask_all(view, oids)`` and ``accounted_for(view, oid, policy)`` are Recovery's."""

    def __init__(self, state, store, table, ask_all, maps_since_complete, accounted_for):
        self._state = state
        self._store = store
        self._table = table
        self._replica = None
        self._ask_all = ask_all
        self._maps_since_complete = maps_since_complete
        self._accounted_for = accounted_for

    def attach(self, replica):
        self._replica = replica

    def resolve(self, view, strip):
        """Bring a strip here: True; None: there is none to bring; False: not possible now."""
        oid = oids.whole_oid(strip)
        policy = self._table.policy_of(oid)
        if not policy.is_erasure or view.ring.holders_of(strip, policy) != (view.index,):
            return None
        version, found = self._find(view, oid, policy)
        if found is None:
            return None
        if len(found) < policy.data:
            if not self._are_accounted_for(view, oid, policy):
                log.info("object %016x: only nodes that are away can have its strips", oid)
                return False
            return None
        position = oids.strip_position(strip)
        if position in found:
            content = self._content(view, strip, found[position], version)
            if content is not None:
                return self._install(view, strip, version, content)
        content = self._compute(view, oid, policy, position, version, found)
        return content is not None and self._install(view, strip, version, content)

    def repair(self, view, strip) -> bool:
        """Replace a damaged strip by what the others say it is; False: they cannot tell."""
        oid = oids.whole_oid(strip)
        policy = self._table.policy_of(oid)
        if not policy.is_erasure:
            return False
        version, found = self._find(view, oid, policy)
        if not found:
            return False
        position = oids.strip_position(strip)
        content = self._compute(view, oid, policy, position, version, found)
        if content is None:
            return False
        result = self._replica.put(strip, view.revision, len(content), version,
                                   extents_of(content))
        if result == Result.SUCCESS:
            log.warning("strip %016x: computed anew", strip)
        return result == Result.SUCCESS

    def _find(self, view, oid, policy):
        """(version, {position: (node, revision or None)}) of the newest strips there are.

        (0, None) where there is a whole copy, which is what counts.
        """
        names = [oids.strip_oid(oid, position) for position in range(policy.width)]
        last = view.map.last_complete
        versions = {}
        for node, states in self._ask_all(view, [*names, oid]).items():
            current, _, stale = states[-1]
            if current is not None or any(revision >= last for revision, _ in stale):
                return 0, None
            for position, (current, _, stale) in enumerate(states[:-1]):
                if current:
                    versions.setdefault(current, {})[position] = node, None
                for revision, version in stale:
                    if version and revision >= last:
                        versions.setdefault(version, {}).setdefault(position, (node, revision))
        newest = max(versions, default=0)
        return newest, versions.get(newest, {})

    def _are_accounted_for(self, view, oid, policy):
        """True where those present would have enough strips if the object were in strips."""
        if not self._accounted_for(view, oid, policy):
            return False
        present = {node.key for node in view.map.nodes}
        for past in self._maps_since_complete(view):
            ring = self._state.ring_of(past)
            keys = {past.nodes[index].key for index in ring.holders(oid, policy.width)}
            if len(keys) >= policy.data > len(keys & present):
                return False
        return True

    def _compute(self, view, oid, policy, position, version, found):
        """The strip at ``position`` with its trailer out of others; None: too few are sound."""
        strips, size = {}, 0
        for other, source in sorted(found.items()):
            if other == position or len(strips) == policy.data:
                continue
            content = self._content(view, oids.strip_oid(oid, other), source, version)
            if content is not None:
                trailer, strip = unpack_strip(content)
                strips[other], size = strip, trailer.size
        if len(strips) < policy.data:
            return None
        made = code_of(policy).rebuild(strips, [position])
        return pack_strip(version, size, made[position])

    def _content(self, view, strip, source, version):
        """A strip from where it is, whole and checked; None where it is not sound."""
        node, revision = source
        try:
            if node == view.index:
                content = self._content_here(strip, revision)
            else:
                content = self._fetch(view, strip, node, revision)
            if content is not None and unpack_strip(content)[0].version == version:
                return content
        except (BadStrip, StoreError, ValueError) as error:
            log.warning("strip %016x on %s: %s", strip, view.map.nodes[node].name, error)
        return None

    def _content_here(self, strip, revision):
        store = self._store
        if revision is None:
            return store.read(strip, 0, store.size(strip))
        sizes = {known: size for known, _, size in store.stale_info(strip)}
        if revision not in sizes:
            raise NoObject(strip)
        return store.stale_read(strip, revision, 0, sizes[revision])

    def _fetch(self, view, strip, node, revision):
        answer = view.links[node].call(
            PeerOp.FETCH, view.revision, self._state.patience, oid=strip, stamp=revision or 0,
            flags=PeerFlag.STALE if revision else 0)
        if answer.result != Result.SUCCESS:
            return None
        size, _, extents = peer.unpack_extents(answer.payload)
        content = bytearray(size)
        for offset, data in extents:
            content[offset:offset + len(data)] = data
        return content

    def _install(self, view, strip, version, content):
        waiter = Waiter(used=False)

        def put():
            waiter.used = True
            self._store.create_sparse(strip, len(content), extents_of(content), version, waiter)

        if not self._replica.install(strip, view.revision, put):
            return False
        waiter.wait()
        return True


def extents_of(content) -> list:
    """[(offset, bytes)] of what is not zeros, in steps of 64 KiB."""
    view, step = memoryview(content), 1 << 16
    extents = []
    for start in range(0, len(view), step):
        stop = min(start + step, len(view))
        if any(view[start:start + 64]) or bytes(view[start:stop]).strip(b"\0"):
            if extents and extents[-1][1] == start:
                extents[-1][1] = stop
            else:
                extents.append([start, stop])
    return [(start, view[start:stop]) for start, stop in extents]
