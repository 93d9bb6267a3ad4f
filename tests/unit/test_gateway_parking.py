"""Writes that wait for a better map: a real gateway, replica and store, a scripted map."""

from types import SimpleNamespace

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.gateway import Gateway
from sheepstack.sheep.replica import Replica
from sheepstack.sheep.view import View
from sheepstack.sheep.workers import Workers
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result
from tests.unit.client_end import ClientEnd
from tests.unit.leased_state import LeasedState
from tests.unit.store_case import StoreTestCase, call

OID = 0x00123456_00000007
SIZE = 1 << 20
ENTRY = object()


class _Ring:
    def holders(self, oid, width):
        return (0,)


class _State(LeasedState):
    def __init__(self):
        super().__init__()
        self.enter(1, serving=True, complete=True)

    def enter(self, revision, serving, complete):
        self.set_view(View(
            SimpleNamespace(revision=revision, flags=0), _Ring(), 0, (None,), serving=serving,
            complete=complete))


class Parking(StoreTestCase):
    def setUp(self):
        super().setUp()
        self.store = self.open(False)
        self.state = _State()
        self.replica = Replica(self.store, lambda oid: True)
        self.replica.enter(1, 0)
        table = SimpleNamespace(find=lambda vid: ENTRY)
        self.gateway = Gateway(
            self.state, self.replica, Workers("test", 4), Workers("keeping", 1), table, None)
        call(self.store.create, OID, SIZE, 0, b"first")

    def _change_map(self, revision, serving, complete):
        self.state.enter(revision, serving, complete)
        self.replica.enter(revision, 0)
        self.gateway.unpark()

    def _ask(self, kind, client, data=b""):
        size = SIZE if kind == PeerOp.DISCARD or kind == PeerOp.REMOVE else 0
        self.gateway.write(kind, OID, 0, data, size, CopyPolicy(1), client, entry=ENTRY)

    def _content(self):
        return bytes(self.store.read(OID, 0, 5)) if self.store.exists(OID) else None

    def test_what_waits_is_done_once_it_may(self):
        self._change_map(2, serving=False, complete=False)
        client = ClientEnd()
        self._ask(PeerOp.WRITE, client, b"later")
        self.assertEqual(b"first", self._content())
        self._change_map(3, serving=True, complete=False)
        self.assertTrue(client.told.wait(30))
        self.assertEqual([Result.SUCCESS], client.results)
        self.assertEqual(b"later", self._content())

    def test_what_waits_is_forgotten_once_its_client_is_gone(self):
        for kind in (PeerOp.WRITE, PeerOp.REMOVE, PeerOp.DISCARD, PeerOp.CREATE):
            revision = self.state.view.revision
            self._change_map(revision + 1, serving=False, complete=False)
            client = ClientEnd()
            self._ask(kind, client, b"" if kind in (PeerOp.REMOVE, PeerOp.DISCARD) else b"later")
            client.gone = True
            self._change_map(revision + 2, serving=True, complete=True)
            self.assertTrue(client.told.wait(30))
            self.assertNotEqual([Result.SUCCESS], client.results)
            self.assertEqual(b"first", self._content())

    def test_a_client_s_removal_does_not_wait_until_all_is_complete(self):
        """Meanwhile the client, told of nothing, might make the object anew elsewhere."""
        self._change_map(2, serving=True, complete=False)
        client = ClientEnd()
        self._ask(PeerOp.REMOVE, client)
        self.assertTrue(client.told.wait(30))
        self.assertEqual([Result.SUCCESS], client.results)
        self.assertEqual(bytes(5), self._content())
        self._ask(PeerOp.WRITE, ClientEnd(), b"anew!")
        self._change_map(3, serving=True, complete=True)
        self.assertEqual(b"anew!", self._content())
