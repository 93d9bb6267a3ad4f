"""The bytes of an image on their way out, read ahead."""

import collections

from sheepstack.client.splitting import pieces

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
            for start, piece in pieces(position, size, vdi.block_size):
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
