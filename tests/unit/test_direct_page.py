"""The page that tells clients what they may read, and when the sheep and its store change it."""

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import unittest
from types import SimpleNamespace

from sheepstack.sheep.direct_page import NO_PAGE, DirectPage, make_page
from sheepstack.sheep.replica import Replica, Unsettled
from sheepstack.store.errors import NoObject
from sheepstack.wire import direct
from sheepstack.wire.oid import data_oid
from sheepstack.wire.peer import make_stamp
from sheepstack.wire.results import Result
from tests.unit.store_case import MODES, StoreTestCase, call

OID = data_oid(7, 3)
SIZE = 1 << 20
_OTHER = 1

_SHEEP = """
import socket, sys, threading
from sheepstack.sheep.direct_page import DirectPage
page = DirectPage()
page.show(type("View", (), {"revision": 1, "index": 0, "open": True, "serving": True}))
channel = socket.socket(fileno=int(sys.argv[1]))
socket.send_fds(channel, [b"%d %d" % page.life], [page.descriptor])
if channel.recv(1) == b"q":
    sys.exit()
"""


def view(revision=1, index=0, is_open=True):
    return SimpleNamespace(revision=revision, index=index, serving=is_open, open=is_open)


@unittest.skipUnless(direct.is_possible(), "another processor")
class PageTest(unittest.TestCase):

    def setUp(self):
        self.page = DirectPage()
        seen = mmap.mmap(
            self.page.descriptor, direct.PAGE_SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self.words = memoryview(seen).cast("Q")
        self.slot = direct.slot_of(OID)


class Words(PageTest):

    def test_writes_are_odd_while_any_is_on_its_way(self):
        neighbour = next(oid for oid in range(OID + 1, OID + 100_000)
                         if direct.slot_of(oid) == self.slot)
        before = self.words[self.slot]
        self.page.begin(OID)
        self.page.begin(neighbour)
        self.assertEqual(1, self.words[self.slot] % 2)
        self.page.end(OID)
        self.assertEqual(1, self.words[self.slot] % 2)
        self.page.end(neighbour)
        self.assertEqual(0, self.words[self.slot] % 2)
        self.assertGreater(self.words[self.slot], before)

    def test_objects_next_to_each_other_have_slots_of_their_own(self):
        slots = {direct.slot_of(data_oid(vid, index)) for vid in (7, 8) for index in range(512)}
        self.assertGreater(len(slots), 900)
        self.assertTrue(all(direct.SLOTS_AT <= 8 * slot < direct.PAGE_SIZE for slot in slots))

    def test_service_is_told_of_by_numbers_that_do_not_come_back(self):
        numbers = []
        self.page.show(view(is_open=False))
        self.assertEqual(0, self.words[direct.SERVICE])
        for shown in (view(1), view(2), view(2, index=1), view(1)):
            self.page.show(shown)
            numbers.append(self.words[direct.SERVICE])
            self.page.show(shown)
            self.assertEqual(numbers[-1], self.words[direct.SERVICE])
            self.page.show(shown.__class__(**{**vars(shown), "open": False}))
            self.assertEqual(0, self.words[direct.SERVICE])
            self.page.show(shown)
            numbers.append(self.words[direct.SERVICE])
            self.page.all_moved()
            numbers.append(self.words[direct.SERVICE])
        self.assertEqual(len(numbers), len(set(numbers) - {0}))
        self.page.close()
        self.assertEqual(0, self.words[direct.SERVICE])
        self.page.all_moved()
        self.assertEqual(0, self.words[direct.SERVICE])

    def test_a_lease_is_cut_off_to_whole_nanoseconds(self):
        self.page.set_lease(12.5)
        self.assertEqual(12_500_000_000, self.words[direct.LEASE])
        self.page.set_lease(0.0)
        self.assertEqual(0, self.words[direct.LEASE])

    def test_nobody_else_can_change_the_page_or_its_size(self):
        descriptor = os.open("/proc/self/fd/%d" % self.page.descriptor, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        with self.assertRaises(PermissionError):
            mmap.mmap(descriptor, direct.PAGE_SIZE)
        with self.assertRaises(PermissionError):
            os.pwrite(descriptor, b"x", 8)
        with self.assertRaises(PermissionError):
            os.ftruncate(descriptor, 0)
        with self.assertRaises(PermissionError):
            fcntl.fcntl(descriptor, 1033, 1)

    def test_who_does_not_want_a_page_gets_none(self):
        self.assertIs(NO_PAGE, make_page(False))
        self.assertTrue(make_page(True).usable)


@unittest.skipUnless(direct.is_possible(), "another processor")
class Death(unittest.TestCase):

    def setUp(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self.sheep = subprocess.Popen(
                [sys.executable, "-c", _SHEEP, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        self.channel = ours
        self.addCleanup(ours.close)
        self.addCleanup(self.sheep.wait)
        self.addCleanup(self.sheep.kill)
        message, found, _, _ = socket.recv_fds(ours, 100, 1)
        self.at, self.life = map(int, message.split())
        page = mmap.mmap(found[0], direct.PAGE_SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(found[0])
        self.halves, self.words = memoryview(page).cast("I"), memoryview(page).cast("Q")

    def test_the_page_of_a_killed_sheep_says_so_before_its_sockets_are_closed(self):
        self.assertEqual(self.life, self.halves[self.at])
        self.sheep.send_signal(signal.SIGKILL)
        self.assertEqual(b"", self.channel.recv(1))
        self.assertNotEqual(self.life, self.halves[self.at])

    def test_a_stopped_sheep_lives(self):
        self.sheep.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.sheep.pid, os.WSTOPPED)
        self.assertEqual(self.life, self.halves[self.at])

    def test_a_sheep_that_ends_serves_nobody(self):
        self.assertNotEqual(0, self.words[direct.SERVICE])
        self.channel.send(b"q")
        self.assertEqual(b"", self.channel.recv(1))
        self.assertEqual(0, self.words[direct.SERVICE])
        self.assertEqual(0, self.sheep.wait())

    def test_a_child_that_ends_is_not_the_sheep(self):
        page = DirectPage()
        with memoryview(mmap.mmap(page.descriptor, direct.PAGE_SIZE, mmap.MAP_SHARED,
                                  mmap.PROT_READ)).cast("I") as halves:
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            self.assertEqual(page.life[1], halves[page.life[0]])


class _Recorder:
    """A page, and a look at where the object's file is at each change of ``files``."""

    def __init__(self, path):
        self._path = path
        self.seen = []

    def moved(self, oid):
        self.seen.append((oid, self._inode()))

    def all_moved(self):
        self.seen.append((None, self._inode()))

    def _inode(self):
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return None


class StoreTells(StoreTestCase):
    """Whatever gives an object another file says so while it still has the one before."""

    def _open(self, durable):
        store = self.open(durable)
        self.recorder = _Recorder(self.object_path(OID))
        call(store.create, OID, SIZE, 0, b"first")
        store.watch(self.recorder.moved, self.recorder.all_moved)
        return store

    def _assert_told_first(self, before, oid=OID):
        self.assertIn((oid, before), self.recorder.seen)
        self.recorder.seen.clear()

    def test_each_change_of_the_file(self):
        for durable in MODES:
            with self.subTest(durable=durable):
                store = self._open(durable)
                inode = os.stat(self.object_path(OID)).st_ino
                call(store.create, OID, SIZE, 0, b"second")
                self._assert_told_first(inode)
                inode = os.stat(self.object_path(OID)).st_ino
                call(store.create_sparse, OID, SIZE, [(0, b"third")], 5)
                self._assert_told_first(inode)
                inode = os.stat(self.object_path(OID)).st_ino
                store.retire([OID], 1)
                self._assert_told_first(inode)
                store.promote(OID, 1)
                self._assert_told_first(None)
                inode = os.stat(self.object_path(OID)).st_ino
                store.retire_all(2)
                self._assert_told_first(inode, None)
                store.promote(OID, 2)
                self._assert_told_first(None)
                call(store.remove, OID)
                self._assert_told_first(inode)
                store.close()

    def test_writes_leave_the_file(self):
        for durable in MODES:
            with self.subTest(durable=durable):
                store = self._open(durable)
                call(store.write, OID, 0, b"more")
                call(store.discard, OID, 0, 8192)
                store.settle(OID, 5)
                call(store.write, OID, 0, b"again")
                self.assertEqual([], self.recorder.seen)
                store.close()

    def test_a_file_is_shared_for_reading_only(self):
        store = self._open(False)
        descriptor, size, token = store.share(OID, lambda oid: ("token", oid))
        self.addCleanup(os.close, descriptor)
        self.assertEqual((SIZE, ("token", OID)), (size, token))
        self.assertEqual(b"first", os.pread(descriptor, 5, 0))
        with self.assertRaises(OSError):
            os.pwrite(descriptor, b"x", 0)
        with self.assertRaises(OSError):
            os.ftruncate(descriptor, 0)
        with self.assertRaises(NoObject):
            store.share(OID + 1, lambda oid: 0)

    def test_no_file_is_shared_while_the_object_is_held(self):
        store = self._open(False)
        frozen = store._core.freeze([OID])
        self.assertIsNone(store.share(OID, lambda oid: 0))
        store._core.thaw(frozen)
        store._core.pause()
        self.assertIsNone(store.share(OID, lambda oid: 0))
        store._core.resume()
        os.close(store.share(OID, lambda oid: 0)[0])
        store.close()
        self.assertIsNone(store.share(OID, lambda oid: 0))

    def test_a_file_whose_footer_is_damaged_is_not_shared(self):
        store = self._open(False)
        store.close()
        path = self.object_path(OID)
        self.flip(path, 8 * (os.stat(path).st_size - 20))
        store = self.open()
        self.assertIsNone(store.share(OID, lambda oid: 0))


@unittest.skipUnless(direct.is_possible(), "another processor")
class ReplicaMarks(StoreTestCase):
    """The mark stands from before a write is applied until all holders have it."""

    def setUp(self):
        super().setUp()
        self.page = DirectPage()
        self.store = self.open()
        self.replica = Replica(self.store, lambda oid: True, self.page)
        self.replica.enter(1, 0)
        self.replica.on_damage = lambda oid: None
        self.counter = 0
        self.results = []

    def _stamp(self, node):
        self.counter += 1
        return make_stamp(self.counter, node)

    def _done(self, result, last):
        self.results.append(result)

    def _write(self, node=_OTHER, offset=0):
        stamp = self._stamp(node)
        if self.store.exists(OID):
            self.replica.write(OID, 1, stamp, offset, b"y" * 4096, self._done)
        else:
            self.replica.create(OID, 1, stamp, SIZE, 0, b"x", self._done)
        return stamp

    @property
    def marked(self):
        return bool(self.page._words[direct.slot_of(OID)] & 1)

    def test_from_before_the_store_is_asked(self):
        self._write(0)
        self.replica.settled(OID, [make_stamp(self.counter, 0)])
        seen = []
        write = self.store.write

        def look(*arguments):
            seen.append(self.marked)
            write(*arguments)

        self.store.write = look
        self._write()
        self.assertEqual([True], seen)

    def test_until_the_coordinator_here_ends_it(self):
        first, second = self._write(0), self._write(0)
        self.assertTrue(self.marked)
        self.replica.settled(OID, [first])
        self.assertTrue(self.marked)
        self.replica.settled(OID, [second])
        self.assertFalse(self.marked)

    def test_until_the_coordinator_elsewhere_told_and_somebody_looks(self):
        self._write()
        with self.assertRaises(Unsettled):
            self.replica.read(OID, 0, 4096)
        self.assertTrue(self.marked)
        self.replica.note_settled(_OTHER, self.counter, 1)
        self.replica.read(OID, 0, 4096)
        self.assertFalse(self.marked)

    def test_an_ordinary_read_elsewhere_in_the_object_does_not_take_it_back(self):
        self._write(0)
        self.replica.settled(OID, [make_stamp(self.counter, 0)])
        self._write(offset=0)
        self.replica.read(OID, 8192, 4096)
        self.assertTrue(self.marked)

    def test_orphans_keep_it_until_they_are_ended(self):
        self._write()
        self.replica.enter(2, 0)
        self.assertTrue(self.marked)
        (oid, start, end), = self.replica.orphans()
        self.replica.begin_roll(oid, start, end)
        self.assertTrue(self.marked)
        self.replica.end_roll(oid, start, end)
        self.assertFalse(self.marked)

    def test_refused_writes_leave_none(self):
        self._write(0)
        self.replica.settled(OID, [make_stamp(self.counter, 0)])
        self.replica.write(OID, 1, make_stamp(1, 0), 0, b"late", self._done)
        self.replica.write(OID, 3, make_stamp(99, 0), 0, b"other map", self._done)
        self.assertEqual([Result.AGAIN, Result.NEW_NODE_VER], self.results[-2:])
        self.assertFalse(self.marked)
        self.replica.write(OID + 1, 1, make_stamp(100, 0), 0, b"absent", self._done)
        self.assertEqual(Result.NO_OBJ, self.results[-1])
        self.assertFalse(self.page._words[direct.slot_of(OID + 1)] & 1)

    def test_failed_writes_leave_none(self):
        self._write(0)
        self.replica.settled(OID, [make_stamp(self.counter, 0)])
        self.flip(self.object_path(OID), 8 * 100)
        # Written in part, a damaged block is noticed.
        self.replica.write(OID, 1, self._stamp(0), 200, b"z", self._done)
        self.assertEqual(Result.EIO, self.results[-1])
        self.assertFalse(self.marked)

    def test_what_is_forgotten_is_not_marked(self):
        self._write()
        entry = self.replica._entries[OID]
        self.replica.forget(OID)
        self.assertFalse(self.marked)
        # Whoever had found the entry just before must not end what is ended.
        entry.pending = []
        self.replica._unmark(OID, entry)
        self.assertFalse(self.marked)

    def test_rest_takes_it_back(self):
        self._write()
        self.replica.note_settled(_OTHER, self.counter, 1)
        self.replica._entries[OID].touched -= 5
        self.replica.settle_quiet()
        self.assertFalse(self.marked)
        self.assertFalse(self.replica.is_busy(OID))
