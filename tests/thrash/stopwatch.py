"""Where the time of a round goes."""

import contextlib
import time
from collections import defaultdict


class Stopwatch:
    """``seconds``: by what was being done, without what was done within that."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self._doing = []
        self._since = time.monotonic()

    @contextlib.contextmanager
    def of(self, what):
        """Count the time of the body as spent with ``what``."""
        self._stop()
        self._doing.append(what)
        try:
            yield
        finally:
            self._stop()
            self._doing.pop()

    def _stop(self):
        now = time.monotonic()
        if self._doing:
            self.seconds[self._doing[-1]] += now - self._since
        self._since = now

    def __str__(self):
        return ", ".join("%s %.1f" % (what, seconds) for what, seconds in sorted(
            self.seconds.items(), key=lambda item: -item[1]))
