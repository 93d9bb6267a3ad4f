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


def in_lanes(function, items, lanes):
    """Call ``function(item)`` for each of ``items`` in at most ``lanes`` threads, and wait.

    Raises the first exception that a call raised; items not begun by then are left out.
    """
    items = list(items)
    queued, take, errors = iter(items), threading.Lock(), []

    def lane():
        while not errors:
            with take:
                item = next(queued, None)
            if item is None:
                return
            try:
                function(item)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=lane, daemon=True)
               for _ in range(min(lanes, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
