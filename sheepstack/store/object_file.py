"""The file that holds one object.

An object of ``size`` bytes has ``n = ceil(size / 4096)`` blocks, the last of which may be
short.  Its file, all integers little-endian::

    offset      size  field
    0           size  data
    size        4n    for each block: CRC-32C XOR the CRC-32C of as many zeros
    size + 4n   64    footer

and the footer::

    0           8     magic "sheepobj"
    8           4     version of this format, 1
    12          4     0
    16          8     object id
    24          8     size
    32          16    stamp
    48          12    0
    60          4     CRC-32C of the 60 bytes in front

The file's length alone tells ``size``, so a bit that flips in the footer costs nothing but
the stamp.
Holes of the data are holes of the table too: zeros that nobody wrote take no space.
"""

import logging
import os
import threading
from struct import Struct

from sheepstack.store import disk
from sheepstack.store.errors import NoObject, NoSpace, Rotten, from_os_error
from sheepstack.wire.checksum import (
    BLOCK, BLOCK_MASK, BLOCK_SHIFT, block_checksums, crc32c, spliced_checksum)

_LOG = logging.getLogger(__name__)

FOOTER = Struct("<8sIIQQ16s12x")
FOOTER_SIZE = FOOTER.size + 4
_CRC = Struct("<I")
_MAGIC = b"sheepobj"
_VERSION = 1

#: What verify(), accept() and fill() look at in one go, bytes.
_STEP = 1 << 20


def file_length(size: int) -> int:
    """Length in bytes of the file of an object of ``size`` bytes."""
    return size + 4 * ((size + BLOCK_MASK) >> BLOCK_SHIFT) + FOOTER_SIZE


