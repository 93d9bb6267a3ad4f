"""What the controllers call to have bytes stored and fetched, and changes made."""

import functools
import hashlib
import logging
import threading

from sheepstack.client import Cluster, SheepError
from swift_middleware import concurrency, metrics
from swift_middleware.database import changes, engine, ledger
from swift_middleware.storage import bulk, rows
from swift_middleware.storage.log import Committer, Log
from swift_middleware.storage.memory import Budget, Buffers, NoRoom
from swift_middleware.storage.volumes import SLOT_SHIFT, SLOT_SIZE, Fenced, Volumes

log = logging.getLogger(__name__)

#: Storing failed for a reason that may be gone soon.
TRANSIENT = (SheepError, engine.Unavailable, Fenced, NoRoom)

_PATIENCE = 20

#: A millisecond is not worth a thread.
_HASHED_AT_ONCE = 512 << 10

#: Bytes that are written at a time where memory is short, and buffers that are kept for others
#: where it is not.
_LEAN = 128 << 10
_BUFFERS_KEPT = 16


class Store:
    """``copies_of(policy index)``: the copy policy of a storage policy.

    The connections are made, and the threads started, when they are first needed: by then a
    server has forked its workers.  ``closed``: an event.
    """

    def __init__(self, options, auth_key, copies_of):
        self.database = engine.Database(options.connection)
        self.database.migrate()
        self.cluster = Cluster(options.sheep, auth_key=auth_key, timeout=options.sheep_timeout)
        self.volumes = Volumes(self.cluster, self.database, options.lease)
        self.budget = Budget(options.buffer_memory)
        self.buffers = Buffers(self.budget, SLOT_SIZE, _BUFFERS_KEPT)
        self.inline_max = options.inline_max
        self.committer = Committer(
            self.database, self.volumes, options.database_patience, self._on_fenced)
        self.lease = options.lease
        self._copies_of = copies_of
        self._lock = threading.Lock()
        self._logs = {}
        self._bulks = {}
        self.closed = threading.Event()
        threading.Thread(target=self._keep_alive, daemon=True, name="swift-lease").start()

    def _keep_alive(self):
        while not self.closed.wait(self.lease / 4):
            try:
                self.volumes.renew()
            except Exception as error:
                log.warning("the lease could not be renewed: %s", error)

    def _on_fenced(self):
        log.error("this process was taken for dead; it goes on in other volumes")
        for part in (*self._logs.values(), *self._bulks.values()):
            part.reset()

    def close(self):
        """Give the volumes back."""
        self.closed.set()
        try:
            self.volumes.release()
        except Exception as error:
            log.warning("the volumes were not given back: %s", error)
        self.database.close()
        self.cluster.close()

    def log(self, policy) -> Log:
        """For the records of a storage policy's objects; of index 0 for all other records."""
        copies = self._copies_of(policy)
        with self._lock:
            if copies not in self._logs:
                self._logs[copies] = Log(self.volumes, self.database, self.committer, copies)
            return self._logs[copies]

    def bulk(self, policy) -> bulk.Bulk:
        copies = self._copies_of(policy)
        with self._lock:
            if copies not in self._bulks:
                self._bulks[copies] = bulk.Bulk(self.volumes, self.database, copies)
            return self._bulks[copies]

    # -- objects

    def upload(self, policy, length):
        """An :class:`Upload`; ``length`` may be None."""
        return Upload(self, policy, length)

    def put(self, account, container, policy, row, upload, absent=False):
        """Make an object of what was uploaded; the row of the one in its place before, or None.

        ``row``: without size, etag and places, which are filled in.  Raises
        :class:`ledger.Refused`.
        """
        volume_name = None
        row.update(data_volume=None, data_offset=None, extents=None)
        if upload.extents:
            row.update(data_volume=upload.volume, data_offset=0,
                       extents=bulk.spell(upload.extents))
            volume_name = self.volumes.describe(upload.volume).name
        data = upload.inline
        change = changes.PutObject(account, container, row, bool(data), absent)
        told = rows.of_object(account, container, row, bool(data), volume_name)
        result = self.log(policy).append(change, told, data)
        upload.keep()
        metrics.received.inc(upload.size)
        return result

    def change_object(self, account, container, policy, old, row, data=()):
        """Give an object other metadata, or its bytes, ``data`` in pieces, another place.

        Raises :class:`ledger.Changed`.
        """
        volume_name = None
        if row["data_volume"] is not None:
            volume_name = self.volumes.describe(row["data_volume"]).name
        change = changes.ChangeObject(account, container, old, row)
        told = rows.of_object(account, container, row, bool(data), volume_name)
        return self.log(policy).append(change, told, data)

    def delete_object(self, account, container, policy, name, timestamp, delete_at=None):
        """The deleted row, or None."""
        change = changes.DeleteObject(account, container, name, timestamp, delete_at)
        told = rows.of_tombstone(account, container, name, timestamp)
        return self.log(policy).append(change, told)

    def put_container(self, row, expected):
        return self.log(row["policy"]).append(
            changes.PutContainer(row, expected), rows.of_container(row))

    def put_account(self, row, expected):
        return self.log(0).append(changes.PutAccount(row, expected), rows.of_account(row))

    def read(self, row, start, stop):
        """Yields the bytes from ``start`` to ``stop`` of an object.  Raises SheepError."""
        if row["data_volume"] is None or start >= stop:
            return
        metrics.sent.inc(stop - start)
        ident = row["data_volume"]
        if row["extents"] is None:
            yield self.volumes.read(ident, row["data_offset"] + start, stop - start)
            return
        parts = list(bulk.pieces(ledger.extents_of(row), start, stop))
        yield from bulk.read(self.find(row), parts, self.budget)

    def find(self, row):
        """The open VDI with a large object's bytes.  Raises SheepError."""
        left = row["size"]
        for slot, count in ledger.extents_of(row):
            length = min(left, count << SLOT_SHIFT)
            vdi = self.volumes.vdi_with(row["data_volume"], slot << SLOT_SHIFT, length)
            left -= length
        return vdi


