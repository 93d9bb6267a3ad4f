"""What sheep say to one another: sheepstack's own protocol, on the same port.

Request, 48 bytes::

    offset size field
    0      1    proto_ver     PEER_VER
    1      1    opcode        a PeerOp
    2      2    flags
    4      4    revision      of the sender's cluster map; refused unless it is the receiver's
    8      4    id
    12     4    data_length   bytes that follow
    16     8    oid
    24     8    stamp         counter << 16 | the coordinator's index in the map
    32     8    settled       if not 0: all writes of the node that ``stamp`` names with a
                              counter up to this one are on all their holders
    40     4    offset
    44     4    length        of what is read, or size of the object that is created

Response, 48 bytes: the first 16 as above, then result (4), 4 unused, stamp (8), value (8),
8 unused.

Together with the revision, a stamp orders all writes to an object: see
:func:`full_stamp`.
"""

import enum
from struct import Struct

PEER_VER = 0x70

REQUEST = Struct("<BBHIIIQQQII")
RESPONSE = Struct("<BBHIIII4xQQ8x")

NODE_BITS = 16


class PeerOp(enum.IntEnum):
    """Opcode between sheep.  All but PING and FORWARD need equal revisions."""

    PING = 0xE8
    READ = 0xE9
    WRITE = 0xEA
    CREATE = 0xEB
    REMOVE = 0xEC
    DISCARD = 0xED
    #: Nothing but the fields ``stamp`` and ``settled``.
    SETTLE = 0xEE
    #: JSON question, JSON answer; see :mod:`sheepstack.sheep.peer_service`.
    CALL = 0xEF
    #: A client's request for the leader, whole, as payload; so is the answer.
    FORWARD = 0xF0
    #: Content of an object for recovery: extents, see :func:`pack_extents`.  ``stamp`` of the
    #: answer is a number that grows with what clients ask for, ``value`` the bytes of
    #: checksums behind the extents; see :attr:`PeerFlag.SUMS`.
    FETCH = 0xF1
    #: What a node holds, for recovery: see :func:`pack_listing`.
    LIST = 0xF2
    #: An object or a strip of one as FETCH gives it, to be kept: see
    #: :meth:`sheepstack.sheep.replica.Replica.put`.
    PUT = 0xF3
    #: Bytes of a strip, behind its trailer: see :mod:`sheepstack.redundancy.erasure`.
    READ_STRIP = 0xF4


FIRST_PEER_OPCODE = 0xE8


#: Of the flags of a write: where the byte with the copy policy of its object lies.
POLICY_SHIFT = 8


class PeerFlag(enum.IntFlag):
    #: READ and FETCH: from a copy that was set aside, of the revision in ``stamp``.
    STALE = 0x01
    #: READ: take the copy as it is, also where a write to it is under way.
    UNSETTLED = 0x02
    #: FETCH: the bytes need not be checked where their checksums come along, 4 bytes for each
    #: block of each extent, as the store keeps them: who fetches checks them anyway.
    SUMS = 0x04
    #: FETCH: where the object is not there yet (AGAIN), it is looked for before all counts as
    #: complete there: who asks keeps what the other could not take, relying on that.
    OWED = 0x08


def full_stamp(revision: int, stamp: int) -> int:
    """A stamp that is unique and ordered over the whole life of a cluster (96 bits)."""
    return revision << 64 | stamp


def make_stamp(counter: int, node_index: int) -> int:
    return counter << NODE_BITS | node_index


def counter_of(stamp: int) -> int:
    return (stamp & 0xFFFFFFFFFFFFFFFF) >> NODE_BITS


def node_index_of(stamp: int) -> int:
    return stamp & ((1 << NODE_BITS) - 1)


_EXTENTS_HEAD = Struct("<QQQII")
_EXTENT = Struct("<II")
_UNSETTLED = Struct("<QQQ")
_LISTED = Struct("<QQQII")


def pack_extents(size: int, full: int, extents, unsettled=()) -> list:
    """Buffers that carry an object: ``extents`` is a list of (offset, bytes), ``unsettled`` of
    (stamp, start, end) of writes that it holds and that may not be on all holders yet.

    ``<size u64> <stamp: low u64, high u64> <count of extents u32> <of unsettled writes u32>``,
    then for each extent ``<offset u32> <length u32>``, for each write ``<stamp u64> <start u64>
    <end u64>``, then the bytes of the extents.
    """
    head = [_EXTENTS_HEAD.pack(size, full & 0xFFFFFFFFFFFFFFFF, full >> 64, len(extents),
                               len(unsettled))]
    head += [_EXTENT.pack(offset, len(data)) for offset, data in extents]
    head += [_UNSETTLED.pack(*item) for item in unsettled]
    return [b"".join(head)] + [data for _, data in extents]


def unpack_extents(payload):
    """(size, stamp, [(offset, memoryview)]); raises ValueError for other bytes."""
    view = memoryview(payload)
    try:
        size, low, high, count, more = _EXTENTS_HEAD.unpack_from(view, 0)
        position = _EXTENTS_HEAD.size
        data = position + count * _EXTENT.size + more * _UNSETTLED.size
        extents = []
        for _ in range(count):
            offset, length = _EXTENT.unpack_from(view, position)
            position += _EXTENT.size
            if data + length > len(view) or offset + length > size:
                raise ValueError("an extent outside of its object")
            extents.append((offset, view[data:data + length]))
            data += length
    except Exception as error:
        raise ValueError("not an object: %s" % error) from None
    return size, high << 64 | low, extents


def unpack_unsettled(payload):
    """[(stamp, start, end)] of the unsettled writes in what :func:`unpack_extents` has found to
    be an object."""
    *_, count, more = _EXTENTS_HEAD.unpack_from(payload, 0)
    start = _EXTENTS_HEAD.size + count * _EXTENT.size
    return list(_UNSETTLED.iter_unpack(
        memoryview(payload)[start:start + more * _UNSETTLED.size]))


def pack_listing(entries) -> bytes:
    """``entries``: (oid, stamp, revision) of each copy; revision 0: it is current."""
    return b"".join(
        _LISTED.pack(oid, full & 0xFFFFFFFFFFFFFFFF, full >> 64, revision, 0)
        for oid, full, revision in entries)


def unpack_listing(payload):
    """List of (oid, stamp, revision); raises ValueError for other bytes."""
    if len(payload) % _LISTED.size:
        raise ValueError("a listing cut in an entry")
    return [(oid, high << 64 | low, revision)
            for oid, low, high, revision, _ in _LISTED.iter_unpack(payload)]
