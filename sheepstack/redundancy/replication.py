"""Whole copies: every holder gets every byte, and any one of them can answer a read."""

from typing import NamedTuple, Tuple

from sheepstack.redundancy.policy import CopyPolicy


class Part(NamedTuple):
    """What one holder is sent of a write: the ``position``-th in ring order."""

    position: int
    offset: int
    data: object
    size: int


class UnsupportedPolicy(ValueError):
    """No scheme here can keep objects under this policy."""


class Replication:
    """Scheme for policies without parity."""

    def __init__(self, policy: CopyPolicy):
        self.width = policy.width

    def write_parts(self, holders: int, offset: int, data, size: int) -> Tuple[Part, ...]:
        """How a write of ``data`` at ``offset`` of an object of ``size`` bytes is spread."""
        return tuple(Part(position, offset, data, size) for position in range(holders))


def scheme_of(policy: CopyPolicy) -> Replication:
    """The scheme that keeps objects under ``policy``; raises UnsupportedPolicy."""
    if policy.is_erasure:
        raise UnsupportedPolicy("erasure coding (%s) is not supported yet" % (policy,))
    return Replication(policy)
