"""The sending half of a connection: buffers that leave in few system calls, uncopied."""

#: The kernel takes at most 1,024 buffers at a time.
_IOV_LIMIT = 512


def rest_of(buffers, sent):
    """What is left of a list of bytes-like ``buffers`` when ``sent`` bytes of it are gone."""
    for position, buffer in enumerate(buffers):
        length = len(buffer)
        if sent < length:
            rest = buffers[position:]
            if sent:
                rest[0] = memoryview(buffer)[sent:]
            return rest
        sent -= length
    return []


def send_all(sock, buffers, on_progress, on_tick):
    """Send a list of non-empty bytes-like buffers.

    ``on_progress`` is called each time that the peer made room for more.  ``on_tick`` is called
    when ``sock`` gives up waiting for that (TimeoutError); it may raise to end it.  Raises
    OSError.
    """
    was_full = False
    while buffers:
        try:
            try:
                sent = sock.sendmsg(buffers if len(buffers) <= _IOV_LIMIT
                                    else buffers[:_IOV_LIMIT])
            except BlockingIOError:
                # A green socket: its send() waits, its sendmsg() does not.
                sent = sock.send(buffers[0])
        except TimeoutError:
            on_tick()
            was_full = True
            continue
        if was_full:
            on_progress()
        buffers = rest_of(buffers, sent)
        was_full = bool(buffers)
