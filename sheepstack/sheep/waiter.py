"""Waiting for the store."""

import threading


class Waiter:
    """A callback of the store that can be waited for."""

    def __init__(self, used=True):
        self._done = threading.Event()
        self._error = None
        self.used = used

    def __call__(self, error):
        self._error = error
        self._done.set()

    def wait(self):
        """Raises the store's error.  Where the callback was never passed on, returns."""
        if not self.used:
            return
        self._done.wait()
        if self._error is not None:
            raise self._error
