"""Threads for the work that may have to wait: everything but the fast paths."""

import logging
import queue
import threading

log = logging.getLogger(__name__)


class Workers:
    """Runs submitted calls in threads that are made as they are needed, at most ``limit``."""

    def __init__(self, name, limit):
        self._name = name
        self._limit = limit
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, function, *args):
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, daemon=True,
                                 name="%s-%d" % (self._name, self._threads)).start()
            else:
                # All are busy: the first that is done sees the queue and is not idle.
                self._idle -= 1
        self._queue.put((function, args))

    def _run(self):
        while True:
            function, args = self._queue.get()
            try:
                function(*args)
            except Exception:
                log.exception("%s failed", function)
            with self._lock:
                self._idle += 1
