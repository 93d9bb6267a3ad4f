"""Telling the owner of a coordinator that something changed, from one thread of its own."""

import logging
import threading

LOG = logging.getLogger(__name__)

#: Seconds that :meth:`EventPump.stop` waits for a callback that is under way.
_LAST_CALL = 2.0


class EventPump:
    """Calls one function with events, one at a time; an event that waits is not queued twice.

    What posts an event (a watch callback, a heartbeat) is never held up by what handles it.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._pending = {}
        self._stopped = False
        self._thread = None
        self._callback = None

    def start(self, callback) -> None:
        self._callback = callback
        self._thread = threading.Thread(target=self._run, name="coordination-events", daemon=True)
        self._thread.start()

    def post(self, event) -> None:
        with self._changed:
            self._pending[event] = True
            self._changed.notify()

    def stop(self) -> None:
        """No call begins after this returned.  May be called from within the callback."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None and self._thread.ident != threading.get_ident():
            self._thread.join(_LAST_CALL)

    def _next(self):
        with self._changed:
            while not self._pending and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return None
            # Taken before the call, so that a change during the call is told again.
            event = next(iter(self._pending))
            del self._pending[event]
            return event

    def _run(self):
        while True:
            event = self._next()
            if event is None:
                return
            try:
                self._callback(event)
            except Exception:
                LOG.exception("handling of coordination event %s failed", event.name)
