"""Appends records to this process's log volumes, and makes the changes that they tell of.

What many requests append at the same time goes to sheep as one write, and then to the
database as one transaction, while the next write is under way.  A change counts once its
transaction is committed; a record of a change that was refused is made unreadable again
before anybody is told.
"""

import collections
import logging
import queue
import threading
import time

import sqlalchemy as sa

from sheepstack.client import SheepError
from swift_middleware import metrics
from swift_middleware.database import engine, ledger
from swift_middleware.database.changes import SealPack
from swift_middleware.database.schema import pack, volume
from swift_middleware.storage import record
from swift_middleware.storage.volumes import LOG, SLOT_SHIFT, SLOT_SIZE, SLOTS, Fenced, check_owned

log = logging.getLogger(__name__)

_BATCH_BYTES = SLOT_SIZE
_BATCH_CHANGES = 256

#: Bytes of a write that the next one does not wait for, and how many such are under way.
_LARGE = 512 << 10
_LARGE_WRITES = 2

#: Slots that are opened in one transaction at most: each time twice as many as the last time.  One
#: is full after three objects of a MiB, and nothing is written while that is waited for.
_LARGEST_LOT = 16

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0


class _Entry:
    """A change on its way.  ``row``: for its record, None where it has none.  ``data``: the
    pieces of the bytes behind it, ``length`` in all."""

    __slots__ = ("change", "row", "data", "length", "written_at", "done", "result", "error")

    def __init__(self, change, row=None, data=()):
        self.change = change
        self.row = row
        self.data = data
        self.length = sum(map(len, data))
        self.written_at = None
        self.done = threading.Event()
        self.result = None
        self.error = None

    def end(self, result=None, error=None):
        self.result = result
        self.error = error
        self.done.set()

    def wait(self):
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


