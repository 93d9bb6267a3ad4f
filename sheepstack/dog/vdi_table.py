"""All VDIs of the cluster, read one inode after the other."""

from typing import Iterator

from sheepstack.client import SheepError
from sheepstack.dog import output
from sheepstack.dog.parallel import in_order
from sheepstack.dog.session import reason
from sheepstack.wire import oid as oids
from sheepstack.wire.admin import VDI_BITMAP_SIZE
from sheepstack.wire.header import ObjRequest
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.opcodes import Op


def read_vdis(session) -> Iterator[InodeHeader]:
    """Inodes of all VDIs and snapshots, by ascending id.

    One that cannot be read is reported on standard error and left out.
    """
    in_use = _bitmap(session, Op.READ_VDIS) & ~_bitmap(session, Op.READ_DEL_VDIS)

    def read(vid):
        try:
            return session.inode(vid)
        except SheepError as error:
            output.complain("Failed to read object %s: %s" % (
                oids.name_of(oids.vdi_oid(vid)), reason(error)))
            return None

    for inode in in_order(read, _bits(in_use)):
        if inode is not None and not inode.is_deleted:
            yield inode


def any_vdi(session) -> bool:
    """True where some VDI, snapshot or deleted one is left."""
    return bool(_bitmap(session, Op.READ_VDIS))


def _bitmap(session, opcode):
    reply = session.execute(ObjRequest(opcode, data_length=VDI_BITMAP_SIZE))
    return int.from_bytes(reply.payload, "little")


def _bits(number):
    """Indexes of the bits that are set, ascending."""
    raw = number.to_bytes(-(-number.bit_length() // 8) or 1, "little")
    for position, byte in enumerate(raw):
        if byte:
            for bit in range(8):
                if byte >> bit & 1:
                    yield position * 8 + bit
