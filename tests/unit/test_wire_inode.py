"""The inode and attribute objects: offsets, golden bytes, round trips, garbage."""

import unittest
from array import array

from hypothesis import given, strategies as st

from sheepstack.wire import inode, inode_layout as layout
from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError

U8 = st.integers(0, 0xFF)
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
NAMES = st.binary(max_size=255).map(lambda raw: raw.replace(b"\0", b"").decode(
    "utf-8", "surrogateescape"))
INODES = st.builds(inode.InodeHeader, NAMES, NAMES, U64, U64, U64, U64, U64, U8, U8, U8, U8,
                   U32, U32, U32, U32)
ATTRS = st.builds(inode.VdiAttr, NAMES, NAMES, st.binary(max_size=300), NAMES, U64, U32)

# Offsets and sizes as a C compiler lays the public structs out.
INODE_FIELDS = (
    ("name", 0, 256), ("tag", 256, 256), ("create_time", 512, 8), ("snap_ctime", 520, 8),
    ("vm_clock_nsec", 528, 8), ("vdi_size", 536, 8), ("vm_state_size", 544, 8),
    ("copy_policy", 552, 1), ("store_policy", 553, 1), ("nr_copies", 554, 1),
    ("block_size_shift", 555, 1), ("snap_id", 556, 4), ("vdi_id", 560, 4),
    ("parent_vdi_id", 564, 4), ("btree_counter", 568, 4),
)
ATTR_FIELDS = (
    ("name", 0, 256), ("tag", 256, 256), ("ctime", 512, 8), ("snap_id", 520, 4),
    ("key", 528, 256), ("value", 784, 65536),
)

HEADER = inode.InodeHeader(
    name="alice", tag="snap", create_time=0x0102030405060708, snap_ctime=0x1112131415161718,
    vm_clock_nsec=0x2122232425262728, vdi_size=0x3132333435363738,
    vm_state_size=0x4142434445464748, copy_policy=0x22, store_policy=1, nr_copies=6,
    block_size_shift=24, snap_id=0x51525354, vdi_id=0x616263, parent_vdi_id=0x717273,
    btree_counter=0x01020304)
NUMBERS_HEX = ("0807060504030201181716151413121128272625242322213837363534333231"
               "484746454443424122010618545352516362610073727100" "0403020100000000")


class Layout(unittest.TestCase):

    def test_sizes(self):
        self.assertEqual(layout.INODE_HEADER_SIZE, 4664)
        self.assertEqual(layout.DATA_VDI_ID_OFFSET, 4664)
        self.assertEqual(layout.GREF_OFFSET, 4198968)
        self.assertEqual(layout.INODE_SIZE, 12587576)
        self.assertEqual(layout.ATTR_SIZE, 66320)
        self.assertEqual((layout.TAG_OFFSET, layout.SNAP_CTIME_OFFSET, layout.VDI_SIZE_OFFSET),
                         (256, 520, 536))

    def test_offsets_of_map_entries(self):
        self.assertEqual([layout.data_vdi_id_offset(i) for i in (0, 7, 1048575)],
                         [4664, 4692, 4198964])

    def test_each_inode_field_fills_its_bytes_and_no_others(self):
        empty = inode.InodeHeader("", block_size_shift=0).pack()
        self.assertEqual(empty, bytes(4664))
        for name, offset, size in INODE_FIELDS:
            full = "x" * 255 if size == 256 else (1 << 8 * size) - 1
            raw = inode.InodeHeader("", block_size_shift=0)._replace(**{name: full}).pack()
            touched = {i for i, byte in enumerate(raw) if byte}
            expected = set(range(offset, offset + (255 if size == 256 else size)))
            with self.subTest(field=name):
                self.assertEqual(touched, expected)

    def test_the_table_names_every_field(self):
        self.assertEqual([name for name, _, _ in INODE_FIELDS], list(inode.InodeHeader._fields))

    def test_each_attribute_field_fills_its_bytes(self):
        values = {256: "x" * 255, 8: (1 << 64) - 1, 4: (1 << 32) - 1, 65536: b"x" * 65536}
        for name, offset, size in ATTR_FIELDS:
            raw = inode.VdiAttr("", "")._replace(**{name: values[size]}).pack()
            touched = {i for i, byte in enumerate(raw) if byte} - set(range(524, 528))
            expected = set(range(offset, offset + (255 if size == 256 else size)))
            with self.subTest(field=name):
                self.assertEqual(touched, expected)
        self.assertEqual(inode.VdiAttr("", "", b"abc").pack()[524:528], b"\3\0\0\0")


