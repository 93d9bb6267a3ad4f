"""The copies that this sheep holds, and the order of writes to them.

Any sheep may coordinate a write: it sends it to all holders at once, stamped.  A holder
applies writes to an object only in the order of their stamps; what comes late is refused
and its coordinator stamps it anew, later than all that the holder has seen.  So all
holders end equal, whichever way the requests raced.

A write that this holder has applied is *pending* until its coordinator said that all
holders have it.  What overlaps a pending write is not read: so nobody reads a write that
might still be undone, and once read it never goes back.  When the map changes, writes left
pending belong to coordinators that may be gone: each holder then writes its own bytes to
all holders again (:meth:`Replica.begin_roll`), which ends them.

While anything of an object is pending or orphaned its *mark* stands in the page that tells
clients on this host what they may read by themselves, :mod:`sheepstack.wire.direct`.
"""

import itertools
import threading
import time

from sheepstack.redundancy.erasure import TRAILER_SIZE, Trailer
from sheepstack.redundancy.policy import MAX_COPIES
from sheepstack.sheep.direct_page import NO_PAGE
from sheepstack.sheep.waiter import Waiter
from sheepstack.store.errors import NoObject, NoSpace, Rotten, StoreError, StoreIOError
from sheepstack.wire import oid as oids
from sheepstack.wire.peer import counter_of, full_stamp, make_stamp, node_index_of
from sheepstack.wire.results import Result

_STRIPES = 64
_QUIET_AFTER = 1.0


class Unsettled(Exception):
    """A write to these bytes is under way: read again when it has settled."""


class NotHere(Exception):
    """The object is not here, and whether it exists must be asked of the others."""


class Clock:
    """Lamport clock: counters of writes, ahead of all that this sheep has seen."""

    def __init__(self):
        self._counter = 0
        self._lock = threading.Lock()

    @property
    def counter(self) -> int:
        return self._counter

    def tick(self) -> int:
        with self._lock:
            self._counter += 1
            return self._counter

    def see(self, counter: int):
        if counter > self._counter:
            with self._lock:
                if counter > self._counter:
                    self._counter = counter


class _Entry:
    """What is remembered of an object while it is written to.

    ``stamp``: of the last write, full, and no write has been here while it still is ``floor``.
    ``pending``: (stamp, start, end) of this revision.
    ``orphans``: (start, end) of writes that were pending when the revision changed, and
    ``rolls`` {(start, end): stamp} of those that we are sending to the others.
    ``marked``: the page says that there are such.
    """

    __slots__ = ("stamp", "floor", "pending", "orphans", "rolls", "touched", "marked")

    def __init__(self, floor):
        self.stamp = self.floor = floor
        self.pending = []
        self.orphans = []
        self.rolls = {}
        self.touched = 0.0
        self.marked = False


class _Finish:
    """The store's callback for one write.  Passes the news on once no lock is held any more.

    The store may call it from inside of the locked section or from another thread; of the
    two that must come to pass, the later one speaks.
    """

    __slots__ = ("_replica", "_oid", "_item", "_done", "_turn", "_error")

    def __init__(self, replica, oid, item, done):
        self._replica = replica
        self._oid = oid
        self._item = item
        self._done = done
        self._turn = itertools.count()
        self._error = None

    def __call__(self, error):
        self._error = error
        self.unlocked()

    def unlocked(self):
        if next(self._turn) == 0:
            return
        if self._error is None:
            self._done(Result.SUCCESS, 0)
        else:
            self._replica.failed(self._oid, self._item, self._error)
            self._done(result_of(self._error), 0)


