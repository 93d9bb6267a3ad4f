"""Where objects are, by the rule that every sheep follows."""

from sheepstack.placement.cluster_map import Node
from sheepstack.placement.ring import Ring


class Locations:
    """Placement among ``nodes``, the records of a listing."""

    def __init__(self, nodes):
        self._nodes = list(nodes)
        self._ring = Ring(tuple(
            Node(node.nid.addr, node.nid.port, node.zone, node.nr_vnodes, node.space, "")
            for node in self._nodes))

    def holders(self, oid: int, copies: int) -> list:
        """Records of the nodes that hold ``oid``, the first to be asked first.

        They are fewer than ``copies`` where there are fewer zones.
        """
        return [self._nodes[index] for index in self._ring.holders(oid, copies)]
