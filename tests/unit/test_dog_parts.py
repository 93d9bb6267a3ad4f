"""Parts of dog that judge and compute: which copy is right, where objects are, listings."""

import unittest

from hypothesis import given, strategies as st

from sheepstack.dog import check, cluster, vdi_list, vdi_lock
from sheepstack.dog.location import Locations
from sheepstack.dog.vdi import VdiSettings
from sheepstack.dog.command import Context
from sheepstack.wire import admin, oid as oids
from sheepstack.wire.inode import InodeHeader, clock_value


def node(port, zone=None, vnodes=128):
    return admin.NodeRecord(admin.NodeId("127.0.0.1", port), vnodes,
                            port if zone is None else zone, 1 << 40)


class Verdicts(unittest.TestCase):

    def judge(self, *digests):
        return check.Verdict(list(zip("abcde", digests)))

    def test_all_alike(self):
        verdict = self.judge(b"1", b"1", b"1")
        self.assertEqual((verdict.right, verdict.wrong), ("a", []))

    def test_the_majority_is_right(self):
        verdict = self.judge(b"2", b"1", b"1")
        self.assertEqual((verdict.right, verdict.wrong), ("b", [("a", False)]))

    def test_a_missing_copy_is_made_anew(self):
        verdict = self.judge(None, b"1")
        self.assertEqual((verdict.right, verdict.wrong), ("b", [("a", True)]))

    def test_a_rotten_copy_has_no_vote(self):
        verdict = self.judge(b"", b"1", None)
        self.assertEqual((verdict.right, verdict.wrong), ("b", [("a", False), ("c", True)]))

    def test_two_against_two_is_no_majority(self):
        verdict = self.judge(b"1", b"2", b"1", b"2")
        self.assertEqual((verdict.complaint, verdict.wrong), ("no majority of %s", []))

    def test_nobody_has_it(self):
        for digests in ((), (None, None), (b"", None)):
            self.assertEqual(self.judge(*digests).complaint, "no node has %s")

    @given(st.lists(st.sampled_from([None, b"", b"1", b"2"]), max_size=5))
    def test_every_holder_is_right_or_repaired_or_nothing_is_touched(self, digests):
        verdict = self.judge(*digests)
        if verdict.complaint:
            self.assertEqual(verdict.wrong, [])
            return
        good = digests["abcde".index(verdict.right)]
        self.assertEqual([name for name, _ in verdict.wrong],
                         [name for name, digest in zip("abcde", digests) if digest != good])


class Places(unittest.TestCase):

    #: As a C sheep cluster of these four nodes with two copies placed them.
    NODES = [node(port, zone) for zone, port in enumerate(range(7100, 7103))]

    def ports(self, oid, copies, nodes=None):
        return [n.nid.port for n in Locations(nodes or self.NODES).holders(oid, copies)]

    def test_as_the_c_project_places_them(self):
        for oid, ports in (
                (oids.vdi_oid(0x1EC8C), [7102, 7101, 7100]),
                (oids.data_oid(0x1EC8C, 0), [7102, 7101, 7100]),
                (oids.data_oid(0x1EC8C, 3), [7101, 7100, 7102]),
                (0x000000000001869F, [7100, 7102, 7101]),
                (0x0080000000000001, [7101, 7102, 7100]),
                (oids.vdi_oid(0x6AD355), [7102, 7100, 7101])):
            with self.subTest(oid=oids.name_of(oid)):
                self.assertEqual(self.ports(oid, 3), ports)

    def test_one_copy_in_a_zone(self):
        nodes = [node(7100, 0), node(7101, 0), node(7102, 1)]
        for index in range(50):
            holders = self.ports(oids.data_oid(1, index), 3, nodes)
            self.assertEqual(len(holders), 2)
            self.assertIn(7102, holders)

    def test_gateways_hold_nothing(self):
        nodes = [node(7100), node(7101, vnodes=0)]
        self.assertEqual(self.ports(oids.data_oid(1, 2), 2, nodes), [7100])


class EpochDifferences(unittest.TestCase):

    def log(self, *ports):
        return admin.EpochLog(1, nodes=tuple(node(port) for port in ports))

    def test_who_came_and_who_went(self):
        self.assertEqual(cluster.difference(self.log(1, 2, 4), self.log(1, 2, 3)),
                         "+127.0.0.1:4, -127.0.0.1:3")

    def test_other_v_nodes_are_no_change(self):
        before = admin.EpochLog(1, nodes=(node(1, vnodes=64),))
        self.assertEqual(cluster.difference(self.log(1), before), "")


class MapHolder:
    """In place of a session: every object that is read begins with this map."""

    def __init__(self, vids=()):
        self._map = b"".join(vid.to_bytes(4, "little") for vid in vids)

    def read_object(self, oid, length, offset=0):
        return self._map.ljust(length, b"\0")[:length]


class Listing(unittest.TestCase):

    INODE = InodeHeader("ntestvm1.img", vdi_size=16 << 20, nr_copies=2, vdi_id=0x982A3C,
                        create_time=clock_value(1394480940), snap_id=5, parent_vdi_id=0x982A39)

    def row(self, inode, vids=(), raw=False):
        settings = VdiSettings()
        settings.raw = raw
        return vdi_list.row(Context(settings, [], MapHolder(vids)), inode)

    def test_columns(self):
        line = self.row(self.INODE, (0x982A3C, 0, 0x982A39, 0x982A39))
        self.assertTrue(line.startswith(
            "  ntestvm1.img     0   16 MB  4.0 MB  8.0 MB 2014-03-1"), line)
        self.assertTrue(line.endswith("   982a3c      2                22"), line)

    def test_short_names_are_padded(self):
        line = self.row(self.INODE._replace(name="a", tag="feb.snap", snap_ctime=1,
                                            vdi_size=8 << 30))
        self.assertTrue(line.startswith("s a            5  8.0 GB  0.0 MB  0.0 MB "), line)
        self.assertTrue(line.endswith("  982a3c      2      feb.snap  22"), line)

    def test_raw(self):
        self.assertEqual(
            self.row(self.INODE._replace(name="a b"), (0x982A3C,), raw=True),
            "= a\\ b 0 16777216 4194304 0 1394480940 982a3c 2  22")

    def test_kinds(self):
        self.assertEqual(vdi_list.kind(self.INODE, " "), " ")
        self.assertEqual(vdi_list.kind(self.INODE._replace(snap_id=1), " "), "c")
        self.assertEqual(
            vdi_list.kind(self.INODE._replace(snap_id=1, parent_vdi_id=0), "="), "=")
        self.assertEqual(vdi_list.kind(self.INODE._replace(snap_ctime=1), "="), "s")


class Holders(unittest.TestCase):

    def test_an_exclusive_lock(self):
        state = admin.VdiState(1, lock_state=admin.LockState.LOCKED,
                               lock_owner=admin.NodeId("127.0.0.1", 7101))
        self.assertEqual(vdi_lock.holders(state), " IPv4 ip:127.0.0.1 port:7101")

    def test_a_shared_lock(self):
        state = admin.VdiState(1, lock_state=admin.LockState.SHARED, participants=(
            (admin.SharedLockState.MODIFIED, admin.NodeId("127.0.0.1", 7101)),
            (admin.SharedLockState.INVALIDATED, admin.NodeId("::1", 7102))))
        self.assertEqual(vdi_lock.holders(state),
                         " IPv4 ip:127.0.0.1 port:7101(modified) "
                         "IPv6 ip:::1 port:7102(invalidated)")


if __name__ == "__main__":
    unittest.main()
