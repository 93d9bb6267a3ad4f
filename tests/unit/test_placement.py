"""The ring and the cluster map."""

import unittest
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sheepstack.placement.cluster_map import ClusterMap, Node
from sheepstack.placement.ring import (
    DEFAULT_VNODES, RING_SIZE, Ring, changed_arcs, merged)
from sheepstack.placement.weight import weighted_vnodes
from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.wire.hashing import oid_hash
from sheepstack.wire.oid import data_oid, strip_oid


def node(number, zone=None, vnodes=32):
    return Node("10.0.0.%d" % number, 7000, number if zone is None else zone, vnodes, 1 << 40,
                "run-%d" % number)


OIDS = [data_oid(vid, index) for vid in range(1, 20) for index in range(20)]
zones = st.lists(st.integers(1, 5), min_size=1, max_size=8)


class RingTest(unittest.TestCase):
    @given(zones, st.integers(1, 4))
    @settings(max_examples=40, deadline=None)
    def test_copies_lie_in_different_zones(self, zone_list, copies):
        nodes = tuple(node(i, zone) for i, zone in enumerate(zone_list))
        ring = Ring(nodes)
        for oid in OIDS[:50]:
            holders = ring.holders(oid, copies)
            self.assertEqual(len(holders), min(copies, len(set(zone_list))))
            self.assertEqual(len({nodes[i].zone for i in holders}), len(holders))

    def test_fewer_copies_are_a_prefix_of_more(self):
        ring = Ring(tuple(node(i) for i in range(6)))
        for oid in OIDS:
            self.assertEqual(ring.holders(oid, 4)[:2], ring.holders(oid, 2))

    def test_each_strip_has_one_holder_and_whole_copies_lie_with_the_first(self):
        ring, policy = Ring(tuple(node(i) for i in range(8))), CopyPolicy(4, 2)
        for oid in OIDS:
            holders = ring.holders(oid, 6)
            self.assertEqual(holders[:3], ring.holders_of(oid, policy))
            self.assertEqual(holders, tuple(
                ring.holders_of(strip_oid(oid, position), policy)[0] for position in range(6)))
        few = Ring(tuple(node(i) for i in range(5)))
        self.assertEqual((), few.holders_of(strip_oid(OIDS[0], 5), policy))

    def test_gateways_hold_nothing(self):
        ring = Ring((node(1), node(2, vnodes=0), node(3)))
        for oid in OIDS:
            self.assertNotIn(1, ring.holders(oid, 3))
            self.assertEqual(len(ring.holders(oid, 3)), 2)

    def test_a_ring_without_storage_holds_nothing(self):
        self.assertEqual(Ring((node(1, vnodes=0),)).holders(OIDS[0], 3), ())

    def test_equal_nodes_fill_evenly(self):
        for count in (3, 5, 8, 12):
            ring = Ring(tuple(node(i, vnodes=DEFAULT_VNODES) for i in range(1, count + 1)))
            held = Counter(holder for vid in range(100) for index in range(64)
                           for holder in ring.holders(data_oid(977 * vid + 5, index), 2))
            mean = sum(held.values()) / count
            self.assertLess(max(held.values()), 1.25 * mean)
            self.assertGreater(min(held.values()), 0.75 * mean)

    def test_more_vnodes_hold_more(self):
        ring = Ring((node(1, vnodes=64), node(2, vnodes=256)))
        first = [ring.holders(oid, 1)[0] for oid in OIDS]
        self.assertGreater(first.count(1), 2 * first.count(0))

    def test_a_lost_node_only_adds_holders(self):
        nodes = tuple(node(i) for i in range(6))
        before, after = Ring(nodes), Ring(nodes[:2] + nodes[3:])
        for oid in OIDS:
            old = {before.nodes[i].name for i in before.holders(oid, 3)} - {nodes[2].name}
            new = {after.nodes[i].name for i in after.holders(oid, 3)}
            self.assertLessEqual(old, new)

    @given(st.integers(2, 6), st.integers(1, 3))
    @settings(max_examples=20, deadline=None)
    def test_changed_arcs_are_exactly_where_holders_differ(self, count, copies):
        nodes = tuple(node(i) for i in range(count))
        before, after = Ring(nodes), Ring(nodes[:-1])
        arcs = changed_arcs(before, after, copies)
        for oid in OIDS:
            old = {before.nodes[i].name for i in before.holders(oid, copies)}
            new = {after.nodes[i].name for i in after.holders(oid, copies)}
            inside = any(start <= oid_hash(oid) < end for start, end in arcs)
            self.assertEqual(inside, old != new)

    def test_arcs_stay_on_the_ring(self):
        arcs = changed_arcs(Ring((node(1),)), Ring((node(2),)), 1)
        self.assertEqual(arcs, [(0, RING_SIZE)])

    def test_merged(self):
        self.assertEqual(merged([(5, 9), (0, 3), (3, 4), (6, 7)]), [(0, 4), (5, 9)])

    def test_the_nodes_of_a_ring_known_by_heart(self):
        # Placement is part of the protocol: a C dog computes it, too.
        ring = Ring(tuple(
            Node("127.0.0.1", port, port, 128, 1, "x") for port in (7000, 7001, 7002)))
        self.assertEqual([ring.holders(oid, 3) for oid in OIDS[:6]],
                         [(2, 1, 0), (0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1), (2, 1, 0)])


class WeightTest(unittest.TestCase):
    def test_equal_space_gives_the_default(self):
        self.assertEqual(weighted_vnodes(1 << 40, 1 << 40), 128)

    def test_twice_the_space_twice_the_vnodes(self):
        self.assertEqual(weighted_vnodes(2 << 40, 1 << 40), 256)

    def test_never_none(self):
        self.assertEqual(weighted_vnodes(1, 1 << 60), 1)


class ClusterMapTest(unittest.TestCase):
    def test_round_trip(self):
        value = ClusterMap("u", 5, 3, (node(1), node(2)), revision=9,
                           copies=CopyPolicy(4, 2), settled=True)
        self.assertEqual(ClusterMap.from_bytes(value.to_bytes()), value)

    @given(st.binary(max_size=60))
    def test_garbage_is_a_value_error(self, data):
        with self.assertRaises(ValueError):
            ClusterMap.from_bytes(data)
