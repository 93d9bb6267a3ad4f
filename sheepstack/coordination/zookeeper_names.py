"""The names of znodes, and what they say.

Below ``/sheepstack/CLUSTER-ID`` there are (E: ephemeral, gone with the session that made it)

    sessions/SESSION             E  the fence, see zookeeper_requests
    members/SESSION-SEQUENCE     E  a member's entry; the sequence is its place in line
    members                         its data version grows when an entry is replaced
    map                             the current map
    history/EPOCH                   the map last stored for that epoch, in the same form
    locks/BUCKET                    its data version grows when a lock in it is taken
    locks/BUCKET/NAME:MODE:SESSION  E  a lock that is held: its owner

SESSION has 16 hexadecimal digits, EPOCH ten digits, MODE is ``x`` (exclusive) or ``s`` (shared),
NAME is quoted as in a URL, BUCKET has two hexadecimal digits made from NAME.

Locks share buckets because a znode of its own for each lock would have to stay for ever: it
can not go with the session that made it.
"""

import urllib.parse
import zlib
from typing import List, NamedTuple, Optional

_ROOT = "/sheepstack"
_BUCKETS = 64


class Names:
    """Paths of one cluster."""

    def __init__(self, cluster_id: str):
        self.root = "%s/%s" % (_ROOT, cluster_id)
        self.sessions = self.root + "/sessions"
        self.members = self.root + "/members"
        self.map = self.root + "/map"
        self.history = self.root + "/history"
        self.locks = self.root + "/locks"

    def fence(self, session: str) -> str:
        return "%s/%s" % (self.sessions, session)

    def member(self, znode: str) -> str:
        return "%s/%s" % (self.members, znode)

    def new_member(self, session: str) -> str:
        """To which ZooKeeper adds the sequence."""
        return self.member(session + "-")

    def record(self, epoch: int) -> str:
        return "%s/%010d" % (self.history, epoch)

    def bucket(self, lock: str) -> str:
        number = zlib.crc32(lock.encode(errors="surrogateescape")) % _BUCKETS
        return "%s/%02x" % (self.locks, number)


class Place(NamedTuple):
    """A znode below ``members``; sorts in the order of succession."""

    sequence: int
    session: str
    znode: str

    @classmethod
    def parse(cls, znode: str) -> "Optional[Place]":
        session, _, sequence = znode.rpartition("-")
        return cls(int(sequence), session, znode) if session and sequence.isdecimal() else None


class Lock(NamedTuple):
    """A znode in a bucket."""

    name: str
    shared: bool
    session: str

    @property
    def znode(self) -> str:
        return ":".join((urllib.parse.quote(self.name, safe="", errors="surrogateescape"),
                         "s" if self.shared else "x", self.session))

    @classmethod
    def parse(cls, znode: str) -> "Optional[Lock]":
        parts = znode.split(":")
        if len(parts) != 3:
            return None
        name, mode, session = parts
        return cls(urllib.parse.unquote(name, errors="surrogateescape"), mode == "s", session)


def parsed(kind, znodes) -> List:
    """Those of ``znodes`` that are a :class:`Place` or :class:`Lock`; others are not ours."""
    return list(filter(None, map(kind.parse, znodes)))
