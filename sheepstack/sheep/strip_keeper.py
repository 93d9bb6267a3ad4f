"""From whole objects to strips and back.

An object of an erasure-coded VDI is *whole* while it is written to: as many whole copies as
may be needed lie with its first holders, and all that is said of replicated objects holds for
them.  When nobody has written to it for a while it is cut into *strips*, which are never
changed afterwards: so there is no moment at which strips of different writes would have to be
told apart.  A write to an object in strips makes it whole first.

Whole copies count as long as there is one; strips count when there is none.  Whole copies are
only given up when all strips of one version are with their holders and no write came since
the copies were read; and an object becomes whole on all its holders before it is written to.

The first holder of an object, its *keeper*, does all this, one step at a time for each object,
and within one revision of the map: what a former keeper still had under way is refused.
"""

import hashlib
import logging
import secrets
import threading
import time
from collections import Counter

from sheepstack import runtime
from sheepstack.redundancy.erasure import BadStrip, code_of, pack_strip, unpack_strip
from sheepstack.sheep.strip_recovery import extents_of
from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.workers import in_lanes
from sheepstack.store.errors import NoObject, Rotten, StoreError
from sheepstack.wire import oid as oids
from sheepstack.wire import peer
from sheepstack.wire.peer import PeerOp, full_stamp, make_stamp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

#: After so long others than the keeper wonder why a whole copy is still here.
_WONDER_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 3.0
#: Looking takes at most this part of the time.
_LOOK_SHARE = 0.02
_LANES = 4
_STRIPES = 64


