"""What must not come of a map that changes while an object is on its way: with a real store
and a real replica, and another sheep that is a script."""

import errno
import os
import sys
import threading
import time
from types import SimpleNamespace
from unittest import mock

from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.sheep.peer_link import Answer
from sheepstack.sheep.peer_service import PeerService
from sheepstack.sheep.recovery import Recovery, Throttle
from sheepstack.sheep.replica import Replica, Unsettled
from sheepstack.store import disk
from sheepstack.store.errors import NoSpace, Rotten, StoreIOError
from sheepstack.wire import peer
from sheepstack.wire.checksum import block_checksums
from sheepstack.wire.peer import PeerFlag, PeerOp, make_stamp
from sheepstack.wire.results import Result
from tests.unit.store_case import StoreTestCase, call

OID = 0x00123456_00000007
SIZE = 1 << 20
_OTHER = 1


class _Ring:
    def holders_of(self, oid, policy):
        return (0, _OTHER)


class _Table:
    def policy_if_known(self, oid):
        return CopyPolicy(2)

    def policy_of(self, oid):
        return CopyPolicy(2)


class _Other:
    """The only other sheep: it has the object as of the revision it is asked at."""

    def __init__(self):
        self.before_answering = lambda: None
        self.before_listing = lambda: None
        self.result = lambda: Result.SUCCESS
        self.activity = 0
        self.sums = None
        self.unsettled = []
        self.asked = []

    def call(self, opcode, revision, timeout, flags=0, **fields):
        if opcode == PeerOp.LIST:
            self.before_listing()
            return Answer(Result.SUCCESS, payload=self.listing)
        if opcode == PeerOp.READ:
            return Answer(Result.SUCCESS, payload=b"sound".ljust(fields["length"], b"."))
        data = (b"at %d" % revision).ljust(SIZE, b".")
        content = peer.pack_extents(SIZE, 77, [(0, data)], self.unsettled)
        self.before_answering()
        if opcode != PeerOp.FETCH:
            raise AssertionError("nobody expected opcode 0x%x" % opcode)
        self.asked.append(flags)
        sums = b""
        if self.sums is not None and flags & PeerFlag.SUMS:
            sums = self.sums(data)
        return Answer(self.result(), self.activity, len(sums), payload=bytearray(
            b"".join(bytes(piece) for piece in (*content, sums))))


def _sums(data):
    return b"".join(value.to_bytes(4, sys.byteorder) for value in block_checksums(data))


class _State:
    patience = 1.0

    def __init__(self, other):
        self.other = other
        self.current_here = False
        self.questions = []
        self.set_revision(1)

    def set_revision(self, revision):
        self.view = SimpleNamespace(
            revision=revision, epoch=revision, serving=True, bereft=False, index=0,
            ring=_Ring(), links=(None, self.other),
            map=SimpleNamespace(nodes=(SimpleNamespace(key="a", name="a", vnodes=1),
                                       SimpleNamespace(key="b", name="b", vnodes=1)),
                                last_complete=0, copies=CopyPolicy(2)))

    def call_node(self, node, question, timeout=None):
        self.questions.append(question)
        return [[77, False, []]]

    def wait_view(self, revision, timeout):
        threading.Event().wait(timeout)


class _RecoveryCase(StoreTestCase):
    def setUp(self):
        super().setUp()
        self.store = self.open(False)
        self.other = _Other()
        self.state = _State(self.other)
        self.throttle = Throttle()
        self.requests = SimpleNamespace(gateway_total=0)
        self.recovery = Recovery(self.state, self.store, _Table(), {}, self.throttle)
        self.replica = Replica(self.store, self.recovery.known_absent)
        self.recovery.attach(self.replica, self.requests)
        self.replica.enter(1, 0)

    def _write(self, stamp, kind):
        results = []

        def done(result, last):
            results.append(result)

        if kind == PeerOp.CREATE:
            self.replica.create(OID, 1, stamp, SIZE, 0, b"mine", done)
        else:
            self.replica.write(OID, 1, stamp, 0, b"mine", done)
        self.assertEqual([Result.SUCCESS], results)


