"""What lost coordinators left: two real gateways, replicas and stores, links without a network."""

import json
import os
import threading
from types import SimpleNamespace
from unittest import mock

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.gateway import Gateway
from sheepstack.sheep.orphans import Orphans
from sheepstack.sheep.peer_link import Answer
from sheepstack.sheep.peer_service import PeerService
from sheepstack.sheep.replica import Replica
from sheepstack.sheep.view import View
from sheepstack.sheep.workers import Workers
from sheepstack.store import ObjectStore
from sheepstack.store.errors import NoSpace
from sheepstack.wire.peer import PeerOp, make_stamp
from sheepstack.wire.results import Result
from tests.unit.client_end import ClientEnd
from tests.unit.leased_state import LeasedState
from tests.unit.store_case import StoreTestCase

SIZE = 1 << 20
COUNT = 40
OIDS = [0x00123456_00000000 + index for index in range(COUNT)]
_LOST = 2
_HERE = 0, 1
_ENTRY = object()


class _Ring:
    def holders(self, oid, width):
        return _HERE


class _Link:
    """Brings writes to another node at once; while ``is_dead`` to nobody, and is silent."""

    #: The answer to what was sent before a connection breaks.
    broken = Answer(Result.NETWORK_ERROR)

    def __init__(self):
        self.is_dead = False
        self.target = None
        self.unanswered = []
        self.sent = []

    def submit(self, kind, revision, callback, oid, stamp, offset, length, buffers, batch,
               data_length, **rest):
        self.sent.append(oid)
        if self.is_dead:
            self.unanswered.append((data_length, callback))
            return
        self.target.gateway.apply(
            kind, oid, revision, stamp, offset, length, b"".join(buffers),
            lambda result, last: callback(Answer(result, last), None))

    def call(self, kind, revision, timeout, buffers, data_length):
        if self.is_dead:
            return self.broken
        data = json.dumps({"answer": self.target.answer_call(json.loads(b"".join(buffers)))})
        return Answer(Result.SUCCESS, payload=data.encode())

    def mend(self):
        """The connection breaks, and the next one works."""
        self.is_dead = False
        callbacks, self.unanswered = [callback for _, callback in self.unanswered], []
        for callback in callbacks:
            callback(self.broken, None)


class _Node(LeasedState):
    def __init__(self, case, index):
        super().__init__()
        store = ObjectStore(os.path.join(case.path, str(index)), durable=False,
                            journal_size=1 << 20, reserve=0)
        case.addCleanup(store.close)
        self.index, self.store = index, store
        self.link = _Link()
        self.replica = Replica(store, lambda oid: True)
        table = SimpleNamespace(remembered_policy=lambda oid, cluster_map: CopyPolicy(2),
                                find=lambda vid: _ENTRY)
        self.gateway = Gateway(
            self, self.replica, Workers("test", 4), Workers("keeping", 1), table, None)
        self.orphans = Orphans(self, self.replica, self.gateway, table)
        # It has the others' calls answered.
        PeerService(self, store, self.replica, self.gateway, None, table, *[None] * 5)
        self.enter(1)

    def enter(self, revision):
        links = tuple(self.link if other != self.index else None for other in _HERE)
        self.set_view(View(
            SimpleNamespace(revision=revision, epoch=revision, flags=0, nodes=_HERE), _Ring(),
            self.index, links, serving=True))
        self.replica.enter(revision, self.index)
        self.gateway.unpark()

    def write(self, oid, counter, data):
        """As the lost node had it written here."""
        done = threading.Event()
        self.replica.create(oid, 1, make_stamp(counter, _LOST), SIZE, 0, data,
                            lambda result, last: done.set())
        done.wait(30)

    def content(self, oid):
        return bytes(self.store.read(oid, 0, SIZE)) if self.store.exists(oid) else None


