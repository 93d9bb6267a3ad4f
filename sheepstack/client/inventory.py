"""What VDIs there are."""

import re

from sheepstack.client.call import ControlCall, ReadCall
from sheepstack.client.errors import error_for
from sheepstack.wire.admin import VDI_BITMAP_SIZE
from sheepstack.wire.header import Header, version_of
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.inode_layout import INODE_HEADER_SIZE
from sheepstack.wire.oid import vdi_oid
from sheepstack.wire.opcodes import Op
from sheepstack.wire.results import Result

#: Headers asked for at a time.
_WINDOW = 256

#: What is behind the fields of a header is not worth being sent.
_FIELDS_SIZE = INODE_HEADER_SIZE - 4092


def set_bits(bitmap: bytes):
    """Numbers of the bits that are set, in order; bit ``n % 8`` of byte ``n // 8``."""
    for match in re.finditer(rb"[^\0]", bitmap):
        byte = match.group()[0]
        for bit in range(8):
            if byte >> bit & 1:
                yield match.start() * 8 + bit


def _read_bitmap(caller, opcode):
    call = ControlCall(Header(
        version_of(opcode), opcode, 0, 0, 0, VDI_BITMAP_SIZE).pack(), limit=VDI_BITMAP_SIZE)
    caller.perform((call,))
    if call.status:
        raise error_for(call.status, "cannot read the list of VDIs")
    return call.data


def read_headers(caller):
    """Yields the :class:`InodeHeader` of every VDI and snapshot, by id."""
    deleted = frozenset(set_bits(_read_bitmap(caller, Op.READ_DEL_VDIS)))
    window = []
    for vid in set_bits(_read_bitmap(caller, Op.READ_VDIS)):
        if vid not in deleted:
            window.append(vid)
        if len(window) == _WINDOW:
            yield from _headers_of(caller, window)
            window = []
    yield from _headers_of(caller, window)


def _headers_of(caller, vids):
    calls = [ReadCall(vdi_oid(vid), 0, _FIELDS_SIZE) for vid in vids]
    if calls:
        caller.perform(calls)
    for call in calls:
        if call.status == Result.NO_OBJ:
            # Deleted, or not made yet.
            continue
        if call.status:
            raise error_for(call.status, "cannot read an inode")
        header = InodeHeader.unpack(call.data)
        if not header.is_deleted:
            yield header
