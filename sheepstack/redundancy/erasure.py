"""Erasure codes: an object at rest as data strips and parity strips.

The object is dealt out to the data strips in units of 4 KiB: unit 0 to strip 0, unit 1 to
strip 1, and so on; one unit of each strip is a *row*.  So what is read of an object lies in
the strips as it is, and a long read comes from all of them.  Any ``data`` of the strips
make the object again.

A strip on disk, and between sheep, is its bytes and a trailer::

    offset size field
    0      n    the strip
    n      16   version, which orders the times at which the object was cut into strips
    n+16   8    bytes in the object
    n+24   4    CRC-32 of the strip
    n+28   4    unused

The code is Reed-Solomon with a Cauchy matrix over GF(2^8), by ISA-L through liberasurecode.
"""

import functools
import zlib
from struct import Struct
from typing import NamedTuple

from pyeclib.ec_iface import ECDriver, ECDriverError

from sheepstack.redundancy.policy import CopyPolicy

UNIT = 4096
BACKEND = "isa_l_rs_cauchy"

_TRAILER = Struct("<QQQI4x")
TRAILER_SIZE = _TRAILER.size
#: What liberasurecode puts in front of each strip.  Without checksums it depends on nothing
#: but the length, so it is not kept.
_HEADER_SIZE = 80


class UnsupportedPolicy(ValueError):
    """Objects cannot be kept under this policy here."""


class BadStrip(ValueError):
    """These bytes are no strip, or not the one that was written."""


class Trailer(NamedTuple):
    """``version`` has 128 bits, ``size`` is that of the object, in bytes."""

    version: int
    size: int
    crc: int

    def pack(self) -> bytes:
        return _TRAILER.pack(self.version & 0xFFFFFFFFFFFFFFFF, self.version >> 64, self.size,
                             self.crc)

    @classmethod
    def unpack(cls, data) -> "Trailer":
        low, high, size, crc = _TRAILER.unpack(data)
        return cls(high << 64 | low, size, crc)


def pack_strip(version: int, size: int, strip: bytes) -> bytes:
    """A strip with its trailer."""
    return b"".join((strip, Trailer(version, size, zlib.crc32(strip)).pack()))


def unpack_strip(content) -> tuple:
    """(:class:`Trailer`, strip); raises BadStrip."""
    view = memoryview(content)
    if len(view) <= TRAILER_SIZE:
        raise BadStrip("a strip of %d bytes" % len(view))
    strip, trailer = view[:-TRAILER_SIZE], Trailer.unpack(view[-TRAILER_SIZE:])
    if zlib.crc32(strip) != trailer.crc:
        raise BadStrip("a strip with a wrong checksum")
    return trailer, strip


class Code:
    """Between objects and their strips, under one policy."""

    def __init__(self, data: int, parity: int):
        self.data = data
        self.width = data + parity
        try:
            self._driver = ECDriver(k=data, m=parity, ec_type=BACKEND, chksum_type="none")
        except ECDriverError as error:
            raise UnsupportedPolicy("cannot encode %d:%d: %s" % (data, parity, error)) from None
        self._headers = {}

    # -- where bytes lie -------------------------------------------------------------------

    def strip_size(self, size: int) -> int:
        """Bytes of each strip of an object of ``size`` bytes."""
        return -(-size // (self.data * UNIT)) * UNIT

    def pieces(self, offset: int, length: int):
        """(strip, offset in it, length) of a range of the object, in order."""
        end = offset + length
        while offset < end:
            unit, within = divmod(offset, UNIT)
            count = min(UNIT - within, end - offset)
            yield unit % self.data, unit // self.data * UNIT + within, count
            offset += count

    def spans(self, offset: int, length: int) -> dict:
        """{strip: (start, stop)}: what must be read of which strips for a range."""
        spans = {}
        first, last = offset // UNIT, (offset + length - 1) // UNIT
        for begin in range(first, min(last + 1, first + self.data)):
            strip = begin % self.data
            end = last - (last - strip) % self.data
            start, stop = begin // self.data * UNIT, end // self.data * UNIT + UNIT
            if begin == first:
                start += offset % UNIT
            if end == last:
                stop -= -(offset + length) % UNIT
            spans[strip] = start, stop
        return spans

    def rows(self, offset: int, length: int) -> tuple:
        """(start, stop) in each strip of the whole rows in which a range lies."""
        row = self.data * UNIT
        return offset // row * UNIT, -(-(offset + length) // row) * UNIT

    def assemble(self, offset: int, length: int, parts: dict) -> bytes:
        """The range out of ``parts``: {strip: (start, bytes)}."""
        return b"".join(
            parts[strip][1][start - parts[strip][0]:start - parts[strip][0] + count]
            for strip, start, count in self.pieces(offset, length))

    # -- coding ----------------------------------------------------------------------------

    def encode(self, image) -> list:
        """All strips of the object ``image`` (bytes-like)."""
        length = self.strip_size(len(image))
        padded = bytes(image).ljust(length * self.data, b"\0")
        row = self.data * UNIT
        dealt = b"".join(padded[start:start + UNIT] for strip in range(self.data)
                         for start in range(strip * UNIT, len(padded), row))
        return [fragment[_HEADER_SIZE:] for fragment in self._driver.encode(dealt)]

    def decode(self, strips: dict) -> dict:
        """All data strips, as {position: bytes}, out of any ``data`` of them.

        ``strips`` may also hold the same range of each strip instead of all of it, as long as
        that is whole units.
        """
        missing = [position for position in range(self.data) if position not in strips]
        return {**strips, **self.rebuild(strips, missing)} if missing else strips

    def rebuild(self, strips: dict, wanted) -> dict:
        """The strips at the positions ``wanted`` out of ``data`` others, {position: bytes}."""
        length = len(next(iter(strips.values())))
        headers = self._headers_of(length)
        fragments = [headers[position] + bytes(strip)
                     for position, strip in sorted(strips.items())[:self.data]]
        made = self._driver.reconstruct(fragments, list(wanted))
        return {position: fragment[_HEADER_SIZE:] for position, fragment in zip(wanted, made)}

    def _headers_of(self, length):
        headers = self._headers.get(length)
        if headers is None:
            headers = [fragment[:_HEADER_SIZE]
                       for fragment in self._driver.encode(bytes(length * self.data))]
            if len(self._headers) >= 64:
                self._headers.clear()
            self._headers[length] = headers
        return headers


@functools.lru_cache(maxsize=None)
def code_of(policy: CopyPolicy) -> Code:
    """The code of a policy with parity; raises UnsupportedPolicy."""
    return Code(policy.data, policy.parity)


def check_supported(policy: CopyPolicy):
    """Raises UnsupportedPolicy where objects cannot be kept under ``policy`` here."""
    if policy.is_erasure:
        code_of(policy)
