"""Ending the writes that the former map left, before anything is served at this one.

A holder of such a write cannot tell who else has it, so each writes its own bytes to all
again; whoever is first spares the others the trouble.  Therefore each begins at another place
of the list, and few are under way at a time: many holders that send everything to each other
at once refuse each other's writes as late, and have memory and network filled with what must
be sent once more.
"""

import logging
import threading
import time

from sheepstack.sheep.reminder import Reminder
from sheepstack.sheep.view import is_still_served

log = logging.getLogger(__name__)

_MOST = 64
_MOST_BYTES = 16 << 20
_LARGEST = 4 << 20
_LOOK_SECONDS = 0.05


class Orphans:
    """``table`` is the :class:`~sheepstack.sheep.vdi_table.VdiTable`."""

    def __init__(self, state, replica, gateway, table):
        self._state = state
        self._replica = replica
        self._gateway = gateway
        self._table = table

    def end(self, view) -> bool:
        """Wait until none is left here, and none of our own writes of before is still to be
        sent again.  False: the map has changed, or the daemon stops."""
        rolls = _Rolls()
        reminder = Reminder(time.monotonic())
        while True:
            orphans, owed = self._replica.orphans(), self._gateway.owed(view.revision)
            if not orphans and not owed:
                return True
            # What we send again ourselves, as a write, need not be sent as an orphan, too.
            busy = {write.oid for write in owed}
            for orphan in _in_turn(orphans, view):
                if orphan[0] in busy or orphan in rolls:
                    continue
                if not rolls.add(orphan):
                    break
                self._roll(view, orphan, rolls)
                if self._is_over(view):
                    break
            if self._is_over(view):
                return False
            if reminder.is_due(time.monotonic()):
                _complain(view, orphans, owed)
            self._replica.wait_change(_LOOK_SECONDS)

    def _is_over(self, view):
        return self._state.stopping.is_set() or not is_still_served(self._state.view, view)

    def _roll(self, view, orphan, rolls):
        oid, start, end = orphan
        policy = self._table.remembered_policy(oid, view.map) or view.map.copies
        self._gateway.roll(oid, start, end, policy, view.revision,
                           lambda result, batch: rolls.remove(orphan))


class _Rolls:
    """What is under way."""

    def __init__(self):
        self._lock = threading.Lock()
        self._weights = {}

    def __contains__(self, orphan):
        return orphan in self._weights

    def add(self, orphan) -> bool:
        """False: there are enough already."""
        _, start, end = orphan
        weight = min(end - start, _LARGEST)
        with self._lock:
            if self._weights and (len(self._weights) >= _MOST or
                                  sum(self._weights.values()) + weight > _MOST_BYTES):
                return False
            self._weights[orphan] = weight
            return True

    def remove(self, orphan):
        with self._lock:
            self._weights.pop(orphan, None)


def _in_turn(orphans, view):
    """In an order that begins at another place on each sheep."""
    orphans = sorted(set(orphans))
    first = len(orphans) * view.index // len(view.map.nodes)
    return orphans[first:] + orphans[:first]


def _complain(view, orphans, owed):
    log.warning(
        "epoch %d is not served yet: still to be written again are %d pieces (the first: %s) "
        "and %d writes of our own (the first: %s)", view.epoch, len(orphans),
        "%016x, bytes %d to %d" % orphans[0] if orphans else "none", len(owed),
        owed[0] if owed else "none")
