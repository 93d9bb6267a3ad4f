"""Open objects, a bounded number of them."""

import threading
import weakref


class OpenFiles:
    """Keeps objects open, at most ``limit`` and ``table_limit`` bytes of checksums.

    What is put out goes on working for whoever still uses it and is closed afterwards;
    :meth:`find` returns it as long as it lives, so there is never more than one
    :class:`ObjectFile` of an object.

    ``get(key)`` is the fast way to an object in the cache; the caller sets ``recent`` on
    what it got, so that it outlives those that nobody asks for (the clock algorithm).
    """

    def __init__(self, limit=512, table_limit=32 << 20):
        self._limit = limit
        self._table_limit = table_limit
        self._lock = threading.Lock()
        self._kept = {}
        self._table_bytes = 0
        self._alive = weakref.WeakValueDictionary()
        self.get = self._kept.get

    def find(self, key):
        """The open file of ``key``, also one that left the cache; or None."""
        with self._lock:
            return self._alive.get(key)

    def track(self, key, file):
        """Makes ``file`` the one that :meth:`find` returns, without keeping it open."""
        with self._lock:
            self._alive[key] = file

    def keep(self, key, file):
        """Puts ``file`` into the cache, where it may put out others."""
        gone = []
        with self._lock:
            self._alive[key] = file
            if key in self._kept:
                gone.append(self._take(key))
            self._kept[key] = file
            self._table_bytes += file.table_bytes
            while (len(self._kept) > self._limit or self._table_bytes > self._table_limit) \
                    and len(self._kept) > 1:
                oldest = next(iter(self._kept))
                candidate = self._take(oldest)
                if candidate.recent or candidate is file:
                    candidate.recent = False
                    self._kept[oldest] = candidate
                    self._table_bytes += candidate.table_bytes
                else:
                    gone.append(candidate)
        # ``gone`` is dropped, and perhaps closed, only here: without the lock.

    def hide(self, key):
        """Takes ``key`` out of the cache; :meth:`find` still knows it."""
        with self._lock:
            return self._take(key)

    def drop(self, key):
        """Forgets ``key``; returns its open file, or None."""
        with self._lock:
            self._take(key)
            return self._alive.pop(key, None)

    def drop_all(self) -> list:
        """Forgets everything; returns the files that were open."""
        with self._lock:
            self._kept.clear()
            self._table_bytes = 0
            files = list(self._alive.values())
            self._alive.clear()
        return files

    def _take(self, key):
        file = self._kept.pop(key, None)
        if file is not None:
            self._table_bytes -= file.table_bytes
        return file
