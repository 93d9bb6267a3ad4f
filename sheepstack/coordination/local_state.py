"""Members and locks of the local driver: one small value that is replaced as a whole.

It is kept as JSON; bytes in it are written as Latin-1, so that what is text can be read:

    {"serial": N,                                    the last place in line that was given out
     "members": {SESSION-ID: [PLACE, ENTRY]},
     "locks": {NAME: {SESSION-ID: [SHARED, OWNER]}}} in the order in which they were taken

It means nothing without the sessions: what belongs to one that is gone is not there.
"""

import json
from typing import Dict, List, Set, Tuple


class State:
    """``members`` as ``{session id: (place, entry)}``, ``locks`` as
    ``{name: {session id: (shared, owner)}}``."""

    def __init__(self, serial: int = 0, members=None, locks=None):
        self.serial = serial
        self.members: Dict[str, Tuple[int, bytes]] = members or {}
        self.locks: Dict[str, Dict[str, Tuple[bool, bytes]]] = locks or {}

    @classmethod
    def from_bytes(cls, data: bytes) -> "State":
        """Empty where ``data`` is damaged: a machine that crashed has no sessions either."""
        try:
            value = json.loads(data)
            return cls(
                value["serial"],
                {session: (place, entry.encode("latin-1"))
                 for session, (place, entry) in value["members"].items()},
                {name: {session: (shared, owner.encode("latin-1"))
                        for session, (shared, owner) in holders.items()}
                 for name, holders in value["locks"].items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def to_bytes(self) -> bytes:
        return json.dumps({
            "serial": self.serial,
            "members": {session: (place, entry.decode("latin-1"))
                        for session, (place, entry) in self.members.items()},
            "locks": {name: {session: (shared, owner.decode("latin-1"))
                             for session, (shared, owner) in holders.items()}
                      for name, holders in self.locks.items()}}).encode()

    def keep_only(self, sessions: Set[str]) -> None:
        """Forget what belongs to other sessions."""
        self.members = {session: member for session, member in self.members.items()
                        if session in sessions}
        living = {name: {session: lock for session, lock in holders.items()
                         if session in sessions}
                  for name, holders in self.locks.items()}
        self.locks = {name: holders for name, holders in living.items() if holders}

    def line(self) -> List[str]:
        """Session ids of the members in the order of succession."""
        return sorted(self.members, key=lambda session: self.members[session][0])

    def enqueue(self, session: str, entry: bytes) -> None:
        """At the end of the line."""
        self.serial += 1
        self.members[session] = (self.serial, entry)

    def lock(self, name: str, session: str, owner: bytes, shared: bool) -> bool:
        """Whether ``session`` has the lock now."""
        holders = self.locks.get(name, {})
        if session in holders:
            return holders[session][0] == shared
        if holders and not (shared and all(other for other, _ in holders.values())):
            return False
        self.locks[name] = {**holders, session: (shared, owner)}
        return True

    def unlock(self, name: str, session: str) -> bool:
        """Whether ``session`` had the lock."""
        holders = self.locks.get(name, {})
        if holders.pop(session, None) is None:
            return False
        if not holders:
            del self.locks[name]
        return True
