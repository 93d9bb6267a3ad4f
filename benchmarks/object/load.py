"""Requests to an object API from so many connections at a time, timed."""

import http.client
import itertools
import os
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit


class Measured(NamedTuple):
    """``rate``: requests per second.  ``seconds``: that a request took, the median."""

    rate: float
    seconds: float
    count: int


class Load:
    """Uses one container of its own in the account at ``url``."""

    def __init__(self, url, token):
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._headers = {"X-Auth-Token": token}
        self._container = "%s/bench%s" % (parts.path, os.urandom(4).hex())
        self._local = threading.local()
        self._request("PUT", self._container)

    def _request(self, method, path, body=None):
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(
                *self._address, timeout=120)
        connection.request(method, path, body=body, headers=self._headers)
        answer = connection.getresponse()
        while answer.read(1 << 20):
            pass
        if answer.status >= 300:
            raise RuntimeError("%s %s: %d" % (method, path, answer.status))

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
        while made:
            self._request("DELETE", made.pop())

    def fill(self, names, connections):
        """PUT empty objects of these names."""
        waiting = iter(names)
        lock = threading.Lock()

        def put():
            with lock:
                name = next(waiting, None)
            if name is None:
                return False
            self._request("PUT", "%s/%s" % (self._container, name), b"")
        self._run(put, connections, 86400)

    def listing(self, query, repeats):
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
