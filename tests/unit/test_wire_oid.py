"""Object ids and hashing: vectors of the public headers, arithmetic, properties."""

import unittest

from hypothesis import assume, given, strategies as st

from sheepstack.wire import hashing, inode_layout as layout, oid

VIDS = st.integers(1, 0xFFFFFF)
INDEXES = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)

KINDS = (
    (lambda vid, index: oid.vdi_oid(vid), oid.is_vdi),
    (oid.data_oid, oid.is_data),
    (oid.attr_oid, oid.is_attr),
    (oid.vmstate_oid, oid.is_vmstate),
    (oid.btree_oid, oid.is_btree),
    (lambda vid, index: oid.LEDGER_BIT | oid.data_oid(vid, index), oid.is_ledger),
)


class Hashing(unittest.TestCase):

    # name, FNV-1a, with the extra round, VDI id, one more round
    NAMES = (
        (b"", 0xCBF29CE484222325, 0xF4ED18EBF16AA5CC, 0x222325, 0x1F295156532FEFB0),
        (b"a", 0xAF63DC4C8601EC8C, 0x35F3448388DB68D5, 0x01EC8C, 0x47F36157DFC644A8),
        (b"alice", 0x508B2ABB65A03907, 0x0B448C9FB67CF8C6, 0xA03907, 0x1F99BD560F0B0420),
        (b"ntestvm1.img", 0x951319E01D982A36, 0x9B93D3FD4BBC7D3A, 0x982A36,
         0x34EC9F8A49115164),
        (b"volume-2f1c0b2e-0000-4000-8000-0123456789ab", 0x76D8EA483F8CE031,
         0x0D55E5602C8F5725, 0x8CE031, 0x8BAFE3C6D587F7D7),
    )
    OIDS = (
        (0, 0xCB720BF58A2C29EC), (1, 0x695A27070A16E038),
        (0x00982A3900000000, 0x7D8F4B27DCFCF226), (0x80982A3900000000, 0x78E5F79270CB0E2F),
        (0xFFFFFFFFFFFFFFFF, 0xD971DF0E40567443),
    )

    def test_names(self):
        for name, plain, extra, vid, following in self.NAMES:
            with self.subTest(name=name):
                self.assertEqual(hashing.fnv1a_64(name), plain)
                self.assertEqual(hashing.buffer_hash(name), extra)
                self.assertEqual(hashing.vdi_name_hash(name), vid)
                self.assertEqual(hashing.next_hash(extra), following)

    def test_oids(self):
        for number, expected in self.OIDS:
            self.assertEqual(hashing.oid_hash(number), expected)

    def test_a_published_vector_of_fnv1a(self):
        self.assertEqual(hashing.fnv1a_64(b"foobar"), 0x85944171F73967E8)

    @given(st.binary(max_size=50), st.binary(max_size=50))
    def test_hashing_goes_on_where_it_stopped(self, one, two):
        self.assertEqual(hashing.fnv1a_64(one + two),
                         hashing.fnv1a_64(two, hashing.fnv1a_64(one)))

    @given(st.binary(max_size=300))
    def test_hashes_stay_in_their_range(self, data):
        self.assertLess(hashing.buffer_hash(data), 1 << 64)
        self.assertLess(hashing.vdi_name_hash(data), hashing.NR_VDIS)


