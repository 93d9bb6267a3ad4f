"""How long to try again what may come right by itself."""

import time

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5


class Patience:
    """Lasts for ``seconds``, or as long as a request may take, from the first loss on."""

    def __init__(self, caller, seconds=None):
        self._pool = caller.pool
        self._seconds = caller.timeout if seconds is None else min(seconds, caller.timeout)
        self._until = None
        self._pause = _FIRST_PAUSE

    def lose(self, error):
        """Wait a moment, none the first time; raise ``error`` when it was tried for long."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
            return
        if now > self._until:
            raise error
        self._pool.pause(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
