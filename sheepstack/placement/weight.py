"""V-nodes weighted by space, so that nodes fill evenly."""

from sheepstack.placement.ring import DEFAULT_VNODES

MAX_VNODES = 65535


def weighted_vnodes(space: int, mean_space: float) -> int:
    """V-nodes of a node with ``space`` bytes where nodes have ``mean_space`` on average."""
    if mean_space <= 0:
        return DEFAULT_VNODES
    return max(1, min(MAX_VNODES, round(DEFAULT_VNODES * space / mean_space)))
