"""The hash ring: v-nodes of all nodes in the order of their hashes.

An object belongs to the first v-nodes at or after the hash of its id whose zones differ
from one another; with fewer zones than copies it has as many copies as there are zones.
"""

from bisect import bisect_left
from typing import List, Tuple

from sheepstack.placement.cluster_map import ClusterMap, Node
from sheepstack.wire import oid as oids
from sheepstack.wire.admin import NodeId
from sheepstack.wire.hashing import buffer_hash, next_hash, oid_hash

DEFAULT_VNODES = 128

_CACHE_LIMIT = 1 << 16
#: Hashes lie in [0, RING_SIZE).
RING_SIZE = 1 << 64
#: Bytes of a node id that are hashed: the address and the port.
_KEY_SIZE = 18


def vnode_hashes(node: Node) -> List[int]:
    """Where the v-nodes of ``node`` lie: they follow from its address and port alone."""
    hval = buffer_hash(NodeId(node.host, node.port).pack()[:_KEY_SIZE])
    hashes = []
    for _ in range(node.vnodes):
        hval = next_hash(hval)
        hashes.append(hval)
    return hashes


class Ring:
    """Placement at one cluster map."""

    def __init__(self, nodes: Tuple[Node, ...]):
        points = sorted((hval, index) for index, node in enumerate(nodes)
                        for hval in vnode_hashes(node))
        self.nodes = nodes
        self._hashes = [hval for hval, _ in points]
        self._owners = [index for _, index in points]
        self._zones = len({node.zone for node in nodes if node.vnodes})
        self._cache = {}

    @classmethod
    def of(cls, cluster_map: ClusterMap) -> "Ring":
        return cls(cluster_map.nodes)

    def holders(self, oid: int, copies: int) -> Tuple[int, ...]:
        """Indexes into ``nodes`` of those that hold ``oid``, first the first to be asked."""
        key = (oid, copies)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            found = self._cache[key] = self._walk(
                bisect_left(self._hashes, oid_hash(oid)), copies)
        return found

    def holders_of(self, oid: int, policy) -> Tuple[int, ...]:
        """Like :meth:`holders`, of the copies of a whole object, or of one strip."""
        if oids.is_strip(oid):
            position = oids.strip_position(oid)
            return self.holders(oids.whole_oid(oid), policy.width)[position:position + 1]
        return self.holders(oid, policy.copies_of(oid))

    def _walk(self, start: int, copies: int) -> Tuple[int, ...]:
        wanted = min(copies, self._zones)
        chosen, zones = [], set()
        owners, nodes, length = self._owners, self.nodes, len(self._owners)
        position = start
        while len(chosen) < wanted:
            owner = owners[position % length]
            zone = nodes[owner].zone
            if zone not in zones:
                zones.add(zone)
                chosen.append(owner)
            position += 1
        return tuple(chosen)

    def boundaries(self) -> List[int]:
        """Hashes of all v-nodes in order; between two of them placement is the same."""
        return self._hashes

    def all_holders(self, copies: int):
        """Iterate over sets of keys of nodes: the holders in each place of the ring."""
        for position in range(len(self._hashes)):
            yield {self.nodes[index].key for index in self._walk(position, copies)}

    def holders_at(self, hval: int, copies: int) -> Tuple[str, ...]:
        """Names of the nodes that hold what hashes to ``hval``."""
        chosen = self._walk(bisect_left(self._hashes, hval), copies)
        return tuple(self.nodes[index].name for index in chosen)


def changed_arcs(old: Ring, new: Ring, copies: int) -> List[Tuple[int, int]]:
    """Arcs ``[start, end)`` of hashes, 0 <= start < end <= 2^64, whose holders differ."""
    edges = sorted(set(old.boundaries()) | set(new.boundaries()))
    arcs = []
    for position, upto in enumerate(edges):
        if set(old.holders_at(upto, copies)) == set(new.holders_at(upto, copies)):
            continue
        if position:
            arcs.append((edges[position - 1] + 1, upto + 1))
        else:
            arcs.append((0, upto + 1))
            if edges[-1] + 1 < RING_SIZE:
                arcs.append((edges[-1] + 1, RING_SIZE))
    return merged(arcs)


def merged(arcs) -> List[Tuple[int, int]]:
    """The same arcs in order, those that touch or overlap made one."""
    result = []
    for start, end in sorted(arcs):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
