"""The receiving half of a connection: bytes from a socket, cut into messages.

Small messages are parsed from one big buffer, many from one system call.  The payload of a
large one is received where it will stay.
"""

import socket

from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import COMMON, HEADER_SIZE

_BUFFER_SIZE = 256 * 1024


class Inlet:
    """Yields ``(fields, header, payload)`` from a socket.

    ``fields`` are the six of :data:`sheepstack.wire.header.COMMON`, ``header`` the 48 bytes,
    ``payload`` a bytearray or empty bytes.  ``payload_length(fields)`` says how many bytes
    follow a header and raises :class:`RemoteProtocolError` where it cannot be right.
    ``blocking``: whether to wait for bytes where there are none.
    """

    def __init__(self, sock, payload_length, blocking):
        self._sock = sock
        self._payload_length = payload_length
        self._flags = 0 if blocking else socket.MSG_DONTWAIT
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._large = None
        self._missing = None

    def receive(self):
        """List of the messages that came; None at the end of the stream.

        Waits until there is one, if it may; otherwise the list can be empty.  Raises
        RemoteProtocolError and OSError.
        """
        while True:
            if self._large is not None:
                messages = self._fill()
            else:
                messages = self._read()
            if messages or messages is None or self._flags:
                return messages

    def _read(self):
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _BUFFER_SIZE:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start:self._end]
            self._start, self._end = 0, rest
        try:
            received = self._sock.recv_into(self._view[self._end:], 0, self._flags)
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
                payload = bytearray(length)
                view = memoryview(payload)
                view[:end - body] = self._view[body:end]
                self._large = (fields, bytes(self._view[start:body]), payload)
                self._missing = view[end - body:]
                start = end
            break
        self._start = start
        return messages

    def _fill(self):
        """More of a payload that does not fit into the buffer."""
        while self._missing:
            try:
                received = self._sock.recv_into(self._missing, 0, self._flags)
            except (BlockingIOError, InterruptedError):
                return []
            if not received:
                raise RemoteProtocolError("the connection ended in a payload")
            self._missing = self._missing[received:]
        message, self._large, self._missing = self._large, None, None
        return [message]
