"""Copy policies: how many nodes hold an object, and how.

On the wire a policy is two bytes.  ``copy_policy`` 0 means ``nr_copies`` whole copies.
Otherwise it holds an erasure code: half the number of data strips in the upper four bits
and the number of parity strips in the lower four; ``nr_copies`` is then their sum.
"""

from typing import NamedTuple

from sheepstack.wire import oid as oids

MAX_COPIES = 31
DATA_STRIPS = (2, 4, 8, 16)
MAX_PARITY_STRIPS = 15

#: Objects with one of these bits are kept as whole copies whatever the policy.
_ALWAYS_WHOLE = oids.VDI_BIT | oids.ATTR_BIT | oids.BTREE_BIT | oids.LEDGER_BIT
#: Of the byte that sheep send to each other: an erasure code.
_ERASURE = 0x80


class CopyPolicy(NamedTuple):
    """``parity`` 0: ``data`` whole copies; else ``data`` and ``parity`` strips."""

    data: int
    parity: int = 0

    @property
    def is_erasure(self) -> bool:
        return self.parity > 0

    @property
    def width(self) -> int:
        """Nodes that hold a part of each object."""
        return self.data + self.parity

    def copies_of(self, oid: int) -> int:
        """Nodes that hold a whole copy of ``oid`` while it is whole.

        So many that as many of them may be lost as parity strips.
        """
        if not self.parity:
            return self.data
        return self.width if oid & _ALWAYS_WHOLE else self.parity + 1

    def has_strips(self, oid: int) -> bool:
        """True where ``oid``, a whole object, is cut into strips when it rests."""
        return bool(self.parity) and not oid & _ALWAYS_WHOLE

    def to_byte(self) -> int:
        """All of the policy in eight bits, as sheep send it to each other."""
        if not self.parity:
            return self.data
        return _ERASURE | DATA_STRIPS.index(self.data) << 4 | self.parity

    @property
    def nr_copies(self) -> int:
        return self.width

    @property
    def copy_policy(self) -> int:
        """The byte that stands in inodes and requests."""
        return (self.data // 2) << 4 | self.parity if self.parity else 0

    def __str__(self):
        return "%d:%d" % self if self.parity else str(self.data)


def from_wire(nr_copies: int, copy_policy: int) -> CopyPolicy:
    """The policy behind the two bytes; raises ValueError for bytes that are none."""
    if copy_policy:
        if not copy_policy & 0x0F:
            raise ValueError("a copy policy of 0x%02x has no parity" % copy_policy)
        return _checked(CopyPolicy((copy_policy >> 4) * 2, copy_policy & 0x0F))
    return _checked(CopyPolicy(nr_copies))


def from_byte(byte: int) -> CopyPolicy:
    """The policy behind :meth:`CopyPolicy.to_byte`; raises ValueError where there is none."""
    if not byte & _ERASURE:
        return _checked(CopyPolicy(byte))
    code, parity = (byte & ~_ERASURE) >> 4, byte & 0x0F
    if code >= len(DATA_STRIPS) or not parity:
        raise ValueError("0x%02x is no copy policy" % byte)
    return _checked(CopyPolicy(DATA_STRIPS[code], parity))


def parse(text: str) -> CopyPolicy:
    """``3`` or ``4:2`` as people write it; raises ValueError with a reason."""
    data, colon, parity = text.partition(":")
    if not data.isdigit() or (colon and not parity.isdigit()):
        raise ValueError("'%s' is no copy policy: write 3 or 4:2" % text)
    if colon and int(parity) == 0:
        raise ValueError("an erasure code needs at least one parity strip")
    return _checked(CopyPolicy(int(data), int(parity or 0)))


def _checked(policy: CopyPolicy) -> CopyPolicy:
    if policy.is_erasure:
        if policy.data not in DATA_STRIPS:
            raise ValueError("data strips are one of 2, 4, 8 and 16, not %d" % policy.data)
        if policy.parity > MAX_PARITY_STRIPS or policy.parity > policy.data:
            raise ValueError("too many parity strips: %d" % policy.parity)
    elif not 1 <= policy.data <= MAX_COPIES:
        raise ValueError("copies are from 1 to %d, not %d" % (MAX_COPIES, policy.data))
    return policy
