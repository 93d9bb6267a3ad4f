"""Which data objects a VDI has, and whose they are: the map in its inode.

An ordinary VDI has a flat map (see :mod:`sheepstack.wire.inode_layout`).  A hyper volume
(``store_policy`` 1) keeps a tree of one or two levels in the same place.  Its root begins at
offset 4664 of the inode, the leaves of a tree of two levels are objects of their own::

    offset size field
    0      2    magic    0x6274
    2      2    depth    1: entries of 8 bytes follow; 2: entries of 16 bytes
    4      4    number of entries
    8           entries of 8 bytes: index u32, VDI id u32;
                or of 16: biggest index below u32, unused u32, object id of the leaf u64
"""

from array import array
from struct import Struct
from typing import Iterator

from sheepstack.wire import inode_layout as layout, oid as oids
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.inode import InodeHeader, unpack_map

FLAT, TREE = 0, 1

_MAGIC = 0x6274
_NODE_HEADER = Struct("<HHI")
_ENTRY = Struct("<II")
_BRANCH = Struct("<I4xQ")
_MAX_ENTRIES = (layout.DATA_INDEX_SIZE - _NODE_HEADER.size) // _ENTRY.size


def flat_map(session, inode: InodeHeader) -> array:
    """The VDI id of each data object that fits the VDI's size, 0 where there is none."""
    count = min(inode.object_count, layout.DATA_INDEX)
    if not count:
        return array("I")
    return unpack_map(session.read_object(
        oids.vdi_oid(inode.vdi_id), 4 * count, layout.DATA_VDI_ID_OFFSET))


def entries(session, inode: InodeHeader) -> Iterator[tuple]:
    """Pairs of index and VDI id of all data objects that exist, by ascending index."""
    if inode.store_policy == FLAT:
        for index, vid in enumerate(flat_map(session, inode)):
            if vid:
                yield index, vid
        return
    root = oids.vdi_oid(inode.vdi_id)
    depth, raw = _node(session, root, layout.DATA_VDI_ID_OFFSET)
    if depth == 1:
        yield from _used(raw)
        return
    for _, leaf in _BRANCH.iter_unpack(raw):
        depth, raw = _node(session, leaf, 0)
        if depth != 1:
            raise RemoteProtocolError("the map of a hyper volume is more than two levels deep")
        yield from _used(raw)


def _used(raw):
    return ((index, vid) for index, vid in _ENTRY.iter_unpack(raw) if vid)


def _node(session, oid, offset):
    magic, depth, count = _NODE_HEADER.unpack(
        session.read_object(oid, _NODE_HEADER.size, offset))
    if magic == depth == count == 0:
        return 1, b""
    if magic != _MAGIC or depth not in (1, 2) or count > _MAX_ENTRIES:
        raise RemoteProtocolError("object %s holds no map of a hyper volume"
                                  % oids.name_of(oid))
    length = count * (_ENTRY.size if depth == 1 else _BRANCH.size)
    raw = session.read_object(oid, length, offset + _NODE_HEADER.size) if length else b""
    return depth, raw


def owner(session, inode: InodeHeader, index: int) -> int:
    """The VDI id of one data object, 0 where there is none."""
    if inode.store_policy == FLAT:
        if index >= layout.DATA_INDEX:
            return 0
        return unpack_map(session.read_object(
            oids.vdi_oid(inode.vdi_id), 4, layout.data_vdi_id_offset(index)))[0]
    return next((vid for number, vid in entries(session, inode) if number == index), 0)


def usage(session, inode: InodeHeader) -> tuple:
    """How many data objects the VDI has of its own, and how many it shares with its parents."""
    if inode.store_policy == FLAT:
        table = flat_map(session, inode)
        own = table.count(inode.vdi_id)
        return own, len(table) - own - table.count(0)
    own = shared = 0
    for _, vid in entries(session, inode):
        if vid == inode.vdi_id:
            own += 1
        else:
            shared += 1
    return own, shared
