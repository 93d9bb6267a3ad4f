"""Accepting connections."""

import errno
import logging
import socket
import threading
from functools import partial

from sheepstack.sheep.connection import Connection
from sheepstack.sheep.socket_options import tune

log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 4096


class Listener:
    """``sock`` listens already; ``dispatch`` and ``admission`` go to each connection, whose
    requests ``receiver`` takes in."""

    def __init__(self, sock, dispatch, admission, receiver):
        self._receiver = receiver
        self._sock = sock
        self._dispatch = dispatch
        self._admission = admission
        self._stopping = False
        self._open = {}
        self._lock = threading.Lock()

    def start(self):
        threading.Thread(target=self._accept, daemon=True, name="accept").start()

    def stop(self):
        self._stopping = True
        _shut(self._sock)
        self._sock.close()
        self.drop_connections()

    def drop_connections(self):
        """End all connections there are; what came on them is not answered any more."""
        with self._lock:
            connections = dict(self._open)
        for sock, connection in connections.items():
            connection.gone = True
            _shut(sock)

    def _accept(self):
        while not self._stopping:
            try:
                sock, address = self._sock.accept()
            except OSError as error:
                if self._stopping:
                    return
                # Out of descriptors: those we have will be closed again some time.
                log.error("accept: %s", error)
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED,
                                       errno.EINTR, errno.ENOBUFS, errno.ENOMEM):
                    return
                threading.Event().wait(0.1)
                continue
            with self._lock:
                if len(self._open) >= _MAX_CONNECTIONS:
                    log.warning("more than %d connections: refused", _MAX_CONNECTIONS)
                    sock.close()
                    continue
            source = None if self._sock.family == socket.AF_UNIX else address[0]
            connection = Connection(
                sock, source, self._dispatch, self._admission, partial(self._forget, sock))
            with self._lock:
                self._open[sock] = connection
            try:
                tune(sock)
                self._receiver.serve(sock, connection)
            except OSError as error:
                log.debug("%s: %s", source, error)
                self._forget(sock)
                sock.close()

    def _forget(self, sock):
        with self._lock:
            self._open.pop(sock, None)


def _shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
