"""Copy policies and erasure codes."""

import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from sheepstack.redundancy import erasure, policy
from sheepstack.wire import oid as oids

POLICIES = tuple(policy.parse(text) for text in ("2:1", "2:2", "4:2", "8:3", "16:7", "16:15"))


class PolicyTest(unittest.TestCase):
    def test_copies(self):
        self.assertEqual(policy.parse("3"), (3, 0))
        self.assertEqual((policy.parse("3").nr_copies, policy.parse("3").copy_policy), (3, 0))

    def test_erasure_code(self):
        self.assertEqual(policy.parse("4:2"), (4, 2))
        self.assertEqual(policy.parse("4:2").copy_policy, 0x22)
        self.assertEqual(policy.from_wire(6, 0x22), (4, 2))
        self.assertEqual(str(policy.parse("16:7")), "16:7")

    def test_wrong_ones_say_why(self):
        for text in ("", "0", "32", "x", "3:1", "4:0", "4:5", "4:2:1", "-1"):
            with self.subTest(text), self.assertRaises(ValueError):
                policy.parse(text)

    @given(st.integers(0, 255), st.integers(0, 255))
    def test_bytes_make_a_policy_or_a_value_error(self, copies, code):
        try:
            made = policy.from_wire(copies, code)
        except ValueError:
            return
        self.assertEqual(made.copy_policy, code)
        self.assertEqual(policy.parse(str(made)), made)
        self.assertEqual(policy.from_byte(made.to_byte()), made)

    @given(st.integers(0, 255))
    def test_one_byte_makes_a_policy_or_a_value_error(self, byte):
        try:
            made = policy.from_byte(byte)
        except ValueError:
            return
        self.assertEqual(made.to_byte(), byte)

    def test_what_is_whole_survives_the_loss_of_as_many_nodes_as_what_is_in_strips(self):
        data, inode = oids.data_oid(5, 7), oids.vdi_oid(5)
        self.assertEqual((3, 3), tuple(map(policy.parse("3").copies_of, (data, inode))))
        self.assertEqual((3, 6), tuple(map(policy.parse("4:2").copies_of, (data, inode))))
        self.assertFalse(policy.parse("3").has_strips(data))
        self.assertFalse(policy.parse("4:2").has_strips(inode))
        self.assertFalse(policy.parse("4:2").has_strips(oids.attr_oid(5, 7)))
        for each in (data, oids.vmstate_oid(5, 7)):
            self.assertTrue(policy.parse("4:2").has_strips(each))
            self.assertFalse(policy.parse("4:2").has_strips(oids.strip_oid(each, 0)))


@st.composite
def objects(draw):
    """A policy, and an object that is mostly one byte over and over."""
    image = bytearray(draw(st.binary(min_size=1, max_size=1))
                      * draw(st.integers(1, 40 * erasure.UNIT)))
    for start, data in draw(st.lists(st.tuples(st.integers(0, len(image)), st.binary()))):
        image[start:start + len(data)] = data
    return draw(st.sampled_from(POLICIES)), bytes(image)


class CodeTest(unittest.TestCase):
    @settings(deadline=None)
    @given(objects(), st.randoms(use_true_random=False))
    def test_any_strips_in_the_number_of_data_strips_make_the_object(self, made, chance):
        copies, image = made
        code = erasure.code_of(copies)
        strips = code.encode(image)
        self.assertEqual({code.strip_size(len(image))}, set(map(len, strips)))
        kept = chance.sample(range(copies.width), copies.data)
        parts = code.decode({position: strips[position] for position in kept})
        self.assertEqual(image, code.assemble(0, len(image), {
            position: (0, parts[position]) for position in range(copies.data)}))
        lost = [position for position in range(copies.width) if position not in kept]
        self.assertEqual(
            {position: strips[position] for position in lost},
            code.rebuild({position: strips[position] for position in kept}, lost))

    @settings(deadline=None)
    @given(objects(), st.data())
    def test_a_range_is_found_in_its_strips_and_computed_from_its_rows(self, made, data):
        copies, image = made
        code = erasure.code_of(copies)
        strips = code.encode(image)
        offset = data.draw(st.integers(0, len(image)))
        length = data.draw(st.integers(0, len(image) - offset))
        wanted = image[offset:offset + length]
        self.assertEqual(wanted, code.assemble(offset, length, {
            position: (start, strips[position][start:stop])
            for position, (start, stop) in code.spans(offset, length).items()}))
        if not length:
            return
        start, stop = code.rows(offset, length)
        self.assertLessEqual(stop, len(strips[0]))
        rows = code.decode({position: strips[position][start:stop]
                            for position in range(copies.parity, copies.width)})
        self.assertEqual(wanted, code.assemble(offset, length, {
            position: (start, rows[position]) for position in range(copies.data)}))

    def test_a_strip_says_of_what_it_is(self):
        content = erasure.pack_strip(7 << 64 | 5, 100, b"strip" * 10)
        trailer, strip = erasure.unpack_strip(content)
        self.assertEqual((7 << 64 | 5, 100, b"strip" * 10),
                         (trailer.version, trailer.size, bytes(strip)))
        self.assertEqual(trailer, erasure.Trailer.unpack(trailer.pack()))

    @given(st.binary(min_size=1, max_size=200), st.data())
    def test_a_strip_that_was_changed_is_refused(self, strip, data):
        content = bytearray(erasure.pack_strip(1, 100, strip))
        place = data.draw(st.integers(0, len(strip) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        with self.assertRaises(erasure.BadStrip):
            erasure.unpack_strip(content)
        with self.assertRaises(erasure.BadStrip):
            erasure.unpack_strip(content[-erasure.TRAILER_SIZE:])
