"""The cluster map and its history as files ``VERSION-EPOCH`` in a directory.

Both numbers have ten digits.  The highest version is the current map; the highest version of
an epoch is that epoch's record, and lower ones of the same epoch are removed.  A file appears
whole and on disk, and never changes.
"""

import contextlib
import os
from typing import List, NamedTuple, Optional, Tuple


class _Record(NamedTuple):
    version: int
    epoch: int

    def __str__(self):
        return "%010d-%010d" % self

    @classmethod
    def parse(cls, name: str) -> "Optional[_Record]":
        version, _, epoch = name.partition("-")
        if not (version.isdecimal() and epoch.isdecimal()):
            return None
        return cls(int(version), int(epoch))


class MapFiles:
    """Reads take no lock; writers must exclude each other.  Raises OSError."""

    def __init__(self, path: str):
        self.path = path

    def version(self) -> int:
        """Of the current map; -1: there is none."""
        return max(self._records(), default=_Record(-1, 0)).version

    def path_of(self, version: int, epoch: int) -> str:
        return os.path.join(self.path, str(_Record(version, epoch)))

    def read(self) -> Tuple[Optional[bytes], int]:
        """The current map and its version, or ``(None, -1)``."""
        return self._read_highest(lambda record: True)

    def history(self, epoch: int) -> Optional[bytes]:
        return self._read_highest(lambda record: record.epoch == epoch)[0]

    def epochs(self) -> List[int]:
        return sorted({record.epoch for record in self._records()})

    def prune(self) -> None:
        """Remove what a later version of the same epoch has replaced."""
        kept = {}
        for record in sorted(self._records()):
            if record.epoch in kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, str(kept[record.epoch])))
            kept[record.epoch] = record

    def _records(self):
        return list(filter(None, map(_Record.parse, os.listdir(self.path))))

    def _read_highest(self, wanted):
        while True:
            found = max(filter(wanted, self._records()), default=None)
            if found is None:
                return None, -1
            # Not found: it was replaced, and pruned, since it was listed.
            with contextlib.suppress(FileNotFoundError):
                with open(os.path.join(self.path, str(found)), "rb") as file:
                    return file.read(), found.version
