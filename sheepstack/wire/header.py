"""The 48-byte headers of requests and responses.

All begin alike::

    offset size field
    0      1    proto_ver
    1      1    opcode
    2      2    flags
    4      4    epoch
    8      4    id            chosen by the client, returned in the response
    12     4    data_length   bytes that follow the header; in a request without the
                              WRITE flag: bytes that the client can take back

The remaining 32 bytes depend on the kind.  Gaps are zero.  Requests::

    object       16 8 oid        24 8 cow_oid      32 1 copies        33 1 copy_policy
                 34 1 ec_index   36 4 tgt_epoch    40 4 offset        44 4 pad
    VDI          16 8 vdi_size   24 4 base_vdi_id  28 1 copies        29 1 copy_policy
                 30 1 store_policy  31 1 block_size_shift  32 4 snapid  36 4 type
    cluster      16 8 oid        24 8 ctime        32 1 copies        33 1 copy_policy
                 34 2 flags      36 4 tag          40 4 nodes_nr      44 1 block_size_shift
    VDI state    16 4 old_vid    20 4 new_vid      24 1 copies        25 1 set_bitmap
                 26 1 copy_policy  27 1 block_size_shift
    forward      16 8 oid        24 16 addr        40 2 port
    coherence    16 4 vid        20 4 validate

Responses, all with ``result`` in the four bytes at 16::

    object       20 1 copies     24 8 offset
    VDI          20 4 rsvd       24 4 vdi_id       28 4 attr_id       32 1 copies
                 33 1 block_size_shift
    node         20 4 nr_nodes   32 8 store_size   40 8 store_free
    cluster      20 1 nr_copies  21 1 copy_policy  22 1 block_size_shift
    default
    hash         24 20 digest

Each kind is a named tuple that packs itself; the module's ``Struct`` objects are public
for hot paths that avoid the tuple.
"""

from struct import Struct, error as StructError
from typing import NamedTuple

from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError
from sheepstack.wire.opcodes import FIRST_INTERNAL_OPCODE, PROTO_VER, SHEEP_PROTO_VER

HEADER_SIZE = 48

#: Biggest payload that any request or response carries: a whole inode object, rounded up.
MAX_DATA_LENGTH = 1 << 26

COMMON = Struct("<BBHIII")
RAW = Struct("<BBHIII32s")

OBJ_REQUEST = Struct("<BBHIIIQQBBBxIII")
VDI_REQUEST = Struct("<BBHIIIQIBBBBIIQ")
CLUSTER_REQUEST = Struct("<BBHIIIQQBBHIIB3x")
VDI_STATE_REQUEST = Struct("<BBHIIIIIBBBB20x")
FORWARD_REQUEST = Struct("<BBHIIIQ16sH6x")
COHERENCE_REQUEST = Struct("<BBHIIIII24x")

RESULT_RESPONSE = Struct("<BBHIIII28x")
OBJ_RESPONSE = Struct("<BBHIIIIB3xQ16x")
VDI_RESPONSE = Struct("<BBHIIIIIIIBB14x")
NODE_RESPONSE = Struct("<BBHIIIII8xQQ")
CLUSTER_DEFAULT_RESPONSE = Struct("<BBHIIIIBBB25x")
HASH_RESPONSE = Struct("<BBHIIII4x20s4x")


def version_of(opcode: int) -> int:
    """The protocol version that a request with ``opcode`` states: a C sheep checks it."""
    return SHEEP_PROTO_VER if opcode >= FIRST_INTERNAL_OPCODE else PROTO_VER


def _pack(struct, *values):
    try:
        return struct.pack(*values)
    except StructError as error:
        raise LocalProtocolError("cannot encode %r: %s" % (values, error)) from None


def _unpack(struct, buffer, offset):
    if offset < 0 or len(buffer) - offset < HEADER_SIZE:
        raise RemoteProtocolError("a header has 48 bytes, got %d" % (len(buffer) - offset))
    return struct.unpack_from(buffer, offset)


# For people the opcode of a request and the result of a response come first and the
# protocol version last; on the wire the version comes first and the result at 16.

def _pack_request(struct, request):
    *fields, version = request
    return _pack(struct, version, *fields)


def _unpack_request(cls, struct, buffer, offset):
    version, *fields = _unpack(struct, buffer, offset)
    return cls(*fields, version)


def _pack_response(struct, response):
    result, opcode, flags, epoch, id_, data_length, *fields, version = response
    return _pack(struct, version, opcode, flags, epoch, id_, data_length, result, *fields)


def _unpack_response(cls, struct, buffer, offset):
    version, opcode, flags, epoch, id_, data_length, result, *fields = _unpack(
        struct, buffer, offset)
    return cls(result, opcode, flags, epoch, id_, data_length, *fields, version)


