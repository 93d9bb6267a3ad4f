"""A record: a row of the database as it is kept in sheep, perhaps with the object's bytes.

Records lie in the slots of log volumes, each at a multiple of 4096 bytes::

    offset  bytes
         0      8  "SHSWLOG1"
         8      8  length of the row
        16      8  length of the data
        24     16  BLAKE2b of all before and of the row, with the volume's key
        40         the row: JSON, UTF-8
       ...         the data

The key is random and never leaves the cluster, so nobody can make up an object whose bytes
look like a record to whoever scans the volumes.
"""

import hashlib
import json
import struct
from typing import NamedTuple

ALIGNMENT = 4096

_HEADER = struct.Struct("<8sQQ")
_MAGIC = b"SHSWLOG1"
_DIGEST_SIZE = 16
HEADER_SIZE = _HEADER.size + _DIGEST_SIZE

#: What makes a record none: it is written over the beginning of one that does not count.
NOTHING = bytes(ALIGNMENT)


class Record(NamedTuple):
    """``row``: as a dictionary.  ``data_offset``: from the record's beginning.  ``size``: with
    all, a multiple of :data:`ALIGNMENT`."""

    row: dict
    data_offset: int
    data_length: int
    size: int


def padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def head(key: bytes, row: dict, data_length: int) -> bytes:
    """All of a record that is in front of its data."""
    text = json.dumps(row, separators=(",", ":")).encode()
    header = _HEADER.pack(_MAGIC, len(text), data_length)
    return b"".join((header, _digest(key, header, text), text))


def size_of(head_length: int, data_length: int) -> int:
    return padded(head_length + data_length)


def parse(key: bytes, view):
    """The record at the beginning of ``view``, or None where there is none."""
    if len(view) < HEADER_SIZE:
        return None
    magic, row_length, data_length = _HEADER.unpack_from(view)
    data_offset = HEADER_SIZE + row_length
    if magic != _MAGIC or data_offset + data_length > len(view):
        return None
    text = bytes(view[HEADER_SIZE:data_offset])
    if _digest(key, bytes(view[:_HEADER.size]), text) != bytes(
            view[_HEADER.size:HEADER_SIZE]):
        return None
    return Record(json.loads(text), data_offset, data_length,
                  size_of(data_offset, data_length))


def scan(key: bytes, slot):
    """Yields (offset, :class:`Record`) of all records in the bytes of a slot."""
    view = memoryview(slot)
    offset = 0
    while offset < len(view):
        record = parse(key, view[offset:])
        if record is None:
            # Whatever was being written when its writer died.
            offset += ALIGNMENT
        else:
            yield offset, record
            offset += record.size


def _digest(key, header, text):
    return hashlib.blake2b(header + text, digest_size=_DIGEST_SIZE, key=key).digest()
