"""Who may change which entries of an open VDI's map."""

import threading


class Rights:
    """Exclusive rights to data object indexes, or to all of them.

    A thread takes what it needs at once and takes no more before it has given that back, so
    nobody waits in a circle.
    """

    def __init__(self):
        self._held = set()
        self._all = False
        self._change = threading.Condition()

    def take(self, indexes):
        """Wait until nobody has any of the set ``indexes``, then have them."""
        with self._change:
            while self._all or not self._held.isdisjoint(indexes):
                self._change.wait()
            self._held |= indexes

    def give_back(self, indexes):
        with self._change:
            self._held -= indexes
            self._change.notify_all()

    def take_all(self):
        """Wait until nobody has any, then have all of them."""
        with self._change:
            while self._all or self._held:
                self._change.wait()
            self._all = True

    def give_back_all(self):
        with self._change:
            self._all = False
            self._change.notify_all()
