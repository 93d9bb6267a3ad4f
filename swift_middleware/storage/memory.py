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
