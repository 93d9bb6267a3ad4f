"""What happens to an object while a change of it has to wait."""

import threading
from collections import deque

#: What a change's run() and finish() return where ``done`` will be called later.
PENDING = object()


class Deferral:
    """Changes of one object that wait until the first of them, or whoever froze the object,
    may go on.

    ``first`` is the change whose finish() is called when the gate is open, or None.
    ``queue`` holds the changes that came afterwards, in order; they were not run yet.
    ``number``: the journal record that opens the gate, None where there is none.
    """

    __slots__ = ("oid", "first", "queue", "gate", "error", "number")

    def __init__(self, oid, first=None, gate=None):
        self.oid = oid
        self.first = first
        self.queue = deque()
        self.gate = gate or threading.Event()
        self.error = None
        self.number = None

    def open(self, error):
        """Lets the waiting go on; ``error``, a StoreError or None, is what came of it."""
        self.error = error
        self.gate.set()
