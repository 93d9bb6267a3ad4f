"""Threads that finish what a durable store promised."""

import logging
import threading
from collections import deque

_LOG = logging.getLogger(__name__)


def call_all(callbacks, error):
    """Calls each of ``callbacks`` with ``error``, even where one of them fails."""
    for callback in callbacks:
        try:
            callback(error)
        except Exception:
            _LOG.exception("a callback failed")


class Workers:
    """Runs jobs, callables without arguments, in up to ``limit`` threads in order of arrival.

    Threads start when there is work for them.  With one thread it is what calls the
    ``done`` callbacks: outside all locks, and apart from the thread that flushes the
    journal, so that a callback may wait for a flush.
    """

    def __init__(self, name, limit):
        self._name = name
        self._limit = limit
        self._jobs = deque()
        self._changed = threading.Condition()
        self._threads = set()
        self._started = 0
        self._resting = 0
        self._closed = False

    def put(self, *jobs):
        """Adds jobs.  Those put after close() are run too, by new threads."""
        with self._changed:
            self._jobs.extend(jobs)
            if self._resting:
                self._changed.notify(len(jobs))
            if len(self._jobs) > self._resting and len(self._threads) < self._limit:
                self._started += 1
                thread = threading.Thread(
                    target=self._run, name="%s-%d" % (self._name, self._started), daemon=True)
                self._threads.add(thread)
                thread.start()

    def _run(self):
        while True:
            with self._changed:
                while not self._jobs:
                    if self._closed:
                        self._threads.discard(threading.current_thread())
                        return
                    self._resting += 1
                    self._changed.wait()
                    self._resting -= 1
                job = self._jobs.popleft()
            try:
                job()
            except Exception:
                _LOG.exception("%s: a callback failed", self._name)
            job = None

    def close(self):
        """Waits until all jobs are done and the threads gone; from any thread but those."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()
