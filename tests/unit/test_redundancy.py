"""Copy policies."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from sheepstack.redundancy import policy
from sheepstack.redundancy.replication import UnsupportedPolicy, scheme_of


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

    def test_erasure_coding_is_refused_clearly(self):
        with self.assertRaises(UnsupportedPolicy) as caught:
            scheme_of(policy.parse("4:2"))
        self.assertIn("4:2", str(caught.exception))

    def test_every_holder_gets_every_byte(self):
        parts = scheme_of(policy.parse("2")).write_parts(2, 8, b"abc", 100)
        self.assertEqual([(part.position, part.offset, part.data) for part in parts],
                         [(0, 8, b"abc"), (1, 8, b"abc")])
