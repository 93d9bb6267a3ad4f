"""Work that is done again and again, by a thread of its own."""

import logging
import threading

LOG = logging.getLogger(__name__)


class Periodic:
    """Calls ``work()`` every ``interval`` seconds until :meth:`stop`; errors are logged."""

    def __init__(self, name, interval, work):
        self._name = name
        self._interval = interval
        self._work = work
        self._ended = threading.Event()
        self._busy = threading.Lock()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self):
        while not self._ended.wait(self._interval):
            try:
                self.once()
            except Exception as error:
                LOG.error("%s: %s", self._name, error, exc_info=True)

    def once(self):
        """Do the work now, and return when it is done."""
        with self._busy:
            if not self._ended.is_set():
                self._work()

    def stop(self):
        """Return when the work is not being done any more, and will not be."""
        self._ended.set()
        with self._busy:
            pass
