"""The set of object ids."""

import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from sheepstack.store.index import OidSet
from sheepstack.wire.hashing import oid_hash

OIDS = st.integers(0, (1 << 64) - 1)
RING = 1 << 64


class OidSetTest(unittest.TestCase):

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 30).map(lambda n: n << 59 | n))))
    def test_it_is_a_set(self, steps):
        ours, model = OidSet(), set()
        for add, oid in steps:
            (ours.add if add else ours.discard)(oid)
            (model.add if add else model.discard)(oid)
            self.assertEqual(len(model), len(ours))
        self.assertEqual(model, ours)
        self.assertEqual(sorted(model), sorted(ours))
        for oid in range(30):
            self.assertEqual((oid << 59 | oid) in model, (oid << 59 | oid) in ours)
            self.assertEqual([each for each in sorted(model) if each >> 59 == oid],
                             list(ours.between([(oid << 59, (oid + 1) << 59)])))

    @settings(deadline=None, max_examples=50)
    @given(st.sets(OIDS), st.sets(OIDS))
    def test_filling_it(self, some, more):
        ours = OidSet(some)
        ours.fill(more)
        self.assertEqual(some | more, ours)
        self.assertEqual(len(some | more), len(ours))
        self.assertEqual(some & more, OidSet(some) & OidSet(more))
        ours.clear()
        self.assertEqual(0, len(ours))
        self.assertEqual([], list(ours))

    @settings(max_examples=60, deadline=None)
    @given(st.sets(OIDS, max_size=60), st.lists(st.tuples(OIDS, OIDS), max_size=5))
    def test_arcs(self, oids, arcs):
        def inside(position):
            return any(start <= position < end if start <= end
                       else position >= start or position < end for start, end in arcs)

        found = list(OidSet(oids).in_arcs(arcs))
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual({oid for oid in oids if inside(oid_hash(oid))}, set(found))

    def test_arcs_with_an_object_at_the_edge(self):
        oid = 0x123400000007
        at = oid_hash(oid)
        ours = OidSet([oid])
        self.assertEqual([oid], list(ours.in_arcs([(at, at + 1)])))
        self.assertEqual([], list(ours.in_arcs([(at - 5, at)])))
        self.assertEqual([], list(ours.in_arcs([(at, at)])))
        self.assertEqual([oid], list(ours.in_arcs([(0, RING)])))
        self.assertEqual([oid], list(ours.in_arcs([(at, at + 1), (0, RING), (at - 1, at + 1)])))
        with self.assertRaises(ValueError):
            list(ours.in_arcs([(0, RING + 1)]))

    @settings(max_examples=60, deadline=None)
    @given(st.sets(OIDS, max_size=60), st.lists(st.tuples(OIDS, OIDS), max_size=2))
    def test_ranges_of_ids(self, oids, pairs):
        edges = sorted({edge for pair in pairs for edge in pair})
        ranges = list(zip(edges[::2], edges[1::2])) + [(1 << 64, 1 << 65)]
        found = list(OidSet(oids).between(ranges))
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual({oid for oid in oids
                          if any(first <= oid < end for first, end in ranges)}, set(found))

    def test_it_may_change_while_somebody_looks(self):
        ours = OidSet(range(1000))
        for oid in ours:
            ours.discard(oid)
        self.assertEqual(0, len(ours))

    def test_many_objects_take_little_memory(self):
        ours = OidSet(n * 0x100000003 for n in range(30000))
        buckets = [bucket for bucket in ours._buckets if bucket is not None]
        self.assertEqual(30000, sum(map(len, buckets)))
        self.assertLess(sum(len(bucket) * bucket.itemsize for bucket in buckets), 30000 * 9)
