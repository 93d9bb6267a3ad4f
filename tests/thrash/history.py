"""What clients did and saw, as values for the checker.

A *volume* is a content with one beginning: a VDI as it was made, the same VDI after each
rollback, a clone, a snapshot.  A name that is used again for a new VDI is a new volume.
Times are seconds of one monotonic clock.
"""

import json
import threading
from typing import NamedTuple, Tuple

#: End of what never was known to end.
NEVER = float("inf")


class Write(NamedTuple):
    """``end`` is :data:`NEVER` where it failed: it may take effect later, or not at all.

    ``value`` is the number of the write, 0 for one of zeros.  ``again``: the client has lost
    its gateway meanwhile, and may have sent it to another one, too.
    """

    volume: str
    value: int
    first: int
    count: int
    start: float
    end: float
    client: str = ""
    again: bool = False


class Read(NamedTuple):
    """``values``: the numbers of the writes that were read, of each sector from ``first``."""

    volume: str
    first: int
    values: Tuple[int, ...]
    start: float
    end: float
    client: str = ""


class Origin(NamedTuple):
    """``volume`` began with the content that ``source`` had at some moment of a span.

    A snapshot comes from a working volume, a clone or what was rolled back from a snapshot.
    """

    volume: str
    source: str
    start: float
    end: float


class History:
    """Collects them; for many threads."""

    _KINDS = {kind.__name__: kind for kind in (Write, Read, Origin)}

    def __init__(self):
        self._lock = threading.Lock()
        self._number = 0
        self.events = []

    def next_number(self) -> int:
        """A number for a write that no other has."""
        with self._lock:
            self._number += 1
            return self._number

    def add(self, event):
        with self._lock:
            self.events.append(event)

    def save(self, path):
        with open(path, "w") as file:
            for event in self.events:
                file.write(json.dumps([type(event).__name__, *event]) + "\n")

    @classmethod
    def load(cls, path) -> "History":
        history = cls()
        with open(path) as file:
            for line in file:
                kind, *fields = json.loads(line)
                history.events.append(cls._KINDS[kind](*(
                    tuple(field) if isinstance(field, list) else field for field in fields)))
        return history
