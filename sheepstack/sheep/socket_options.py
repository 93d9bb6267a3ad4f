"""Sockets made the way that all of the daemon's are."""

import socket

_BUFFER = 1 << 20


def tune(sock):
    """No delay for small messages, room for whole objects, an end for dead peers."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def connect(address, timeout):
    """A tuned TCP connection to ``(host, port)``; raises OSError."""
    sock = socket.create_connection(address, timeout)
    tune(sock)
    return sock


def listen_tcp(host, port, backlog=512):
    """A listening socket; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def listen_unix(path, backlog=512):
    """A listening Unix socket at ``path``, in place of what an earlier run left there."""
    import os

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path):
            os.unlink(path)
        # Paths of more than 107 bytes do not fit into an address; a relative one may.
        sock.bind(path)
        os.chmod(path, 0o660)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock
