"""Copies between a VDI and files that skip zeros and have several objects in flight."""

import collections

from sheepstack.client.splitting import pieces

#: Objects in flight.
_DEPTH = 4
_STEP = 64 * 1024
_ZERO_STEP = bytes(_STEP)


def nonzero_span(data: bytes):
    """(start, end) outside of which ``data`` is zero, in steps of 64 KiB; (0, 0) if all is."""
    length = len(data)
    start = 0
    while start < length and _zero_at(data, start, min(_STEP, length - start)):
        start += _STEP
    if start >= length:
        return 0, 0
    end = length
    while end > start:
        size = end % _STEP or _STEP
        if not _zero_at(data, end - size, size):
            break
        end -= size
    return start, end


def _zero_at(data, position, length):
    return data.startswith(_ZERO_STEP[:length] if length != _STEP else _ZERO_STEP, position)


def _read_full(source, length):
    """``length`` bytes of a file, fewer only where it ends."""
    data = source.read(length)
    if not data or len(data) == length:
        return bytes(data or b"")
    parts = [data]
    missing = length - len(data)
    while missing:
        data = source.read(missing)
        if not data:
            break
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def copy_in(vdi, source, offset=0, length=None, progress=None) -> int:
    """Write what ``source.read(size)`` gives into the VDI from ``offset`` on; the bytes read.

    It ends at the source's end or after ``length`` bytes.  Zeros are not stored: what is a
    hole stays one, and where data was, its objects are given back.  ``progress(bytes)`` is
    called with the sum so far.  Raises ValueError where the source has more than the VDI has
    room for.
    """
    room = vdi.size - offset
    wanted = room if length is None else length
    if not 0 <= wanted <= room:
        raise ValueError("%d bytes at %d reach beyond the end of VDI '%s'"
                         % (wanted, offset, vdi.name))
    flying = collections.deque()
    done = 0
    try:
        for position, size in pieces(offset, wanted, vdi.block_size):
            data = _read_full(source, size)
            if data:
                future = _store(vdi, position, data)
                if future is not None:
                    flying.append(future)
            while len(flying) >= _DEPTH:
                flying.popleft().result()
            done += len(data)
            if data and progress is not None:
                progress(done)
            if len(data) < size:
                break
        else:
            if length is None and source.read(1):
                raise ValueError("the source has more than the %d bytes that VDI '%s' has room "
                                 "for" % (room, vdi.name))
        while flying:
            flying.popleft().result()
    finally:
        for future in flying:
            future.exception()
    return done


def _store(vdi, position, data):
    """Start to write ``data``, which lies in one object; None where nothing is to be done."""
    start, end = nonzero_span(data)
    is_hole = not vdi.extents(position, len(data))[0][2]
    if start == end:
        if not is_hole:
            vdi.write_zeroes(position, len(data))
        return None
    if not is_hole:
        start, end = 0, len(data)
    return vdi.submit_pwrite(position + start, memoryview(data)[start:end])


def copy_out(vdi, target, offset=0, length=None, progress=None, sparse=True) -> int:
    """Write the VDI's content from ``offset`` on to ``target.write``; how many bytes.

    Holes, and objects full of zeros, are skipped where ``sparse`` and the target can seek; it
    must have no data there then.  ``progress(bytes)`` is called with the sum so far.
    """
    room = max(0, vdi.size - offset)
    wanted = room if length is None else min(length, room)
    sparse = sparse and getattr(target, "seekable", bool)()
    origin = target.tell() if sparse else 0
    flying = collections.deque()
    done = 0
    hole_at_end = False

    def put():
        nonlocal done, hole_at_end
        future, size = flying.popleft()
        data = bytes(size) if future is None else future.result()
        hole_at_end = sparse and (future is None or nonzero_span(data) == (0, 0))
        if hole_at_end:
            target.seek(size, 1)
        else:
            _write_full(target, data)
        done += size
        if progress is not None:
            progress(done)

    try:
        for position, size, is_data in vdi.extents(offset, wanted):
            for start, piece in pieces(position, size, vdi.block_size):
                flying.append((vdi.submit_pread(start, piece) if is_data else None, piece))
                while len(flying) > _DEPTH:
                    put()
        while flying:
            put()
    finally:
        for future, _ in flying:
            if future is not None:
                future.exception()
    if hole_at_end:
        target.truncate(origin + done)
    return done


def _write_full(target, data):
    view = memoryview(data)
    while view:
        count = target.write(view)
        if count is None:
            # Not every file says; buffered ones take all.
            return
        view = view[count:]
