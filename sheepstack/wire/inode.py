"""The inode object: what a VDI is, and the map of its data objects.

Layout and offsets: :mod:`sheepstack.wire.inode_layout`.
"""

import sys
from array import array
from struct import Struct, error as StructError
from typing import NamedTuple

from sheepstack.wire import inode_layout as layout
from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError
from sheepstack.wire.text import pad, unpad

_HEADER = Struct("<256s256sQQQQQBBBBIIII4092x")
_ATTR_HEADER = Struct("<256s256sQII256s")


def _pack(struct, *values):
    try:
        return struct.pack(*values)
    except StructError as error:
        raise LocalProtocolError("cannot encode %r: %s" % (values, error)) from None


def clock_value(seconds: int, nanoseconds: int = 0) -> int:
    """A time as Sheepdog stores it: seconds in the upper half, nanoseconds in the lower."""
    return (seconds << 32) | nanoseconds


class InodeHeader(NamedTuple):
    """The first 4,664 bytes of an inode object."""

    name: str
    tag: str = ""
    create_time: int = 0
    snap_ctime: int = 0
    vm_clock_nsec: int = 0
    vdi_size: int = 0
    vm_state_size: int = 0
    copy_policy: int = 0
    store_policy: int = 0
    nr_copies: int = 0
    block_size_shift: int = 22
    snap_id: int = 0
    vdi_id: int = 0
    parent_vdi_id: int = 0
    btree_counter: int = 0

    @property
    def is_snapshot(self) -> bool:
        return self.snap_ctime != 0

    @property
    def is_deleted(self) -> bool:
        return not self.name

    @property
    def block_size(self) -> int:
        """Bytes in a data object."""
        return 1 << self.block_size_shift

    @property
    def object_count(self) -> int:
        """Data objects that the VDI has room for."""
        return -(-self.vdi_size >> self.block_size_shift)

    def pack(self) -> bytes:
        return _pack(_HEADER, pad(self.name, layout.VDI_NAME_LEN),
                     pad(self.tag, layout.VDI_TAG_LEN), *self[2:])

    @classmethod
    def unpack(cls, buffer, offset=0) -> "InodeHeader":
        """Takes short buffers: a server leaves out zeros at the end."""
        if len(buffer) - offset < layout.INODE_HEADER_SIZE:
            buffer = bytes(buffer[offset:]).ljust(layout.INODE_HEADER_SIZE, b"\0")
            offset = 0
        name, tag, *rest = _HEADER.unpack_from(buffer, offset)
        return cls(unpad(name), unpad(tag), *rest)


class GenerationReference(NamedTuple):
    """An entry of ``gref``: how often and since when a data object was shared.

    Sheepstack finds what is in use by reading maps, so it leaves these zero.
    """

    generation: int
    count: int

    _STRUCT = Struct("<ii")

    def pack(self) -> bytes:
        return _pack(self._STRUCT, *self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "GenerationReference":
        if len(buffer) - offset < cls._STRUCT.size:
            raise RemoteProtocolError("a generation reference is cut")
        return cls(*cls._STRUCT.unpack_from(buffer, offset))


def pack_map(entries) -> bytes:
    """Map entries (VDI ids) as they stand in ``data_vdi_id``."""
    try:
        values = entries if isinstance(entries, array) else array("I", entries)
    except (OverflowError, TypeError) as error:
        raise LocalProtocolError("no VDI ids: %s" % error) from None
    if sys.byteorder == "big":
        values = array("I", values)
        values.byteswap()
    return values.tobytes()


def unpack_map(buffer) -> array:
    """``array('I')`` of the map entries in ``buffer``; its length is a multiple of four."""
    if len(buffer) % 4:
        raise RemoteProtocolError("a map of %d bytes is cut in an entry" % len(buffer))
    values = array("I")
    values.frombytes(buffer)
    if sys.byteorder == "big":
        values.byteswap()
    return values


class VdiAttr(NamedTuple):
    """An attribute of a VDI: a key and a value kept in an object of their own."""

    name: str
    key: str
    value: bytes = b""
    tag: str = ""
    ctime: int = 0
    snap_id: int = 0

    def pack(self) -> bytes:
        """The whole object of ``ATTR_SIZE`` bytes."""
        if len(self.value) > layout.ATTR_VALUE_LEN:
            raise LocalProtocolError(
                "an attribute's value has at most %d bytes" % layout.ATTR_VALUE_LEN)
        return self.pack_key(len(self.value)) + self.value.ljust(layout.ATTR_VALUE_LEN, b"\0")

    def pack_key(self, value_len=0) -> bytes:
        """Everything in front of the value."""
        return _pack(
            _ATTR_HEADER,
            pad(self.name, layout.VDI_NAME_LEN), pad(self.tag, layout.VDI_TAG_LEN),
            self.ctime, self.snap_id, value_len, pad(self.key, layout.ATTR_KEY_LEN))

    @classmethod
    def unpack(cls, buffer) -> "VdiAttr":
        """Takes short buffers: zeros at the end may be left out."""
        raw = bytes(buffer).ljust(layout.ATTR_SIZE, b"\0")
        name, tag, ctime, snap_id, value_len, key = _ATTR_HEADER.unpack_from(raw)
        if value_len > layout.ATTR_VALUE_LEN:
            raise RemoteProtocolError("an attribute's value of %d bytes" % value_len)
        start = _ATTR_HEADER.size
        return cls(unpad(name), unpad(key), raw[start:start + value_len], unpad(tag),
                   ctime, snap_id)