class Strips(unittest.TestCase):

    @given(st.integers(1, oid.VID_MASK), st.integers(0, (1 << 27) - 1), st.integers(0, 30),
           st.sampled_from((oid.data_oid, oid.vmstate_oid)))
    def test_a_strip_has_an_id_of_its_own_at_the_place_of_its_object(
            self, vid, index, position, kind):
        whole = kind(vid, index)
        strip = oid.strip_oid(whole, position)
        self.assertTrue(oid.is_strip(strip))
        self.assertEqual((whole, position, vid),
                         (oid.whole_oid(strip), oid.strip_position(strip), oid.vid_of(strip)))
        self.assertEqual(hashing.oid_hash(whole), hashing.oid_hash(strip))
        self.assertFalse(oid.is_valid(strip), "no client may name it")
        self.assertFalse(oid.is_data(strip))

    @given(VIDS, VIDS, INDEXES, st.sampled_from(KINDS))
    def test_the_ids_of_a_vdi_and_a_type(self, vid, other, index, kind):
        number = kind[0](vid, index)
        types = number & oid.TYPE_MASK
        for wanted in (vid, other):
            [(first, end)] = oid.ids_of(wanted, types)
            self.assertEqual(wanted == vid, first <= number < end)
        [(first, end)] = oid.ids_of(vid, types ^ oid.ATTR_BIT)
        self.assertFalse(first <= number < end)

    @given(st.integers(0, (1 << 64) - 1))
    def test_what_a_client_may_name_is_no_strip(self, number):
        if oid.is_valid(number):
            self.assertFalse(oid.is_strip(number))
            self.assertEqual(number, oid.whole_oid(number))

    def test_inodes_and_far_objects_have_no_strips(self):
        for whole in (oid.vdi_oid(5), oid.attr_oid(5, 1), oid.data_oid(5, 1 << 27)):
            with self.assertRaises(ValueError):
                oid.strip_oid(whole, 0)


class Arithmetic(unittest.TestCase):

    def test_vectors(self):
        self.assertEqual(oid.vdi_oid(0x982A39), 0x80982A3900000000)
        self.assertEqual(oid.data_oid(0x982A39, 0x12345678), 0x00982A3912345678)
        self.assertEqual(oid.attr_oid(0x982A39, 0xFEDCBA98), 0x20982A39FEDCBA98)
        self.assertEqual(oid.vmstate_oid(0x982A39, 7), 0x40982A3900000007)
        self.assertEqual(oid.btree_oid(0x982A39, 9), 0x10982A3900000009)
        self.assertEqual(oid.LEDGER_BIT | oid.data_oid(0x982A39, 1), 0x08982A3900000001)

    @given(VIDS, INDEXES, st.sampled_from(KINDS))
    def test_an_id_is_of_one_kind_and_gives_back_its_parts(self, vid, index, kind):
        make, _ = kind
        number = make(vid, index)
        self.assertTrue(oid.is_valid(number))
        self.assertEqual(oid.vid_of(number), vid)
        self.assertEqual(oid.index_of(number), 0 if oid.is_vdi(number) else index)
        self.assertEqual([test(number) for _, test in KINDS].count(True), 1)
        self.assertTrue(kind[1](number))

    @given(U64)
    def test_ids_with_reserved_bits_two_kinds_or_no_vdi_are_invalid(self, number):
        kinds = bin(number & oid.TYPE_MASK).count("1")
        assume(number & oid.RESERVED_MASK or kinds > 1 or not oid.vid_of(number))
        self.assertFalse(oid.is_valid(number))

    def test_sizes(self):
        for number, size in (
                (oid.vdi_oid(1), 12587576), (oid.attr_oid(1, 2), 66320),
                (oid.btree_oid(1, 2), 4 << 20), (oid.LEDGER_BIT | 1 << 32, 4 << 20),
                (oid.data_oid(1, 2), 8 << 20), (oid.vmstate_oid(1, 2), 8 << 20)):
            self.assertEqual(oid.object_size(number, 8 << 20), size)

    def test_the_biggest_index_of_a_hyper_volume_fits(self):
        self.assertEqual(oid.index_of(oid.data_oid(5, (1 << 32) - 1)), (1 << 32) - 1)
        self.assertEqual(layout.DATA_INDEX, 1 << 20)

    @given(U64)
    def test_names_are_sixteen_hexadecimal_digits(self, number):
        name = oid.name_of(number)
        self.assertEqual((len(name), int(name, 16)), (16, number))


if __name__ == "__main__":
    unittest.main()
