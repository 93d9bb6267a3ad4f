"""``dog vdi backup`` and ``restore``: what changed from one snapshot to another.

The format is the C project's, version 1, so either dog reads what the other wrote.  All
numbers are little-endian::

    offset size field
    0      4    version  1
    4      4    magic    0x11921192
    8           records

    A record:
    0      4    index of the data object; 0xffffffff ends the backup
    4      4    offset of the data in the object
    8      4    length of the data, more than 0; 0 in the last record
    12     4    unused
    16          data

There is at most one record for an object: it goes from the first to the last sector of 512
bytes that differs.  What no record covers is as in the older snapshot.
"""

import sys
import time
from contextlib import contextmanager
from itertools import zip_longest
from struct import Struct
from typing import NamedTuple

from sheepstack.dog.command import Context
from sheepstack.dog.exits import Exit, Failure, UsageError
from sheepstack.dog.output import complain
from sheepstack.dog.vdi_data import open_vdi
from sheepstack.dog.vdi_lock import is_locked
from sheepstack.dog.vdi_map import flat_map, usage
from sheepstack.wire import inode_layout as layout, oid as oids
from sheepstack.wire.text import pad

VERSION = 1
MAGIC = 0x11921192
END = 0xFFFFFFFF
SECTOR = 512

HEADER = Struct("<II")
RECORD = Struct("<IIIxxxx")

#: Bytes that are compared or copied at a time.
_PIECE = 4 << 20


class Region(NamedTuple):
    """Bytes of a data object."""

    offset: int
    length: int


def differing_region(old, new) -> Region | None:
    """From the first to the last differing sector of two buffers of equal length."""
    if old == new:
        return None
    starts = range(0, len(new), SECTOR)
    differs = [start for start in starts
               if old[start:start + SECTOR] != new[start:start + SECTOR]]
    end = min(differs[-1] + SECTOR, len(new))
    return Region(differs[0], end - differs[0])


def backup(context: Context) -> None:
    settings, session = context.settings, context.session
    name = context.take("")
    if not settings.snapshot or not settings.from_snapshot:
        raise UsageError("Please specify snapshots with '-F' and '-s' options")
    changed = _changed_objects(session, session.open(name, settings.from_snapshot),
                               session.open(name, settings.snapshot))
    sys.stdout.flush()
    out = sys.stdout.buffer
    with open_vdi(session, name, settings.from_snapshot) as old, \
            open_vdi(session, name, settings.snapshot) as new:
        out.write(HEADER.pack(VERSION, MAGIC))
        for index in changed:
            base = index * new.block_size
            region = _changed(old, new, base, min(new.block_size, new.size - base))
            if region is None:
                continue
            out.write(RECORD.pack(index, region.offset, region.length))
            for start, length in _pieces(region.length):
                out.write(new.pread(base + region.offset + start, length))
        out.write(RECORD.pack(END, 0, 0))
    out.flush()


def _changed_objects(session, old, new):
    """Indexes of the data objects that two snapshots do not share."""
    owners = zip_longest(flat_map(session, new), flat_map(session, old), fillvalue=0)
    return [index for index, (now, before) in enumerate(owners)
            if now != before and index < new.object_count]


def _changed(old, new, base, length):
    """What differs in an object's range, found piece by piece."""
    first = end = None
    for start, size in _pieces(length):
        region = differing_region(_padded(old, base + start, size), new.pread(base + start, size))
        if region is not None:
            if first is None:
                first = start + region.offset
            end = start + region.offset + region.length
    return None if first is None else Region(first, end - first)


def _padded(vdi, offset, length):
    """Bytes of a VDI; zeros behind its end."""
    return vdi.pread(offset, length).ljust(length, b"\0")


def _pieces(length):
    for start in range(0, length, _PIECE):
        yield start, min(_PIECE, length - start)


def restore(context: Context) -> None:
    """The older snapshot and the backup make a new snapshot; the current VDI stays as it is.

    The protocol can only snapshot the current VDI.  So its content is put aside as a
    snapshot, the backup is restored to a current VDI that begins as the older snapshot, and
    then the content that was put aside becomes current again.
    """
    settings, session = context.settings, context.session
    name = context.take("")
    if not settings.snapshot:
        raise UsageError("We can restore a backup file only to snapshots",
                         "Please specify the '-s' option")
    base = session.open(name, settings.snapshot)
    current = session.open(name)
    if sys.stdin.isatty():
        raise UsageError("stdin must be pipe")
    stream = sys.stdin.buffer
    read_header(stream)
    if is_locked(session, current.vdi_id):
        # Its user would write to what is current for the moment.
        raise Failure("VDI %s is locked: nothing can be restored while it is in use" % name)
    with _put_aside(session, current, base):
        with open_vdi(session, name, writable=True) as vdi:
            _apply(stream, vdi)


@contextmanager
def _put_aside(session, current, base):
    """While this lasts, the current VDI is a new one with the content of ``base``.

    Afterwards that is a snapshot, or it is deleted where an exception came out; the content
    of ``current`` is current again either way.
    """
    tag = "before-restore-" + time.strftime("%Y%m%d-%H%M%S")
    session.write_object(oids.vdi_oid(current.vdi_id), pad(tag, layout.VDI_TAG_LEN),
                         layout.TAG_OFFSET, current)
    session.derive(base, base.vdi_id, snapshot=True)
    useless = [current]
    try:
        try:
            yield
        except BaseException:
            useless.append(session.open(current.name))
            raise
        finally:
            session.derive(current, _origin(session, current), snapshot=True)
            for inode in useless:
                session.ask("delete_vdi", inode.name, inode.snap_id)
    except BaseException:
        if not session.inode(current.vdi_id).is_deleted:
            complain("The content that VDI %s had before is kept as its snapshot '%s'"
                     % (current.name, tag))
        raise


def _origin(session, inode):
    """A VDI with the content of a working VDI: its parent where nothing changed since."""
    if inode.parent_vdi_id and not usage(session, inode)[0]:
        parent = session.inode(inode.parent_vdi_id)
        if not parent.is_deleted and parent.vdi_size == inode.vdi_size:
            return parent.vdi_id
    return inode.vdi_id


def read_header(stream) -> None:
    """Raises :class:`Failure` where the stream is no backup."""
    raw = stream.read(HEADER.size)
    if len(raw) < HEADER.size or HEADER.unpack(raw) != (VERSION, MAGIC):
        raise Failure("The backup file is corrupted", code=Exit.SYSFAIL)


def read_records(stream, block_size: int):
    """Pairs of position in the VDI and data, from the records behind the header.

    Raises :class:`Failure` where they end too early or cannot be.
    """
    while True:
        index, offset, length = RECORD.unpack(_exactly(stream, RECORD.size))
        if index == END:
            return
        if offset + length > block_size or index >= layout.DATA_INDEX:
            raise Failure("The backup file is corrupted: %d bytes at %d of object %d"
                          % (length, offset, index), code=Exit.SYSFAIL)
        for start, size in _pieces(length):
            yield index * block_size + offset + start, _exactly(stream, size)


def _exactly(stream, length):
    data = stream.read(length)
    if len(data) < length:
        raise Failure("failed to read backup data: it ends too early", code=Exit.SYSFAIL)
    return data


def _apply(stream, vdi):
    """Write all records to an open VDI, which grows where the newer snapshot was bigger."""
    for position, data in read_records(stream, vdi.block_size):
        if any(data[max(0, vdi.size - position):]):
            vdi.resize(position + len(data))
        data = data[:max(0, vdi.size - position)]
        if data:
            vdi.pwrite(position, data)
    vdi.flush()