class _TwoNodes(StoreTestCase):
    def setUp(self):
        super().setUp()
        self.nodes = [_Node(self, index) for index in _HERE]
        for node in self.nodes:
            node.link.target = self.nodes[1 - node.index]

    def ended(self, nodes):
        """What end() of each says, all at the same time; starts the threads, they are waited
        for by the function that is returned."""
        results = {}
        threads = [threading.Thread(target=lambda node=node: results.update(
            {node.index: node.orphans.end(node.view)})) for node in nodes]
        for thread in threads:
            thread.start()

        def wait():
            for thread in threads:
                thread.join(60)
            return [results.get(node.index) for node in nodes]

        return wait


class Abandoned(_TwoNodes):
    """A client that has lost its gateway goes on by way of the other one; what the first had
    begun for it, and could not send to all, must not undo that."""

    def setUp(self):
        super().setUp()
        for node in self.nodes:
            node.write(OIDS[0], 1, b"former")
        for node in self.nodes:
            node.replica.note_settled(_LOST, 1, 1)
        self.lost, self.other = self.nodes

    def _write(self, node, data, kind=PeerOp.WRITE, oid=OIDS[0], offset=0):
        client = ClientEnd()
        size = 0 if kind == PeerOp.WRITE else SIZE
        node.gateway.write(kind, oid, offset, data, size, CopyPolicy(2), client, entry=_ENTRY)
        return client

    def _begin(self, *arguments, **more):
        """A write that only the one node has whose client is gone."""
        self.lost.link.is_dead = True
        client = self._write(self.lost, *arguments, **more)
        self.assertEqual([], client.results)
        client.gone = True
        return client

    def _do(self, *arguments, **more):
        client = self._write(self.other, *arguments, **more)
        self.assertTrue(client.told.wait(30))
        self.assertEqual([Result.SUCCESS], client.results)

    def _end(self, client):
        self.lost.link.mend()
        while not client.told.wait(0.02):
            self.lost.gateway.unpark()
        self.assertEqual(1, len(client.results))
        for node in self.nodes:
            self.assertEqual([], node.replica.orphans())
        self.assertEqual(*(node.content(OIDS[0]) for node in self.nodes))
        content = self.lost.content(OIDS[0])
        return content and content.rstrip(b"\0")

    def test_nothing_else_was_written(self):
        self.assertEqual(b"begun.", self._end(self._begin(b"begun.")))

    def test_a_later_write(self):
        client = self._begin(b"begun.")
        self._do(b"begun.")
        self._do(b"later!")
        self.assertEqual(b"later!", self._end(client))

    def test_a_later_write_where_an_object_was_made(self):
        client = self._begin(b"begun.", PeerOp.CREATE)
        self._do(b"begun.", PeerOp.CREATE)
        self._do(b"later!", offset=8192)
        self.assertEqual(b"begun.".ljust(8192, b"\0") + b"later!", self._end(client))

    def test_a_later_write_where_zeros_were_written(self):
        client = self._begin(b"", PeerOp.DISCARD)
        self._do(b"", PeerOp.DISCARD)
        self._do(b"later!")
        self.assertEqual(b"later!", self._end(client))

    def test_an_object_that_was_made_anew(self):
        self.lost.set_view(self.lost.view._replace(complete=True))
        self.other.set_view(self.other.view._replace(complete=True))
        client = self._begin(b"", PeerOp.REMOVE)
        self._do(b"", PeerOp.REMOVE)
        self._do(b"later!", PeerOp.CREATE)
        self.assertEqual(b"later!", self._end(client))

    def test_an_object_that_was_not(self):
        self.lost.set_view(self.lost.view._replace(complete=True))
        self.assertIsNone(self._end(self._begin(b"", PeerOp.REMOVE)))

    def test_a_later_write_at_the_former_map(self):
        client = self._begin(b"begun.")
        self._do(b"begun.")
        self._do(b"later!")
        self.lost.link.mend()
        for node in self.nodes:
            node.enter(2)
        self.assertEqual([True, True], self.ended(self.nodes)())
        self.assertTrue(client.told.wait(30))
        for node in self.nodes:
            self.assertEqual(b"later!", node.content(OIDS[0]).rstrip(b"\0"))