class Upload:
    """Takes an object's bytes in, piece by piece.

    ``size`` and ``etag`` (the MD5 in hexadecimal) are there after :meth:`finish`; the bytes
    are then in ``inline``, a list of bytes-like objects, or in ``extents`` of ``volume``.
    """

    def __init__(self, store, policy, length):
        self._store = store
        self._policy = policy
        self._length = length
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._is_small = length is None or length <= store.inline_max
        self._chunks = []
        self._held = 0
        self._buffer = None
        self._filled = 0
        self._give_back = None
        self._writer = None
        self._kept = False
        self.size = 0
        self.etag = None
        self.inline = []

    @property
    def volume(self):
        return self._writer.volume if self._writer is not None else None

    @property
    def extents(self):
        return self._writer.extents if self._writer is not None else []

    def write(self, chunk):
        """Raises SheepError, :class:`NoRoom` and :data:`engine.Unavailable`."""
        length = len(chunk)
        self.size += length
        # Now, while it is in the processor's cache.
        if length > _HASHED_AT_ONCE:
            concurrency.offload(self._md5.update, chunk)
        else:
            self._md5.update(chunk)
        if self._is_small:
            if self.size <= self._store.inline_max and self._store.budget.try_take(length):
                self._chunks.append(chunk)
                self._held += length
                return
            self._is_small = False
            for held in self._let_go():
                self._fill(memoryview(held))
        self._fill(memoryview(chunk))

    def _let_go(self):
        chunks = self._chunks
        self._store.budget.give_back(self._held)
        self._chunks, self._held = [], 0
        return chunks

    def _fill(self, view):
        while len(view):
            if self._buffer is None:
                self._take_buffer()
            part = view[:len(self._buffer) - self._filled]
            self._buffer[self._filled:self._filled + len(part)] = part
            self._filled += len(part)
            view = view[len(part):]
            if self._filled == len(self._buffer):
                self._flush()

    def _take_buffer(self):
        """Have room for some of the bytes: of a slot, or less where memory is short."""
        buffers, budget = self._store.buffers, self._store.budget
        if self._writer is None:
            self._writer = bulk.Writer(
                self._store.bulk(self._policy), self._store.volumes, self._length)
        whole = buffers.try_take()
        while whole is None and self._writer.wait():
            whole = buffers.try_take()
        if whole is not None:
            self._buffer = memoryview(whole)[:self._writer.room]
            self._give_back = functools.partial(buffers.give_back, whole)
            return
        length = min(_LEAN, self._writer.room)
        budget.take(length, _PATIENCE)
        self._buffer = memoryview(bytearray(length))
        self._give_back = lambda is_free: budget.give_back(length)

    def _flush(self):
        data, give_back = self._buffer[:self._filled], self._give_back
        self._buffer, self._filled = None, 0
        self._writer.write(data, give_back)

    def finish(self):
        """All bytes were there: return when they are safe, but for those that are inline."""
        if self._is_small:
            self.inline = self._chunks
        else:
            if self._buffer is not None:
                self._flush()
            if self._writer is not None:
                self._writer.finish()
        self.etag = self._md5.hexdigest()

    def keep(self):
        """The bytes are an object's now."""
        self._kept = True

    def close(self):
        """Give back what is not an object's.  Does not raise."""
        self._let_go()
        if self._buffer is not None:
            self._buffer = None
            self._give_back(True)
        if self._writer is None or self._kept or not self._writer.extents:
            return
        self._writer.abandon()
        try:
            self._store.committer.commit(
                changes.FreeExtents(self._writer.volume, self._writer.extents))
        except Exception as error:
            log.warning("the space of an upload that failed comes back later: %s", error)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
