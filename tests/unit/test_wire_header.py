"""Headers: golden bytes of the public protocol headers, round trips, garbage."""

import unittest

from hypothesis import given, strategies as st

from sheepstack.wire import header
from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError
from sheepstack.wire.opcodes import PROTO_VER, SHEEP_PROTO_VER, Op

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)

WIDTHS = {
    "opcode": U8, "flags": U16, "oid": U64, "cow_oid": U64, "copies": U8, "copy_policy": U8,
    "ec_index": U8, "vdi_size": U64, "store_policy": U8, "block_size_shift": U8, "ctime": U64,
    "cluster_flags": U16, "set_bitmap": U8, "port": U16, "proto_ver": U8, "nr_copies": U8,
    "store_size": U64, "store_free": U64, "addr": st.binary(min_size=16, max_size=16),
    "digest": st.binary(min_size=20, max_size=20), "rest": st.binary(min_size=32, max_size=32),
}

KINDS = (
    header.Header, header.ObjRequest, header.VdiRequest, header.ClusterRequest,
    header.VdiStateRequest, header.ForwardRequest, header.CoherenceRequest, header.Response,
    header.ObjResponse, header.VdiResponse, header.NodeResponse, header.ClusterDefaultResponse,
    header.HashResponse,
)


def any_of(kind):
    widths = dict(WIDTHS)
    if kind is header.ObjResponse:
        widths["offset"] = U64
    return st.builds(kind, **{name: widths.get(name, U32) for name in kind._fields})


COMMON = dict(opcode=0x11, flags=0x2233, epoch=0x44556677, id=0x8899AABB,
              data_length=0xCCDDEEFF, proto_ver=2)

# Made by a C compiler from the public protocol headers.
COMMON_BYTES = "0211332277665544bbaa9988ffeeddcc"
GOLDEN = (
    (header.ObjRequest(
        **COMMON, oid=0x0102030405060708, cow_oid=0x1112131415161718, copies=3,
        copy_policy=0x22, ec_index=5, tgt_epoch=0x21222324, offset=0x31323334, pad=0x41424344),
     "0807060504030201181716151413121103220500242322213433323144434241"),
    (header.VdiRequest(
        **COMMON, vdi_size=0x0102030405060708, base_vdi_id=0x11121314, copies=3,
        copy_policy=0x22, store_policy=1, block_size_shift=22, snapid=0x21222324, type=1),
     "0807060504030201141312110322011624232221010000000000000000000000"),
    (header.ClusterRequest(
        **COMMON, oid=0x0102030405060708, ctime=0x1112131415161718, copies=3,
        copy_policy=0x22, cluster_flags=0x0102, tag=0x21222324, nodes_nr=0x31323334,
        block_size_shift=22),
     "0807060504030201181716151413121103220201242322213433323116000000"),
    (header.VdiStateRequest(
        **COMMON, old_vid=0x01020304, new_vid=0x11121314, copies=3, set_bitmap=1,
        copy_policy=0x22, block_size_shift=22),
     "0403020114131211030122160000000000000000000000000000000000000000"),
    (header.ForwardRequest(
        **COMMON, oid=0x0102030405060708, addr=bytes(range(0x20, 0x30)), port=7001),
     "0807060504030201202122232425262728292a2b2c2d2e2f591b000000000000"),
    (header.CoherenceRequest(**COMMON, vid=0x01020304, validate=1),
     "0403020101000000000000000000000000000000000000000000000000000000"),
    (header.Response(0x01020304, **COMMON),
     "0403020100000000000000000000000000000000000000000000000000000000"),
    (header.ObjResponse(0x01020304, **COMMON, copies=3, offset=0x1112131415161718),
     "0403020103000000181716151413121100000000000000000000000000000000"),
    (header.VdiResponse(
        0x01020304, **COMMON, rsvd=0x11121314, vdi_id=0x21222324, attr_id=0x31323334,
        copies=3, block_size_shift=22),
     "0403020114131211242322213433323103160000000000000000000000000000"),
    (header.NodeResponse(
        0x01020304, **COMMON, nr_nodes=0x11121314, store_size=0x2122232425262728,
        store_free=0x3132333435363738),
     "0403020114131211000000000000000028272625242322213837363534333231"),
    (header.ClusterDefaultResponse(
        0x01020304, **COMMON, nr_copies=3, copy_policy=0x22, block_size_shift=22),
     "0403020103221600000000000000000000000000000000000000000000000000"),
    (header.HashResponse(0x01020304, **COMMON, digest=bytes(range(0x40, 0x54))),
     "0403020100000000404142434445464748494a4b4c4d4e4f5051525300000000"),
)