class ManyObjects(_RecoveryCase):
    """Of objects that only recovery wants it fetches several at once."""

    def test_several_at_once(self):
        self.other.listing = peer.pack_listing((OID + at, 0, 0) for at in range(16))
        meeting = threading.Barrier(4)
        self.other.before_answering = lambda: meeting.wait(30)
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertEqual(16, self.store.count())
        # Who has them is known from the listing: nobody was asked about a single one.
        self.assertEqual([PeerFlag.SUMS] * 16, self.other.asked)
        self.assertEqual([], self.state.questions)

    def test_where_the_listing_is_out_of_date_all_are_asked(self):
        self.other.listing = peer.pack_listing([(OID, 0, 0)])
        results = iter((Result.NO_OBJ, Result.SUCCESS))
        self.other.result = lambda: next(results)
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertEqual(1, len(self.state.questions))
        self.assertTrue(self.store.exists(OID))


class OwedObjects(_RecoveryCase):
    """What others have kept because this sheep could not take it and was not complete yet."""

    def setUp(self):
        super().setUp()
        self.other.listing = peer.pack_listing([])

    def _fetch(self, flags):
        """What another sheep is told that asks for the object."""
        service = PeerService(self.state, self.store, self.replica, None, self.recovery,
                              *[None] * 6)
        results = []
        service._fetch(OID, None, flags, lambda result, *rest: results.append(result))
        return results.pop()

    def test_it_is_fetched_though_it_came_after_the_listing(self):
        self.other.before_listing = lambda: self.assertEqual(
            Result.AGAIN, self._fetch(PeerFlag.OWED))
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertTrue(self.store.exists(OID))

    def test_it_is_fetched_where_it_came_at_the_very_end(self):
        self.state.view.bereft = _OnceAsked(lambda: self._fetch(PeerFlag.OWED))
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertTrue(self.store.exists(OID))

    def test_nothing_is_owed_by_who_is_complete(self):
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertEqual(Result.NO_OBJ, self._fetch(PeerFlag.OWED))

    def test_who_only_asks_is_owed_nothing(self):
        self.other.before_listing = lambda: self.assertEqual(Result.AGAIN, self._fetch(0))
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertFalse(self.store.exists(OID))
        self.assertTrue(self.recovery.known_absent(OID))

    def test_what_comes_while_others_are_asked_is_here(self):
        def asked(node, question):
            call(self.store.create, OID, SIZE, 0, b"made here")
            return [[None, False, []]]

        self.state.call_node = asked
        self.assertTrue(self.recovery.refetch(OID))
        self.assertEqual([], self.other.asked)
        self.assertEqual(b"made here", self.store.read(OID, 0, 9))

    def test_a_call_about_what_the_disk_does_not_give_is_answered(self):
        service = PeerService(self.state, self.store, self.replica, None, self.recovery,
                              *[None] * 6)
        results = []
        with mock.patch.object(self.store, "stamp", side_effect=StoreIOError("it is broken")):
            with self.assertLogs("sheepstack.sheep.peer_service", "ERROR") as logs:
                service._answer_call({"call": "holding", "oids": [OID], "revision": 1},
                                     results.append)
        self.assertEqual([Result.EIO], results)
        self.assertNotIn("Traceback", "".join(logs.output))

    def test_who_fetches_what_the_disk_does_not_give_is_answered(self):
        call(self.store.create, OID, SIZE, 0, b"here")
        broken = mock.Mock(side_effect=OSError(errno.EIO, "it is broken"))
        with mock.patch.object(disk, "read_at", broken):
            self.assertEqual(Result.EIO, self._fetch(PeerFlag.SUMS))
        broken.assert_called()

    def test_where_nobody_has_it_any_more_recovery_ends(self):
        self.recovery._maps_since_complete = lambda view: []
        self.other.result = lambda: Result.NO_OBJ
        self.state.call_node = lambda node, question, timeout=None: [[None, False, []]]
        self.other.before_listing = lambda: self._fetch(PeerFlag.OWED)
        self.assertTrue(self.recovery.run(self.state.view))
        self.assertTrue(self.recovery.known_absent(OID))

    def test_a_copy_is_kept_for_one_who_will_fetch_it(self):
        self._write(make_stamp(1, _OTHER), PeerOp.CREATE)
        self.other.result = lambda: Result.AGAIN
        self.assertTrue(
            self.recovery.adopt(self.state.view, OID, [_OTHER], [make_stamp(1, _OTHER)]))
        self.assertEqual([PeerFlag.OWED], self.other.asked)
        self.assertEqual(b"mine", self.store.read(OID, 0, 4))


