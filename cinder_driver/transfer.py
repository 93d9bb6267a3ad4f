"""Copies from VDI to VDI, also of two clusters: several objects in flight, holes stay holes."""

import collections

_DEPTH = 4


def copy(source, target, ranges=None) -> int:
    """Make ``target`` equal to ``source`` in ``ranges`` [(offset, length)...], or all over.

    Both are open VDIs; ``target`` is at least as large.  Returns how many bytes were written.
    """
    if ranges is None:
        ranges = [(0, source.size)]
    flying = collections.deque()
    written = 0
    try:
        for offset, length in ranges:
            for start, size, is_data in source.extents(offset, length):
                if not is_data:
                    target.write_zeroes(start, size)
                    continue
                for position, piece in _pieces(start, size, source.block_size):
                    flying.append((position, source.submit_pread(position, piece)))
                    if len(flying) > _DEPTH:
                        written += _put(target, *flying.popleft())
        while flying:
            written += _put(target, *flying.popleft())
    finally:
        for _, future in flying:
            future.exception()
        target.flush()
    return written


def _put(target, position, future):
    data = future.result()
    if any(extent[2] for extent in target.extents(position, len(data))) or any(data):
        # What is over there may be of an attempt that did not come to its end.
        if not any(data):
            target.write_zeroes(position, len(data))
            return 0
        target.submit_pwrite(position, data)
        return len(data)
    return 0


def _pieces(offset, length, unit):
    end = offset + length
    while offset < end:
        size = min(end - offset, unit - offset % unit)
        yield offset, size
        offset += size
