"""A filter for the pipeline of a worker under test: do its requests leave others their turn?

A request with the header ``X-Watch`` is watched.  While it is answered, another greenlet asks for
its turn again and again; ``GET /turns`` tells of the last such request, as JSON:

turns
    that the other greenlet got.
bytes
    of the body, in or out, that were moved at most between two of them.
seconds
    of processor time that the thread of all greenlets took at most between two of them.
"""

import json
import time

import eventlet
from swift.common.swob import Request, Response


class Turns:
    def __init__(self, app):
        self._app = app
        self._last = None

    def __call__(self, environ, start_response):
        if environ.get("PATH_INFO") == "/turns":
            return Response(request=Request(environ), content_type="application/json",
                            body=json.dumps(self._last.told()).encode())(environ, start_response)
        if "HTTP_X_WATCH" not in environ:
            return self._app(environ, start_response)
        self._last = watch = _Watch()
        environ["wsgi.input"] = _Input(environ["wsgi.input"], watch)
        return watch.pieces(self._app(environ, start_response))


class _Watch:
    def __init__(self):
        self._turns = self._bytes = self._most_bytes = 0
        self._most_seconds = 0.0
        self._used = time.thread_time()
        self._other = eventlet.spawn(self._ask)

    def _ask(self):
        while True:
            used = time.thread_time()
            self._most_seconds = max(self._most_seconds, used - self._used)
            self._used = used
            self._turns += 1
            self._bytes = 0
            eventlet.sleep(0)

    def count(self, length):
        self._bytes += length
        self._most_bytes = max(self._most_bytes, self._bytes)

    def pieces(self, body):
        try:
            for piece in body:
                self.count(len(piece))
                yield piece
        finally:
            self._other.kill()
            if hasattr(body, "close"):
                body.close()

    def told(self):
        return {"turns": self._turns, "bytes": self._most_bytes, "seconds": self._most_seconds}


class _Input:
    """Stands for the body of a request."""

    def __init__(self, source, watch):
        self._source = source
        self._watch = watch

    def __getattr__(self, name):
        return getattr(self._source, name)

    def read(self, *args):
        data = self._source.read(*args)
        self._watch.count(len(data))
        return data


def filter_factory(global_conf, **local_conf):
    """For paste: ``use = call:tests.swift.turns:filter_factory``."""
    return Turns