class Header(NamedTuple):
    """What every header begins with; ``rest`` is its 32 kind-dependent bytes, undecoded."""

    proto_ver: int
    opcode: int
    flags: int
    epoch: int
    id: int
    data_length: int
    rest: bytes = bytes(32)

    def pack(self) -> bytes:
        return _pack(RAW, *self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "Header":
        return cls(*_unpack(RAW, buffer, offset))


class ObjRequest(NamedTuple):
    """Read, write, create, remove or discard of an object."""

    opcode: int
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    oid: int = 0
    cow_oid: int = 0
    copies: int = 0
    copy_policy: int = 0
    ec_index: int = 0
    tgt_epoch: int = 0
    offset: int = 0
    pad: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_request(OBJ_REQUEST, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "ObjRequest":
        return _unpack_request(cls, OBJ_REQUEST, buffer, offset)


class VdiRequest(NamedTuple):
    """Create, look up, lock, release or delete a VDI.

    The payload is the VDI's name (256 bytes), for look-ups followed by a tag (256 bytes).
    ``snapid`` is not 0 in NEW_VDI where the base becomes a snapshot.  ``token``: sheepstack's
    own, where Sheepdog has unused bytes; who locks a VDI can do so again through any gateway,
    and releases nobody else's lock, with the same one.  0: he is whoever asks the gateway.
    """

    opcode: int
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    vdi_size: int = 0
    base_vdi_id: int = 0
    copies: int = 0
    copy_policy: int = 0
    store_policy: int = 0
    block_size_shift: int = 0
    snapid: int = 0
    type: int = 0
    token: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_request(VDI_REQUEST, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "VdiRequest":
        return _unpack_request(cls, VDI_REQUEST, buffer, offset)


class ClusterRequest(NamedTuple):
    """Format and other requests to the cluster as a whole."""

    opcode: int
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    oid: int = 0
    ctime: int = 0
    copies: int = 0
    copy_policy: int = 0
    cluster_flags: int = 0
    tag: int = 0
    nodes_nr: int = 0
    block_size_shift: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_request(CLUSTER_REQUEST, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "ClusterRequest":
        return _unpack_request(cls, CLUSTER_REQUEST, buffer, offset)


class VdiStateRequest(NamedTuple):
    """ALTER_VDI_COPY: ``new_vid`` is the VDI whose number of copies changed."""

    opcode: int
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    old_vid: int = 0
    new_vid: int = 0
    copies: int = 0
    set_bitmap: int = 0
    copy_policy: int = 0
    block_size_shift: int = 0
    proto_ver: int = SHEEP_PROTO_VER

    def pack(self) -> bytes:
        return _pack_request(VDI_STATE_REQUEST, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "VdiStateRequest":
        return _unpack_request(cls, VDI_STATE_REQUEST, buffer, offset)


class ForwardRequest(NamedTuple):
    """REPAIR_REPLICA: take ``oid`` from the sheep at ``addr`` (sixteen bytes) and ``port``."""

    opcode: int
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    oid: int = 0
    addr: bytes = bytes(16)
    port: int = 0
    proto_ver: int = SHEEP_PROTO_VER

    def pack(self) -> bytes:
        return _pack_request(FORWARD_REQUEST, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "ForwardRequest":
        return _unpack_request(cls, FORWARD_REQUEST, buffer, offset)


class CoherenceRequest(NamedTuple):
    """INODE_COHERENCE: ``validate`` 0 invalidates the other holders' copies of the inode."""

    opcode: int
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    vid: int = 0
    validate: int = 0
    proto_ver: int = SHEEP_PROTO_VER

    def pack(self) -> bytes:
        return _pack_request(COHERENCE_REQUEST, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "CoherenceRequest":
        return _unpack_request(cls, COHERENCE_REQUEST, buffer, offset)


class Response(NamedTuple):
    """A response of which only the result matters."""

    result: int
    opcode: int = 0
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_response(RESULT_RESPONSE, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "Response":
        return _unpack_response(cls, RESULT_RESPONSE, buffer, offset)


class ObjResponse(NamedTuple):
    """``offset``: how many zero bytes were left out in front of the payload.

    A server that speaks version 2 may also leave out zeros behind it: what is missing up
    to the length asked for is zero.
    """

    result: int
    opcode: int = 0
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    copies: int = 0
    offset: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_response(OBJ_RESPONSE, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "ObjResponse":
        return _unpack_response(cls, OBJ_RESPONSE, buffer, offset)


class VdiResponse(NamedTuple):
    """Answer to requests about a VDI."""

    result: int
    opcode: int = 0
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    rsvd: int = 0
    vdi_id: int = 0
    attr_id: int = 0
    copies: int = 0
    block_size_shift: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_response(VDI_RESPONSE, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "VdiResponse":
        return _unpack_response(cls, VDI_RESPONSE, buffer, offset)


class NodeResponse(NamedTuple):
    """Answer to requests about nodes: how many there are, and this one's bytes."""

    result: int
    opcode: int = 0
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    nr_nodes: int = 0
    store_size: int = 0
    store_free: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_response(NODE_RESPONSE, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "NodeResponse":
        return _unpack_response(cls, NODE_RESPONSE, buffer, offset)


class ClusterDefaultResponse(NamedTuple):
    """Answer to GET_CLUSTER_DEFAULT."""

    result: int
    opcode: int = 0
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    nr_copies: int = 0
    copy_policy: int = 0
    block_size_shift: int = 0
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_response(CLUSTER_DEFAULT_RESPONSE, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "ClusterDefaultResponse":
        return _unpack_response(cls, CLUSTER_DEFAULT_RESPONSE, buffer, offset)


class HashResponse(NamedTuple):
    """Answer to GET_HASH: a SHA-1 of the object."""

    result: int
    opcode: int = 0
    flags: int = 0
    epoch: int = 0
    id: int = 0
    data_length: int = 0
    digest: bytes = bytes(20)
    proto_ver: int = PROTO_VER

    def pack(self) -> bytes:
        return _pack_response(HASH_RESPONSE, self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "HashResponse":
        return _unpack_response(cls, HASH_RESPONSE, buffer, offset)