class GoldenBytes(unittest.TestCase):

    def test_header(self):
        raw = HEADER.pack()
        self.assertEqual(len(raw), 4664)
        self.assertEqual(raw[:6], b"alice\0")
        self.assertEqual(raw[256:261], b"snap\0")
        self.assertEqual(raw[512:576].hex(), NUMBERS_HEX)

    def test_map(self):
        self.assertEqual(inode.pack_map([0x982A39, 0, 1]).hex(), "392a98000000000001000000")

    def test_generation_reference(self):
        self.assertEqual(inode.GenerationReference(1, -2).pack().hex(), "01000000feffffff")

    def test_clock_value(self):
        self.assertEqual(inode.clock_value(1391612640, 5), 1391612640 << 32 | 5)


class RoundTrips(unittest.TestCase):

    @given(INODES)
    def test_inode_header(self, value):
        self.assertEqual(inode.InodeHeader.unpack(value.pack()), value)

    @given(INODES, st.binary(max_size=20))
    def test_inode_header_at_an_offset(self, value, front):
        self.assertEqual(inode.InodeHeader.unpack(front + value.pack(), len(front)), value)

    @given(INODES)
    def test_zeros_at_the_end_may_be_left_out(self, value):
        self.assertEqual(inode.InodeHeader.unpack(value.pack().rstrip(b"\0")), value)

    @given(ATTRS)
    def test_attribute(self, value):
        raw = value.pack()
        self.assertEqual(len(raw), layout.ATTR_SIZE)
        self.assertEqual(inode.VdiAttr.unpack(raw), value)
        if value.value[-1:] != b"\0":
            self.assertEqual(inode.VdiAttr.unpack(raw.rstrip(b"\0")), value)

    @given(st.lists(U32))
    def test_map(self, entries):
        raw = inode.pack_map(entries)
        self.assertEqual(inode.unpack_map(raw), array("I", entries))
        self.assertEqual(inode.pack_map(inode.unpack_map(raw)), raw)

    @given(st.integers(-2**31, 2**31 - 1), st.integers(-2**31, 2**31 - 1))
    def test_generation_reference(self, generation, count):
        value = inode.GenerationReference(generation, count)
        self.assertEqual(inode.GenerationReference.unpack(value.pack()), value)


class Meaning(unittest.TestCase):

    def test_a_snapshot_has_a_time(self):
        self.assertTrue(HEADER.is_snapshot)
        self.assertFalse(HEADER._replace(snap_ctime=0).is_snapshot)

    def test_a_deleted_vdi_has_no_name(self):
        self.assertTrue(HEADER._replace(name="").is_deleted)
        self.assertFalse(HEADER.is_deleted)

    def test_objects_are_rounded_up(self):
        vdi = inode.InodeHeader("a", block_size_shift=22)
        self.assertEqual(vdi.block_size, 4 << 20)
        for size, count in ((0, 0), (1, 1), (4 << 20, 1), ((4 << 20) + 1, 2), (10 << 30, 2560)):
            self.assertEqual(vdi._replace(vdi_size=size).object_count, count)


class Garbage(unittest.TestCase):

    @given(st.binary(max_size=700))
    def test_any_bytes_are_an_inode_header(self, raw):
        inode.InodeHeader.unpack(raw)

    @given(st.binary(max_size=900))
    def test_any_bytes_are_an_attribute_or_the_peers_fault(self, raw):
        try:
            inode.VdiAttr.unpack(raw)
        except RemoteProtocolError:
            pass

    def test_an_attribute_longer_than_its_room_is_the_peers_fault(self):
        raw = bytearray(inode.VdiAttr("a", "b").pack())
        raw[524:528] = (65537).to_bytes(4, "little")
        with self.assertRaises(RemoteProtocolError):
            inode.VdiAttr.unpack(raw)

    @given(st.binary(max_size=7))
    def test_a_cut_generation_reference_is_the_peers_fault(self, raw):
        with self.assertRaises(RemoteProtocolError):
            inode.GenerationReference.unpack(raw)

    @given(st.binary(max_size=64))
    def test_a_map_cut_in_an_entry_is_the_peers_fault(self, raw):
        if len(raw) % 4:
            with self.assertRaises(RemoteProtocolError):
                inode.unpack_map(raw)
        else:
            self.assertEqual(len(inode.unpack_map(raw)), len(raw) // 4)

    def test_what_does_not_fit_is_our_fault(self):
        for pack in (
                HEADER._replace(name="x" * 256).pack, HEADER._replace(name="a\0b").pack,
                HEADER._replace(vdi_size=1 << 64).pack, HEADER._replace(vdi_id=-1).pack,
                inode.VdiAttr("a", "k", bytes(65537)).pack,
                inode.VdiAttr("a", "k" * 256).pack,
                inode.VdiAttr("a", "k", ctime=1 << 64).pack,
                inode.GenerationReference(1 << 31, 0).pack,
                lambda: inode.pack_map([1 << 32]), lambda: inode.pack_map([-1])):
            with self.assertRaises(LocalProtocolError):
                pack()


if __name__ == "__main__":
    unittest.main()
