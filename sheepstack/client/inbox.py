"""The receiving half of a connection: bytes from a socket, cut into answers.

Small answers are parsed from one buffer, many from one system call; the payload of a large
one is received where it will stay.
"""

from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import HEADER_SIZE, OBJ_RESPONSE

BUFFER_SIZE = 256 * 1024

#: A payload that is not complete yet is received into its sink if it has more bytes.
_LARGE = 32 * 1024

_unpack = OBJ_RESPONSE.unpack_from


class Inbox:
    """Finds the call that each answer belongs to in ``calls``, a dict by id, and removes it.

    ``source`` has ``recv_into``.  ``on_tick`` is called when the source gives up waiting
    (TimeoutError) within a large payload; it may raise to end that.
    """

    def __init__(self, source, calls, on_tick):
        self._source = source
        self._calls = calls
        self._on_tick = on_tick
        self._buffer = bytearray(BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._postponed = False
        #: Bytes received so far.
        self.taken = 0

    def receive(self) -> list:
        """Wait for bytes once; the calls that are complete now, maybe none.

        Raises RemoteProtocolError, OSError, EOFError where the stream ended, and
        TimeoutError as the source does.
        """
        if self._postponed:
            self._postponed = False
            return [self._receive_large()]
        start, end = self._start, self._end
        if start == end:
            start = end = 0
        elif end == BUFFER_SIZE:
            end -= start
            self._buffer[:end] = self._buffer[start:]
            start = 0
        self._start, self._end = start, end
        received = self._source.recv_into(self._view[end:] if end else self._view)
        if not received:
            raise EOFError("the other side closed the connection")
        self._end = end + received
        self.taken += received
        return self._parse()

    def _parse(self):
        calls, buffer, view = self._calls, self._buffer, self._view
        start, end = self._start, self._end
        complete = []
        while end - start >= HEADER_SIZE:
            _, _, _, _, ident, length, result, _, skipped = _unpack(buffer, start)
            call = calls.get(ident)
            if call is None:
                raise RemoteProtocolError("an answer to a request that nobody sent")
            if length > call.limit:
                raise RemoteProtocolError("an answer of %d bytes" % length)
            body = start + HEADER_SIZE
            stop = body + length
            if stop <= end:
                if call.keeps_header:
                    call.response = bytes(view[start:body])
                call.accept(result, skipped, view[body:stop])
                del calls[ident]
                complete.append(call)
                start = stop
            elif length > _LARGE:
                self._start = start
                if complete:
                    # Let those be used while this one arrives.
                    self._postponed = True
                else:
                    complete.append(self._receive_large())
                return complete
            else:
                break
        self._start = start
        return complete

    def _receive_large(self):
        start = self._start
        _, _, _, _, ident, length, result, _, skipped = _unpack(self._buffer, start)
        call = self._calls[ident]
        body = start + HEADER_SIZE
        if call.keeps_header:
            call.response = bytes(self._view[start:body])
        have = self._end - body
        with call.open_sink(result, skipped, length) as sink:
            sink[:have] = self._view[body:self._end]
            self._start = self._end = 0
            while have < length:
                try:
                    received = self._source.recv_into(sink[have:])
                except TimeoutError:
                    self._on_tick()
                    continue
                if not received:
                    raise EOFError("the connection ended in the middle of an answer")
                have += received
                self.taken += received
        call.close_sink()
        del self._calls[ident]
        return call
