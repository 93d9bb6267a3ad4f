"""Bringing objects to where the map says they belong.

At each map a sheep asks all others what they hold of what it should hold now, and fetches
what it lacks.  A copy in ``obj/`` is current: it has every write that was acknowledged.  A
copy that was set aside is known to have been current up to some revision; it is used again
as it is when a current copy elsewhere has the same stamp, and it is the source of last
resort when no current copy is left.

The map says at which revision last every node had all it should.  As long as of every map
since then at least one of an object's holders is here, nothing can have happened to it that
nobody here knows of, and what nobody has does not exist.  Otherwise (so many nodes went at
once that with them all copies of something went) nobody can tell: the object is waited for,
the cluster does not call itself complete, and so nothing is removed or purged until the nodes
are back or an operator gives them up (:meth:`Recovery._resolve`, :meth:`Recovery.take_stock`).

Objects that somebody asks for are fetched at once, ahead of the queue.
"""

import functools
import json
import logging
import threading
import time

from sheepstack.coordination.errors import CoordinationError
from sheepstack.placement.ring import RING_SIZE, changed_arcs, merged
from sheepstack.redundancy.erasure import TRAILER_SIZE, Trailer
from sheepstack.sheep.pace import Pace
from sheepstack.sheep.reminder import Reminder
from sheepstack.sheep.replica import strip_trailer
from sheepstack.sheep.strip_recovery import StripRecovery
from sheepstack.sheep.vdi_table import UnknownVdi, entry_of
from sheepstack.sheep.view import is_still_served
from sheepstack.sheep.waiter import Waiter
from sheepstack.store.changes import LARGE
from sheepstack.store.errors import NoObject, NoSpace, Rotten, StoreError
from sheepstack.store.objects import DOUBTFUL
from sheepstack.wire import oid as oids
from sheepstack.wire import peer
from sheepstack.wire.hashing import oid_hash
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.inode_layout import INODE_HEADER_SIZE
from sheepstack.wire.peer import PeerFlag, PeerOp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

WHOLE_RING = [(0, RING_SIZE)]

_LANES = 4
_STRIPES = 64
_RETRY_SECONDS = 0.5
#: So often at most room is looked for.
_TIDY_SECONDS = 1.0
_BATCH = 512


class Changed(Exception):
    """The map changed: what was being done for it is pointless now."""


