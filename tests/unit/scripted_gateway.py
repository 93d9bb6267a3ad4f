"""A gateway that does what a test tells it to, for faults that no real one shows on demand."""

import socket
import threading

from sheepstack.client.connection import Connection
from sheepstack.wire.header import HEADER_SIZE, OBJ_REQUEST, OBJ_RESPONSE
from sheepstack.wire.opcodes import Flag

HOST = "127.0.0.1"


class Request:
    """One that arrived, and ways to answer it."""

    def __init__(self, sock, header, payload):
        (_, self.opcode, self.flags, _, self.ident, self.length, self.oid, _, _, _, _, _,
         self.offset, _) = OBJ_REQUEST.unpack(header)
        self.payload = payload
        self.sock = sock

    def encoded(self, data=b"", result=0, skipped=0):
        return OBJ_RESPONSE.pack(
            2, self.opcode, 0, 1, self.ident, len(data), result, 1, skipped) + data

    def answer(self, data=b"", result=0, skipped=0):
        self.sock.sendall(self.encoded(data, result, skipped))

    def hang_up(self):
        self.sock.shutdown(socket.SHUT_RDWR)


def _read(sock, length):
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def receive(sock) -> Request:
    """The next request; raises EOFError."""
    header = _read(sock, HEADER_SIZE)
    length = OBJ_REQUEST.unpack(header)[5]
    written = OBJ_REQUEST.unpack(header)[2] & Flag.WRITE
    return Request(sock, header, _read(sock, length) if written else b"")


class ScriptedGateway:
    """Listens on loopback; ``handle(request)`` is called for each request, one at a time."""

    def __init__(self, handle):
        self.requests = []
        self._handle = handle
        self._sockets = []
        self._listener = socket.create_server((HOST, 0))
        self.address = "%s:%d" % (HOST, self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self):
        """How many were made so far."""
        return len(self._sockets)

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            while True:
                request = receive(sock)
                self.requests.append(request)
                self._handle(request)
        except (EOFError, OSError):
            return

    def close(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for sock in self._sockets:
            sock.close()


def connected_pair(timeout=5.0):
    """A :class:`Connection` and the socket of its other end."""
    ours, theirs = socket.socketpair()
    return Connection(ours, "there", timeout), theirs
