"""The cluster map: one immutable value that says who is in the cluster at an epoch."""

import enum
import json
from typing import NamedTuple, Tuple

from sheepstack.redundancy import policy


class Status(enum.Enum):
    """What the cluster as a whole does."""

    OK = "ok"
    #: Stopped in good order by ``dog cluster shutdown``.
    SHUTDOWN = "shutdown"


class Node(NamedTuple):
    """A sheep as the map knows it.

    ``incarnation`` is new each time the daemon starts; ``zone`` is a failure domain;
    ``vnodes`` 0 means that the node stores nothing; ``space`` is in bytes.
    ``io_host`` and ``io_port`` carry the traffic between sheep; ``sock`` is the path of
    the Unix socket, of use to sheep and clients on the host with id ``host_id``.
    """

    host: str
    port: int
    zone: int
    vnodes: int
    space: int
    incarnation: str
    io_host: str = ""
    io_port: int = 0
    host_id: str = ""
    sock: str = ""

    @property
    def name(self) -> str:
        """``host:port``, unique in a cluster; IPv6 addresses stand in brackets."""
        host = "[%s]" % self.host if ":" in self.host else self.host
        return "%s:%d" % (host, self.port)

    @property
    def key(self) -> Tuple[str, int]:
        """What stays the same when the daemon starts again."""
        return (self.host, self.port)

    @property
    def peer_address(self) -> Tuple[str, int]:
        return (self.io_host or self.host, self.io_port or self.port)


class ClusterMap(NamedTuple):
    """The map at one epoch.

    ``epoch`` grows by one with each change of membership.  ``revision`` grows with every
    change, so also when the same nodes start again; requests between sheep carry it.
    ``settled`` becomes true once all nodes have left the revision before.
    ``changed`` is the time of the last membership change in seconds since 1970.
    ``last_settled`` is the newest revision before this one that settled: a node that was part
    of it, or of a later one, has missed no write.  ``last_complete`` is the newest revision at
    which every node had all it should: an object that is neither there nor in what was set
    aside since does not exist.  ``forced`` is the revision at which an
    operator told the cluster to go on without nodes that may know more.  ``replaces`` is the
    UUID of the cluster that was formatted anew into this one.
    """

    uuid: str
    ctime: int
    epoch: int
    nodes: Tuple[Node, ...]
    revision: int = 1
    copies: policy.CopyPolicy = policy.CopyPolicy(3)
    block_size_shift: int = 22
    flags: int = 0
    status: Status = Status.OK
    settled: bool = False
    recovery_enabled: bool = True
    changed: int = 0
    last_settled: int = 0
    last_complete: int = 0
    forced: int = 0
    replaces: str = ""

    def find(self, key) -> "Node | None":
        """The node with this ``(host, port)``."""
        for node in self.nodes:
            if node.key == key:
                return node
        return None

    def index_of(self, incarnation: str) -> int:
        """Position of a running daemon in ``nodes``, -1 where it is not in the map."""
        for index, node in enumerate(self.nodes):
            if node.incarnation == incarnation:
                return index
        return -1

    def zones(self) -> int:
        """How many different zones store data."""
        return len({node.zone for node in self.nodes if node.vnodes})

    def to_bytes(self) -> bytes:
        fields = self._asdict()
        fields["nodes"] = [node._asdict() for node in self.nodes]
        fields["copies"] = str(self.copies)
        fields["status"] = self.status.value
        return json.dumps(fields, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ClusterMap":
        """Raises ValueError where ``data`` is no cluster map."""
        try:
            fields = json.loads(data)
            fields["nodes"] = tuple(Node(**node) for node in fields["nodes"])
            fields["copies"] = policy.parse(fields["copies"])
            fields["status"] = Status(fields["status"])
            return cls(**fields)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError("not a cluster map: %s" % error) from None


def sorted_nodes(nodes) -> Tuple[Node, ...]:
    """Nodes in the order in which listings and maps show them."""
    return tuple(sorted(nodes, key=lambda node: node.key))