class _OnceAsked:
    """False; calls ``first`` the first time that somebody wants to know."""

    def __init__(self, first):
        self._first = first

    def __bool__(self):
        first, self._first = self._first, lambda: None
        first()
        return False


class WrittenMeanwhile(_RecoveryCase):
    """What is fetched while it is written to holds what nobody may read yet."""

    def setUp(self):
        super().setUp()
        self.page = mock.Mock()
        self.replica._page = self.page

    def test_it_cannot_be_read_before_it_is_settled(self):
        self.other.unsettled = [(make_stamp(5, _OTHER), 0, 4)]
        self.page.begin.side_effect = lambda oid: self.assertFalse(self.store.exists(oid))
        self.assertTrue(self.recovery.need(OID))
        with self.assertRaises(Unsettled):
            self.replica.read(OID, 2, 4)
        self.assertEqual(b"....", self.replica.read(OID, 4, 4))
        self.page.begin.assert_called_once_with(OID)
        self.replica.note_settled(_OTHER, 5, 1)
        self.assertEqual(b"at", self.replica.read(OID, 0, 2))
        self.page.end.assert_called_once_with(OID)

    def test_what_has_settled_meanwhile_can(self):
        self.other.unsettled = [(make_stamp(5, _OTHER), 0, 4), (make_stamp(6, 0), 0, 4)]
        self.replica.note_settled(_OTHER, 5, 1)
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual(b"at", self.replica.read(OID, 0, 2))

    def test_our_own_write_that_another_has_before_us(self):
        mine = make_stamp(6, 0)
        self.replica.is_under_way = {6}.__contains__
        self.other.unsettled = [(mine, 0, 4)]
        self.assertTrue(self.recovery.need(OID))
        with self.assertRaises(Unsettled):
            self.replica.read(OID, 0, 4)
        self.replica.write(OID, 1, mine, 0, b"mine", lambda result, last: None)
        self.replica.settled(OID, [mine])
        self.assertEqual(b"mine", self.replica.read(OID, 0, 4))

    def test_it_is_an_orphan_once_the_map_changes(self):
        stamp = make_stamp(5, _OTHER)
        self.other.unsettled = [(stamp, 0, 4)]
        self.assertTrue(self.recovery.need(OID))
        self.replica.write(OID, 1, stamp, 0, b"them", lambda result, last: None)
        self.replica.enter(2, 0)
        self.assertEqual([(OID, 0, 4)], self.replica.orphans())

    def test_a_copy_that_another_one_s_takes_the_place_of(self):
        self._write(make_stamp(1, _OTHER), PeerOp.CREATE)
        self.replica.note_settled(_OTHER, 1, 1)
        self.other.unsettled = [(make_stamp(5, _OTHER), 0, 4)]
        self.assertTrue(
            self.recovery.adopt(self.state.view, OID, [_OTHER], [make_stamp(1, _OTHER)]))
        with self.assertRaises(Unsettled):
            self.replica.read(OID, 0, 4)

    def test_a_damaged_block_that_is_mended_from_another_copy(self):
        call(self.store.create, OID, SIZE, 0, b"x" * SIZE)
        self.store.settle(OID, 5)
        self.flip(self.object_path(OID), 8 * 5000)
        questions = []

        def unsettled(node, question):
            questions.append(question)
            return [[make_stamp(5, _OTHER), 4096, 4100]]

        self.state.call_node = unsettled
        self.assertTrue(self.recovery.repair(OID, 1))
        self.assertEqual([{"call": "unsettled", "oid": OID}], questions)
        with self.assertRaises(Unsettled):
            self.replica.read(OID, 4096, 5)
        self.replica.note_settled(_OTHER, 5, 1)
        self.assertEqual(b"sound", self.replica.read(OID, 4096, 5))
        self.assertEqual(b"xx", self.replica.read(OID, 4094, 2))

    def test_whoever_is_asked_tells(self):
        stamp = make_stamp(5, _OTHER)
        self._write(stamp, PeerOp.CREATE)
        self.replica.write(OID, 1, make_stamp(6, _OTHER), 0, b"x" * SIZE,
                           lambda result, last: None)
        unchecked, _ = self.recovery.unchecked_content(OID)
        for buffers in (self.recovery.content(OID), unchecked):
            self.assertEqual([(stamp, 0, SIZE), (make_stamp(6, _OTHER), 0, SIZE)],
                             peer.unpack_unsettled(b"".join(map(bytes, buffers))))
        self.replica.note_settled(_OTHER, 6, 1)
        self.assertEqual([], peer.unpack_unsettled(
            b"".join(map(bytes, self.recovery.content(OID)))))

    def test_a_stamp_that_is_no_write_s_is_not_kept(self):
        """That of an object on disk says that its content is that of others with the same."""
        self.other.unsettled = [(make_stamp(5, _OTHER), 0, 4)]
        self.replica._floor = 99
        self.assertTrue(self.recovery.need(OID))
        self.replica.note_settled(_OTHER, 5, 1)
        with mock.patch("time.monotonic", return_value=time.monotonic() + 60):
            self.replica.settle_quiet()
        self.assertFalse(self.replica.is_busy(OID))
        self.assertEqual(77, self.store.stamp(OID))


