"""Waiting for the bytes of one socket, again and again, under eventlet.

Only :mod:`sheepstack.runtime` imports this.
"""

import eventlet
from eventlet import hubs


class GreenReadable:
    """For one green thread.  The socket stays registered with the hub from one wait to the
    next; a green socket is registered and unregistered each time, which costs as much as a
    small request does."""

    def __init__(self, sock):
        self._number = sock.fileno()
        self._hub = hubs.get_hub()
        self._listener = None
        self._waiter = None

    def wait(self):
        """Return when there is something to receive, or the end of it."""
        if self._listener is None:
            self._listener = self._hub.add(
                self._hub.READ, self._number, self._ready, _ignore, _ignore)
        self._waiter = eventlet.getcurrent()
        self._hub.switch()

    def close(self):
        """Call this before the socket is closed."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._hub.remove(listener)

    def _ready(self, number):
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.switch()
        else:
            # It waits for something else, a lock perhaps, and we would be called all the time.
            self.close()


def _ignore(*reason):
    """Nobody else closes it."""