class GoldenBytes(unittest.TestCase):

    def test_every_kind_packs_to_the_bytes_of_the_c_structs(self):
        for value, rest in GOLDEN:
            with self.subTest(kind=type(value).__name__):
                self.assertEqual(value.pack().hex(), COMMON_BYTES + rest)

    def test_every_kind_unpacks_from_the_bytes_of_the_c_structs(self):
        for value, rest in GOLDEN:
            with self.subTest(kind=type(value).__name__):
                self.assertEqual(type(value).unpack(bytes.fromhex(COMMON_BYTES + rest)), value)

    def test_golden_bytes_cover_every_kind(self):
        covered = {type(value) for value, _ in GOLDEN} | {header.Header}
        self.assertEqual(covered, set(KINDS))


class RoundTrips(unittest.TestCase):

    @given(st.sampled_from(KINDS).flatmap(any_of))
    def test_unpack_reverses_pack(self, value):
        raw = value.pack()
        self.assertEqual(len(raw), header.HEADER_SIZE)
        self.assertEqual(type(value).unpack(raw), value)

    @given(st.sampled_from(KINDS), st.binary(max_size=64), st.binary(max_size=64))
    def test_an_offset_is_counted_from_the_start_of_the_buffer(self, kind, front, tail):
        raw = bytes(range(100, 148))
        self.assertEqual(kind.unpack(front + raw + tail, len(front)), kind.unpack(raw))

    @given(st.sampled_from(KINDS).flatmap(any_of))
    def test_every_kind_reads_alike_as_a_plain_header(self, value):
        plain = header.Header.unpack(value.pack())
        for name in ("proto_ver", "opcode", "flags", "epoch", "id", "data_length"):
            self.assertEqual(getattr(plain, name), getattr(value, name), name)

    def test_memoryviews_and_bytearrays_are_as_good_as_bytes(self):
        raw = header.ObjRequest(Op.READ_OBJ, oid=77).pack()
        self.assertEqual(header.ObjRequest.unpack(memoryview(raw)).oid, 77)
        self.assertEqual(header.ObjRequest.unpack(bytearray(raw)).oid, 77)


class Garbage(unittest.TestCase):

    @given(st.sampled_from(KINDS), st.binary(min_size=48, max_size=48))
    def test_any_48_bytes_are_some_header(self, kind, raw):
        kind.unpack(raw)

    @given(st.sampled_from(KINDS), st.binary(max_size=47))
    def test_short_buffers_are_the_peers_fault(self, kind, raw):
        with self.assertRaises(RemoteProtocolError):
            kind.unpack(raw)

    @given(st.sampled_from(KINDS), st.integers())
    def test_offsets_outside_the_buffer_are_noticed(self, kind, offset):
        if offset == 0:
            kind.unpack(bytes(48), offset)
        else:
            with self.assertRaises(RemoteProtocolError):
                kind.unpack(bytes(48), offset)

    def test_what_does_not_fit_is_our_fault(self):
        for value in (header.ObjRequest(Op.READ_OBJ, oid=1 << 64), header.ObjRequest(256),
                      header.VdiRequest(Op.NEW_VDI, vdi_size=-1), header.Response(1 << 32),
                      header.Header(2, 1, 0, 0, 0, 0, None),
                      header.ForwardRequest(Op.REPAIR_REPLICA, addr="10.0.0.1")):
            with self.subTest(value=value), self.assertRaises(LocalProtocolError):
                value.pack()


class Versions(unittest.TestCase):

    def test_internal_opcodes_state_the_internal_version(self):
        self.assertEqual(header.version_of(Op.GET_CLUSTER_DEFAULT), PROTO_VER)
        self.assertEqual(header.version_of(0x7F), PROTO_VER)
        self.assertEqual(header.version_of(Op.GET_NODE_LIST), SHEEP_PROTO_VER)
        self.assertEqual((PROTO_VER, SHEEP_PROTO_VER), (0x02, 0x0A))


if __name__ == "__main__":
    unittest.main()
