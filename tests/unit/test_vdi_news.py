"""What the leader tells the gateways of a VDI: late, twice, out of order, or not at the first
attempt."""

import unittest
from types import SimpleNamespace

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.vdi_service import Failure, VdiService
from sheepstack.sheep.vdi_table import VdiEntry, VdiTable
from sheepstack.sheep.view import View
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result
from tests.unit.leased_state import LeasedState

VID = 0x123456


class TableTest(unittest.TestCase):
    def setUp(self):
        self.table = VdiTable(None, {})
        self.table.set(VID, VdiEntry(CopyPolicy(3), 22))

    def _frozen(self):
        return bool(self.table.find(VID).frozen)

    def test_frozen_till_it_is_thawed(self):
        self.table.change(VID, frozen=5)
        self.assertTrue(self._frozen())
        self.table.change(VID, thawed=5, snapshot=True)
        self.assertFalse(self._frozen())
        self.assertTrue(self.table.find(VID).snapshot)

    def test_the_end_of_a_snapshot_may_overtake_its_beginning(self):
        """The leader has given the first message up, and a worker takes it out of a queue."""
        self.table.change(VID, thawed=5)
        self.table.change(VID, frozen=5)
        self.assertFalse(self._frozen())

    def test_the_end_of_one_snapshot_is_not_that_of_the_next(self):
        self.table.change(VID, frozen=5)
        self.table.change(VID, frozen=7)
        self.table.change(VID, thawed=5)
        self.assertTrue(self._frozen())
        self.table.change(VID, thawed=7)
        self.assertFalse(self._frozen())


class _State(LeasedState):
    """The leader of a cluster in which every message about a VDI fails ``failures`` times at
    some sheep, though the others have got it."""

    def __init__(self, table, failures):
        super().__init__()
        self._table = table
        self._failures = self._left = failures
        self.set_view(View(SimpleNamespace(
            revision=1, copies=CopyPolicy(3), block_size_shift=22), None, 0, (None,),
            serving=True, open=True, leader=0))

    def call_all(self, question):
        if question["call"] != "vdi":
            return [[VID]]
        self.attempted = question["fields"]
        if "frozen" not in self.attempted and self._left:
            self._left -= 1
            raise Failure(Result.AGAIN)
        self._left = self._failures
        self._table.change(question["vid"], **self.attempted)
        return [True]


class _Gateway:
    """Holds one inode; ``result`` is that of writes."""

    def __init__(self, inode):
        self.inode = bytearray(inode.pack().ljust(4096, b"\0"))
        self.result = Result.SUCCESS

    def read(self, oid, offset, length, policy):
        return Result.SUCCESS, bytes(self.inode[offset:offset + length].ljust(length, b"\0"))

    def write_wait(self, kind, oid, offset, data, size, policy, only=None):
        if isinstance(self.result, Exception):
            raise self.result
        if self.result == Result.SUCCESS and kind == PeerOp.WRITE:
            self.inode[offset:offset + len(data)] = data
        return self.result


class ServiceTest(unittest.TestCase):
    def _service(self, failures):
        self.table = VdiTable(None, {})
        self.table.set(VID, VdiEntry(CopyPolicy(3), 22))
        self.gateway = _Gateway(InodeHeader(
            name="disk", create_time=1, vdi_size=4 << 20, nr_copies=3, block_size_shift=22,
            vdi_id=VID, snap_id=1))
        return VdiService(_State(self.table, failures), self.gateway, self.table)

    def _snapshot(self, service):
        return service.snapshot("disk", 0, VID, (3, 0), 22, 0, 99)

    def test_all_go_on_after_a_snapshot_though_one_did_not_hear_at_first(self):
        self._snapshot(self._service(failures=3))
        entry = self.table.find(VID)
        self.assertTrue(entry.snapshot)
        self.assertFalse(entry.frozen)

    def test_all_go_on_after_a_snapshot_at_whose_end_the_lead_was_lost(self):
        service = self._service(failures=0)
        write = self.gateway.write_wait

        def abdicating(kind, *arguments):
            service.abdicate()
            return write(kind, *arguments)

        self.gateway.write_wait = abdicating
        self._snapshot(service)
        entry = self.table.find(VID)
        self.assertTrue(entry.snapshot)
        self.assertFalse(entry.frozen)

    def test_all_go_on_after_a_snapshot_that_failed(self):
        for result in (Result.AGAIN, ValueError("anything")):
            with self.subTest(result=result):
                service = self._service(failures=2)
                self.gateway.result = result
                with self.assertRaises((Failure, ValueError)):
                    self._snapshot(service)
                self.assertFalse(self.table.find(VID).frozen)


if __name__ == "__main__":
    unittest.main()