class StripKeeper:
    """A background thread, and the calls ``make_whole``, ``remove_object``, ``check_object``.

    ``rest``: so many seconds nobody must have written to an object before it is cut.
    """

    def __init__(self, state, store, replica, gateway, table, recovery, reader, rest):
        self._state = state
        self._store = store
        self._replica = replica
        self._gateway = gateway
        self._table = table
        self._recovery = recovery
        self._reader = reader
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._resting = {}
        self._rest = rest

    def start(self):
        threading.Thread(target=self._run, daemon=True, name="strips").start()

    # -- what rests is cut -----------------------------------------------------------------

    def _run(self):
        shortest = min(_LOOK_SECONDS, max(self._rest, 0.05))
        pause = shortest
        while not self._state.stopping.wait(pause):
            begun = time.monotonic()
            try:
                due = self._look()
                pause = max(shortest, (time.monotonic() - begun) / _LOOK_SHARE)
                in_lanes(self._cut_quietly, due, _LANES)
            except Exception:
                log.exception("cutting objects that rest")

    def _look(self):
        """Whole objects here that have rested long enough."""
        view = self._state.view
        if not (view.open and view.complete):
            return []
        policies = self._table.erasure_policies()
        if not policies:
            return []
        now, resting, due = time.monotonic(), {}, []
        for oid in self._store.oids():
            policy = policies.get(oids.vid_of(oid))
            if policy is None or oids.is_strip(oid) or not policy.has_strips(oid):
                continue
            since = resting[oid] = max(
                self._resting.get(oid, now), self._replica.last_write(oid))
            holders = view.ring.holders(oid, policy.width)
            if len(holders) < policy.width:
                continue
            if holders[0] == view.index:
                if now - since >= self._rest:
                    due.append((oid, policy))
            elif now - since >= _WONDER_SECONDS:
                resting[oid] = now
                self._state.call_node(holders[0], {
                    "call": "refetch", "oid": oid, "revision": view.revision})
        self._resting = resting
        return due

    def _cut_quietly(self, item):
        oid, policy = item
        try:
            if not self.cut(oid, policy):
                # Perhaps a slow network: not to be filled with the same strips again at once.
                self._resting[oid] = time.monotonic() + _RETRY_SECONDS
        except (StoreError, ValueError) as error:
            log.warning("cannot cut object %016x into strips: %s", oid, error)
            if isinstance(error, Rotten):
                self._recovery.repair(oid, self._state.view.revision)

    def cut(self, oid, policy) -> bool:
        """Cut a whole object into strips; False where that must wait.  Raises StoreError."""
        with self._lock_of(oid):
            view = self._state.view
            if not (view.open and view.complete and self._state.lease_valid()):
                return False
            holders = view.ring.holders(oid, policy.width)
            if len(holders) < policy.width or holders[0] != view.index:
                return False
            copies = holders[:policy.copies_of(oid)]
            token = secrets.randbits(62) | 1
            if not all(self._ask(view, node, "mark", oid, token=token) for node in copies):
                return False
            version = full_stamp(
                view.revision, make_stamp(self._replica.clock.tick(), view.index))
            if not self._hand_out(view, oid, policy, holders, version):
                return False
            # Whoever leaves the map now cannot take the last whole copy along: the strips are
            # where they belong, each of them confirmed at this revision.
            for node in copies:
                if self._ask(view, node, "retire", oid, token=token) != Result.SUCCESS:
                    return False
            return True

    def _hand_out(self, view, oid, policy, holders, version):
        size = self._store.size(oid)
        image = self._store.read(oid, 0, size)
        strips = runtime.offload(code_of(policy).encode, image)
        contents = {node: pack_strip(version, size, strip)
                    for node, strip in zip(holders, strips)}
        names = {node: oids.strip_oid(oid, position) for position, node in enumerate(holders)}
        return all(result == Result.SUCCESS for result in self._put(
            view, names, contents, version, policy))

    def _put(self, view, names, contents, version, policy):
        """Have each node keep ``contents[node]`` as ``names[node]``; results of all."""
        results = []
        arrived = threading.Condition()

        def take(answer, batch):
            with arrived:
                results.append(answer.result)
                arrived.notify()

        for node, content in contents.items():
            if node != view.index:
                buffers = peer.pack_extents(len(content), version, extents_of(content))
                view.links[node].submit(
                    PeerOp.PUT, view.revision, take, oid=names[node], buffers=buffers,
                    data_length=sum(map(len, buffers)),
                    flags=policy.to_byte() << peer.POLICY_SHIFT)
        if view.index in contents:
            content = contents[view.index]
            mine = self._replica.put(names[view.index], view.revision, len(content), version,
                                     extents_of(content))
            with arrived:
                results.append(mine)
        with arrived:
            arrived.wait_for(lambda: len(results) == len(contents), self._state.patience)
            return results + [Result.NETWORK_ERROR] * (len(contents) - len(results))

    def _ask(self, view, node, what, oid, **arguments):
        if self._state.view.revision != view.revision:
            return None
        return self._state.call_node(node, {
            "call": what, "oid": oid, "revision": view.revision, **arguments})

    # -- what gateways ask for -------------------------------------------------------------

    def make_whole(self, oid, revision):
        """Make an object whole: SUCCESS, NO_OBJ, NO_SPACE, or None: try again."""
        policy = self._table.policy_of(oid)
        with self._lock_of(oid):
            view = self._state.view
            if view.revision != revision or not view.serving:
                return None
            result, _ = self._gateway.read_whole(oid, 0, 1, policy)
            if result != Result.NO_OBJ:
                return Result.SUCCESS if result == Result.SUCCESS else None
            result, version, data = self._reader.read_all(oid, policy)
            if result == Result.NO_OBJ:
                return result
            if result != Result.SUCCESS:
                return None
            copies = view.ring.holders(oid, policy.copies_of(oid))
            results = self._put(view, dict.fromkeys(copies, oid), dict.fromkeys(copies, data),
                                version, policy)
            if Result.NO_SPACE in results:
                return Result.NO_SPACE
            return Result.SUCCESS if set(results) == {Result.SUCCESS} else None

    def remove_object(self, oid, revision):
        """Remove all strips, then all whole copies: SUCCESS, or None: try again."""
        policy = self._table.policy_of(oid)
        with self._lock_of(oid):
            view = self._state.view
            if view.revision != revision or not view.complete:
                return None
            try:
                dropped = self._state.call_all({
                    "call": "drop_strips", "oid": oid, "revision": revision,
                    "width": policy.width})
            except Failure:
                return None
            if set(dropped) != {Result.SUCCESS}:
                return None
            for node in view.ring.holders(oid, policy.copies_of(oid)):
                if self._ask(view, node, "retire", oid, token=0) != Result.SUCCESS:
                    return None
            return Result.SUCCESS

    def check_object(self, oid, revision):
        """Look at all parts of an object and mend those that are missing or damaged.

        How many were mended; -1: some cannot be; None: not possible now.
        """
        policy = self._table.policy_of(oid)
        with self._lock_of(oid):
            view = self._state.view
            if view.revision != revision or not view.serving:
                return None
            parts = self._parts(view, oid, policy)
            wrong = self._wrong(view, parts)
            if wrong is None:
                return None
            for node, part in wrong:
                self._ask(view, node, "mend", part)
            left = self._wrong(view, parts) if wrong else []
            if left is None:
                return None
            return -1 if left else len(wrong)

    def _parts(self, view, oid, policy):
        """[(node, oid of what it should have)]: whole copies where there is one, else strips."""
        result, _ = self._gateway.read_whole(oid, 0, 1, policy)
        if result != Result.NO_OBJ:
            return [(node, oid) for node in view.ring.holders(oid, policy.copies_of(oid))]
        return [(node, oids.strip_oid(oid, position))
                for position, node in enumerate(view.ring.holders(oid, policy.width))]

    def _wrong(self, view, parts):
        """Those of ``parts`` that are not like most; None where a node does not answer."""
        found = [(node, part, self._ask(view, node, "examine", part)) for node, part in parts]
        if any(digest is None for _, _, digest in found):
            return None
        votes = Counter(digest for _, _, digest in found if digest)
        right = votes.most_common(1)[0][0] if votes else None
        return [(node, part) for node, part, digest in found if digest != right]

    def examine(self, part) -> str:
        """What this sheep has of an object: equal for parts that belong together.

        "": nothing, or it is damaged.
        """
        try:
            if oids.is_strip(part):
                content = self._store.read(part, 0, self._store.size(part))
                return "%x" % unpack_strip(content)[0].version
            return digest_of(self._store, part).hex()
        except (StoreError, BadStrip) as error:
            if not isinstance(error, NoObject):
                log.warning("%016x: %s", part, error)
            return ""

    def mend(self, part, revision) -> bool:
        """Have this sheep get what it should have of an object from the others."""
        if self._store.exists(part):
            return self._recovery.repair(part, revision)
        return self._recovery.refetch(part)

    def check_from_here(self, oid):
        """:meth:`check_object`, by whichever node is the keeper."""
        view = self._state.view
        keeper = view.ring.holders(oid, 1) if view.serving else ()
        return self._state.call_node(keeper[0], {
            "call": "check_object", "oid": oid, "revision": view.revision}) if keeper else None

    def has_part(self, oid) -> bool:
        """True where this sheep has a whole copy or a strip of an object."""
        if self._store.exists(oid):
            return True
        policy = self._table.policy_if_known(oid)
        return policy is not None and policy.has_strips(oid) and any(
            self._store.exists(oids.strip_oid(oid, position)) for position in range(policy.width))

    def has_strips(self, oid) -> bool:
        """True for an object that is cut into strips when it rests."""
        return self._table.policy_of(oid).has_strips(oid)

    def _lock_of(self, oid):
        return self._locks[oid % _STRIPES]


def digest_of(store, oid) -> bytes:
    """SHA-1 of the content of an object, zeros included; raises StoreError."""
    digest = hashlib.sha1()
    size = store.size(oid)
    for offset in range(0, size, 1 << 20):
        digest.update(store.read(oid, offset, min(1 << 20, size - offset)))
    return digest.digest()
