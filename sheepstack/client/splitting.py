"""How a range of a VDI falls onto its data objects."""

from typing import NamedTuple


class Part(NamedTuple):
    """``length`` bytes at ``within`` of data object ``index``; they are at ``start`` of the
    range that was split."""

    index: int
    within: int
    length: int
    start: int


def split(offset: int, length: int, shift: int):
    """Yields the :class:`Part` of each object that the range touches, in order.

    Objects have ``1 << shift`` bytes.
    """
    start = 0
    while start < length:
        position = offset + start
        within = position & ((1 << shift) - 1)
        piece = min(length - start, (1 << shift) - within)
        yield Part(position >> shift, within, piece, start)
        start += piece


def pieces(offset: int, length: int, unit: int):
    """(position, length) of the pieces of a range, cut at multiples of ``unit``, in order."""
    end = offset + length
    while offset < end:
        piece = min(end - offset, unit - offset % unit)
        yield offset, piece
        offset += piece


def runs(indexes, limit: int):
    """Consecutive numbers of the sorted sequence ``indexes`` as pairs (first, count).

    No count is above ``limit``.
    """
    first = None
    count = 0
    for index in indexes:
        if first is not None and index == first + count and count < limit:
            count += 1
            continue
        if first is not None:
            yield first, count
        first, count = index, 1
    if first is not None:
        yield first, count
