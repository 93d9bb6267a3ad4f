"""The bytes of an image on their way out, read ahead."""

import collections

#: Objects that are read ahead.
_DEPTH = 4
_ZEROS = bytes(1 << 20)


def stream(vdi, offset, length):
    """Yield the ``length`` bytes from ``offset`` on in pieces; closes ``vdi`` in the end."""
    flying = collections.deque()
    try:
        for position, size, is_data in vdi.extents(offset, length):
            if not is_data:
                flying.append((None, size))
                continue
            for start, piece in _pieces(position, size, vdi.block_size):
                flying.append((vdi.submit_pread(start, piece), piece))
                while len(flying) > _DEPTH:
                    yield from _arrived(*flying.popleft())
        while flying:
            yield from _arrived(*flying.popleft())
    finally:
        for future, _ in flying:
            if future is not None:
                future.exception()
        vdi.close()


def _arrived(future, size):
    if future is not None:
        yield future.result()
        return
    while size:
        piece = _ZEROS[:size]
        yield piece
        size -= len(piece)


def _pieces(offset, length, unit):
    """(position, length) of a range's pieces, cut at multiples of ``unit``."""
    end = offset + length
    while offset < end:
        size = min(end - offset, unit - offset % unit)
        yield offset, size
        offset += size