class Committer:
    """Makes changes in the database, all that wait in one transaction.

    ``patience``: seconds for which a database that does not answer is asked again.
    ``on_fenced()`` is called where this process turns out to have lost its volumes.
    """

    def __init__(self, database, volumes, patience, on_fenced):
        self._database = database
        self._volumes = volumes
        self._patience = patience
        self._on_fenced = on_fenced
        self._queue = queue.Queue()
        _start(self._run, "swift-commit")

    def commit(self, change):
        """Make a change that has no record; its result."""
        entry = _Entry(change)
        self.put([entry])
        return entry.wait()

    def put(self, entries):
        self._queue.put(entries)

    def _run(self):
        while True:
            batch = list(self._queue.get())
            while len(batch) < _BATCH_CHANGES:
                try:
                    batch += self._queue.get_nowait()
                except queue.Empty:
                    break
            try:
                self._commit(batch)
            except Exception as error:
                log.exception("a transaction failed")
                for entry in batch:
                    entry.end(error=error)

    def _commit(self, batch):
        try:
            outcomes = self._apply(batch)
        except Fenced as error:
            self._on_fenced()
            for entry in batch:
                entry.end(error=error)
            return
        except engine.Unavailable as error:
            if len(batch) > 1 and not _is_outage(error):
                # One of them is to blame, and the others shall not suffer for it.
                for entry in batch:
                    self._commit([entry])
                return
            log.error("the database failed: %s", error)
            outcomes = [error] * len(batch)
        metrics.transactions.inc()
        for entry, outcome in zip(batch, outcomes):
            metrics.changes.labels(
                type(outcome).__name__ if isinstance(outcome, Exception) else "made").inc()
            if isinstance(outcome, Exception):
                self._retract(entry)
                entry.end(error=outcome)
            else:
                entry.end(outcome)

    def _apply(self, batch):
        changes = [entry.change for entry in batch]
        volumes = {change.place[0] for change in changes if change.place is not None}
        volumes |= {change.row["data_volume"] for change in changes
                    if change.fresh_extents}
        owner = self._volumes.owner

        def check(connection):
            if volumes:
                check_owned(connection, sorted(volumes), owner)

        until = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._database.write(ledger.apply, changes, time.time(), check)
            except engine.Unavailable as error:
                if not _is_outage(error) or time.monotonic() + pause > until:
                    raise
                log.warning("the database does not answer, trying again: %s", error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _retract(self, entry):
        if entry.written_at is None:
            return
        ident, offset = entry.written_at
        try:
            self._volumes.vdi(ident).pwrite(offset, record.NOTHING)
        except (SheepError, KeyError) as error:
            log.warning("the record of a change that was not made is still there: %s", error)


def _is_outage(error):
    """Whether it may come right by itself."""
    return isinstance(error, (engine.exception.DBConnectionError, engine.exception.DBDeadlock)) \
        or isinstance(error.inner_exception, sa.exc.OperationalError)


class Log:
    """Records of one copy policy."""

    def __init__(self, volumes, database, committer, copies):
        self._volumes = volumes
        self._database = database
        self._committer = committer
        self._copies = copies
        self._queue = queue.Queue()
        self._volume = None
        self._pack = None
        self._next_slot = self._opened_to = 0
        self._lot = 1
        self._within = 0
        self._fenced = False
        self._under_way = collections.deque()
        self._buffers = []
        _start(self._run, "swift-log")

    def append(self, change, row, data=()):
        """Write a record and make its change; the change's result.

        ``row``: see :mod:`swift_middleware.storage.rows`.  ``data``: bytes-like objects.  Raises
        what the change raises, SheepError, and :data:`engine.Unavailable`.
        """
        entry = _Entry(change, row, data)
        self._queue.put(entry)
        return entry.wait()

    def reset(self):
        """Go on in another volume."""
        self._fenced = True

    def _run(self):
        while True:
            batch = [self._queue.get()]
            size = batch[0].length
            while size < _BATCH_BYTES and len(batch) < _BATCH_CHANGES:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
                size += batch[-1].length
            try:
                self._write(batch)
            except Exception as error:
                if not isinstance(error, (SheepError, Fenced, engine.Unavailable)):
                    log.exception("appending records failed")
                if isinstance(error, Fenced):
                    self._volume = None
                for entry in batch:
                    if not entry.done.is_set() and entry.written_at is None:
                        entry.end(error=error)

    def _write(self, batch):
        if self._fenced:
            self._fenced = False
            self._volume = None
        pieces, entries, at = [], [], 0
        for entry in batch:
            if self._volume is None or self._pack is None:
                self._open_pack()
            head = record.head(self._volume.key, entry.row, entry.length)
            size = record.size_of(len(head), entry.length)
            if self._within + size > SLOT_SIZE:
                self._send(pieces, entries, at)
                pieces, entries = [], []
                self._open_pack()
                head = record.head(self._volume.key, entry.row, entry.length)
            start = (self._pack.slot << SLOT_SHIFT) + self._within
            if not entries:
                at = start
            pieces += (head, *entry.data, bytes(size - len(head) - entry.length))
            entry.change.place = self._volume.id, self._pack.slot
            if entry.data:
                entry.change.offset = start + len(head)
            entry.written_at = None
            entries.append((entry, start))
            self._within += size
        self._send(pieces, entries, at)

    def _send(self, pieces, entries, at):
        """Write, and have committed what was written.

        What is small is waited for, so that others gather meanwhile; what is large is not.
        """
        if not entries:
            return
        buffer = self._buffers.pop() if self._buffers else bytearray(SLOT_SIZE)
        view = memoryview(buffer)
        length = 0
        for piece in pieces:
            view[length:length + len(piece)] = piece
            length += len(piece)
        ident, pack_written_to = self._volume.id, self._pack
        pack_written_to.begin()
        for entry, start in entries:
            entry.written_at = ident, start

        def end(error=None):
            if error is None:
                self._buffers.append(buffer)
                self._committer.put([entry for entry, _ in entries])
            else:
                # Some of it may still be on its way: the buffer is not used again.
                log.error("records could not be written: %s", error)
                for entry, _ in entries:
                    entry.end(error=error)
            if pack_written_to.end():
                self._seal(pack_written_to)

        try:
            vdi = self._volumes.vdi(ident)
            if length < _LARGE:
                vdi.pwrite(at, view[:length])
                future = None
            else:
                future = vdi.submit_pwrite(at, view[:length])
        except Exception as error:
            end(error)
            if not isinstance(error, SheepError):
                raise
            return
        if future is None:
            end()
            return
        future.add_done_callback(lambda done: end(done.exception()))
        self._under_way.append(future)
        while len(self._under_way) > _LARGE_WRITES:
            self._under_way.popleft().exception()

    def _seal(self, full):
        self._committer.put([_Entry(SealPack(full.volume, full.slot))])

    def _open_pack(self):
        if self._volume is None or self._next_slot >= SLOTS:
            self._volume, self._next_slot = self._volumes.acquire(LOG, self._copies)
            self._pack = None
            self._opened_to = self._next_slot
        if self._next_slot == self._opened_to:
            count = min(self._lot, SLOTS - self._next_slot)
            self._database.write(_open_packs, self._volume.id, self._volumes.owner,
                                 self._next_slot, count, time.time())
            self._opened_to += count
            self._lot = min(2 * self._lot, _LARGEST_LOT)
        if self._pack is not None and self._pack.close():
            self._seal(self._pack)
        self._pack = _Pack(self._volume.id, self._next_slot)
        self._next_slot += 1
        self._within = 0


class _Pack:
    """A slot that is being filled.  It is sealed behind the changes whose records are in it:
    when it is full and nothing is being written to it any more."""

    def __init__(self, volume, slot):
        self.volume = volume
        self.slot = slot
        self._lock = threading.Lock()
        self._writes = 0
        self._is_full = False

    def begin(self):
        with self._lock:
            self._writes += 1

    def end(self) -> bool:
        """One write is over; whether to seal the pack now."""
        with self._lock:
            self._writes -= 1
            return self._is_full and not self._writes

    def close(self) -> bool:
        """Nothing more will be written; whether to seal the pack now."""
        with self._lock:
            self._is_full = True
            return not self._writes


def _open_packs(connection, ident, owner, first, count, now):
    check_owned(connection, [ident], owner)
    connection.execute(volume.update().where(volume.c.id == ident).values(
        next_slot=first + count))
    connection.execute(pack.insert(), [
        {"volume": ident, "slot": slot, "sealed": 0, "live": 0, "live_bytes": 0, "dead": 0,
         "changed": now} for slot in range(first, first + count)])


def _start(target, name):
    threading.Thread(target=target, daemon=True, name=name).start()
