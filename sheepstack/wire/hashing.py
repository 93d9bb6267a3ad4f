"""FNV-1a 64 with the extra rounds that Sheepdog adds.

Source: http://www.isthe.com/chongo/tech/comp/fnv/ for FNV-1a; the extra round over the
hash's own bytes is Sheepdog's.
"""

from sheepstack.wire.oid import whole_oid

FNV1A_64_INIT = 0xCBF29CE484222325
FNV_64_PRIME = 0x100000001B3
_MASK = 0xFFFFFFFFFFFFFFFF

NR_VDIS = 1 << 24


def fnv1a_64(data: bytes, hval: int = FNV1A_64_INIT) -> int:
    """Plain FNV-1a over ``data``, starting from ``hval``."""
    for byte in data:
        hval = ((hval ^ byte) * FNV_64_PRIME) & _MASK
    return hval


def next_hash(hval: int) -> int:
    """The hash that follows ``hval``: one more round over its own eight bytes."""
    return fnv1a_64(hval.to_bytes(8, "little"), hval)


def buffer_hash(data: bytes) -> int:
    """Sheepdog's hash of a buffer: FNV-1a and one extra round."""
    return next_hash(fnv1a_64(data))


def oid_hash(oid: int) -> int:
    """Where an object id lies on the ring; strips lie where their object does."""
    return buffer_hash(whole_oid(oid).to_bytes(8, "little"))


def vdi_name_hash(name: bytes) -> int:
    """Where the search for a VDI id starts: 24 bits of plain FNV-1a of the name."""
    return fnv1a_64(name) & (NR_VDIS - 1)