class Recovery:
    """``table`` gives the copy policies of VDIs, ``identity`` what survives a restart."""

    def __init__(self, state, store, table, identity, throttle):
        self._state = state
        self._store = store
        self._replica = None
        self._table = table
        self._identity = identity
        self.throttle = throttle
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._absent = set()
        self._lost = set()
        self._complete = False
        self._complete_ring = None
        self._since_complete = (None, ())
        self._holders = {}
        self._requests = None
        self._pace = Pace()
        self._pacing = threading.Lock()
        self._extra = set()
        self._everything = False
        self.finished = 0
        self.total = 0
        self.running = False
        self._no_room = set()
        self._removed = set()
        self._only_room_at = 0
        self._tidied = -_TIDY_SECONDS
        self._turn = threading.Lock()
        self._strips = StripRecovery(state, store, table, self._ask_all,
                                     self._maps_since_complete, self._accounted_for)

    def attach(self, replica, requests=None):
        """The replica, which in turn asks us what is absent; ``requests`` counts what clients
        ask of this sheep, see :class:`sheepstack.sheep.stats.Stats`."""
        self._replica = replica
        replica.on_removal = self.removed
        self._requests = requests
        self._strips.attach(replica)

    def activity(self) -> int:
        """A number that grows while clients are served here, be it on behalf of another."""
        served = self._requests.gateway_total if self._requests is not None else 0
        return served + self._replica.clock.counter

    # -- what others ask -------------------------------------------------------------------

    def known_absent(self, oid) -> bool:
        """True where an object that is not here does not exist."""
        if oid in self._lost:
            return False
        return self._complete or oid in self._absent

    def is_owed(self, oid) -> bool:
        """True where an object that is not here may exist, as far as is known.  Then others
        may keep one that this sheep could not take, for it is looked for from here on."""
        with self._turn:
            if self.known_absent(oid):
                return False
            self._lost.add(oid)
            return True

    def removed(self, oid, revision):
        """The object is removed from all its holders at this revision: nobody is to look for it
        any more.  The caller holds the replica's lock of the object."""
        if self._complete:
            return
        with self._turn:
            if self._state.view.revision == revision:
                self._absent.add(oid)
                self._removed.add(oid)
                self._found(oid)

    def lacks_only_room(self, revision) -> bool:
        """True where at this revision all is here that should be, save for data that the disk
        has no room for."""
        return self._only_room_at == revision

    @property
    def is_complete(self) -> bool:
        """True when at the present map all is here that should be."""
        return self._complete

    def resume(self, ring):
        """Remember from before a restart at which map all was here."""
        self._complete_ring = ring

    def expect(self, oid_set):
        """Look for these objects, too, at the next map: they were set aside."""
        with self._turn:
            self._extra |= set(oid_set)

    def expect_all(self):
        """Look for everything at the next map: all copies were set aside."""
        with self._turn:
            self._everything = True

    def enter(self):
        """A new map, which is in the view already: nothing is known any more of what is not
        here."""
        with self._turn:
            self._complete = False
            self.finished = self.total = 0
            self._absent = set()
            self._removed = set()
            self._lost = set()
            self._holders = {}

    def holding(self, wanted):
        """For each oid: [current stamp or None, busy, [[revision, stamp] set aside...]].

        The stamp of a strip is its version.
        """
        answer = []
        for oid in wanted:
            if oids.is_strip(oid):
                answer.append(self._holding_strip(oid))
                continue
            try:
                current = self._store.stamp(oid)
            except (NoObject, Rotten):
                current = None
            stale = [[revision, stamp] for revision, stamp, _ in self._store.stale_info(oid)]
            answer.append([current, self._replica.is_busy(oid), stale])
        return answer

    def _holding_strip(self, oid):
        current, stale = None, []
        try:
            current = strip_trailer(self._store, oid).version
        except StoreError:
            pass
        for revision, _, size in self._store.stale_info(oid):
            try:
                stale.append([revision, Trailer.unpack(self._store.stale_read(
                    oid, revision, size - TRAILER_SIZE, TRAILER_SIZE)).version])
            except (StoreError, ValueError):
                continue
        return [current, False, stale]

    def listing(self, arcs):
        """Packed listing of all copies in ``arcs``, current and set aside."""
        entries = [(oid, 0, 0) for oid in self._store.oids_in(arcs)]
        for revision in self._store.stale_epochs():
            entries += [(oid, 0, revision) for oid in self._store.stale_oids(revision)]
        return peer.pack_listing(entries)

    def content(self, oid, stale_revision=None):
        """Buffers with the whole object for another node; raises StoreError."""
        store = self._store
        if stale_revision is None:
            size = store.size(oid)
            stamp = 0 if self._replica.is_busy(oid) else store.stamp(oid)
            extents = [(offset, store.read(oid, offset, length))
                       for offset, length in store.occupied(oid, 0, size)]
            return peer.pack_extents(size, stamp, extents, self._replica.unsettled(oid))
        info = {revision: (stamp, size) for revision, stamp, size in store.stale_info(oid)}
        if stale_revision not in info:
            raise NoObject(oid)
        stamp, size = info[stale_revision]
        return peer.pack_extents(size, stamp, [
            (offset, store.stale_read(oid, stale_revision, offset, length))
            for offset, length in store.stale_extents(oid, stale_revision)])

    def unchecked_content(self, oid):
        """As :meth:`content` of a current object, in which rot may be, and the checksums of its
        blocks, bytes, by which one would see that; None where only content() will do.
        """
        store = self._store
        stamp = 0 if self._replica.is_busy(oid) else store.stamp(oid)
        found = store.unchecked(oid)
        if found is None or sum(len(data) for _, data in found[0]) < LARGE:
            return None
        return peer.pack_extents(store.size(oid), stamp, found[0],
                                 self._replica.unsettled(oid)), found[1]

    # -- one object ------------------------------------------------------------------------

    def need(self, oid) -> bool:
        """Make an object be here or known absent; False: not possible now, try again."""
        view = self._state.view
        if not view.serving:
            return False
        try:
            if not oids.is_vdi(oid):
                # Before a lock is held: it may have to bring the inode here.
                self._table.policy_of(oid)
            return self._bring(view, oid)
        except Changed:
            return False
        except NoSpace as error:
            if oid not in self._no_room:
                log.error("cannot recover object %016x: %s", oid, error)
            self._no_room.add(oid)
            self._drop_outdated(view)
            return False
        except (StoreError, CoordinationError) as error:
            log.error("cannot recover object %016x: %s", oid, error)
            return False

    def _drop_outdated(self, view):
        """Make room: what was set aside of an object tells nothing that a current copy, which
        rests here by now, does not, and nothing at all where the object was removed.

        Without that a node that was away while much was written would need twice the space,
        and where it has not the cluster were never complete, and nothing given up anywhere.
        """
        if time.monotonic() < self._tidied + _TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        store = self._store
        for revision in store.stale_epochs():
            for oid in list(store.stale_oids(revision)):
                with self._locks[oid % _STRIPES]:
                    # What the next map sets aside is as of this revision.
                    if revision >= view.revision or self._state.view.revision != view.revision:
                        return
                    if oid in self._removed or (
                            store.exists(oid) and not self._replica.is_busy(oid)):
                        store.drop_stale(oid, revision)

    def has_no_room(self, oid) -> bool:
        """True where an object should be here and did not fit on the disk."""
        return oid in self._no_room and not self._store.exists(oid)

    def refetch(self, oid):
        """Others have an object that is not here though it should be."""
        if not self._store.exists(oid):
            self._lost.add(oid)
            return self.need(oid)
        return True

    def adopt(self, view, oid, sources, stamps):
        """Give up our copy, with the write of these stamps in it, for that of one of these
        nodes, or for none if it has none.  False: not possible now, try again.

        Where they have none only because it has not come to them yet ours is as good as any,
        and they will fetch it.
        """
        with self._locks[oid % _STRIPES]:
            last = self._replica.last_stamp(oid, stamps)
            if last is None:
                # What has come here may not have come there yet.
                self._replica.wait_change(0.02)
                return False
            for source in sources:
                answer = view.links[source].call(
                    PeerOp.FETCH, view.revision, self._state.patience, oid=oid,
                    flags=PeerFlag.OWED)
                if answer.result == Result.AGAIN:
                    continue
                waiter = Waiter()
                if answer.result == Result.NO_OBJ:
                    put, unsettled = functools.partial(self._store.remove, oid, waiter), []
                elif answer.result == Result.SUCCESS:
                    size, settled, extents = peer.unpack_extents(answer.payload)
                    unsettled = peer.unpack_unsettled(answer.payload)
                    put = functools.partial(
                        self._store.create_sparse, oid, size, extents, settled, waiter)
                else:
                    return False
                if not self._replica.replace(oid, view.revision, last, put, unsettled):
                    return False
                waiter.wait()
                return True
            return True

    def repair(self, oid, revision) -> bool:
        """Overwrite damaged blocks with those of another holder; False: none is better."""
        view = self._state.view
        if view.revision != revision:
            return False
        try:
            if oids.is_strip(oid):
                return self._strips.repair(view, oid)
            return self._repair_blocks(view, oid)
        except (Changed, StoreError) as error:
            log.info("object %016x is not repaired now: %r", oid, error)
            return False

    def _repair_blocks(self, view, oid):
        try:
            damaged = self._store.verify(oid)
        except Rotten:
            return self._repair_whole(view, oid)
        # Where the policy would have to be read, that might need the very bytes we repair.
        policy = self._table.policy_if_known(oid)
        nodes = view.ring.holders_of(oid, policy) if policy else range(len(view.map.nodes))
        good = True
        for block in damaged:
            offset = block * 4096
            length = min(4096, self._store.size(oid) - offset)
            for node in nodes:
                if node == view.index:
                    continue
                answer = view.links[node].call(
                    PeerOp.READ, view.revision, self._state.patience, oid=oid, offset=offset,
                    length=length, flags=PeerFlag.UNSETTLED)
                if answer.result != Result.SUCCESS or len(answer.payload) != length:
                    continue
                unsettled = self._state.call_node(node, {"call": "unsettled", "oid": oid})
                if unsettled is None or not self._replica.expect(
                        oid, view.revision, map(tuple, unsettled)):
                    continue
                self._store.repair(oid, block, answer.payload)
                log.warning("object %016x: block %d repaired from %s", oid, block,
                            view.map.nodes[node].name)
                break
            else:
                good = False
        return good

    def _repair_whole(self, view, oid):
        """Take another one's copy for one that has not even the length of an object."""
        answers = self._ask_all(view, [oid])
        sources = [node for node, (state,) in answers.items()
                   if state[0] is not None and node != view.index]
        if not sources or not self.adopt(view, oid, sources, ()):
            return False
        log.warning("object %016x: replaced by the copy of another sheep", oid)
        return True

    def _bring(self, view, oid):
        if self._store.exists(oid) or self.known_absent(oid):
            return True
        with self._locks[oid % _STRIPES]:
            if self._store.exists(oid) or self.known_absent(oid):
                return True
            return self._resolve(view, oid)

    def _resolve(self, view, oid):
        """Find out from all members what became of an object, and fetch it."""
        absent, holders = self._absent, self._holders
        # From here on these are those of this view, or of none any more.
        self._check(view)
        if oids.is_strip(oid):
            found = self._strips.resolve(view, oid)
            if found is None:
                absent.add(oid)
            if found is not False:
                self._found(oid)
            return found is not False
        if oid in holders and self._fetch_listed(view, oid, holders[oid]):
            return True
        answers = self._ask_all(view, [oid])
        states = {node: answer[0] for node, answer in answers.items()}
        current = [node for node, state in states.items() if state[0] is not None]
        if view.index in current:
            # A write, or the keeper of the strips, has brought it here meanwhile.
            self._found(oid)
            return True
        policy = self._table.policy_if_known(oid) or self._policy_of_inode(view, oid, current)
        if policy and view.index not in view.ring.holders_of(oid, policy):
            # Asked by somebody who took it for an object of more copies.
            self._lost.discard(oid)
            absent.add(oid)
            return True
        order = list(view.ring.holders_of(oid, policy)) if policy else []
        rank = {node: position for position, node in enumerate(order)}
        current.sort(key=lambda node: (rank.get(node, len(rank)), node))
        if current:
            return self._fetch_current(view, oid, current, states)

        best = max((stale[0] for state in states.values() for stale in state[2]), default=0)
        if not self._accounted_for(view, oid, policy or view.map.copies):
            log.info("object %016x: only nodes that are away can know of it", oid)
            return False
        if best == 0 or best < view.map.last_complete:
            self._lost.discard(oid)
            absent.add(oid)
            return True
        sources = {node: stale[1] == DOUBTFUL for node, state in states.items()
                   for stale in state[2] if stale[0] == best}
        source = min(sources, key=lambda node: (
            sources[node], rank.get(node, len(rank)), node))
        if source == view.index:
            self._install(view, oid, lambda: self._store.promote(oid, best))
            return True
        return self._fetch(view, oid, source, best)

    def _policy_of_inode(self, view, oid, current):
        """What an inode says of its VDI; None where it cannot be asked."""
        if not oids.is_vdi(oid):
            return None
        for node in current:
            if node == view.index:
                continue
            answer = view.links[node].call(
                PeerOp.READ, view.revision, self._state.patience, oid=oid, offset=0,
                length=INODE_HEADER_SIZE, flags=PeerFlag.UNSETTLED)
            if answer.result == Result.SUCCESS and len(answer.payload) == INODE_HEADER_SIZE:
                try:
                    policy = entry_of(InodeHeader.unpack(answer.payload)).policy
                except UnknownVdi:
                    return None
                self._table.remember(oids.vid_of(oid), policy)
                return policy
        return None

    def _fetch_current(self, view, oid, sources, states):
        for source in sources:
            stamp, busy = states[source][0], states[source][1]
            if stamp not in (0, DOUBTFUL) and not busy:
                for revision, own in states[view.index][2]:
                    if own == stamp:
                        self._install(view, oid, lambda revision=revision:
                                      self._store.promote(oid, revision))
                        return True
            if self._fetch(view, oid, source, None):
                return True
        return False

    def _fetch_listed(self, view, oid, nodes):
        """Fetch an object that these nodes (a bit each) said to have at this map."""
        if self._store.stale_info(oid):
            # It may be one of ours that is wanted; then nothing need be sent.
            return False
        policy = self._table.policy_if_known(oid)
        order = view.ring.holders_of(oid, policy) if policy else ()
        return any(nodes >> source & 1 and source != view.index
                   and self._fetch(view, oid, source, None) for source in order)

    def _fetch(self, view, oid, source, stale_revision, flags=PeerFlag.SUMS):
        if stale_revision:
            flags = PeerFlag.STALE
        given_up = self._replica.retirements(oid)
        answer = view.links[source].call(
            PeerOp.FETCH, view.revision, self._state.patience, oid=oid,
            stamp=stale_revision or 0, flags=flags)
        if answer.result != Result.SUCCESS:
            return False
        self._note_activity(source, answer.stamp)
        self._pace.size = len(answer.payload)
        size, stamp, extents = peer.unpack_extents(answer.payload)
        unsettled = peer.unpack_unsettled(answer.payload)
        waiter = Waiter(used=False)
        same, prepared = self._equal_copy_set_aside(oid, size, extents), None
        if same is None and answer.value:
            # What takes long is done before the object's lock is held, in whose way clients are.
            sums = memoryview(answer.payload)[-answer.value:]
            try:
                prepared = self._store.prepare(oid, size, extents, stamp, sums)
            except (Rotten, ValueError) as error:
                log.info("object %016x as it came from %s: %s", oid,
                         view.map.nodes[source].name, error)
                # Damaged, or written to at that moment: now it is looked at over there.
                return self._fetch(view, oid, source, None, 0)

        def put():
            if oid in self._removed:
                # While it was on its way.
                return
            if same is not None:
                self._store.promote(oid, same)
                self._store.settle(oid, stamp)
                return
            waiter.used = True
            if prepared is not None:
                self._store.install(prepared, waiter)
            else:
                self._store.create_sparse(oid, size, extents, stamp, waiter)

        try:
            self._install(view, oid, put, given_up, unsettled)
        finally:
            if prepared is not None and not waiter.used:
                self._store.forsake(prepared)
        waiter.wait()
        self._found(oid)
        return True

    def _found(self, oid):
        """It is known what became of an object that was looked for, and nothing is lacking."""
        self._lost.discard(oid)
        self._no_room.discard(oid)

    def _install(self, view, oid, put, retirements=None, unsettled=()):
        if not self._replica.install(oid, view.revision, put, retirements, unsettled):
            raise Changed()

    def _equal_copy_set_aside(self, oid, size, extents):
        """The revision of a copy here that has the same content, or None.

        It takes no space to use that one, which there may not be on a full disk.
        """
        for revision, _, own_size in self._store.stale_info(oid):
            try:
                if own_size == size and self._is_equal(oid, revision, extents):
                    return revision
            except StoreError as error:
                log.info("copy of %016x as of revision %d: %s", oid, revision, error)
        return None

    def _is_equal(self, oid, revision, extents):
        store = self._store
        if any(store.stale_read(oid, revision, offset, len(data)) != data
               for offset, data in extents):
            return False
        covered = [(offset, offset + len(data)) for offset, data in extents]
        for offset, length in store.stale_extents(oid, revision):
            for start, end in _without(offset, offset + length, covered):
                if bytes(store.stale_read(oid, revision, start, end - start)).strip(b"\0"):
                    return False
        return True

    def _accounted_for(self, view, oid, policy):
        """True if of each map since all was complete some holder of the object is here."""
        present = {node.key for node in view.map.nodes}
        for past in self._maps_since_complete(view):
            ring = self._state.ring_of(past)
            keys = {past.nodes[index].key for index in ring.holders_of(oid, policy)}
            if keys and not keys & present:
                return False
        return True

    def _maps_since_complete(self, view):
        known, maps = self._since_complete
        if known != (view.revision, view.map.last_complete, view.map.forced):
            known = view.revision, view.map.last_complete, view.map.forced
            maps = [past for past in self._state.maps_after(view.map.last_complete - 1)
                    if past.settled and past.revision > view.map.forced]
            self._since_complete = known, maps
        return maps

    def take_stock(self, view):
        """See whether with the nodes that are away all copies of something may be away.

        Raises CoordinationError.
        """
        present = {node.key for node in view.map.nodes}
        bereft = any(self._all_holders_among(
            [node for node in past.nodes if node.vnodes and node.key not in present], past)
            for past in self._maps_since_complete(view))
        self._state.change_view(view.revision, bereft=bereft)

    def _all_holders_among(self, away, past):
        zones = {node.zone for node in away}
        keys = {node.key for node in away}
        ring = self._state.ring_of(past)
        for width in self._table.widths_in_use():
            if len(zones) >= min(width, past.zones()) and any(
                    keys.issuperset(holders) for holders in ring.all_holders(width)):
                return True
        return any(
            len(holders) >= policy.data > len(holders - keys)
            for policy in (self._table.erasure_codes(past) if keys else ())
            for holders in ring.all_holders(policy.width))

    def _ask_all(self, view, wanted):
        """{node: holding(wanted)} of all members; raises Changed, also when one is silent."""
        answers = {}
        question = {"call": "holding", "oids": wanted, "revision": view.revision}
        for node in range(len(view.map.nodes)):
            if node != view.index:
                answer = self._state.call_node(node, question)
                if answer is None:
                    raise Changed()
                answers[node] = answer
        # Last, as it may have come here while the others were asked.
        answers[view.index] = self.holding(wanted)
        return answers

    # -- all objects -----------------------------------------------------------------------

    def run(self, view):
        """Recover all that belongs here at this map; raises Changed when that changes.

        Returns False where there may be more, on nodes that are away.
        """
        self.running = True
        try:
            self._note_activity(view.index, self.activity())
            self._bring_all(view, self._arcs(view))
            with self._turn:
                # Later it would be the next map's that is forgotten.
                self._check(view)
                self._extra = set()
                self._everything = False
            self._complete_ring = view.ring
            self._identity.update(recovered_epoch=view.epoch)
            if self.total:
                log.info("recovery at epoch %d is done: %d objects", view.epoch, self.finished)
            if self._state.view.bereft:
                log.warning("some objects may be on nodes that are away: waiting for those, or "
                            "for 'dog cluster recover force'")
                return False
            while not self._call_complete(view):
                self._bring_all(view, [])
            return True
        finally:
            self.running = False

    def _call_complete(self, view) -> bool:
        """False, and nothing is done, where some object is still owed."""
        with self._turn:
            # enter() comes after the view has changed: it would be the next map's.
            self._check(view)
            if self._owed():
                return False
            self._complete = True
            self._only_room_at = view.revision
            self._lost = set()
            self._absent = set()
            return True

    def _owed(self):
        return [oid for oid in list(self._lost) if not self._store.exists(oid)]

    def _bring_all(self, view, arcs):
        """Fetch what others have in ``arcs``, and what is owed, until all is here."""
        reminder = Reminder(time.monotonic())
        while True:
            missing = self._missing(view, arcs) if arcs else []
            missing += sorted(set(self._owed()).difference(missing))
            self.total = max(self.total, self.finished + len(missing))
            failed = self._fetch_all(view, missing)
            if not failed:
                return
            self._only_room_at = view.revision if all(map(self._is_too_much, failed)) else 0
            if reminder.is_due(time.monotonic()):
                log.warning("recovery at epoch %d: %d objects do not come, among them %016x%s",
                            view.epoch, len(failed), failed[0],
                            ": no room; delete VDIs, or give the sheep space"
                            if self._only_room_at == view.revision else "")
            self._state.wait_view(view.revision, _RETRY_SECONDS)
            self._check(view)

    def _is_too_much(self, oid):
        return self.has_no_room(oid) and not oids.is_vdi(oid)

    def _check(self, view):
        if not is_still_served(self._state.view, view):
            raise Changed()

    def _arcs(self, view):
        """Arcs of the ring of which this sheep may lack objects."""
        if view.map.nodes[view.index].vnodes == 0:
            return []
        if self._everything or self._complete_ring is None:
            return WHOLE_RING
        arcs = []
        # With all smaller numbers of copies: so the order of the holders counts, too.
        for copies in self._table.widths():
            arcs += changed_arcs(self._complete_ring, view.ring, copies)
        arcs += [(oid_hash(oid), oid_hash(oid) + 1) for oid in self._extra]
        return merged(arcs)

    def _missing(self, view, arcs):
        """Object ids that belong here and are not, inodes first."""
        wanted, doubtful = {}, set()
        for node in range(len(view.map.nodes)):
            if node == view.index:
                listed = peer.unpack_listing(self.listing(arcs))
            else:
                listed = self._list_of(view, node, arcs)
            for oid, _, revision in listed:
                if revision:
                    doubtful.add(oid)
                else:
                    wanted[oid] = wanted.get(oid, 0) | 1 << node
        self._check(view)
        listed = {own for oid in doubtful.union(wanted) for own in self._own_part(view, oid)}
        lacking = [oid for oid in listed if not self._store.exists(oid)]
        lacking.sort(key=lambda oid: (not oids.is_vdi(oid), oid))
        belonging = []
        for oid in lacking:
            policy = self._table.policy_of(oid)
            if view.index in view.ring.holders_of(oid, policy):
                belonging.append(oid)
        with self._turn:
            self._check(view)
            self._holders = {oid: wanted[oid] for oid in belonging if oid in wanted}
        return belonging

    def _own_part(self, view, oid):
        """What this node should have of what somebody has: another strip perhaps."""
        if not oids.is_strip(oid):
            return [oid]
        whole = oids.whole_oid(oid)
        policy = self._table.policy_of(whole)
        return [oids.strip_oid(whole, position) for position, node in enumerate(
            view.ring.holders(whole, policy.width)) if node == view.index and policy.is_erasure]

    def _list_of(self, view, node, arcs):
        payload = json.dumps([list(arc) for arc in arcs]).encode()
        while True:
            answer = view.links[node].call(
                PeerOp.LIST, view.revision, self._state.patience, buffers=(payload,),
                data_length=len(payload))
            if answer.result == Result.SUCCESS:
                return peer.unpack_listing(answer.payload)
            self._state.wait_view(view.revision, _RETRY_SECONDS)
            self._check(view)

    def _fetch_all(self, view, missing):
        """Fetch with a few threads; returns the ids of the objects that did not come."""
        queue = iter(missing)
        take = threading.Lock()
        failed = []

        def lane():
            while True:
                with take:
                    oid = next(queue, None)
                if oid is None:
                    return
                if self._state.view.revision != view.revision:
                    failed.append(oid)
                    return
                self._pause(view)
                if self.need(oid):
                    self.finished += 1
                else:
                    failed.append(oid)

        threads = [threading.Thread(target=lane, daemon=True)
                   for _ in range(min(self.throttle.lanes or _LANES, len(missing)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._check(view)
        return failed

    def _note_activity(self, node, number):
        with self._pacing:
            self._pace.note(node, number, time.monotonic())

    def _pause(self, view):
        begun = moment = time.monotonic()
        self._note_activity(view.index, self.activity())
        if self.throttle.is_default:
            with self._pacing:
                moment = self._pace.next(begun)
        while self._state.view.revision == view.revision:
            # Looked at again and again, as an operator may end the throttle meanwhile.
            left = max(begun + self.throttle.interval, moment) - time.monotonic()
            if left <= 0:
                return
            self._state.wait_view(view.revision, min(left, _RETRY_SECONDS))


def _without(start, end, covered):
    """Parts of [start, end) outside of the ``covered`` ranges, which are in order."""
    for first, last in covered:
        if last <= start or first >= end:
            continue
        if first > start:
            yield start, first
        start = max(start, last)
    if start < end:
        yield start, end


class Throttle:
    """At most ``lanes`` objects at once (0: as the daemon likes), ``interval`` seconds apart."""

    def __init__(self, lanes=0, interval=0.0):
        self.lanes = lanes
        self.interval = interval

    @property
    def is_default(self) -> bool:
        """True where nobody has said anything: then recovery gives way to clients."""
        return not self.lanes and not self.interval
