"""How much object data a process buffers."""

import threading


class NoRoom(Exception):
    """Too much data is being buffered for others."""


class Budget:
    """``limit``: bytes."""

    def __init__(self, limit):
        self._free = limit
        self._changed = threading.Condition()

    def try_take(self, length) -> bool:
        with self._changed:
            if length > self._free:
                return False
            self._free -= length
            return True

    def take(self, length, patience):
        """Wait for at most ``patience`` seconds; raises :class:`NoRoom`."""
        with self._changed:
            if not self._changed.wait_for(lambda: length <= self._free, patience):
                raise NoRoom("no room to buffer %d bytes" % length)
            self._free -= length

    def give_back(self, length):
        with self._changed:
            self._free += length
            self._changed.notify_all()


class Buffers:
    """Buffers of ``size`` bytes each, that are used again and again: memory that a process gets
    anew costs as much as copying into it."""

    def __init__(self, budget, size, kept):
        self._budget = budget
        self._size = size
        self._kept = kept
        self._idle = []

    def try_take(self):
        """A bytearray with any content; None where the budget has no room for it."""
        if not self._budget.try_take(self._size):
            return None
        try:
            return self._idle.pop()
        except IndexError:
            return bytearray(self._size)

    def give_back(self, buffer, is_free=True):
        """``is_free``: nobody may be reading it any more."""
        if is_free and len(self._idle) < self._kept:
            self._idle.append(buffer)
        self._budget.give_back(self._size)
