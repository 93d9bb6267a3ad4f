"""Copies into a VDI, also from another cluster: several objects in flight, holes stay holes."""

import collections

from sheepstack.client.splitting import pieces

_DEPTH = 4


def copy(source, target, ranges=None, compare=False, progress=None) -> int:
    """Make ``target`` equal to ``source`` in ``ranges`` [(offset, length)...], or all over.

    Both are open VDIs; ``target`` is at least as large.  ``compare``: read what ``target`` has,
    and write only what differs.  ``progress()`` is called for each object, and what it raises
    ends it all.  Returns how many bytes were written.
    """
    if ranges is None:
        ranges = [(0, source.size)]
    flying = collections.deque()
    with Writer(target, compare) as writer:
        try:
            for offset, length in ranges:
                for start, size, is_data in source.extents(offset, length):
                    if not is_data:
                        target.write_zeroes(start, size)
                        continue
                    for position, piece in pieces(start, size, source.block_size):
                        flying.append((position, source.submit_pread(position, piece)))
                        if len(flying) > _DEPTH:
                            _pass_on(flying, writer, progress)
            while flying:
                _pass_on(flying, writer, progress)
        finally:
            for _, future in flying:
                future.exception()
    return writer.written


def _pass_on(flying, writer, progress):
    position, future = flying.popleft()
    writer.put(position, future.result())
    if progress is not None:
        progress()


class Writer:
    """Writes into an open VDI, some objects at a time; to be used as a context manager.

    ``written``: bytes so far.  What a write raises comes out of a later call, or at the end.
    """

    def __init__(self, vdi, compare=False):
        self.written = 0
        self._vdi = vdi
        self._compare = compare
        self._flying = collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc_info):
        if kind is None:
            self._settle(0)
            self._vdi.flush()
        else:
            for future in self._flying:
                future.exception()

    def put(self, position, data):
        """Write ``data``, which lies in one object; zeros become a hole."""
        has_data = any(is_data for _, _, is_data in self._vdi.extents(position, len(data)))
        if has_data and self._compare and self._vdi.pread(position, len(data)) == data:
            return
        if any(data):
            self._flying.append(self._vdi.submit_pwrite(position, data))
            self.written += len(data)
            self._settle(_DEPTH)
        elif has_data:
            self._vdi.write_zeroes(position, len(data))

    def _settle(self, most):
        while len(self._flying) > most:
            self._flying.popleft().result()
