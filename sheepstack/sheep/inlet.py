"""The receiving half of a connection: bytes from a socket, cut into messages.

Small messages are parsed from one big buffer, many from one system call.  The payload of a
large one is received where it will stay.
"""

from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import COMMON, HEADER_SIZE

_BUFFER_SIZE = 256 * 1024


class Inlet:
    """Yields ``(fields, header, payload)`` from ``recv_into``, a socket's method.

    ``fields`` are the six of :data:`sheepstack.wire.header.COMMON`, ``header`` the 48 bytes,
    ``payload`` a bytearray or empty bytes.  ``payload_length(fields)`` says how many bytes
    follow a header and raises :class:`RemoteProtocolError` where it cannot be right.
    """

    def __init__(self, sock, payload_length):
        self._sock = sock
        self._payload_length = payload_length
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def receive(self):
        """List of the messages that one call to the kernel completed; [] at end of file.

        Raises RemoteProtocolError and OSError.
        """
        while True:
            if self._start == self._end:
                self._start = self._end = 0
            elif self._end == _BUFFER_SIZE:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start:self._end]
                self._start, self._end = 0, rest
            received = self._sock.recv_into(self._view[self._end:])
            if not received:
                if self._start != self._end:
                    raise RemoteProtocolError("the connection ended in a message")
                return []
            self._end += received
            messages = self._parse()
            if messages:
                return messages

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
            if messages or body + length <= _BUFFER_SIZE:
                # Answer what is complete first; a small rest is waited for in the buffer.
                break
            payload = bytearray(length)
            view = memoryview(payload)
            have = end - body
            view[:have] = self._view[body:end]
            header = bytes(self._view[start:body])
            start = end
            self._fill(view[have:])
            messages.append((fields, header, payload))
            break
        self._start = start
        return messages

    def _fill(self, view):
        while view:
            received = self._sock.recv_into(view)
            if not received:
                raise RemoteProtocolError("the connection ended in a payload")
            view = view[received:]