class Replica:
    """``known_absent(oid)`` says that an object missing here exists nowhere.

    ``on_damage(oid)`` is called where a write met a damaged block, ``on_failure(message)``
    where the disk does not work any more, and ``on_removal(oid, revision)`` where an object is
    removed, whether it is here or not.  ``page``: see
    :class:`~sheepstack.sheep.direct_page.NoPage`.
    """

    def __init__(self, store, known_absent, page=NO_PAGE):
        self._store = store
        self._page = page
        self._known_absent = known_absent
        self._entries = {}
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._floor = 0
        self._revision = -1
        self._index = -1
        self._watermarks = {}
        self._marks = {}
        self._retired = [0] * _STRIPES
        self._changed = threading.Condition()
        self._waiters = 0
        self.clock = Clock()
        #: Of a counter of our own stamps, whether its write has not come to its end.
        self.is_under_way = lambda counter: False
        self.on_damage = None
        self.on_failure = None
        self.on_removal = _nobody

    # -- the map -------------------------------------------------------------------------

    def enter(self, revision: int, index: int):
        """Leave the former revision.  When this returns none of its writes is applied any more."""
        self._revision = -1
        for lock in self._locks:
            with lock:
                pass
        for oid, entry in list(self._entries.items()):
            with self._lock_of(oid):
                self._prune(entry)
                entry.orphans += {(start, end) for _, start, end in entry.pending}
                entry.pending = []
                entry.rolls = {}
        self._watermarks = {}
        self._marks = {}
        self._index = index
        self._revision = revision
        self._wake()

    def leave(self):
        """Belong to no map: refuse all that comes from other sheep."""
        self.enter(-1, -1)

    def mismatch(self, revision):
        """The result that refuses a request from another revision; None: it is ours."""
        mine = self._revision
        if revision == mine:
            return None
        return Result.OLD_NODE_VER if revision < mine else Result.NEW_NODE_VER

    # -- settling ------------------------------------------------------------------------

    def note_settled(self, index: int, counter: int, revision: int):
        """All writes of coordinator ``index`` up to ``counter`` are on all their holders.

        Said at a ``revision``, it counts at that one alone: at another the same index is that
        of another sheep.
        """
        # In this order: enter() changes the revision before it makes new watermarks, and the
        # thread that brings the news may have been stopped anywhere.
        marks = self._watermarks
        if revision == self._revision and counter > marks.get(index, 0):
            marks[index] = counter
            if self._waiters:
                self._wake()

    def settled(self, oid: int, stamps):
        """Our own writes with ``stamps`` are on all their holders, or were given up for one."""
        with self._lock_of(oid):
            entry = self._entries.get(oid)
            if entry is None:
                return
            entry.pending = [item for item in entry.pending if item[0] not in stamps]
            self._unmark(oid, entry)
        if self._waiters:
            self._wake()

    def wait_change(self, timeout):
        """Wait until something settled, or the time is over."""
        with self._changed:
            self._waiters += 1
            self._changed.wait(timeout)
            self._waiters -= 1

    def _wake(self):
        with self._changed:
            self._changed.notify_all()

    def _prune(self, entry):
        marks, mine = self._watermarks, self._index
        entry.pending = [
            item for item in entry.pending
            if node_index_of(item[0]) == mine
            or counter_of(item[0]) > marks.get(node_index_of(item[0]), 0)]

    # The mark is only set and taken back with the object's lock held.

    def _mark(self, oid, entry):
        """To be called before any byte of a pending write can be read."""
        if not entry.marked:
            self._page.begin(oid)
            entry.marked = True

    def _unmark(self, oid, entry):
        """Take the mark back where there is no reason for it any more."""
        if entry.marked and not (entry.pending or entry.orphans):
            entry.marked = False
            self._page.end(oid)

    def _drop(self, oid):
        entry = self._entries.pop(oid, None)
        if entry is not None and entry.marked:
            # Somebody may still be about to look at this entry.
            entry.marked = False
            self._page.end(oid)

    def _is_unsettled(self, oid, start, end):
        entry = self._entries.get(oid)
        if entry is None or not (entry.pending or entry.orphans):
            return False
        with self._lock_of(oid):
            self._prune(entry)
            self._unmark(oid, entry)
            return (any(item[1] < end and start < item[2] for item in entry.pending)
                    or any(item[0] < end and start < item[1] for item in entry.orphans))

    # -- reading -------------------------------------------------------------------------

    def read(self, oid, offset, length):
        """Bytes of the object.

        Raises Unsettled, NotHere, NoObject, Rotten and other StoreErrors.
        """
        try:
            data = self._store.read(oid, offset, length)
        except NoObject:
            if self._known_absent(oid):
                raise
            raise NotHere(oid) from None
        # Looked at after the read: a write whose bytes were read was pending before it, and
        # where it is not any more all holders have it.
        entry = self._entries.get(oid)
        if entry is not None and (entry.pending or entry.orphans) and self._is_unsettled(
                oid, offset, offset + length):
            raise Unsettled(oid)
        return data

    def occupied(self, oid, start, stop) -> list:
        """(offset, length) of what may be other than zeros in a part of the object; all of it
        where there is no copy here."""
        try:
            return self._store.occupied(oid, start, stop)
        except StoreError:
            return [(start, stop - start)]

    # -- writing -------------------------------------------------------------------------

    def write(self, oid, revision, stamp, offset, data, done):
        """Apply a write.  ``done(result, stamp)`` comes when it is as durable as promised.

        Results: SUCCESS; AGAIN with the last stamp known here, when this one came late;
        OLD_NODE_VER and NEW_NODE_VER; NO_OBJ; NO_SPACE; EIO.  Raises NotHere instead where
        the object must be fetched first.
        """
        def apply(finish):
            if not self._store.exists(oid):
                if not self._known_absent(oid):
                    raise NotHere(oid)
                return Result.NO_OBJ
            self._store.write(oid, offset, data, finish)
            return None

        self._ordered(oid, revision, stamp, offset, offset + len(data), apply, done)

    def create(self, oid, revision, stamp, size, offset, data, done):
        """Apply a write that makes the object, zeros around ``data``; see :meth:`write`."""
        def apply(finish):
            self._store.create(oid, size, offset, data, finish)

        self._ordered(oid, revision, stamp, 0, size, apply, done)

    def discard(self, oid, revision, stamp, offset, length, done):
        """Apply a write of zeros that frees their space; see :meth:`write`."""
        def apply(finish):
            if not self._store.exists(oid):
                return Result.NO_OBJ if self._known_absent(oid) else _raise(NotHere(oid))
            end = min(offset + length, self._store.size(oid))
            self._store.discard(oid, offset, end - offset, finish)
            return None

        self._ordered(oid, revision, stamp, offset, offset + length, apply, done)

    def remove(self, oid, revision, stamp, done):
        """Remove the object; SUCCESS also where it is not here."""
        def apply(finish):
            self.on_removal(oid, revision)
            if not self._store.exists(oid):
                return Result.SUCCESS
            self._store.remove(oid, finish)
            return None

        self._ordered(oid, revision, stamp, 0, 1 << 32, apply, done)

    def _ordered(self, oid, revision, stamp, start, end, apply, done):
        full = full_stamp(revision, stamp)
        self.clock.see(counter_of(stamp))
        result, last = None, 0
        with self._locks[oid % _STRIPES]:
            if revision != self._revision:
                result = self.mismatch(revision) or Result.OLD_NODE_VER
            else:
                entry = self._entries.get(oid)
                if entry is None:
                    entry = self._entries[oid] = _Entry(self._floor)
                if full <= entry.stamp:
                    result, last = Result.AGAIN, entry.stamp & 0xFFFFFFFFFFFFFFFF
                else:
                    if self._marks:
                        self._marks.pop(oid, None)
                    if len(entry.pending) > 8:
                        self._prune(entry)
                    item = (stamp, start, end)
                    finish = _Finish(self, oid, item, done)
                    entry.pending.append(item)
                    self._mark(oid, entry)
                    entry.touched = time.monotonic()
                    before = entry.stamp
                    entry.stamp = full
                    try:
                        result = apply(finish)
                    except BaseException:
                        entry.stamp = before
                        entry.pending.remove(item)
                        self._unmark(oid, entry)
                        raise
                    if result is not None:
                        entry.pending.remove(item)
                        self._unmark(oid, entry)
                    elif entry.orphans:
                        entry.orphans = [piece for piece in entry.orphans
                                         if not (start <= piece[0] and piece[1] <= end)]
        if result is not None:
            done(result, last)
        else:
            finish.unlocked()

    def failed(self, oid, item, error):
        """The store could not take a write."""
        if isinstance(error, Rotten):
            self.on_damage(oid)
        elif isinstance(error, StoreIOError):
            self.on_failure("the store failed: %s" % error)
        with self._lock_of(oid):
            entry = self._entries.get(oid)
            if entry is not None and item in entry.pending:
                entry.pending.remove(item)
                self._unmark(oid, entry)

    # -- ending what a lost coordinator left ---------------------------------------------

    def orphans(self):
        """[(oid, start, end)] of writes that nobody may be ending."""
        return [(oid, start, end) for oid, entry in list(self._entries.items())
                for start, end in list(entry.orphans)]

    def disown(self, oid, stamps) -> list:
        """Make orphans of the writes with these stamps that are here: [(start, end)]."""
        entry = self._entries.get(oid)
        if entry is None:
            return []
        with self._lock_of(oid):
            orphans = {(start, end) for stamp, start, end in entry.pending if stamp in stamps}
            entry.pending = [item for item in entry.pending if item[0] not in stamps]
            entry.orphans += orphans
            return list(orphans)

    def begin_roll(self, oid, start, end):
        """Take over an orphaned write: (stamp, offset, our bytes), or None where it is ended.

        Stamp and bytes belong together: no other write comes between.  The caller sends
        them to the other holders and then calls :meth:`end_roll`.
        """
        with self._lock_of(oid):
            entry = self._entries.get(oid)
            if entry is None or (start, end) not in entry.orphans:
                return None
            if not self._store.exists(oid):
                entry.orphans.remove((start, end))
                self._unmark(oid, entry)
                return None
            size = self._store.size(oid)
            stop = min(end, size)
            self.clock.see(counter_of(entry.stamp & 0xFFFFFFFFFFFFFFFF))
            stamp = make_stamp(self.clock.tick(), self._index)
            entry.stamp = full_stamp(self._revision, stamp)
            entry.touched = time.monotonic()
            entry.rolls[start, end] = stamp
            return stamp, size, start, self._store.read(oid, start, stop - start)

    def end_roll(self, oid, start, end):
        entry = self._entries.get(oid)
        if entry is not None:
            with self._lock_of(oid):
                entry.rolls.pop((start, end), None)
                if (start, end) in entry.orphans:
                    entry.orphans.remove((start, end))
                    self._unmark(oid, entry)
        self._wake()

    def reset(self):
        """Forget all writes: their objects are gone."""
        for oid in list(self._entries):
            self.forget(oid)

    def forget(self, oid):
        """The object is not ours any more."""
        with self._lock_of(oid):
            self._drop(oid)

    def unsettled(self, oid) -> list:
        """[(stamp, start, end)] of the writes that whoever read the object before this call may
        have read too early."""
        entry = self._entries.get(oid)
        if entry is None or not (entry.pending or entry.rolls):
            return []
        with self._lock_of(oid):
            self._prune(entry)
            self._unmark(oid, entry)
            return entry.pending + [(stamp, start, end)
                                    for (start, end), stamp in entry.rolls.items()]

    def install(self, oid, revision, put, retirements=None, unsettled=()) -> bool:
        """Call ``put()``, which brings the object here, unless a write was faster.

        ``unsettled``: writes that are in what it brings, as :meth:`unsettled` of where it comes
        from.  They will come here, too, but must not be read before they settle.
        False, and nothing is done, where the map has changed: it may not belong here any more;
        or where :meth:`retirements` has: it may have been given up everywhere.
        """
        with self._lock_of(oid):
            if revision != self._revision or retirements not in (None, self.retirements(oid)):
                return False
            if not self._store.exists(oid):
                self._expect(oid, unsettled)
                put()
            return True

    def expect(self, oid, revision, unsettled) -> bool:
        """Bytes with these writes in them are about to be put into the object; False where the
        map has changed.  See :meth:`install`."""
        with self._lock_of(oid):
            if revision != self._revision:
                return False
            self._expect(oid, unsettled)
            return True

    def _expect(self, oid, unsettled):
        items = [item for item in unsettled if node_index_of(item[0]) != self._index
                 or self.is_under_way(counter_of(item[0]))]
        if not items:
            return
        entry = self._entries.get(oid)
        if entry is None:
            entry = self._entries[oid] = _Entry(self._floor)
        entry.pending += items
        entry.touched = time.monotonic()
        self._mark(oid, entry)

    def last_stamp(self, oid, except_for):
        """Of the last write here; None while others than the one that had these stamps, one each
        time that it was sent, are on their way to some holder."""
        with self._lock_of(oid):
            entry = self._entries.get(oid)
            if entry is None:
                return 0
            self._prune(entry)
            busy = any(item[0] not in except_for for item in entry.pending)
            return None if busy else entry.stamp

    def replace(self, oid, revision, last, put, unsettled=()) -> bool:
        """Call ``put()``, which gives the object another content, unless something was written
        since :meth:`last_stamp` was ``last``, or the map has changed: False.

        ``unsettled``: see :meth:`install`.
        """
        with self._lock_of(oid):
            entry = self._entries.get(oid)
            if revision != self._revision or (entry is not None and entry.stamp != last):
                return False
            self._marks.pop(oid, None)
            self._retired[oid % _STRIPES] += 1
            self._expect(oid, unsettled)
            put()
            return True

    # -- between whole and strips; see sheepstack.sheep.strip_keeper ------------------------

    def mark(self, oid, revision, token) -> bool:
        """From here on see whether a write comes; False where one is still under way."""
        with self._lock_of(oid):
            entry = self._entries.get(oid)
            if entry is not None:
                self._prune(entry)
            if (revision != self._revision or not self._store.exists(oid)
                    or entry is not None and (entry.pending or entry.orphans)):
                return False
            self._marks[oid] = token
            return True

    def retire(self, oid, revision, token) -> Result:
        """Remove the whole copy here, unless a write came since the mark ``token``: AGAIN.

        ``token`` 0: whatever came.
        """
        waiter = Waiter(used=False)
        with self._lock_of(oid):
            if revision != self._revision:
                return self.mismatch(revision) or Result.OLD_NODE_VER
            if token and self._store.exists(oid) and self._marks.get(oid) != token:
                return Result.AGAIN
            self._marks.pop(oid, None)
            self._retired[oid % _STRIPES] += 1
            if self._store.exists(oid):
                waiter.used = True
                self._store.remove(oid, waiter)
        return _outcome(waiter)

    def retirements(self, oid) -> int:
        """Another number than before where the whole copy here may have been given up since."""
        return self._retired[oid % _STRIPES]

    def put(self, oid, revision, size, stamp, extents) -> Result:
        """Keep a strip, unless there is a newer one, or a whole object, unless there is one."""
        waiter = Waiter(used=False)
        with self._lock_of(oid):
            if revision != self._revision:
                return self.mismatch(revision) or Result.OLD_NODE_VER
            if oids.is_strip(oid):
                if self._strip_version(oid) > stamp:
                    return Result.AGAIN
            elif self._store.exists(oid):
                return Result.SUCCESS
            elif self._newest_strip(oid) > stamp:
                # Sent so long ago that the object has been whole and cut again since.
                return Result.AGAIN
            elif self._store.is_full:
                return Result.NO_SPACE
            waiter.used = True
            self._store.create_sparse(oid, size, extents, stamp, waiter)
        return _outcome(waiter)

    def _newest_strip(self, oid):
        return max(self._strip_version(oids.strip_oid(oid, position))
                   for position in range(MAX_COPIES))

    def _strip_version(self, oid):
        try:
            return strip_trailer(self._store, oid).version
        except StoreError:
            return 0

    def drop_strips(self, oid, revision, width) -> Result:
        """Remove all strips of an object that are here."""
        waiters = []
        with self._lock_of(oid):
            if revision != self._revision:
                return self.mismatch(revision) or Result.OLD_NODE_VER
            for position in range(width):
                strip = oids.strip_oid(oid, position)
                if self._store.exists(strip):
                    waiters.append(Waiter())
                    self._store.remove(strip, waiters[-1])
        return max(map(_outcome, waiters), default=Result.SUCCESS)

    def last_write(self, oid) -> float:
        """When a write came last, by the monotonic clock; 0.0: not of late."""
        entry = self._entries.get(oid)
        return entry.touched if entry is not None else 0.0

    def is_busy(self, oid) -> bool:
        """True while the stamp on disk may not be that of the last write."""
        return oid in self._entries or self._store.is_active(oid)

    # -- resting -------------------------------------------------------------------------

    def settle_quiet(self):
        """Write the stamps of objects that nobody wrote to of late; forget about them."""
        now = time.monotonic()
        for oid, entry in list(self._entries.items()):
            if now - entry.touched < _QUIET_AFTER:
                continue
            with self._lock_of(oid):
                if self._entries.get(oid) is not entry:
                    continue
                self._prune(entry)
                if entry.pending or entry.orphans or now - entry.touched < _QUIET_AFTER:
                    continue
                if entry.stamp != entry.floor and self._store.exists(oid):
                    try:
                        self._store.settle(oid, entry.stamp)
                    except Rotten:
                        # Others do not wait for it.
                        self.on_damage(oid)
                # Nothing older may be applied after this is forgotten.
                self._floor = max(self._floor, entry.stamp)
                self._drop(oid)

    def _lock_of(self, oid):
        return self._locks[oid % _STRIPES]


def result_of(error: Exception) -> Result:
    """The result code that tells of a store's error."""
    if isinstance(error, NoObject):
        return Result.NO_OBJ
    if isinstance(error, NoSpace):
        return Result.NO_SPACE
    if isinstance(error, (Rotten, StoreError)):
        return Result.EIO
    return Result.SYSTEM_ERROR


def strip_trailer(store, oid) -> Trailer:
    """The trailer of a strip that is here; raises StoreError."""
    size = store.size(oid)
    if size <= TRAILER_SIZE:
        raise NoObject(oid)
    return Trailer.unpack(store.read(oid, size - TRAILER_SIZE, TRAILER_SIZE))


def _outcome(waiter) -> Result:
    try:
        waiter.wait()
    except StoreError as error:
        return result_of(error)
    return Result.SUCCESS


def _raise(error):
    raise error


def _nobody(oid, revision):
    """Nobody wants to know."""
