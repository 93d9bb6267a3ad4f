"""The bytes of an image on their way out, read ahead."""

import collections

from sheepstack.client.splitting import pieces

#: Objects that are read ahead.
_DEPTH = 4
_ZEROS = bytes(1 << 20)


def stream(vdi, offset, length):
    """Yield the ``length`` bytes from ``offset`` on in pieces; closes ``vdi`` in the end.

    What is at hand goes out before more is asked for, so that it is sent while it is still in
    the processor's cache, and the first piece is not held up by those after it.
    """
    flying = collections.deque()
    try:
        for position, size, is_data in vdi.extents(offset, length):
            for start, piece in pieces(position, size, vdi.block_size if is_data else size):
                flying.append((vdi.submit_pread(start, piece) if is_data else None, piece))
                if len(flying) > _DEPTH or _is_at_hand(flying[0][0]):
                    yield from _arrived(*flying.popleft())
        while flying:
            yield from _arrived(*flying.popleft())
    finally:
        for future, _ in flying:
            if future is not None:
                future.exception()
        vdi.close()


def _is_at_hand(future):
    return future is None or future.done()


def _arrived(future, size):
    if future is not None:
        yield future.result()
        return
    while size:
        piece = _ZEROS[:size]
        yield piece
        size -= len(piece)
