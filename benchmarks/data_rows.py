"""Rows of reads and writes of one size at one depth."""

from typing import NamedTuple

KIB = 1 << 10
MIB = 1 << 20
OBJECT = 4 * MIB

#: Size in bytes and depth: how many requests are on their way at a time.
SHAPES = ((4 * KIB, 1), (4 * KIB, 32), (64 * KIB, 1), (64 * KIB, 8), (64 * KIB, 32),
          (4 * MIB, 1), (4 * MIB, 4))

_FIRST_COUNT = {True: 8, False: 64}


class DataRow(NamedTuple):
    """``step``: bytes from the beginning of one request to that of the next."""

    write: bool
    size: int
    depth: int
    step: int

    @property
    def name(self) -> str:
        size = "%d %s" % ((self.size // MIB, "MiB") if self.size >= MIB
                          else (self.size // KIB, "KiB"))
        return "%s %s, depth %d" % (size, "write" if self.write else "read", self.depth)

    def offsets(self, span, count):
        """Where in a VDI of ``span`` bytes the first ``count`` requests go."""
        offset = 0
        for _ in range(count):
            if offset + self.size > span:
                offset %= OBJECT
                if offset + self.size > span:
                    offset = 0
            yield offset
            offset += self.step


def data_rows(in_order=False) -> list:
    """All rows.

    The requests of a row go to one object after the other, because QEMU's driver has only
    one at a time on its way to an object.  ``in_order`` has them follow one another without a
    gap instead, as ``qemu-img bench`` does when nobody tells it.
    """
    return [DataRow(write, size, depth, size if in_order or size >= OBJECT else OBJECT + size)
            for write in (True, False) for size, depth in SHAPES]


def requests_for(row, seconds, run) -> int:
    """How many requests of ``row`` take about so many seconds; warms up what it runs on.

    ``run(count)``: carries out so many, and gives the seconds that they took.
    """
    count = _FIRST_COUNT[row.size >= MIB]
    while True:
        took = run(count)
        if took > seconds / 4:
            return max(1, int(count * seconds / took))
        count *= 4
