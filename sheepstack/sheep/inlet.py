"""The receiving half of a connection: bytes from a socket, cut into messages.

Small messages are parsed from one big buffer, many from one system call.  The payload of a
large one is received where it will stay.
"""

import socket
import threading

from sheepstack import runtime
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import COMMON, HEADER_SIZE

_BUFFER_SIZE = 256 * 1024
#: Memory is given to payloads as soon as they are announced, while all of those that have not
#: arrived yet take no more than this; beyond that as their bytes arrive.
_ADVANCE = 256 << 20
_FIRST_PIECE = 64 * 1024
_NOW = int(socket.MSG_DONTWAIT)


class Inlet:
    """Yields ``(fields, header, payload)`` from a socket.

    ``fields`` are the six of :data:`sheepstack.wire.header.COMMON`, ``header`` the 48 bytes,
    ``payload`` a bytearray or empty bytes.  ``payload_length(fields)`` says how many bytes
    follow a header and raises :class:`RemoteProtocolError` where it cannot be right.
    """

    def __init__(self, sock, payload_length):
        self._receive_into = runtime.bare_socket(sock).recv_into
        self._payload_length = payload_length
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._large = None
        self._payload = None

    def receive(self):
        """List of the messages that came, perhaps none; None at the end of the stream.

        Never waits.  Raises RemoteProtocolError and OSError.
        """
        return self._read() if self._large is None else self._fill()

    def _read(self):
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _BUFFER_SIZE:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start:self._end]
            self._start, self._end = 0, rest
        try:
            received = self._receive_into(self._view[self._end:], 0, _NOW)
        except (BlockingIOError, InterruptedError):
            return []
        if not received:
            if self._start != self._end:
                raise RemoteProtocolError("the connection ended in a message")
            return None
        self._end += received
        return self._parse()

    def _parse(self):
        messages = []
        buffer, start, end = self._buffer, self._start, self._end
        while end - start >= HEADER_SIZE:
            fields = COMMON.unpack_from(buffer, start)
            length = self._payload_length(fields)
            body = start + HEADER_SIZE
            if length == 0:
                messages.append((fields, bytes(self._view[start:body]), b""))
                start = body
                continue
            if end - body >= length:
                messages.append((fields, bytes(self._view[start:body]),
                                 bytearray(self._view[body:body + length])))
                start = body + length
                continue
            if body + length - start > _BUFFER_SIZE:
                self._large = (fields, bytes(self._view[start:body]))
                self._payload = _Payload(length, self._view[body:end])
                start = end
            break
        self._start = start
        return messages

    def _fill(self):
        """More of a payload that does not fit into the buffer."""
        payload = self._payload
        while payload.missing:
            try:
                received = self._receive_into(payload.room(), 0, _NOW)
            except (BlockingIOError, InterruptedError):
                return []
            if not received:
                raise RemoteProtocolError("the connection ended in a payload")
            payload.missing -= received
        message = (*self._large, payload.take())
        self._large = self._payload = None
        return [message]


class _Payload:
    """A payload of ``length`` bytes that arrives; ``begun`` is what has arrived of it."""

    _lock = threading.Lock()
    _announced = 0

    def __init__(self, length, begun):
        self._length = length
        self.missing = length - len(begun)
        with _Payload._lock:
            _Payload._announced += length
            at_once = _Payload._announced <= _ADVANCE
        self._bytes = bytearray(length if at_once else max(_FIRST_PIECE, len(begun)))
        self._bytes[:len(begun)] = begun
        self._view = None

    def __del__(self):
        with _Payload._lock:
            _Payload._announced -= self._length

    def room(self):
        """Where the next bytes belong."""
        at = self._length - self.missing
        if at == len(self._bytes):
            self._view = None
            self._bytes.extend(bytes(min(at, self.missing)))
        if self._view is None:
            self._view = memoryview(self._bytes)
        return self._view[at:]

    def take(self) -> bytearray:
        self._view = None
        return self._bytes
