"""Requests about VDIs that come late: their clients may have got on without them."""

import threading
import unittest
from types import SimpleNamespace

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.vdi_requests import VdiRequests
from sheepstack.sheep.vdi_service import VdiService
from sheepstack.sheep.vdi_table import VdiTable
from sheepstack.sheep.view import View
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.header import Response, VdiRequest
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.opcodes import ClusterFlag, Op
from sheepstack.wire.peer import PEER_VER, PeerOp
from sheepstack.wire.peer import REQUEST as PEER_REQUEST
from sheepstack.wire.results import Result
from sheepstack.wire.text import pad
from tests.unit.leased_state import LeasedState

VID = 0x123456
NAME = pad("disk", layout.VDI_NAME_LEN) + bytes(layout.VDI_TAG_LEN)


class _Gateway:
    """Holds the inode of a VDI named disk, as long as nobody deletes it."""

    def __init__(self):
        self.inode = bytearray(InodeHeader(
            name="disk", create_time=1, vdi_size=4 << 20, nr_copies=3, block_size_shift=22,
            vdi_id=VID, snap_id=1).pack().ljust(4096, b"\0"))

    @property
    def has_disk(self):
        return self.inode.startswith(b"disk\0")

    def read(self, oid, offset, length, policy):
        return Result.SUCCESS, bytes(self.inode[offset:offset + length].ljust(length, b"\0"))

    def write_wait(self, kind, oid, offset, data, size, policy, only=None):
        self.inode[offset:offset + len(data)] = data
        return Result.SUCCESS


class _State(LeasedState):
    """Of a sheep that leads, alone."""

    def __init__(self):
        super().__init__()
        self.enter(1)

    def enter(self, revision, is_open=True):
        self.set_view(View(SimpleNamespace(
            revision=revision, epoch=1, copies=CopyPolicy(3), flags=ClusterFlag.USE_LOCK,
            block_size_shift=22),
            None, 0, (None,), serving=True, open=is_open, leader=0))

    def call_all(self, question):
        return [[VID] if question["call"] == "inodes" else []]


class LateRequests(unittest.TestCase):
    def setUp(self):
        self.state = _State()
        self.addCleanup(self.state.stop)
        self.gateway = _Gateway()
        service = VdiService(self.state, self.gateway, VdiTable(self.state, {}))
        service.reclaim = lambda: None
        self.locks = []
        self.lock_service = SimpleNamespace(
            session_id="1", acquire=lambda name, owner, shared: self.locks.append(name) or True)
        self.requests = VdiRequests(
            self.state, service, SimpleNamespace(lock_service=lambda: self.lock_service))
        self.asker = SimpleNamespace(gone=False)

    def _ask(self, opcode, meanwhile=None):
        """The result of a request that has to wait for ``meanwhile()``, where that is given."""
        if meanwhile is not None:
            self.state.enter(2, is_open=False)
        box = []
        header = VdiRequest(opcode, data_length=len(NAME)).pack()
        asking = threading.Thread(target=lambda: box.append(Response.unpack(
            self.requests.handle(header, NAME, self.asker)[0]).result), daemon=True)
        asking.start()
        if meanwhile is not None:
            meanwhile()
            self.state.enter(3)
        asking.join(30)
        return box[0]

    def _hang_up(self):
        self.asker.gone = True

    def test_a_vdi_is_deleted(self):
        self.assertEqual(Result.SUCCESS, self._ask(Op.DEL_VDI))
        self.assertFalse(self.gateway.has_disk)

    def test_a_client_that_waits_is_served(self):
        self.assertEqual(Result.SUCCESS, self._ask(Op.DEL_VDI, lambda: None))
        self.assertFalse(self.gateway.has_disk)

    def test_a_client_that_hung_up_deletes_nothing_any_more(self):
        """Through another gateway it may have done so, and have made a new VDI of that name."""
        self.assertEqual(Result.SHUTDOWN, self._ask(Op.DEL_VDI, self._hang_up))
        self.assertTrue(self.gateway.has_disk)

    def test_a_client_that_hung_up_locks_nothing_any_more(self):
        self._ask(Op.LOCK_VDI, self._hang_up)
        self.assertEqual([], self.locks)
        self.asker.gone = False
        self._ask(Op.LOCK_VDI)
        self.assertEqual(["vdi-123456"], self.locks)

    def test_what_was_passed_on_at_an_earlier_map_is_not_done(self):
        """The gateway has asked again, and another leader may have answered."""
        header = VdiRequest(Op.DEL_VDI, data_length=len(NAME)).pack()
        for revision, done in ((1, False), (2, True)):
            self.state.enter(2)
            answers = []
            self.requests.forwarded(
                PEER_REQUEST.pack(PEER_VER, PeerOp.FORWARD, 0, revision, 1,
                                  len(header) + len(NAME), 0, 99, 0, 0, 0),
                header + NAME, lambda result, stamp, buffers, length: answers.append(
                    Response.unpack(buffers[0]).result))
            self.assertEqual([Result.SUCCESS if done else Result.AGAIN], answers)
            self.assertEqual(done, not self.gateway.has_disk)


if __name__ == "__main__":
    unittest.main()