def object_size(length: int) -> int:
    """Size of the object whose file is ``length`` bytes long; 0 or less: of none."""
    body = length - FOOTER_SIZE
    return body - 4 * -(-body // (BLOCK + 4))


def pack_footer(oid: int, size: int, stamp: int) -> bytes:
    head = FOOTER.pack(_MAGIC, _VERSION, 0, oid, size, stamp.to_bytes(16, "little"))
    return head + _CRC.pack(crc32c(head))


def unpack_footer(raw, oid: int, size: int):
    """The stamp in the footer ``raw``; None where it is damaged or another object's.

    Raises Rotten where it is no footer at all, so that the file has been cut short.
    """
    magic, version, _, its_oid, its_size, stamp = FOOTER.unpack_from(raw)
    if (crc32c(raw[:-4]) == _CRC.unpack_from(raw, FOOTER.size)[0]
            and (magic, version, its_oid, its_size) == (_MAGIC, _VERSION, oid, size)):
        return int.from_bytes(stamp, "little")
    if (magic == _MAGIC) + (its_oid == oid) + (its_size == size) < 2:
        raise Rotten(oid, [])
    return None


class _Descriptor:
    """Closes a file descriptor when it is not referred to any more.

    ObjectFile itself must not have a finalizer: while one runs, another thread can still
    take a new reference from a weak one, to a file that is closed.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd):
        self._fd = fd

    def __del__(self):
        self.close()

    def close(self):
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class ObjectFile:
    """An open object.  The file is closed when the last reference to this goes.

    ``lock`` orders changes and must be held by the caller of those methods that say so.
    Reading needs no lock: a reader that meets a block between its bytes and its checksum
    takes the lock itself and looks again.

    ``ready``: a write may be applied without asking anybody (see core.py; guarded by
    ``lock``).  ``recent``: used since the cache last looked.
    """

    __slots__ = ("fd", "oid", "size", "blocks", "stamp", "sound", "lock", "ready", "recent",
                 "_descriptor", "_table", "_raw", "_table_at", "__weakref__")

    def __init__(self, fd, oid, size, raw_table, stamp, sound):
        self.fd = fd
        self._descriptor = _Descriptor(fd)
        self.oid = oid
        self.size = size
        self.blocks = (size + BLOCK_MASK) >> BLOCK_SHIFT
        self.stamp = stamp
        self.sound = sound
        self.lock = threading.Lock()
        self.ready = False
        self.recent = True
        self._raw = memoryview(raw_table)
        self._table = self._raw.cast("I")
        self._table_at = size

    @property
    def table_bytes(self) -> int:
        """Memory that the checksums take."""
        return 4 * self.blocks

    # Making and opening

    @classmethod
    def open(cls, path, oid) -> "ObjectFile":
        """Raises NoObject, Rotten (a length that no object has), StoreIOError."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoObject(oid) from None
        except OSError as error:
            raise from_os_error(error, "cannot open object %016x" % oid) from error
        try:
            length = os.fstat(fd).st_size
            size = object_size(length)
            if size <= 0 or file_length(size) != length:
                raise Rotten(oid, [])
            table = bytearray(length - size - FOOTER_SIZE)
            footer = bytearray(FOOTER_SIZE)
            if os.preadv(fd, [table, footer], size) != length - size:
                raise Rotten(oid, [])
            stamp = unpack_footer(footer, oid, size)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise from_os_error(error, "cannot read object %016x" % oid) from error
            raise
        return cls(fd, oid, size, table, stamp or 0, stamp is not None)

    @classmethod
    def create(cls, path, oid, size, extents, stamp, claim) -> "ObjectFile":
        """A new file with ``extents``, an iterable of (offset, bytes-like), zeros elsewhere.

        Leaves nothing behind where it raises: NoSpace, StoreIOError; ValueError for extents
        out of bounds.  ``claim`` as for :meth:`write`.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os_error(error, "cannot create object %016x" % oid) from error
        blocks = (size + BLOCK_MASK) >> BLOCK_SHIFT
        self = cls(fd, oid, size, bytearray(4 * blocks), stamp, True)
        try:
            claim(self, 0, 0)
            self._write_footer()
            for offset, data in extents:
                if not len(data):
                    continue
                self.check_bounds(offset, len(data))
                self.write(offset, data, claim)
        except BaseException as error:
            os.unlink(path)
            # The traceback may keep this object, and the disk space of the file, for long.
            self.abandon()
            if isinstance(error, OSError):
                raise from_os_error(error, "cannot create object %016x" % oid) from error
            raise
        return self

    def fill(self, extents, sums):
        """Writes ``extents``, whole blocks for which there is room, into a new file.

        ``sums``: the checksums that their blocks must have, as bytes; None: whatever they are.
        Makes system calls and nothing else, for a thread of any kind.  Raises OSError, and
        Rotten for a block that is not as its checksum.
        """
        at = 0
        for offset, data in extents:
            view = memoryview(data)
            for start in range(0, len(view), _STEP):
                piece = view[start:start + _STEP]
                first = (offset + start) >> BLOCK_SHIFT
                found = block_checksums(piece)
                stop = at + 4 * len(found)
                if sums is not None and memoryview(sums[at:stop]).cast("I").tolist() != found:
                    raise Rotten(self.oid, [first])
                at = stop
                disk.write_fully(self.fd, piece, offset + start)
                self._put_sums(first, found)

    def abandon(self):
        """Closes the file for good, whoever still refers to it: its disk space is free."""
        self._descriptor.close()

    # Reading

    def reopen(self) -> int:
        """A new descriptor of the same file, for reading only; raises StoreIOError."""
        try:
            return os.open("/proc/self/fd/%d" % self.fd, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed(error, "open") from error

    def unchecked(self):
        """([(offset, bytes)], checksums of their blocks as bytes) of all that is not a hole.

        Nothing is checked; a block that is being written to may disagree with its checksum.
        None where the file is known to be damaged.
        """
        if not self.sound:
            return None
        extents, sums, rest = [], [], bytearray(self._raw)
        for offset, length in self.extents():
            first = offset >> BLOCK_SHIFT
            last = (offset + length + BLOCK_MASK) >> BLOCK_SHIFT
            sums.append(bytes(self._raw[4 * first:4 * last]))
            rest[4 * first:4 * last] = bytes(4 * (last - first))
            extents.append((offset, self.read_unchecked(offset, length)))
        # A hole in whose place something was.
        return None if rest.strip(b"\0") else (extents, b"".join(sums))

    def check_bounds(self, offset, length):
        """Raises ValueError for a range that is not inside the object."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError("object %016x has %d bytes, not %d at %d" % (
                self.oid, self.size, length, offset))

    def read(self, offset, length):
        """``length`` bytes (bytes-like), every touched block checked.

        Raises Rotten, StoreIOError; ValueError for a range that is not inside the object.
        """
        if length == BLOCK and not offset & BLOCK_MASK and 0 <= offset <= self.size - BLOCK:
            data = self._pread(offset, BLOCK)
            if (len(data) == BLOCK and self.sound
                    and block_checksums(data)[0] == self._table[offset >> BLOCK_SHIFT]):
                return data
        else:
            self.check_bounds(offset, length)
            if not length:
                return b""
        start, stop = self._blocks_around(offset, length)
        data = self._pread(start, stop - start)
        if self._mismatches(data, start, stop):
            data = self._read_again(start, stop)
        if stop - start == length:
            return data
        return memoryview(data)[offset - start:offset - start + length]

    def read_unchecked(self, offset, length):
        """As :meth:`read`, whatever the checksums say; a file cut short reads as zeros."""
        self.check_bounds(offset, length)
        data = self._pread(offset, length)
        return data if len(data) == length else bytes(data).ljust(length, b"\0")

    def read_into(self, offset, buffer):
        """Fills ``buffer`` (writable bytes-like) as :meth:`read` would return."""
        length = len(buffer)
        self.check_bounds(offset, length)
        if not length:
            return
        start, stop = self._blocks_around(offset, length)
        if stop - start != length:
            buffer[:] = self.read(offset, length)
            return
        try:
            got = disk.read_into(self.fd, buffer, offset)
        except OSError as error:
            raise self._failed(error, "read") from error
        if got != length or self._mismatches(buffer, start, stop):
            buffer[:] = self._read_again(start, stop)

    def _pread(self, offset, length):
        try:
            return disk.read_at(self.fd, length, offset)
        except OSError as error:
            raise self._failed(error, "read") from error

    def _read_again(self, start, stop):
        with self.lock:
            data = self._pread(start, stop - start)
            bad = self._mismatches(data, start, stop)
        if bad:
            raise Rotten(self.oid, bad)
        return data

    def _blocks_around(self, offset, length):
        stop = (offset + length + BLOCK_MASK) & ~BLOCK_MASK
        return offset & ~BLOCK_MASK, stop if stop < self.size else self.size

    def _mismatches(self, data, start, stop):
        """Indexes of the blocks from ``start`` to ``stop`` that are not as their checksums."""
        first = start >> BLOCK_SHIFT
        last = (stop + BLOCK_MASK) >> BLOCK_SHIFT
        sums = block_checksums(data)
        stored = self._table[first:last].tolist()
        sound = self.sound or last < self.blocks
        if sums == stored and sound and len(data) == stop - start:
            return []
        # Bytes that the file has lost leave blocks without checksums, or with a wrong one.
        sums += [None] * (len(stored) - len(sums))
        bad = {first + at for at, pair in enumerate(zip(sums, stored)) if pair[0] != pair[1]}
        if not sound:
            bad.add(self.blocks - 1)
        return sorted(bad)

    # Changing: the caller holds the lock

    def write(self, offset, data, claim, tolerant=False):
        """Writes ``data`` (bytes-like, not empty, inside the object) and its checksums.

        ``claim(file, offset, length)`` is called before bytes go where none are on disk; it
        raises NoSpace to refuse.  ``tolerant``: damage to a block that is only partly
        overwritten is taken for what was to be there.

        Raises NoSpace and StoreIOError, Rotten.  Where ``claim`` does its work the object
        is then as it was; a disk that fails halfway may leave bytes of ``data``, with
        checksums to match.
        """
        end = offset + len(data)
        first = offset >> BLOCK_SHIFT
        last = (end - 1) >> BLOCK_SHIFT
        whole = not offset & BLOCK_MASK and (not end & BLOCK_MASK or end == self.size)
        if first == last:
            before = [self._table[first]]
            if whole:
                sums = block_checksums(data)
            else:
                sums = [self._spliced(first, offset & BLOCK_MASK, data, tolerant)]
        else:
            before = self._table[first:last + 1].tolist()
            if whole:
                sums = block_checksums(data)
            else:
                sums = self._merged(offset, end, memoryview(data), tolerant)
        if 0 in before:
            try:
                claim(self, offset, end - offset)
            except NoSpace:
                # Zeros where nothing is need no space.  All holders can so agree on what a
                # lost gateway left, though it is the full one's hole.
                pieces = self._without_zeros_in_holes(offset, memoryview(data), before)
                if pieces is None:
                    raise
                for at, piece in pieces:
                    self.write(at, piece, claim, tolerant)
                return
        written = 0
        try:
            disk.write_fully(self.fd, data, offset)
            written = len(data)
            self._put_sums(first, sums)
        except OSError as error:
            self._undo(offset, written or error.written, first, before, sums)
            raise self._failed(error, "write") from error

    @staticmethod
    def _without_zeros_in_holes(offset, data, before):
        """[(offset, data)] of the blocks that are on disk, None where others need more than
        zeros; ``before`` has the checksums that the blocks had."""
        pieces, position, end = [], offset, offset + len(data)
        for checksum in before:
            stop = min(end, (position & ~BLOCK_MASK) + BLOCK)
            piece = data[position - offset:stop - offset]
            if checksum:
                pieces.append((position, piece))
            elif bytes(piece).strip(b"\0"):
                return None
            position = stop
        return pieces

    def discard(self, offset, length, claim, tolerant=False):
        """Makes a range, inside the object, read as zeros and frees its whole blocks."""
        end = offset + length
        first = (offset + BLOCK_MASK) >> BLOCK_SHIFT
        last = self.blocks if end == self.size else end >> BLOCK_SHIFT
        start = min(first << BLOCK_SHIFT, end)
        stop = max(start, min(last << BLOCK_SHIFT, self.size))
        for at, upto in (offset, start), (stop, end):
            if at < upto and self._table[at >> BLOCK_SHIFT]:
                self.write(at, bytes(upto - at), claim, tolerant)
        if start == stop:
            return
        try:
            disk.punch_hole(self.fd, start, stop - start)
        except OSError:
            # Not every filesystem can free part of a file; zeros do as well.
            for at in range(start, stop, _STEP):
                self.write(at, bytes(min(_STEP, stop - at)), claim, tolerant)
            return
        try:
            self._put_sums(first, [0] * (last - first))
        except OSError as error:
            raise self._failed(error, "write") from error

    def set_stamp(self, stamp):
        """Raises NoSpace, StoreIOError."""
        before = self.stamp, self.sound
        self.stamp, self.sound = stamp, True
        try:
            self._write_footer()
        except OSError as error:
            self.stamp, self.sound = before
            raise self._failed(error, "write") from error

    def accept(self):
        """Takes the data as they are: mends the checksums that disagree, clears the stamp."""
        for start in range(0, self.size, _STEP):
            stop = min(start + _STEP, self.size)
            data = self._pread(start, stop - start)
            if len(data) != stop - start:
                raise Rotten(self.oid, [])
            try:
                self._put_sums(start >> BLOCK_SHIFT, block_checksums(data))
            except OSError as error:
                raise self._failed(error, "write") from error
        self.set_stamp(0)

    def repair(self, block, data):
        """Puts good bytes into a damaged block; leaves a sound one alone."""
        if not 0 <= block < self.blocks:
            raise ValueError("object %016x has %d blocks, none is %d" % (
                self.oid, self.blocks, block))
        start = block << BLOCK_SHIFT
        if len(data) != min(BLOCK, self.size - start):
            raise ValueError("block %d of object %016x has %d bytes, not %d" % (
                block, self.oid, min(BLOCK, self.size - start), len(data)))
        if not self.damage(start, start + len(data)):
            return
        try:
            disk.write_fully(self.fd, data, start)
            self._put_sums(block, block_checksums(data))
        except OSError as error:
            raise self._failed(error, "write") from error
        if block == self.blocks - 1:
            self.set_stamp(self.stamp)

    def damage(self, start, stop) -> list:
        """Indexes of damaged blocks between two block boundaries, table and footer included.

        Looks at the disk's own copy of the checksums, not at the one in memory.
        """
        bad = set(self._mismatches(self._pread(start, stop - start), start, stop))
        first = start >> BLOCK_SHIFT
        last = (stop + BLOCK_MASK) >> BLOCK_SHIFT
        kept = self._pread(self._table_at + 4 * first, 4 * (last - first))
        ours = self._raw[4 * first:4 * last]
        if kept != ours:
            kept = bytes(kept).ljust(len(ours), b"\0")
            bad.update(first + at for at in range(last - first)
                       if kept[4 * at:4 * at + 4] != ours[4 * at:4 * at + 4])
        if last == self.blocks:
            footer = self._pread(self._table_at + self.table_bytes, FOOTER_SIZE)
            if footer != pack_footer(self.oid, self.size, self.stamp):
                bad.add(last - 1)
        return sorted(bad)

    def verify(self) -> list:
        """Indexes of all damaged blocks.  Takes the lock itself, a piece at a time."""
        bad = []
        for start in range(0, self.size, _STEP):
            with self.lock:
                bad += self.damage(start, min(start + _STEP, self.size))
        return bad

    def extents(self) -> list:
        """(offset, length) of what is not a hole, offsets block aligned."""
        found = []
        at = 0
        try:
            while at < self.size:
                start = os.lseek(self.fd, at, os.SEEK_DATA) & ~BLOCK_MASK
                if start >= self.size:
                    break
                at = (os.lseek(self.fd, start, os.SEEK_HOLE) + BLOCK_MASK) & ~BLOCK_MASK
                found.append((start, min(at, self.size) - start))
        except OSError as error:
            raise self._failed(error, "read") from error
        return found

    def occupied(self, start, stop) -> list:
        """(offset, length) of what may be other than zeros from ``start`` to ``stop``: what is no
        hole, and what a checksum says should be none."""
        if start >= stop:
            return []
        blocks = {at >> BLOCK_SHIFT for offset, length in self.extents()
                  for at in range(max(offset, start & ~BLOCK_MASK),
                                  min(offset + length, stop), BLOCK)}
        first = start >> BLOCK_SHIFT
        last = min((stop + BLOCK_MASK) >> BLOCK_SHIFT, self.blocks)
        blocks.update(at for at, checksum in enumerate(self._table[first:last], first) if checksum)
        found = []
        for block in sorted(blocks):
            begin, end = max(block << BLOCK_SHIFT, start), min((block + 1) << BLOCK_SHIFT, stop)
            if found and found[-1][1] == begin:
                found[-1][1] = end
            else:
                found.append([begin, end])
        return [(begin, end - begin) for begin, end in found]

    def allocate(self, offset, length):
        """Reserves disk blocks for a range and for the checksums; raises OSError."""
        start, stop = self._blocks_around(offset, length)
        if start < stop:
            os.posix_fallocate(self.fd, start, stop - start)
        os.posix_fallocate(self.fd, self._table_at, self.table_bytes + FOOTER_SIZE)

    def _spliced(self, block, start, data, tolerant):
        """Checksum of ``block`` once ``data`` will have been put in at ``start``."""
        at = block << BLOCK_SHIFT
        length = min(BLOCK, self.size - at)
        old = self._pread(at, length)
        if len(old) != length or block_checksums(old)[0] != self._table[block]:
            if not tolerant:
                raise Rotten(self.oid, [block])
            old = bytes(old).ljust(length, b"\0")
        return spliced_checksum(old, start, data)

    def _merged(self, offset, end, view, tolerant):
        """Checksums of the blocks of a write of which the first or the last is partial."""
        sums = []
        head = -offset & BLOCK_MASK
        if head:
            sums.append(self._spliced(
                offset >> BLOCK_SHIFT, offset & BLOCK_MASK, view[:head], tolerant))
        tail = end & BLOCK_MASK if end != self.size else 0
        middle = view[head:len(view) - tail]
        if len(middle):
            sums += block_checksums(middle)
        if tail:
            sums.append(self._spliced(end >> BLOCK_SHIFT, 0, view[-tail:], tolerant))
        return sums

    def _put_sums(self, first, sums):
        table = self._table
        if len(sums) == 1:
            table[first] = sums[0]
        else:
            for block, value in enumerate(sums, first):
                table[block] = value
        disk.write_fully(self.fd, self._raw[4 * first:4 * (first + len(sums))],
                         self._table_at + 4 * first)

    def _undo(self, offset, written, first, before, sums):
        """After a write broke off: back to ``before``, or checksums that fit what is there."""
        last = first + len(sums)
        start = first << BLOCK_SHIFT
        try:
            if not any(before):
                disk.punch_hole(self.fd, start, min(last << BLOCK_SHIFT, self.size) - start)
                self._table[first:last] = memoryview(bytes(4 * len(sums))).cast("I")
            elif written:
                reached = (offset + written) >> BLOCK_SHIFT
                sums = sums[:reached - first]
                if (offset + written) & BLOCK_MASK:
                    at, upto = self._blocks_around(offset + written, 0)
                    sums += block_checksums(self._pread(at, upto - at))
                self._put_sums(first, sums)
        except OSError as error:
            _LOG.error("object %016x is left damaged by a failed write: %s", self.oid, error)

    def _write_footer(self):
        disk.write_fully(self.fd, pack_footer(self.oid, self.size, self.stamp),
                         self._table_at + self.table_bytes)

    def _failed(self, error, verb):
        return from_os_error(error, "cannot %s object %016x" % (verb, self.oid))
