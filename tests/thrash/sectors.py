"""What the clients write: every sector says which write it is from.

A sector of 512 bytes is a record of 32 bytes sixteen times over, so that a torn one shows::

    offset  size  field
    0       8     magic "thrashed"
    8       8     number of the write, from 1 on
    16      8     number of the sector in its VDI
    24      8     the write's number and the sector's, mixed
"""

import struct

SECTOR = 512

_RECORD = struct.Struct("<8sQQQ")
_MAGIC = b"thrashed"
_TIMES = SECTOR // _RECORD.size
_ZEROS = bytes(SECTOR)
_MASK = (1 << 64) - 1

#: What a sector reads as that holds no record.
GARBAGE = -1


def _sector(write, number):
    mixed = (write * 0x9E3779B97F4A7C15 ^ number * 0xC2B2AE3D27D4EB4F) & _MASK
    return _RECORD.pack(_MAGIC, write, number, mixed) * _TIMES


def pattern(write: int, first: int, count: int) -> bytes:
    """The bytes of write number ``write`` to the ``count`` sectors from ``first`` on."""
    return b"".join(_sector(write, number) for number in range(first, first + count))


def decode(data, first: int) -> tuple:
    """Of each sector of ``data``, the number of the write that it is from.

    0 for one of zeros, :data:`GARBAGE` for one that nobody wrote so, or not there.
    """
    values = []
    for position in range(0, len(data), SECTOR):
        piece = bytes(data[position:position + SECTOR])
        if piece == _ZEROS:
            values.append(0)
            continue
        magic, write, number, _ = _RECORD.unpack_from(piece)
        right = magic == _MAGIC and number == first + position // SECTOR
        values.append(write if right and piece == _sector(write, number) else GARBAGE)
    return tuple(values)