class TwoAreLeft(_TwoNodes):

    def test_whatever_somebody_has_all_have_then(self):
        for number, oid in enumerate(OIDS):
            for node in self.nodes:
                if number % 3 in (node.index, 2):
                    node.write(oid, number + 1, b"%d of the lost one" % number)
        for node in self.nodes:
            node.enter(2)
        self.assertEqual([True, True], self.ended(self.nodes)())
        for number, oid in enumerate(OIDS):
            for node in self.nodes:
                self.assertEqual(b"%d of the lost one" % number,
                                 node.content(oid).rstrip(b"\0"))
                self.assertEqual([], node.replica.orphans())

    def test_each_begins_elsewhere(self):
        for number, oid in enumerate(OIDS):
            for node in self.nodes:
                node.write(oid, number + 1, b"x")
        for node in self.nodes:
            node.enter(2)
            node.link.is_dead = True
            wait = self.ended([node])
            self._wait_sent(node, 16)
            node.stopping.set()
            self.assertEqual([False], wait())
        first, second = (set(node.link.sent) for node in self.nodes)
        self.assertFalse(first & second)

    def _wait_sent(self, node, count):
        while len(node.link.sent) < count:
            node.replica.wait_change(0.01)

    def test_few_are_sent_before_there_are_answers_and_none_twice(self):
        node = self.nodes[0]
        for number, oid in enumerate(OIDS):
            node.write(oid, number + 1, b"x")
        node.enter(2)
        node.link.is_dead = True
        wait = self.ended([node])
        self._wait_sent(node, 16)
        for _ in range(5):
            # It looks again and again, and finds no room.
            node.replica.wait_change(0.05)
        node.stopping.set()
        self.assertEqual([False], wait())
        self.assertEqual(16, len(node.link.sent))
        self.assertEqual(16, len(set(node.link.sent)))
        self.assertLessEqual(sum(length for length, _ in node.link.unanswered), 16 << 20)

    def test_at_another_map_it_begins_anew(self):
        first, second = self.nodes
        first.write(OIDS[0], 1, b"x")
        first.enter(2)
        first.link.is_dead = True
        wait = self.ended([first])
        self._wait_sent(first, 1)
        first.enter(3)
        self.assertEqual([False], wait())
        self.assertEqual([(OIDS[0], 0, SIZE)], first.replica.orphans())
        first.link.mend()
        first.gateway.unpark()
        second.enter(3)
        self.assertEqual([True, True], self.ended(self.nodes)())
        self.assertEqual(b"x", second.content(OIDS[0]).rstrip(b"\0"))

    def test_what_one_has_no_room_for_is_undone_everywhere(self):
        first, second = self.nodes
        first.write(OIDS[0], 1, b"x")
        for node in self.nodes:
            node.enter(2)
        questions = []
        first.answer_call = lambda question: questions.append(question) or True
        with mock.patch.object(second.store, "create", lambda *arguments: arguments[-1](
                NoSpace("full"))):
            self.assertEqual([True, True], self.ended(self.nodes)())
        (question,) = questions
        self.assertEqual(("adopt", OIDS[0], [second.index]),
                         (question["call"], question["oid"], question["sources"]))
        self.assertEqual([], first.replica.orphans())
        self.assertIsNone(first.gateway.oldest())

    def test_our_own_write_is_sent_again_once(self):
        first, second = self.nodes
        second.write(OIDS[0], 1, b"former")
        first.write(OIDS[0], 1, b"former")
        for node in self.nodes:
            node.replica.note_settled(_LOST, 1, 1)
        first.link.is_dead = True
        results, told = [], threading.Event()

        def finish(result, batch):
            results.append(result)
            told.set()

        first.gateway.write(PeerOp.WRITE, OIDS[0], 0, b"later!", 0, CopyPolicy(2), finish)
        self.assertFalse(told.is_set())
        self.assertEqual(1, len(first.gateway.owed(2)))
        first.link.mend()
        first.enter(2)
        second.enter(2)
        self.assertEqual([True, True], self.ended(self.nodes)())
        self.assertTrue(told.wait(30))
        self.assertEqual([Result.SUCCESS], results)
        self.assertEqual(b"later!", second.content(OIDS[0])[:6])
        self.assertEqual([OIDS[0]] * 2, first.link.sent)
