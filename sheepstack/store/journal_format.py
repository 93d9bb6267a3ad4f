"""The two journals of a durable store, as bytes.

Small changes are made durable by writing them here, all that wait with one flush.  The
store switches to the other file when one is full, and uses the full one again after all
objects have been flushed.  All integers are little-endian.  A file begins with::

    offset  size  field
    0       8     magic "sheepjnl"
    8       4     version of this format, 1
    12      4     salt
    16      8     number of the first record; 0: the file is empty
    24      4     CRC-32C of the 24 bytes in front
    28      4068  0

and records follow, without gaps, from offset 4096::

    0       4     magic "sjr1"
    4       4     CRC-32C of all that follows, calculated from the salt
    8       8     number of the record, one more than that of the record before
    16      8     object id
    24      8     size
    32      8     offset
    40      4     length of the payload
    44      2     kind
    46      2     0
    48      16    stamp
    64            payload

The salt changes each time a store is opened, and a number is never used twice with a salt,
so bytes of an earlier use of the file are never taken for a record.  The first record that
is not valid is the end.

=========  ==================================================================
kind       meaning
=========  ==================================================================
WRITE      payload at ``offset``
DISCARD    zeros at ``offset``, ``size`` bytes
CREATE     a new object of ``size`` bytes with ``stamp``; the payload is a run
           of (offset 8, length 4, bytes)
REMOVE     the object is gone
INTENT     the object is about to be changed in place
VOID       records of this object in front of number ``offset`` are in place
VOID_ALL   records of any object in front of number ``offset`` are in place
CANCEL     record number ``offset`` of this object failed and is not to be done
=========  ==================================================================
"""

import enum
import os
from struct import Struct
from typing import NamedTuple

from sheepstack.wire.checksum import crc32c

HEADER_SIZE = 4096
RECORD_SIZE = 64

_HEADER = Struct("<8sIIQ")
_HEAD = Struct("<II")
_REST = Struct("<QQQQIHxx16s")
_CRC = Struct("<I")
_EXTENT = Struct("<QI")
_MAGIC = b"sheepjnl"
_RECORD_MAGIC = 0x31726A73
_VERSION = 1
_NO_STAMP = bytes(16)


class Kind(enum.IntEnum):
    WRITE = 1
    DISCARD = 2
    CREATE = 3
    REMOVE = 4
    INTENT = 5
    VOID = 6
    VOID_ALL = 7
    CANCEL = 8


# Plain integers: an enum's attribute costs more than the rest of packing a record.
WRITE, DISCARD, CREATE, REMOVE, INTENT, VOID, VOID_ALL, CANCEL = map(int, Kind)


class Record(NamedTuple):
    """A record as read back."""

    number: int
    kind: int
    oid: int
    size: int
    offset: int
    stamp: int
    payload: bytes


def pack_record(salt, number, kind, oid, size=0, offset=0, payload=b"", stamp=0) -> bytes:
    """The 64 bytes that go in front of ``payload``."""
    rest = _REST.pack(number, oid, size, offset, len(payload), kind,
                      stamp.to_bytes(16, "little") if stamp else _NO_STAMP)
    crc = crc32c(rest, salt)
    if payload:
        crc = crc32c(payload, crc)
    return _HEAD.pack(_RECORD_MAGIC, crc) + rest


def pack_extents(extents) -> bytes:
    """Payload of CREATE for an iterable of (offset, bytes-like)."""
    parts = []
    for offset, data in extents:
        parts += _EXTENT.pack(offset, len(data)), data
    return b"".join(parts)


def unpack_extents(payload) -> list:
    view = memoryview(payload)
    extents = []
    at = 0
    while at < len(view):
        offset, length = _EXTENT.unpack_from(view, at)
        at += _EXTENT.size
        extents.append((offset, view[at:at + length]))
        at += length
    return extents


def pack_header(salt, first) -> bytes:
    head = _HEADER.pack(_MAGIC, _VERSION, salt, first)
    return (head + _CRC.pack(crc32c(head))).ljust(HEADER_SIZE, b"\0")


def read_header(path):
    """(salt, number of the first record) of a journal; None where it has no valid header."""
    with open(path, "rb") as source:
        raw = source.read(_HEADER.size + _CRC.size)
    if len(raw) != _HEADER.size + _CRC.size:
        return None
    magic, version, salt, first = _HEADER.unpack_from(raw)
    if (magic, version, crc32c(raw[:-4])) != (
            _MAGIC, _VERSION, _CRC.unpack_from(raw, _HEADER.size)[0]):
        return None
    return salt, first


def read_records(path, salt, first):
    """Iterates over the valid records of a journal, from number ``first``."""
    size = os.stat(path).st_size
    with open(path, "rb", buffering=1 << 20) as source:
        source.seek(HEADER_SIZE)
        for number in _count_from(first):
            raw = source.read(RECORD_SIZE)
            if len(raw) != RECORD_SIZE:
                return
            magic, crc = _HEAD.unpack_from(raw)
            its_number, oid, record_size, offset, length, kind, stamp = _REST.unpack_from(raw, 8)
            if magic != _RECORD_MAGIC or its_number != number or length > size:
                return
            payload = source.read(length)
            if len(payload) != length or crc32c(payload, crc32c(raw[8:], salt)) != crc:
                return
            yield Record(number, kind, oid, record_size, offset,
                         int.from_bytes(stamp, "little"), payload)


def _count_from(number):
    while True:
        yield number
        number += 1
