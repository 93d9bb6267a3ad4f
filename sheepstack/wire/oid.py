"""Object ids: 64 bits that say what an object is and whose.

====== =====================================================
bits   meaning
====== =====================================================
0-31   index of a data object (or attribute, btree, vmstate)
32-55  VDI id (``vid``)
56-58  reserved
59-63  type: ledger, btree, attribute, vmstate, VDI (inode)
====== =====================================================

Between sheep, and on disk, a strip of an erasure-coded object has an id, too: that of the
object, with the two type bits 59 and 60, which no client may set both, and with the number of
the strip in bits 27 to 31.
"""

from sheepstack.wire import inode_layout as layout

VDI_SPACE_SHIFT = 32
VID_MASK = 0xFFFFFF
INDEX_MASK = 0xFFFFFFFF

VDI_BIT = 1 << 63
VMSTATE_BIT = 1 << 62
ATTR_BIT = 1 << 61
BTREE_BIT = 1 << 60
LEDGER_BIT = 1 << 59
TYPE_MASK = VDI_BIT | VMSTATE_BIT | ATTR_BIT | BTREE_BIT | LEDGER_BIT
RESERVED_MASK = 0x07 << 56

LEDGER_OBJECT_SIZE = 1 << 22

STRIP_MARK = BTREE_BIT | LEDGER_BIT
_STRIP_SHIFT = 27
_STRIP_NUMBER = 0x1F << _STRIP_SHIFT


def data_oid(vid: int, index: int) -> int:
    return (vid << VDI_SPACE_SHIFT) | index


def vdi_oid(vid: int) -> int:
    """Object id of the inode of ``vid``."""
    return VDI_BIT | (vid << VDI_SPACE_SHIFT)


def vmstate_oid(vid: int, index: int) -> int:
    return VMSTATE_BIT | (vid << VDI_SPACE_SHIFT) | index


def attr_oid(vid: int, attr_id: int) -> int:
    return ATTR_BIT | (vid << VDI_SPACE_SHIFT) | attr_id


def btree_oid(vid: int, btree_id: int) -> int:
    return BTREE_BIT | (vid << VDI_SPACE_SHIFT) | btree_id


def strip_oid(oid: int, position: int) -> int:
    """Id of the strip with number ``position`` of the data (or vmstate) object ``oid``.

    Raises ValueError where the object cannot have strips.
    """
    if oid & ~(VMSTATE_BIT | VID_MASK << VDI_SPACE_SHIFT | INDEX_MASK & ~_STRIP_NUMBER):
        raise ValueError("object %016x has no strips" % oid)
    return oid | STRIP_MARK | position << _STRIP_SHIFT


def is_strip(oid: int) -> bool:
    return oid & (TYPE_MASK & ~VMSTATE_BIT) == STRIP_MARK


def strip_position(oid: int) -> int:
    """The number of a strip."""
    return (oid & _STRIP_NUMBER) >> _STRIP_SHIFT


def whole_oid(oid: int) -> int:
    """The object that a strip belongs to; any other id as it is."""
    return oid & ~(STRIP_MARK | _STRIP_NUMBER) if is_strip(oid) else oid


def vid_of(oid: int) -> int:
    return (oid >> VDI_SPACE_SHIFT) & VID_MASK


def ids_of(vid: int, *kinds: int) -> list:
    """Ranges (first id, that behind the last) of the ids of a VDI with these type bits."""
    first = vid << VDI_SPACE_SHIFT
    return [(kind | first, (kind | first) + (1 << VDI_SPACE_SHIFT)) for kind in kinds]


def index_of(oid: int) -> int:
    return oid & INDEX_MASK


def is_data(oid: int) -> bool:
    return not oid & TYPE_MASK


def is_vdi(oid: int) -> bool:
    return bool(oid & VDI_BIT)


def is_vmstate(oid: int) -> bool:
    return bool(oid & VMSTATE_BIT)


def is_attr(oid: int) -> bool:
    return bool(oid & ATTR_BIT)


def is_btree(oid: int) -> bool:
    return bool(oid & BTREE_BIT)


def is_ledger(oid: int) -> bool:
    return bool(oid & LEDGER_BIT)


def is_valid(oid: int) -> bool:
    """True for an id that some client may name: a known type, a VDI id, no reserved bit."""
    kind = oid & TYPE_MASK
    return not oid & RESERVED_MASK and kind & (kind - 1) == 0 and vid_of(oid) != 0


def object_size(oid: int, block_size: int) -> int:
    """Size in bytes of the object ``oid`` of a VDI with ``block_size`` bytes a data object."""
    if oid & VDI_BIT:
        return layout.INODE_SIZE
    if oid & ATTR_BIT:
        return layout.ATTR_SIZE
    if oid & BTREE_BIT:
        return layout.DATA_INDEX_SIZE
    if oid & LEDGER_BIT:
        return LEDGER_OBJECT_SIZE
    return block_size


def name_of(oid: int) -> str:
    """The 16 hexadecimal digits by which an object is known on disk and in listings."""
    return "%016x" % oid
