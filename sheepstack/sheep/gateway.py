"""Clients' object requests: to whom they go, and until when they are tried again.

A write goes to all holders of its object at once and is answered when all have it.  What
goes wrong on the way (a holder is gone, the map changes, a write of another gateway was
faster) is tried again, so that the client never sees it; what is wrong with the request
itself, or a full disk, is answered.

Fast paths run in the thread that received the request and never wait.  All else runs in
worker threads.
"""

import collections
import itertools
import logging
import threading
import time

from sheepstack.sheep.replica import NotHere, Unsettled
from sheepstack.store.errors import NoObject, Rotten, StoreError
from sheepstack.wire import peer
from sheepstack.wire.peer import PeerOp, counter_of, make_stamp
from sheepstack.wire.opcodes import ClusterFlag
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_STALE_VIEW = frozenset((
    Result.OLD_NODE_VER, Result.NEW_NODE_VER, Result.NETWORK_ERROR, Result.EIO))
_PARK_SECONDS = 0.1
_MOST_FAILURES = 20

# Plain integers, as these are compared for every request.
_WRITE = int(PeerOp.WRITE)
_CREATE = int(PeerOp.CREATE)
_REMOVE = int(PeerOp.REMOVE)
_DISCARD = int(PeerOp.DISCARD)
_STRICT = int(ClusterFlag.STRICT)
_ALL_WELL = {Result.SUCCESS}
_ALL_BROKEN = {Result.EIO}


class Write:
    """A write on its way: ``kind`` is the PeerOp, ``finish(result, batch)`` its end.

    ``size`` is that of the object for CREATE and the length for DISCARD.  ``roll`` is the
    range of an orphaned write that this one ends.  ``only``: end with OLD_NODE_VER rather than
    try again at another revision than this one.  ``entry``: what the VDI table said when a
    client's write was admitted; where it says something else now, and no holder was asked yet,
    the end is AGAIN.  ``early``: a removal that need not wait until the cluster is complete.
    ``first`` is the revision at which it was sent first, 0 before that; ``stay`` the one of our
    stays in the map in which it began.  ``failures`` counts how often no holder could take it,
    or we could not read what is to be written again.  ``results`` are the answers to what was
    sent last, where it must be sent again.
    """

    __slots__ = ("kind", "oid", "offset", "data", "size", "policy", "finish", "roll", "stamp",
                 "stamps", "revision", "holders", "not_before", "only", "entry", "early", "first",
                 "stay", "failures", "results")

    def __init__(self, kind, oid, offset, data, size, policy, finish, roll=None, only=None,
                 entry=None, early=False):
        self.kind = kind
        self.oid = oid
        self.offset = offset
        self.data = data
        self.size = size
        self.policy = policy
        self.finish = finish
        self.roll = roll
        self.only = only
        self.entry = entry
        self.early = early
        self.stamp = 0
        self.stamps = []
        self.first = 0
        self.stay = 0
        self.revision = 0
        self.not_before = 0.0
        self.failures = 0
        self.results = ()

    def __repr__(self):
        return "<%s of %016x, revision %d, first sent at %d, answers: %s%s>" % (
            PeerOp(self.kind).name, self.oid, self.revision, self.first,
            " ".join(sorted(Result(result).name for result in self.results)) or "none",
            ", its client is gone" if self.is_abandoned() else "")

    def is_abandoned(self) -> bool:
        """True for a client's write whose client is gone.

        It may have gone to another gateway, have written there, and even have been told so:
        what it once sent here must not come after that.  Such an end, ``finish``, tells by its
        own ``is_pointless()``.
        """
        return self.entry is not None and self.finish.is_pointless()


class _Attempt:
    """The answers to one sending of a write: (node, result, last stamp) of each holder."""

    __slots__ = ("write", "expected", "results", "_turn")

    def __init__(self, write, expected):
        self.write = write
        self.expected = expected
        self.results = []
        self._turn = itertools.count(1)

    def add(self, node, result, last) -> bool:
        """True for the one call that completes the attempt."""
        self.results.append((node, result, last))
        return next(self._turn) == self.expected


