"""What tgt's ``sheepdog`` backing store must be told, and must not.

It reads the whole map of a VDI when it opens it, and trusts that map until it is told
INODE_INVALIDATED, upon which it reads it again.  Meanwhile another path to the same VDI may
have made objects, and a snapshot may have been taken.  Moreover it clears the wrong part of
its buffer where a read runs from an object into a hole (all versions up to 1.0.97).

So it gets a map in which only what cannot change under it stands: objects of the VDI's own.
Every other entry, of an ancestor or of nobody, is *open*: the VDI's own id with the bit
:data:`OPEN`, which an object id carries to us whenever tgt reads there.  We look into the
inode then.  tgt never writes such an entry back: it writes those of objects that it made.

Requests of tgt are those with the flag TGT and protocol version 1; our own client sets the
flag for VDIs that are open as shared, and looks at the map by itself.
"""

from array import array

from sheepstack.wire import inode_layout as layout
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.oid import VDI_SPACE_SHIFT
from sheepstack.wire.opcodes import PROTO_VER, Flag

OPEN = 1 << 24
OPEN_BIT = OPEN << VDI_SPACE_SHIFT

_TGT = int(Flag.TGT)


def is_from_tgt(version, flags) -> bool:
    return bool(flags & _TGT) and version < PROTO_VER


def map_for_tgt(inode: bytes) -> bytes:
    """An inode, from its beginning on, with open entries in its map.

    Zeros at its end may be missing; the answer has the map as far as the VDI reaches.
    """
    header = InodeHeader.unpack(bytes(inode[:layout.INODE_HEADER_SIZE]))
    length = layout.DATA_VDI_ID_OFFSET + 4 * header.object_count
    inode = bytes(inode).ljust(length, b"\0")
    entries = array("I", inode[layout.DATA_VDI_ID_OFFSET:length])
    own = header.vdi_id
    opened = own | OPEN
    settled = array("I", [entry if entry == own else opened for entry in entries])
    return inode[:layout.DATA_VDI_ID_OFFSET] + settled.tobytes() + inode[length:]
