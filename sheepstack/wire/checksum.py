"""CRC-32C of blocks of 4,096 bytes.

A block's checksum is kept as ``crc(block) ^ crc(zeros of the same length)``, so that a block
of zeros has checksum 0 and a hole in the table of checksums belongs to a hole in the data.

Because a CRC is linear, that value is also the CRC of the block when the calculation starts
from a certain other value than 0, the one that ends at 0 for zeros.  :func:`seed_for` finds
it, so that the exclusive or costs nothing on the hot path.
"""

import functools
import sys

BLOCK_SHIFT = 12
BLOCK = 1 << BLOCK_SHIFT
BLOCK_MASK = BLOCK - 1

_POLYNOMIAL = 0x82F63B78


def _find_crc32c():
    try:
        from crc32c import crc32c
        return crc32c
    except ImportError:
        pass
    try:
        from google_crc32c import extend

        def crc32c(data, value=0):
            return extend(value, data if isinstance(data, bytes) else bytes(data))
        return crc32c
    except ImportError:
        pass
    from crcmod.predefined import mkPredefinedCrcFun
    return mkPredefinedCrcFun("crc-32c")


#: ``crc32c(data, value=0) -> int``: CRC-32C of ``data``, continuing from ``value``.
crc32c = _find_crc32c()


@functools.lru_cache(maxsize=None)
def seed_for(length: int) -> int:
    """The value from which the CRC of ``length`` zero bytes comes out as 0."""
    register = 0xFFFFFFFF
    for _ in range(8 * length):
        if register & 0x80000000:
            register = ((register ^ _POLYNOMIAL) << 1) | 1
        else:
            register <<= 1
    return register ^ 0xFFFFFFFF


SEED = seed_for(BLOCK)


def _swapped(value):
    return int.from_bytes(value.to_bytes(4, "little"), "big")


# The table of checksums is little-endian on disk and used in place as native integers.
if sys.byteorder == "little":
    def block_checksums(data) -> list:
        """Checksums of the blocks of ``data``, whose last one may be short."""
        length = len(data)
        if length == BLOCK:
            return [crc32c(data, SEED)]
        view = memoryview(data)
        whole = length & ~BLOCK_MASK
        sums = [crc32c(view[start:start + BLOCK], SEED) for start in range(0, whole, BLOCK)]
        if whole != length:
            sums.append(crc32c(view[whole:], seed_for(length - whole)))
        return sums

    def spliced_checksum(old, start, data) -> int:
        """Checksum of the block ``old`` with ``data`` put in at ``start``."""
        view = memoryview(old)
        value = crc32c(view[:start], seed_for(len(view)))
        return crc32c(view[start + len(data):], crc32c(data, value))
else:
    def block_checksums(data) -> list:
        view = memoryview(data)
        blocks = [view[start:start + BLOCK] for start in range(0, len(view), BLOCK)]
        return [_swapped(crc32c(block, seed_for(len(block)))) for block in blocks]

    def spliced_checksum(old, start, data) -> int:
        view = memoryview(old)
        value = crc32c(view[:start], seed_for(len(view)))
        return _swapped(crc32c(view[start + len(data):], crc32c(data, value)))
