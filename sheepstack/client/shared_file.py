"""The file of one object, read by the client itself; see :mod:`sheepstack.wire.direct`."""

import errno
import os
import time

from sheepstack.client.call import ByteBuffer
from sheepstack.wire.checksum import BLOCK, BLOCK_MASK, BLOCK_SHIFT, SEED, block_checksums, crc32c
from sheepstack.wire.direct import LEASE, SERVICE

_preadv = os.preadv
_now = time.clock_gettime_ns
_BOOTTIME = time.CLOCK_BOOTTIME
#: Only what is in the page cache: the sheep waits for the disk without stopping anybody.
_CACHED = getattr(os, "RWF_NOWAIT", 0)
_NOT_HERE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class SharedFile:
    """``page``: of the sheep that gave the ``descriptor``, which is closed with the last
    reference to this; ``opened``: what it said of it.

    Reads return None, or False, where the sheep must be asked.  ``recent``: read since
    somebody last set this to False.  All methods are safe for many threads.
    """

    __slots__ = ("recent", "generation", "_fd", "_flags", "_page", "_words", "_slot", "_files",
                 "_service", "_life_at", "_life", "_size", "_table_bytes", "_known")

    def __init__(self, page, descriptor, slot, opened):
        self._fd = descriptor
        self.recent = True
        self.generation = page.generation
        self._page = page
        self._words = page.words
        self._life_at = page.attached.life_at
        self._life = page.attached.life
        self._slot = slot
        self._files = opened.files
        self._service = opened.service
        self._size = opened.size
        self._table_bytes = 4 * ((opened.size + BLOCK_MASK) >> BLOCK_SHIFT)
        self._flags = _CACHED
        # The checksums, and the number of writes after which they were read.
        self._known = (-1, None)

    def __del__(self, close=os.close):
        close(self._fd)

    def is_over(self) -> bool:
        """True where nothing will ever be read here again."""
        words = self._words
        return (words[self._slot + 1] != self._files or words[SERVICE] != self._service
                or not self._page.sheep_lives())

    def read(self, offset, length):
        """``length`` bytes, or None."""
        before = self._words[self._slot]
        if before & 1:
            return None
        version, table = self._known
        if version != before:
            table = self._load(before)
            if table is None:
                return None
        if length == BLOCK and not offset & BLOCK_MASK and offset + BLOCK <= self._size:
            buffer = bytearray(BLOCK)
            if not self._fill(offset, buffer):
                return None
            if crc32c(buffer, SEED) != table[offset >> BLOCK_SHIFT]:
                return self._damaged()
            data = bytes(buffer)
        else:
            data = self._read_any(table, offset, length)
            if data is None:
                return None
        self.recent = True
        return data if self._holds(before) else None

    def read_into(self, offset, view) -> bool:
        """Fill a writable memoryview; where it is False, with anything."""
        length = len(view)
        if offset & BLOCK_MASK or (length & BLOCK_MASK and offset + length != self._size):
            data = self.read(offset, length)
            if data is None:
                return False
            view[:] = data
            return True
        before = self._words[self._slot]
        if before & 1:
            return False
        version, table = self._known
        if version != before:
            table = self._load(before)
        if table is None or not self._read_blocks(table, offset, view):
            return False
        self.recent = True
        return self._holds(before)

    def _holds(self, before):
        """Whether what was read counts: to be asked last."""
        words = self._words
        return (words[self._slot] == before and words[self._slot + 1] == self._files
                and words[SERVICE] == self._service
                and self._page.halves[self._life_at] == self._life
                and _now(_BOOTTIME) < words[LEASE])

    def _load(self, before):
        """Read the checksums.  Whether nobody wrote meanwhile is looked at with the data."""
        raw = bytearray(self._table_bytes)
        if not self._fill(self._size, raw):
            return None
        table = memoryview(raw).cast("I")
        self._known = (before, table)
        return table

    def _damaged(self):
        # It may also be the checksum in memory, so do not keep that.
        self._known = (-1, None)
        return None

    def _read_any(self, table, offset, length):
        start = offset & ~BLOCK_MASK
        stop = min((offset + length + BLOCK_MASK) & ~BLOCK_MASK, self._size)
        if offset + length > self._size:
            return None
        buffer = ByteBuffer(stop - start)
        if not self._read_blocks(table, start, buffer.view):
            return None
        data = buffer.take()
        return data if stop - start == length else data[offset - start:offset - start + length]

    def _read_blocks(self, table, offset, view):
        length = len(view)
        if offset + length > self._size or not self._fill(offset, view):
            return False
        first = offset >> BLOCK_SHIFT
        last = (offset + length + BLOCK_MASK) >> BLOCK_SHIFT
        if block_checksums(view) == table[first:last].tolist():
            return True
        self._damaged()
        return False

    def _fill(self, offset, buffer):
        try:
            return _preadv(self._fd, (buffer,), offset, self._flags) == len(buffer)
        except OSError as error:
            if self._flags and error.errno in _NOT_HERE:
                # A filesystem in memory (tmpfs) has nothing to wait for, and says so this way.
                self._flags = 0
            return False