class Gateway:
    """``state`` gives the present view; see :class:`sheepstack.sheep.daemon.Sheep`.

    ``keeping``: workers that may wait for the keepers of objects in strips.
    """

    def __init__(self, state, replica, workers, keeping, table, recovery):
        self._state = state
        self._replica = replica
        self._table = table
        self._workers = workers
        self._keeping = keeping
        self._outstanding = collections.OrderedDict()
        self._issue = threading.Lock()
        self.issued = 0
        self._parked = collections.deque()
        self._recovery = recovery
        replica.is_under_way = self._outstanding.__contains__
        self._stay = 0
        #: Reads what is in strips: :class:`sheepstack.sheep.strip_reader.StripReader`.
        self.strips = None

    def leave(self):
        """We are out of the map.  What we had sent is ended by those who got it.

        Sent again when we are back it might undo what others wrote meanwhile.
        """
        self._stay += 1

    def owed(self, revision) -> list:
        """Writes that an earlier revision left undone and that are still to be sent again.

        They may have been read there by now, so they must be everywhere before anything that
        is later.  The removals that wait for more than that end with their revision.
        """
        with self._issue:
            writes = list(self._outstanding.values())
        return [write for write in writes
                if write.first < revision and (write.kind != _REMOVE or write.only is None)]

    # -- writes --------------------------------------------------------------------------

    def write(self, kind, oid, offset, data, size, policy, finish, batch=None, only=None,
              entry=None, early=False):
        """Start a write; ``finish(result, batch)`` is called once, from any thread."""
        self._start(
            Write(kind, oid, offset, data, size, policy, finish, None, only, entry, early), batch)

    def write_wait(self, kind, oid, offset, data, size, policy, only=None,
                   early=False) -> Result:
        """A write from a worker thread: waits for its end."""
        done = threading.Event()
        box = []

        def finish(result, batch):
            box.append(result)
            done.set()

        self.write(kind, oid, offset, data, size, policy, finish, only=only, early=early)
        done.wait()
        return box[0]

    def busy_with(self, vid) -> bool:
        """True while a write to a data object or to the inode of ``vid`` is on its way."""
        with self._issue:
            writes = list(self._outstanding.values())
        return any((write.oid >> 32) & 0xFFFFFF == vid for write in writes)

    def oldest(self):
        """The :class:`Write` that waits longest for its end, or None."""
        with self._issue:
            return next(iter(self._outstanding.values()), None)

    def settled_upto(self) -> int:
        """All our writes with counters up to this one are on all their holders."""
        with self._issue:
            for counter in self._outstanding:
                return counter - 1
            return self.issued

    def _start(self, write, batch):
        view = self._state.view
        abandoned = write.is_abandoned()
        if abandoned and not write.first:
            self._end(write, Result.SHUTDOWN, batch)
            return
        if write.only is not None and view.revision != write.only:
            self._end(write, Result.OLD_NODE_VER, batch)
            return
        if not write.first:
            write.stay = self._stay
        elif write.stay != self._stay and write.roll is None:
            self._end(write, Result.AGAIN, batch)
            return
        if not view.serving or not self._state.lease_valid():
            self._park(write)
            return
        if abandoned:
            self._abandon(write, view, batch)
            return
        if write.kind == _REMOVE and not view.complete and not write.early:
            # A copy that some node has yet to give up would bring the object back.
            if write.only is not None:
                self._try_later(write)
                return
            # By the time that it may be removed its client may have made it anew.
            write.kind = _DISCARD
        copies = write.policy.copies_of(write.oid)
        holders = view.ring.holders(write.oid, copies)
        if not holders or (view.map.flags & _STRICT and write.roll is None
                           and view.map.zones() < write.policy.width):
            self._end(write, Result.HALT, batch)
            return
        write.revision = view.revision
        write.holders = holders
        if write.roll is not None:
            try:
                begun = self._take_over(write, view)
            except StoreError as error:
                log.warning("object %016x: %s", write.oid, error)
                self._recovery.repair(write.oid, view.revision)
                if self._is_hopeless(write):
                    # Nobody can tell what was there; and nobody is to wait for it.
                    self._end(write, Result.EIO, batch)
                else:
                    self._try_later(write)
                return
            if not begun:
                self._end(write, Result.SUCCESS, batch)
                return
        else:
            with self._issue:
                counter = self._replica.clock.tick()
                self.issued = counter
                self._outstanding[counter] = write
            write.stamp = make_stamp(counter, view.index)
        write.stamps.append(write.stamp)
        admitted = write.first
        write.first = admitted or view.revision
        if write.entry is not None and not admitted and self._table.find(
                (write.oid >> 32) & 0xFFFFFF) is not write.entry:
            # Looked at now that the write is registered: whoever changed the entry either
            # sees the write and waits for its end, or is seen here.
            self._end(write, Result.AGAIN, batch)
            return
        if write.kind == _REMOVE and write.policy.has_strips(write.oid):
            self._keeping.submit(self._remove_strips, write, view)
            return
        self._send(write, view, batch)

    def _abandon(self, write, view, batch):
        """Some holders may have it: make them equal without undoing what its client has done
        since."""
        if write.revision != view.revision:
            # Whoever has it ends it as an orphan.
            self._end(write, Result.SHUTDOWN, batch)
        elif write.kind == _REMOVE:
            # With its old stamp, so that it is late where the object was made anew.
            self._send(write, view, batch)
        else:
            self._workers.submit(self._bequeath, write, view)

    def _bequeath(self, write, view):
        question = {"call": "inherit", "oid": write.oid, "stamps": write.stamps,
                    "revision": view.revision}
        if all([self._state.call_node(node, question) for node in write.holders]):
            self._end(write, Result.SHUTDOWN, None)
        else:
            self._try_later(write)

    def inherit(self, view, oid, stamps) -> bool:
        """The client of a write with these stamps is gone, and its coordinator does not send it
        again: end here what there is of it, as at a change of the map.

        It begins that, and is False until nothing is left.
        """
        policy = self._table.remembered_policy(oid, view.map) or view.map.copies
        for start, end in self._replica.disown(oid, stamps):
            self.roll(oid, start, end, policy, view.revision, lambda result, batch: None)
        return all(orphan[0] != oid for orphan in self._replica.orphans())

    def _take_over(self, write, view):
        with self._issue:
            begun = self._replica.begin_roll(write.oid, *write.roll)
            if begun is None:
                return False
            write.stamp, size, write.offset, write.data = begun
            counter = counter_of(write.stamp)
            self.issued = max(self.issued, counter)
            self._outstanding[counter] = write
        whole = write.offset == 0 and len(write.data) == size
        write.kind = PeerOp.CREATE if whole else PeerOp.WRITE
        write.size = size
        return True

    def _send(self, write, view, batch):
        settled = self._watermark()
        attempt = _Attempt(write, len(write.holders))
        flags = write.policy.to_byte() << peer.POLICY_SHIFT
        data = write.data
        local = False
        for node in write.holders:
            if node == view.index:
                local = True
                continue
            view.links[node].submit(
                write.kind, write.revision, _Collect(self, attempt, node), oid=write.oid,
                stamp=write.stamp, settled=settled, offset=write.offset, flags=flags,
                length=write.size & 0xFFFFFFFF, buffers=(data,), data_length=len(data),
                batch=batch)
        if not local:
            return
        if batch is None:
            self._apply_here(attempt, view.index, None)
        else:
            # What is sent first is under way while we are busy here.
            batch.later(self._apply_here, attempt, view.index, batch)

    def _watermark(self):
        # Read without the lock: a value that is a little too low does no harm.
        try:
            return next(iter(self._outstanding)) - 1
        except (StopIteration, RuntimeError):
            return 0

    def _apply_here(self, attempt, index, batch):
        write = attempt.write
        if write.roll is not None:
            self._collected(attempt, index, Result.SUCCESS, 0, batch)
            return

        def done(result, last):
            # A thread of the store may be so fast that we are still here; the batch is ours.
            mine = inline and threading.get_ident() == home
            self._collected(attempt, index, result, last, batch if mine else None)

        inline, home = True, threading.get_ident()
        try:
            self.apply(write.kind, write.oid, write.revision, write.stamp, write.offset,
                       write.size, write.data, done)
        except NotHere:
            self._workers.submit(
                self.apply_slowly, write.kind, write.oid, write.revision, write.stamp,
                write.offset, write.size, write.data, done)
        inline = False

    def apply(self, kind, oid, revision, stamp, offset, size, data, done):
        """Hand a write to the replica; raises NotHere where the object must come first."""
        replica = self._replica
        if kind == _WRITE:
            replica.write(oid, revision, stamp, offset, data, done)
        elif kind == _CREATE:
            replica.create(oid, revision, stamp, size, offset, data, done)
        elif kind == _DISCARD:
            replica.discard(oid, revision, stamp, offset, size, done)
        else:
            replica.remove(oid, revision, stamp, done)

    def apply_slowly(self, kind, oid, revision, stamp, offset, size, data, done):
        """Like :meth:`apply`, in a worker: fetches the object first where it is not here."""
        while True:
            mismatch = self._replica.mismatch(revision)
            if mismatch:
                done(mismatch, 0)
                return
            try:
                self._recovery.need(oid)
                self.apply(kind, oid, revision, stamp, offset, size, data, done)
                return
            except NotHere:
                if self._recovery.has_no_room(oid):
                    done(Result.NO_SPACE, 0)
                    return
                if self._state.stopping.is_set():
                    done(Result.NETWORK_ERROR, 0)
                    return
                self._state.wait_view(revision, 0.05)

    def _collected(self, attempt, node, result, last, batch):
        if attempt.add(node, result, last):
            self._decide(attempt, batch)

    def _decide(self, attempt, batch):
        write = attempt.write
        results = {result for _, result, _ in attempt.results}
        if results == _ALL_WELL:
            self._end(write, Result.SUCCESS, batch)
            return
        write.results = results
        if results == _ALL_BROKEN and self._is_hopeless(write):
            self._end(write, Result.EIO, batch)
        elif not results.isdisjoint(_STALE_VIEW):
            self._park(write)
        elif Result.AGAIN in results and write.kind == _REMOVE and write.is_abandoned():
            # Whoever was there earlier sees to it that all have what he made.
            self._end(write, Result.SHUTDOWN, batch)
        elif Result.AGAIN in results:
            self._replica.clock.see(max(counter_of(last) for _, _, last in attempt.results))
            self._workers.submit(self._start, write, None)
        elif results == {Result.NO_OBJ}:
            if write.policy.has_strips(write.oid):
                self._keeping.submit(self._make_whole, write)
            else:
                self._end_absent(write, batch)
        elif Result.NO_SPACE in results:
            self._workers.submit(self._give_up, attempt)
        elif Result.NO_OBJ in results:
            self._workers.submit(self._mend, attempt)
        else:
            self._end(write, max(results), batch)

    @staticmethod
    def _is_hopeless(write):
        """True where blocks are damaged that it covers in part, and no holder has mended them
        from another one in the time of many attempts."""
        write.failures += 1
        return write.failures >= _MOST_FAILURES

    def _end_absent(self, write, batch):
        # What does not exist reads as zeros after a discard as before.
        self._end(write, Result.SUCCESS if write.kind == _DISCARD else Result.NO_OBJ, batch)

    def _make_whole(self, write):
        """No holder has a whole copy: it may be in strips, and is written to when whole again."""
        result = self._ask_keeper(write, "make_whole")
        if result == Result.SUCCESS:
            self._start(write, None)
        elif result == Result.NO_OBJ:
            self._end_absent(write, None)
        elif result == Result.NO_SPACE:
            self._end(write, result, None)
        else:
            self._try_later(write)

    def _remove_strips(self, write, view):
        """Strips go first: the whole object is what counts as long as it is there."""
        if self._ask_keeper(write, "remove_object") == Result.SUCCESS:
            self._send(write, view, None)
        else:
            self._try_later(write)

    def _ask_keeper(self, write, what):
        """Have the first holder do it, who alone turns whole objects and strips about."""
        view = self._state.view
        if view.revision != write.revision:
            return None
        return self._state.call_node(write.holders[0], {
            "call": what, "oid": write.oid, "revision": write.revision})

    def _try_later(self, write):
        write.not_before = time.monotonic() + _PARK_SECONDS
        self._park(write)

    def _mend(self, attempt):
        """Some holders do not have an object that others have: they fetch it, then again."""
        write = attempt.write
        for node, result, _ in attempt.results:
            if result == Result.NO_OBJ:
                self._state.call_node(node, {"call": "refetch", "oid": write.oid,
                                             "revision": write.revision})
        self._try_later(write)

    def _give_up(self, attempt):
        """A holder is full.  Those that took the write get back the copy of one that did not."""
        write = attempt.write
        sources = [node for node, result, _ in attempt.results if result == Result.NO_SPACE]
        for node, result, _ in attempt.results:
            if result == Result.SUCCESS:
                answer = self._state.call_node(
                    node, {"call": "adopt", "oid": write.oid, "sources": sources,
                           "stamps": write.stamps, "revision": write.revision})
                if answer is None:
                    self._park(write)
                    return
        # What is rolled, too, is undone so everywhere, and nobody has read it.
        self._end(write, Result.NO_SPACE, None)

    def _end(self, write, result, batch):
        if write.stamps:
            with self._issue:
                for stamp in write.stamps:
                    self._outstanding.pop(counter_of(stamp), None)
            self._replica.settled(write.oid, write.stamps)
        if write.roll is not None and result != Result.OLD_NODE_VER:
            self._replica.end_roll(write.oid, *write.roll)
        self._state.settling()
        write.finish(result, batch)

    # -- waiting for better days -----------------------------------------------------------

    def _park(self, write):
        self._parked.append(write)
        self._state.kick()

    def has_parked(self) -> bool:
        """True while some write waits for better days."""
        return bool(self._parked)

    def unpark(self):
        """Try again what waited; called when the view changed and every now and then."""
        now = time.monotonic()
        view = self._state.view
        for _ in range(len(self._parked)):
            write = self._parked.popleft()
            if write.only is not None and write.only != view.revision:
                self._workers.submit(self._start, write, None)
            elif write.not_before > now or not view.serving:
                self._parked.append(write)
            elif write.revision == view.revision and write.not_before == 0.0:
                # The same map: give a lost connection time to come back.
                write.not_before = now + _PARK_SECONDS
                self._parked.append(write)
            else:
                write.not_before = 0.0
                self._workers.submit(self._start, write, None)

    def roll(self, oid, start, end, policy, revision, finish):
        """End an orphaned write, at this revision or not at all; see
        :mod:`sheepstack.sheep.replica`.  ``finish(result, batch)`` is called once."""
        self._start(Write(PeerOp.WRITE, oid, start, b"", 0, policy, finish, (start, end),
                          revision), None)

    # -- reads -----------------------------------------------------------------------------

    def read_here(self, view, oid, offset, length, copies):
        """Read from this sheep's own copy, or None where another must be asked or waited for."""
        if not view.serving or view.index not in view.ring.holders(oid, copies):
            return None
        if not self._state.lease_valid():
            return None
        try:
            return self._replica.read(oid, offset, length)
        except (Unsettled, NotHere, StoreError, ValueError):
            return None

    def read(self, oid, offset, length, policy):
        """(result, bytes) from whichever holder has it; waits, so for worker threads only."""
        result, data = self.read_whole(oid, offset, length, policy)
        while result == Result.NO_OBJ and policy.has_strips(oid):
            from_strips, data = self.strips.read(oid, offset, length, policy)
            if from_strips not in (Result.NO_OBJ, Result.AGAIN):
                return from_strips, data
            # It may have become whole again between our two looks.
            result, data = self.read_whole(oid, offset, length, policy)
            if from_strips == Result.NO_OBJ:
                break
            self._state.wait_view(self._state.view.revision, _PARK_SECONDS)
        return result, data

    def read_whole(self, oid, offset, length, policy):
        """Like :meth:`read`, of whole copies only."""
        copies = policy.copies_of(oid)
        while True:
            view = self._state.wait_serving()
            if view is None:
                return Result.SHUTDOWN, b""
            holders = view.ring.holders(oid, copies)
            if not holders:
                return Result.HALT, b""
            absent, broken = [], 0
            for node in _nearest_first(holders, view.index):
                result, data = self._read_from(view, node, oid, offset, length)
                if result == Result.SUCCESS:
                    for lacking in absent:
                        self._workers.submit(self._state.call_node, lacking, {
                            "call": "refetch", "oid": oid, "revision": view.revision})
                    return result, data
                if result == Result.INVALID_PARMS:
                    return result, b""
                if result == Result.NO_OBJ:
                    absent.append(node)
                broken += result == Result.EIO
            if len(absent) == len(holders):
                return Result.NO_OBJ, b""
            if len(absent) + broken == len(holders):
                return Result.EIO, b""
            self._state.wait_view(view.revision, _PARK_SECONDS)

    def read_sparse(self, oid, offset, length, policy):
        """As :meth:`read`, but [(offset, bytes)] of what may be other than zeros."""
        pieces = []
        for start, size in self._replica.occupied(oid, offset, offset + length):
            result, data = self.read(oid, start, size, policy)
            if result != Result.SUCCESS:
                return result, []
            pieces.append((start, data))
        return Result.SUCCESS, pieces

    def _read_from(self, view, node, oid, offset, length):
        if node != view.index:
            answer = view.links[node].call(
                PeerOp.READ, view.revision, self._state.patience, oid=oid, offset=offset,
                length=length)
            return answer.result, answer.payload
        return self.read_patiently(oid, view.revision, offset, length)

    def read_patiently(self, oid, revision, offset, length):
        """(result, bytes) of this sheep's copy; waits for what is under way, repairs rot."""
        while True:
            if not self._state.lease_valid():
                # The map may be another one by now, and the copy out of date.
                return Result.NETWORK_ERROR, b""
            mismatch = self._replica.mismatch(revision)
            if mismatch:
                return mismatch, b""
            try:
                return Result.SUCCESS, self._replica.read(oid, offset, length)
            except Unsettled:
                self._replica.wait_change(0.02)
            except NotHere:
                if not self._recovery.need(oid):
                    return Result.AGAIN, b""
            except NoObject:
                return Result.NO_OBJ, b""
            except Rotten as error:
                log.error("object %016x is damaged here: %s", oid, error)
                if not self._recovery.repair(oid, revision):
                    return Result.EIO, b""
            except ValueError:
                return Result.INVALID_PARMS, b""
            except StoreError as error:
                log.error("cannot read object %016x: %s", oid, error)
                return Result.EIO, b""


class _Collect:
    """Callback for one holder's answer to a write."""

    __slots__ = ("_gateway", "_attempt", "_node")

    def __init__(self, gateway, attempt, node):
        self._gateway = gateway
        self._attempt = attempt
        self._node = node

    def __call__(self, answer, batch):
        self._gateway._collected(self._attempt, self._node, answer.result, answer.stamp, batch)


def _nearest_first(holders, own_index):
    if own_index in holders:
        return (own_index, *(node for node in holders if node != own_index))
    return holders
