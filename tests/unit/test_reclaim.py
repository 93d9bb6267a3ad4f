"""Reclaiming in the middle of which the map changes."""

import unittest
from types import SimpleNamespace

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.reclaim import Reclaim
from sheepstack.sheep.vdi_service import Failure, VdiService
from sheepstack.sheep.vdi_table import VdiTable
from sheepstack.sheep.view import View
from sheepstack.wire import oid as oids
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result
from tests.unit.leased_state import LeasedState

VID = 0x123456


class _State(LeasedState):
    """Of a sheep that leads.  ``meanwhile()`` is called when objects are asked for; ``cramped``
    tells of two others whether they lack nothing but room."""

    def __init__(self):
        super().__init__()
        self.meanwhile = lambda: None
        self.cramped = [False, False]
        self.objects = []
        self.enter(1, complete=True)

    def enter(self, revision, complete):
        self.set_view(View(SimpleNamespace(
            revision=revision, epoch=1, copies=CopyPolicy(3), flags=0, block_size_shift=22),
            None, 0, (None,), serving=True, open=True, complete=complete, leader=0))

    def call_all(self, question):
        if question["call"] == "objects":
            self.meanwhile()
            return [self.objects]
        if question["call"] == "lacks_only_room":
            return [True, *self.cramped]
        return [[VID]]


class _Gateway:
    """Holds the inode of a deleted VDI.  A removal waits until the map is complete, and fails
    at another revision than it was asked for."""

    def __init__(self, state):
        self._state = state
        self.has_inode = True
        self.waits = False
        self.removed = []
        self._inode = InodeHeader(
            name="", create_time=1, vdi_size=4 << 20, nr_copies=3, block_size_shift=22,
            vdi_id=VID, snap_id=1).pack()

    def read(self, oid, offset, length, policy):
        if not self.has_inode:
            return Result.NO_OBJ, b""
        return Result.SUCCESS, self._inode[offset:offset + length].ljust(length, b"\0")

    def write_wait(self, kind, oid, offset, data, size, policy, only=None, early=False):
        view = self._state.view
        if only != view.revision:
            return Result.OLD_NODE_VER
        if kind == PeerOp.REMOVE and not view.complete and not early:
            self.waits = True
            return Result.SHUTDOWN
        self.removed.append(oid)
        self.has_inode = self.has_inode and not oids.is_vdi(oid)
        return Result.SUCCESS


class ReclaimTest(unittest.TestCase):
    def setUp(self):
        self.state = _State()
        self.addCleanup(self.state.stop)
        self.gateway = _Gateway(self.state)
        self.service = VdiService(self.state, self.gateway, VdiTable(self.state, {}))
        self.reclaim = Reclaim(self.state, self.service, self.gateway)

    def test_the_inode_of_a_deleted_vdi_goes(self):
        self.reclaim.go_through()
        self.assertFalse(self.gateway.has_inode)

    def test_nothing_is_removed_at_a_map_that_is_not_complete(self):
        """The others would be complete once we tell them of our VDIs, which we cannot while
        we wait for them."""
        self.state.meanwhile = lambda: self.state.enter(2, complete=False)
        with self.assertRaises(Failure):
            self.reclaim.go_through()
        self.assertFalse(self.gateway.waits)
        self.state.enter(2, complete=True)
        self.state.meanwhile = lambda: None
        self.reclaim.go_through()
        self.assertFalse(self.gateway.has_inode)

    def test_a_map_that_changes_before_it_begins(self):
        self.state.enter(2, complete=False)
        self.reclaim.go_through()
        self.assertFalse(self.gateway.waits)
        self.assertTrue(self.gateway.has_inode)

    def test_where_one_lacks_more_than_room_nothing_is_removed(self):
        self.state.objects = [oids.data_oid(VID, 5)]
        self.state.cramped = [True, False]
        self.state.enter(2, complete=False)
        self.assertFalse(self.reclaim.go_through())
        self.assertEqual([], self.gateway.removed)

    def test_where_all_lack_nothing_but_room_objects_go_and_the_id_stays_in_use(self):
        self.state.objects = [oids.data_oid(VID, 5)]
        self.state.cramped = [True, True]
        self.state.enter(2, complete=False)
        self.assertTrue(self.reclaim.go_through())
        self.assertEqual([oids.data_oid(VID, 5)], self.gateway.removed)
        self.assertTrue(self.gateway.has_inode)
        self.state.objects = []
        self.state.enter(2, complete=True)
        self.assertTrue(self.reclaim.go_through())
        self.assertFalse(self.gateway.has_inode)


if __name__ == "__main__":
    unittest.main()
