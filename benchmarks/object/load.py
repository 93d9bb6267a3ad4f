"""Requests to an object API from so many connections at a time, timed.

The client shares the processors with the servers that are measured: so it does no more than it
must.  http.client would take a quarter of a millisecond for each request, as much as a fifth of
what some of them cost altogether.
"""

import itertools
import os
import socket
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit


_TIMEOUT = 120
_BUFFER = 1 << 20

#: Bodies that go out in one call with what is in front of them.
_SMALL = 64 << 10


class Measured(NamedTuple):
    """``rate``: requests per second.  ``seconds``: that a request took, the median."""

    rate: float
    seconds: float
    count: int


class _Connection:
    """One that is kept alive.  Bodies are received and forgotten."""

    def __init__(self, address):
        self._socket = socket.create_connection(address, _TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_BUFFER))

    def ask(self, method, target, headers, body) -> int:
        """The status of the answer.  Raises OSError."""
        head = "%s %s HTTP/1.1\r\n%s" % (method, target, headers)
        if body is not None:
            head += "Content-Length: %d\r\n" % len(body)
        head = head.encode() + b"\r\n"
        if body and len(body) <= _SMALL:
            head += body
        self._socket.sendall(head)
        if body and len(body) > _SMALL:
            self._socket.sendall(body)
        received = end = 0
        while not end:
            count = self._socket.recv_into(self._buffer[received:])
            if not count:
                raise ConnectionError("%s %s: closed in the middle of the answer" % (
                    method, target))
            received += count
            end = bytes(self._buffer[:received]).find(b"\r\n\r\n") + 1
        head = bytes(self._buffer[:end]).lower()
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        left = int(length or 0) - (received - end - 3)
        if method != "HEAD":
            while left > 0:
                count = self._socket.recv_into(self._buffer[:left])
                if not count:
                    raise ConnectionError("%s %s: closed in the middle of the body" % (
                        method, target))
                left -= count
        return int(head[9:12])


class Load:
    """Uses one container of its own in the account at ``url``."""

    def __init__(self, url, token):
        self._login = url, token
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._headers = "Host: %s\r\nX-Auth-Token: %s\r\n" % (parts.netloc, token)
        self._container = "%s/bench%s" % (parts.path, os.urandom(4).hex())
        self._local = threading.local()
        self._request("PUT", self._container)

    def _request(self, method, path, body=None):
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self._address)
        status = connection.ask(method, path, self._headers, body)
        if status >= 300:
            raise RuntimeError("%s %s: %d" % (method, path, status))

    def sibling(self):
        """Another one, with a container of its own."""
        return Load(*self._login)

    @property
    def container(self) -> tuple:
        """(account, container)."""
        return tuple(self._container.split("/")[-2:])

    def objects(self, size, connections, seconds):
        """Yields (verb, :class:`Measured`) of PUT, GET, HEAD and DELETE."""
        body = os.urandom(size)
        numbers = itertools.count()
        made = []

        def put():
            path = "%s/%d-%d" % (self._container, size, next(numbers))
            self._request("PUT", path, body)
            made.append(path)

        yield "PUT", self._run(put, connections, seconds)
        for verb in ("GET", "HEAD"):
            turns = itertools.cycle(tuple(made))
            yield verb, self._run(lambda: self._request(verb, next(turns)), connections, seconds)

        def delete():
            try:
                path = made.pop()
            except IndexError:
                return False
            self._request("DELETE", path)

        yield "DELETE", self._run(delete, connections, seconds)
        # Ours has said nothing meanwhile.
        self._local.connection = None
        while made:
            self._request("DELETE", made.pop())

    def listing(self, query, repeats):
        # Servers hang up on who has said nothing while a container was filled.
        self._local.connection = _Connection(self._address)
        times = []
        for _ in range(repeats):
            started = time.monotonic()
            self._request("GET", "%s?%s" % (self._container, query))
            times.append(time.monotonic() - started)
        times.sort()
        return Measured(repeats / sum(times), times[len(times) // 2], repeats)

    def _run(self, action, connections, seconds):
        """Call ``action`` again and again until it returns False or the time is over."""
        until = time.monotonic() + seconds
        times, errors = [], []

        def work():
            try:
                while time.monotonic() < until:
                    started = time.monotonic()
                    if action() is False:
                        return
                    times.append(time.monotonic() - started)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(connections)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - started
        if errors:
            raise errors[0]
        times.sort()
        return Measured(len(times) / elapsed, times[len(times) // 2] if times else 0.0, len(times))
