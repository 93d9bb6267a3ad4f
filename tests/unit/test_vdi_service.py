"""The leader's catalogue where a write of an inode met a change of the map."""

import unittest
from types import SimpleNamespace

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.vdi_service import Failure, VdiService
from sheepstack.sheep.vdi_table import VdiTable
from sheepstack.sheep.view import View
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import oid as oids
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result
from tests.unit.leased_state import LeasedState


class _State(LeasedState):
    """Of a sheep that leads, before and after the change."""

    def __init__(self, gateway):
        super().__init__()
        self._gateway = gateway
        self.set_view(View(
            SimpleNamespace(revision=1, epoch=1, copies=CopyPolicy(3), flags=0,
                            block_size_shift=22),
            None, 0, (None,), serving=True, open=True, complete=True, leader=0))

    def call_all(self, question):
        return [[oids.vid_of(oid) for oid in self._gateway.inodes]]


class _Gateway:
    """``changes``: the map changes under each write.  It fails, and yet takes place: one holder
    had it, and that one gave it to the others."""

    def __init__(self):
        self.inodes = {}
        self.changes = False

    def write_wait(self, kind, oid, offset, data, size, policy, only=None):
        if kind == PeerOp.CREATE:
            self.inodes[oid] = bytearray(layout.INODE_SIZE)
        self.inodes[oid][offset:offset + len(data)] = data
        return Result.OLD_NODE_VER if self.changes else Result.SUCCESS

    def read(self, oid, offset, length, policy):
        if oid not in self.inodes:
            return Result.NO_OBJ, b""
        return Result.SUCCESS, bytes(self.inodes[oid][offset:offset + length])


class MapChangesTest(unittest.TestCase):
    def setUp(self):
        self.gateway = _Gateway()
        self.state = _State(self.gateway)
        self.addCleanup(self.state.stop)
        self.service = VdiService(self.state, self.gateway, VdiTable(self.state, {}))
        self.service.reclaim = lambda: None

    def _create(self, name):
        return self.service.create(name, 4 << 20, 0, (0, 0), 0, 0, 17)

    def test_a_vdi_whose_making_failed_is_known_where_it_is_there_all_the_same(self):
        self.assertEqual([], self.service.vids())
        self.gateway.changes = True
        with self.assertRaises(Failure):
            self._create("disk")
        self.gateway.changes = False
        self.assertEqual("disk", self.service.look_up("disk", "", 0).name)
        # So it is not made a second time for who asks again, and nobody else gets its id.
        again = self._create("disk")
        self.assertEqual([again.vdi_id], self.service.vids())


if __name__ == "__main__":
    unittest.main()
