"""Gateway addresses as people write them."""

import socket
from typing import NamedTuple

from sheepstack.wire.opcodes import LISTEN_PORT


class GatewayAddress(NamedTuple):
    """Where a sheep listens: ``path`` of its Unix socket, or ``host`` and ``port``."""

    host: str = ""
    port: int = LISTEN_PORT
    path: str = ""

    def __str__(self):
        if self.path:
            return "unix:" + self.path
        return ("[%s]:%d" if ":" in self.host else "%s:%d") % (self.host, self.port)

    def connect(self, timeout: float) -> socket.socket:
        """A connected socket that waits at most ``timeout`` seconds; raises OSError."""
        if not self.path:
            sock = socket.create_connection((self.host, self.port), timeout)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                sock.close()
                raise
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock


def parse(text: str, default_port: int = LISTEN_PORT) -> GatewayAddress:
    """``host``, ``host:port``, ``[v6]:port``, a bare IPv6 address or ``unix:/path``.

    ``default_port``: of a text that names none.  Raises ValueError with a reason.
    """
    if text.startswith("unix:"):
        path = text[len("unix:"):]
        if not path:
            raise ValueError("'%s' names no socket: write unix:/path" % text)
        return GatewayAddress(path=path)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("'%s' is no address: write [host]:port" % text)
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, port = text.partition(":")
        if not colon:
            port = None
    if not host:
        raise ValueError("'%s' names no host" % text)
    if port is None:
        return GatewayAddress(host, default_port)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("'%s' is no port number" % port)
    return GatewayAddress(host, int(port))