class MapChanges(_RecoveryCase):
    def _next_map(self):
        """As membership does it."""
        self.state.set_revision(2)
        self.replica.enter(2, 0)
        self.recovery.enter()

    def test_an_object_comes(self):
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual(b"at 1", self.store.read(OID, 0, 4))

    def test_bytes_that_are_not_as_their_checksums_are_asked_for_again(self):
        self.other.sums = lambda data: bytes(4 * len(block_checksums(data)))
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual([PeerFlag.SUMS, 0], self.other.asked)
        self.assertEqual(b"at 1", self.store.read(OID, 0, 4))
        self.assertEqual([], os.listdir(os.path.join(self.path, "new")))

    def test_what_comes_with_its_checksums_does_not_come_late(self):
        self.other.sums = _sums
        self.other.before_answering = self._next_map
        self.assertFalse(self.recovery.need(OID))
        self.assertFalse(self.store.exists(OID))
        self.assertEqual([], os.listdir(os.path.join(self.path, "new")))
        self.other.before_answering = lambda: None
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual(b"at 2", self.store.read(OID, 0, 4))
        self.assertEqual([PeerFlag.SUMS] * 2, self.other.asked)

    def test_a_write_that_was_faster_is_not_undone_by_what_comes(self):
        self.other.sums = _sums
        self.other.before_answering = lambda: self._write(make_stamp(1, _OTHER), PeerOp.CREATE)
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual(b"mine", self.store.read(OID, 0, 4))
        self.assertEqual([], os.listdir(os.path.join(self.path, "new")))

    def test_a_hole_where_something_was_does_not_pass_for_zeros(self):
        call(self.store.create, OID, SIZE, 0, b"x" * SIZE)
        self.assertIsNotNone(self.recovery.unchecked_content(OID))
        fd = os.open(self.object_path(OID), os.O_RDWR)
        self.addCleanup(os.close, fd)
        disk.punch_hole(fd, 40960, 8192)
        self.assertIsNone(self.recovery.unchecked_content(OID))
        with self.assertRaises(Rotten):
            self.recovery.content(OID)

    def test_rot_does_not_pass_for_content(self):
        call(self.store.create, OID, SIZE, 0, b"x" * SIZE)
        self.flip(self.object_path(OID), 8 * 5000)
        buffers, sums = self.recovery.unchecked_content(OID)
        size, _, extents = peer.unpack_extents(b"".join(map(bytes, buffers)))
        with self.assertRaises(Rotten):
            self.store.prepare(OID + 1, size, extents, 0, sums)

    def test_what_was_current_at_the_last_map_does_not_come_late(self):
        self.other.before_answering = self._next_map
        self.assertFalse(self.recovery.need(OID))
        self.assertFalse(self.store.exists(OID))
        self.other.before_answering = lambda: None
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual(b"at 2", self.store.read(OID, 0, 4))

    def test_on_a_full_disk_what_is_outdated_makes_room_and_nothing_else(self):
        """A node that was away has set everything aside, and may have no room for it twice."""
        oids = [OID, OID + 1, OID + 2]
        for oid in oids:
            call(self.store.create, oid, SIZE, 0, b"then")
        self.store.retire(oids, 1)
        self._next_map()
        self.assertTrue(self.recovery.need(OID))
        self.assertEqual(oids, sorted(self.store.stale_oids(1)))
        with mock.patch.object(self.store, "create_sparse", side_effect=NoSpace("no space")):
            self.assertFalse(self.recovery.need(OID + 1))
        self.assertEqual(oids[1:], sorted(self.store.stale_oids(1)))
        self.assertTrue(self.recovery.need(OID + 1))
        for oid in oids[:2]:
            self.assertEqual(b"at 2", self.store.read(oid, 0, 4))

    def test_on_a_full_disk_what_the_next_map_sets_aside_stays(self):
        call(self.store.create, OID, SIZE, 0, b"then")

        former = self.state.view
        self._next_map()
        self.store.retire([OID], 1)
        call(self.store.create, OID, SIZE, 0, b"now")
        self.store.settle(OID, 5)
        self.recovery._drop_outdated(former)
        self.assertEqual([OID], list(self.store.stale_oids(1)))

    def _remove(self, revision=1):
        results = []
        self.replica.remove(OID, revision, 1 << 16, lambda result, last: results.append(result))
        return results.pop()

    def test_what_is_removed_while_it_is_on_its_way_does_not_come(self):
        self.other.before_answering = lambda: self.assertEqual(Result.SUCCESS, self._remove())
        self.assertTrue(self.recovery.need(OID))
        self.assertFalse(self.store.exists(OID))
        self.assertEqual([], os.listdir(os.path.join(self.path, "new")))

    def test_what_is_removed_is_not_looked_for_again(self):
        self.assertTrue(self.recovery.is_owed(OID))
        self._remove()
        self.assertTrue(self.recovery.need(OID))
        self.assertFalse(self.store.exists(OID))
        # At another map somebody may have it who did not hear of it.
        self._next_map()
        self.assertEqual(Result.OLD_NODE_VER, self._remove())
        self.assertTrue(self.recovery.need(OID))
        self.assertTrue(self.store.exists(OID))

    def test_on_a_full_disk_what_was_set_aside_of_a_removed_object_makes_room(self):
        call(self.store.create, OID, SIZE, 0, b"then")
        self.store.retire([OID], 1)
        self._next_map()
        self.assertEqual(Result.SUCCESS, self._remove(2))
        self.recovery._drop_outdated(self.state.view)
        self.assertEqual([], list(self.store.stale_epochs()))

    def test_it_tells_whether_it_lacks_nothing_but_room(self):
        self.other.listing = peer.pack_listing([(OID, 0, 0)])
        told = []

        def look(revision, timeout):
            told.append(self.recovery.lacks_only_room(1))
            self.store.create_sparse = create

        create = self.store.create_sparse
        self.state.wait_view = look
        for error, expected in ((NoSpace("no space"), True), (StoreIOError("broken"), False)):
            self.store.create_sparse = mock.Mock(side_effect=error)
            self.assertTrue(self.recovery.run(self.state.view))
            self.assertIs(expected, told.pop())
            # Once all is here, but at no other map.
            self.assertTrue(self.recovery.lacks_only_room(1))
            self.assertFalse(self.recovery.lacks_only_room(2))
            call(self.store.remove, OID)
            self.recovery.enter()
            self.recovery.resume(None)

    def test_what_was_absent_at_the_last_map_may_be_there_now(self):
        def nobody_has_it(node, question, timeout=None):
            self._next_map()
            return [[None, False, []]]

        self.recovery._maps_since_complete = lambda view: []
        self.state.call_node = nobody_has_it
        self.recovery.need(OID)
        self.assertFalse(self.recovery.known_absent(OID))

    def test_a_copy_is_not_given_up_for_one_that_may_lack_a_later_write(self):
        first, second = make_stamp(1, _OTHER), make_stamp(2, _OTHER)
        self._write(first, PeerOp.CREATE)
        self.other.before_answering = lambda: self._write(second, PeerOp.WRITE)
        self.assertFalse(self.recovery.adopt(self.state.view, OID, [_OTHER], [first]))
        self.assertEqual(b"mine", self.store.read(OID, 0, 4))
        self.other.before_answering = lambda: None
        # The second is not known to be everywhere yet.
        self.assertFalse(self.recovery.adopt(self.state.view, OID, [_OTHER], [first]))
        self.replica.note_settled(_OTHER, 2, 1)
        self.assertTrue(self.recovery.adopt(self.state.view, OID, [_OTHER], [first]))
        self.assertEqual(b"at 1", self.store.read(OID, 0, 4))

    def test_news_of_the_last_map_settles_nothing_at_this_one(self):
        """What a thread took from a peer before the map changed it may report after that, when
        the same index means another sheep."""
        call(self.store.create, OID, SIZE, 0, b"then")
        self._next_map()
        done = []
        self.replica.write(OID, 2, make_stamp(5, _OTHER), 0, b"now!",
                           lambda result, last: done.append(result))
        self.assertEqual([Result.SUCCESS], done)
        self.replica.note_settled(_OTHER, 9, 1)
        with self.assertRaises(Unsettled):
            self.replica.read(OID, 0, 4)
        self.replica.note_settled(_OTHER, 9, 2)
        self.assertEqual(b"now!", self.replica.read(OID, 0, 4))

    def test_a_write_that_was_sent_twice_is_given_up_as_one(self):
        stamps = [make_stamp(1, _OTHER), make_stamp(2, _OTHER)]
        for stamp in stamps:
            self._write(stamp, PeerOp.CREATE)
        self.assertFalse(self.recovery.adopt(self.state.view, OID, [_OTHER], stamps[1:]))
        self.assertTrue(self.recovery.adopt(self.state.view, OID, [_OTHER], stamps))
        self.assertEqual(b"at 1", self.store.read(OID, 0, 4))

    def test_a_copy_is_not_given_up_after_the_map_changed(self):
        stamp = make_stamp(1, _OTHER)
        self._write(stamp, PeerOp.CREATE)
        self.other.before_answering = self._next_map
        self.assertFalse(self.recovery.adopt(self.state.view, OID, [_OTHER], [stamp]))
        self.assertEqual(b"mine", self.store.read(OID, 0, 4))

    def test_copies_that_the_next_map_set_aside_outlive_the_end_of_this_recovery(self):
        call(self.store.create, OID, SIZE, 0, b"mine")
        self.store.retire([OID], 1)
        self.store.purge_stale(0)
        self.assertEqual([1], list(self.store.stale_epochs()))
        self.store.purge_stale(1)
        self.assertEqual([], list(self.store.stale_epochs()))
