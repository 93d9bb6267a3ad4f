"""Threads for what a future cannot do by itself, started when first needed."""

import queue
import threading


class Workers:
    """Runs ``task.work()`` of each task; at most ``limit`` at a time."""

    def __init__(self, limit):
        self._limit = limit
        self._tasks = queue.Queue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def put(self, task):
        with self._lock:
            grow = self._idle == 0 and self._threads < self._limit
            if grow:
                self._threads += 1
            elif self._idle:
                self._idle -= 1
            self._tasks.put(task)
        if grow:
            threading.Thread(target=self._run, daemon=True, name="sheep-io").start()

    def _run(self):
        while True:
            task = self._tasks.get()
            if task is None:
                return
            task.work()
            with self._lock:
                self._idle += 1

    def close(self):
        """Let the threads end once all tasks are done."""
        with self._lock:
            for _ in range(self._threads):
                self._tasks.put(None)
            self._threads = self._idle = 0
