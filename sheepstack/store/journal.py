"""Group commit: everything that waits becomes durable with one flush of a journal file.

Format and meaning of the records: :mod:`sheepstack.store.journal_format`.

Appending never blocks on the disk.  One thread takes what has gathered, writes it to the
current file and flushes; what arrives meanwhile gathers for the next round.  Where the
current file is full it goes on in the other one, and asks for a checkpoint, which flushes
the objects themselves so that the full file can be used again.
"""

import logging
import os
import threading
import time
from functools import partial

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store import journal_format as form
from sheepstack.store.errors import from_os_error
from sheepstack.store.workers import call_all

_LOG = logging.getLogger(__name__)

#: Bytes of appended records that may wait before wait_for_room() blocks.
BACKLOG = 16 << 20

#: The smallest file that holds any record with room to spare.
MIN_SIZE = 1 << 20

# Bytes are written to a fresh file this far ahead of the records: a flush that need not
# note in the filesystem that a block has been written for the first time is twice as fast.
_AHEAD = 1 << 20

_IOV_MAX = 1024

# Of a flush that took so long the operator is told: all clients waited for it.
_SLOW_SECONDS = 5.0


class Journal:
    """``paths``: two existing files of ``size`` bytes, whatever they hold.

    ``finisher`` is the Workers that calls the callbacks; ``checkpoint`` is called, from the
    journal's thread, when objects should be flushed and void_before() called.
    """

    def __init__(self, paths, size, salt, number, finisher, checkpoint):
        self.size = size
        self.next_number = number
        #: The StoreError that ended the journal, or None.  It is not used any more then.
        self.error = None
        self._salt = salt
        self._finisher = finisher
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._resetting = threading.Lock()
        self._queue = []
        self._backlog = 0
        self._committed = number
        self._last = {}
        self._sleeping = False
        self._closed = False
        self._current = 0
        self._used = [False, False]
        self._ends = [0, 0]
        self._at = 0
        self._fds = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths]
        self._written = [_written_part(fd, size) for fd in self._fds]
        try:
            for which in (0, 1):
                self._reset(which)
        except OSError as error:
            raise from_os_error(error, "cannot write the journal") from error
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, kind, oid, size=0, offset=0, payload=b"", stamp=0,
               callback=None, gate=None) -> int:
        """Queues a record; returns its number.  The payload is copied if it is not bytes.

        Once it is durable, or cannot be, ``gate.open(error)`` is called from the journal's
        thread and then ``callback(error)`` by the finisher; ``error`` is None or a
        StoreError.  ``gate.number`` is set before anybody can see the new ``next_number``.
        """
        if type(payload) is not bytes:
            payload = bytes(payload)
        with self._lock:
            number = self.next_number
            if gate is not None:
                gate.number = number
            self.next_number = number + 1
            if self.error is None:
                head = form.pack_record(
                    self._salt, number, kind, oid, size, offset, payload, stamp)
                self._queue.append((head, payload, callback, gate))
                self._backlog += form.RECORD_SIZE + len(payload)
                if kind < form.VOID:
                    self._last[oid] = number
                if self._sleeping:
                    self._work.notify()
                return number
        self._conclude([(b"", b"", callback, gate)], self.error)
        return number

    def mentions(self, oid) -> bool:
        """True where a crash now might bring back an earlier state of ``oid``."""
        return oid in self._last

    @property
    def blocked(self) -> bool:
        """True where a change has to call wait_for_room() first."""
        return self._backlog > BACKLOG or self.error is not None

    def wait_for_room(self):
        """Blocks while too much is queued; returns the journal's error, or None.

        Call it without any lock.
        """
        with self._lock:
            while self._backlog > BACKLOG and self.error is None:
                self._progress.wait()
        return self.error

    def flush(self):
        """Blocks until all that was appended is durable; raises the journal's error."""
        with self._lock:
            number = self.next_number
            while self._committed < number and self.error is None:
                self._progress.wait()
        if self.error is not None:
            raise self.error

    def void_before(self, number):
        """All that records in front of ``number`` say is on disk in its place."""
        with self._resetting:
            with self._lock:
                full = 1 - self._current
                free = self._used[full] and self._ends[full] <= number
            if free:
                try:
                    runtime.offload(self._reset, full)
                except OSError as error:
                    self.fail(error)
                    return
                with self._lock:
                    self._used[full] = False
                    self._progress.notify_all()
        if self._last:
            self.append(form.VOID_ALL, 0, offset=number,
                        callback=partial(self._forget_before, number))

    def void(self, oid, number, callback=None, gate=None):
        """As append(), of the record that says void_before() of one object."""
        self.append(form.VOID, oid, offset=number, gate=gate,
                    callback=partial(self._forget, oid, number, callback))

    # Forgetting waits until the voiding record is durable: a change that does not go
    # through the journal relies on mentions() to know that no record could undo it.

    def _forget(self, oid, number, callback, error):
        if error is None:
            with self._lock:
                if self._last.get(oid, number) < number:
                    del self._last[oid]
        if callback is not None:
            callback(error)

    def _forget_before(self, number, error):
        if error is None:
            with self._lock:
                for oid in [oid for oid, last in self._last.items() if last < number]:
                    del self._last[oid]

    def close(self, in_place):
        """Commits what is queued and stops; ``in_place``: no record is needed any more."""
        with self._lock:
            self._closed = True
            self._work.notify()
            self._progress.notify_all()
        self._thread.join()
        try:
            if in_place and self.error is None:
                for which in (0, 1):
                    runtime.offload(self._reset, which)
        except OSError as error:
            _LOG.error("cannot clear the journal: %s", error)
        finally:
            for fd in self._fds:
                os.close(fd)

    # The journal's thread

    def _run(self):
        while True:
            with self._lock:
                while not self._queue:
                    if self._closed:
                        return
                    self._sleeping = True
                    self._work.wait()
                self._sleeping = False
                batch, self._queue = self._queue, []
            self._commit(batch)

    def _commit(self, batch):
        while batch:
            fitting = self._fitting(batch)
            if fitting:
                try:
                    self._write(batch[:fitting])
                except OSError as error:
                    # After a failed flush nobody knows what the disk holds.
                    self.fail(error)
                    self._conclude(batch, self.error)
                    return
                self._conclude(batch[:fitting], None)
                batch = batch[fitting:]
            if batch and not self._switch():
                self._conclude(batch, self.error)
                return

    def _fitting(self, batch):
        room = self.size - (self._at or form.HEADER_SIZE)
        for count, (_, payload, _, _) in enumerate(batch):
            room -= form.RECORD_SIZE + len(payload)
            if room < 0:
                return count
        return len(batch)

    def _write(self, batch):
        which = self._current
        buffers = []
        at = self._at
        if not at:
            buffers.append(form.pack_header(self._salt, self._committed))
            self._used[which] = True
        for head, payload, _, _ in batch:
            buffers.append(head)
            if payload:
                buffers.append(payload)
        end = at + sum(map(len, buffers))
        ahead = 0
        if end > self._written[which]:
            ahead = min(_AHEAD, self.size - end)
            self._written[which] = end + ahead
        begun = time.monotonic()
        runtime.offload(_write_and_flush, self._fds[which], buffers, at, ahead)
        self._at = end
        taken = time.monotonic() - begun
        if taken > _SLOW_SECONDS:
            _LOG.warning("the disk took %.0f s for a flush of %d KiB", taken, (end - at) >> 10)

    def _switch(self):
        """Goes on in the other file; False where the journal has failed or is closing."""
        full = self._current
        with self._lock:
            self._ends[full] = self._committed
            while self._used[1 - full] and self.error is None:
                self._progress.wait()
            if self.error is not None:
                return False
            self._current = 1 - full
            self._at = 0
        self._checkpoint()
        return True

    def _conclude(self, batch, error):
        for _, _, _, gate in batch:
            if gate is not None:
                gate.open(error)
        with self._lock:
            if error is None:
                self._committed += len(batch)
            self._backlog -= sum(len(head) + len(payload) for head, payload, _, _ in batch)
            self._progress.notify_all()
        callbacks = [callback for _, _, callback, _ in batch if callback is not None]
        if callbacks:
            self._finisher.put(partial(call_all, callbacks, error))

    def fail(self, error):
        """Ends the journal because of ``error``, an OSError; its records stay for the next
        time that the store is opened.
        """
        with self._lock:
            if self.error is None:
                self.error = from_os_error(error, "cannot write the journal")
                _LOG.critical("%s: no more writes until the store is opened again", self.error)
            rest, self._queue = self._queue, []
            self._progress.notify_all()
        self._conclude(rest, self.error)

    def _reset(self, which):
        """Makes a file empty, durably."""
        disk.write_fully(self._fds[which], form.pack_header(self._salt, 0), 0)
        os.fdatasync(self._fds[which])


def _write_and_flush(fd, buffers, at, ahead):
    for start in range(0, len(buffers), _IOV_MAX):
        chunk = buffers[start:start + _IOV_MAX]
        length = sum(map(len, chunk))
        done = os.pwritev(fd, chunk, at)
        if done != length:
            disk.write_fully(fd, b"".join(chunk)[done:], at + done)
        at += length
    if ahead:
        disk.write_fully(fd, bytes(ahead), at)
    os.fdatasync(fd)


def _written_part(fd, size):
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE)
    except OSError:
        return size


def make_file(path, size) -> None:
    """Makes ``path`` a file of ``size`` bytes for which there is room; raises OSError.

    What a file of that size holds is left alone.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size != size:
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
    finally:
        os.close(fd)
