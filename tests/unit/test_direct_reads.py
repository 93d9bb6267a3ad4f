"""A client that reads an object's file: each way in which something may come in between."""

import os
import socket
import threading
import time
import unittest
from types import SimpleNamespace
from unittest import mock

from sheepstack.client import shared_file
from sheepstack.client.direct import Direct, Page, exchange
from sheepstack.client.shared_file import SharedFile
from sheepstack.sheep.direct_page import DirectPage
from sheepstack.wire import direct
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import HEADER_SIZE, Response
from sheepstack.wire.oid import data_oid
from tests.unit.store_case import StoreTestCase, call
from tests.unit.test_direct_page import view

OID = data_oid(7, 3)
BLOCK = 4096
#: The last block is a short one.
SIZE = 40 * BLOCK + 1000
_HOUR = 3600.0


@unittest.skipUnless(direct.is_possible(), "another processor")
class ReadTest(StoreTestCase):
    """A store and a page as a sheep has them, and the client's end of both."""

    #: On a filesystem that can tell what is in the page cache.
    where = None

    def setUp(self):
        super().setUp()
        self.page = DirectPage()
        self.store = self.open()
        self.store.watch(self.page.moved, self.page.all_moved)
        self.content = bytearray(os.urandom(SIZE))
        call(self.store.create, OID, SIZE, 0, self.content)
        self.page.show(view())
        self._renew(_HOUR)
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        descriptor = os.dup(self.page.descriptor)
        self.seen = Page(ours, descriptor, direct.Attached(*self.page.life, 0), 1)
        os.close(descriptor)
        self.file = self.share()

    def _renew(self, seconds):
        self.page.set_lease(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds)

    def share(self):
        service = self.page.service
        descriptor, size, files = self.store.share(OID, self.page.files)
        return SharedFile(self.seen, descriptor, direct.slot_of(OID), direct.Opened(
            2, 0, 0, 0, 0, 0, 0, service, files, size))

    def write(self, offset, data):
        self.page.begin(OID)
        self.put(offset, data)
        self.page.end(OID)

    def put(self, offset, data):
        call(self.store.write, OID, offset, data)
        self.content[offset:offset + len(data)] = data

    def expected(self, offset, length):
        return bytes(self.content[offset:offset + length])

    def after_the_read(self, action, times=1):
        """Have ``action()`` happen between the reading of bytes and the look at the page."""
        real = os.preadv
        left = [times]

        def preadv(fd, buffers, offset, flags=0):
            got = real(fd, buffers, offset, flags)
            if offset < SIZE and left[0]:
                left[0] -= 1
                action()
            return got

        return mock.patch.object(shared_file, "_preadv", preadv)


class Undisturbed(ReadTest):

    def test_any_range_reads_as_through_the_sheep(self):
        for offset, length in ((0, BLOCK), (BLOCK, 4 * BLOCK), (5, 10), (BLOCK - 1, 2),
                               (0, SIZE), (40 * BLOCK, 1000), (40 * BLOCK + 10, 5),
                               (3 * BLOCK + 7, 9 * BLOCK), (SIZE - 1, 1)):
            with self.subTest(offset=offset, length=length):
                self.assertEqual(self.expected(offset, length), self.file.read(offset, length))
                buffer = bytearray(length)
                self.assertTrue(self.file.read_into(offset, memoryview(buffer)))
                self.assertEqual(self.expected(offset, length), bytes(buffer))

    def test_beyond_the_end_the_sheep_shall_answer(self):
        for offset, length in ((SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (40 * BLOCK, BLOCK)):
            self.assertIsNone(self.file.read(offset, length))
            self.assertFalse(self.file.read_into(offset, memoryview(bytearray(length))))

    def test_holes_are_zeros(self):
        self.page.begin(OID)
        call(self.store.discard, OID, BLOCK, 8 * BLOCK)
        self.page.end(OID)
        self.assertEqual(bytes(8 * BLOCK), self.file.read(BLOCK, 8 * BLOCK))

    def test_a_write_is_seen_as_soon_as_it_is_over(self):
        for value in range(20):
            self.file.read(0, BLOCK)
            self.write(0, bytes([value]) * BLOCK)
            self.assertEqual(bytes([value]) * BLOCK, self.file.read(0, BLOCK))

    def test_threads_read_what_others_write_whole(self):
        stop = threading.Event()
        found = []

        def read():
            while not stop.is_set():
                data = self.file.read(0, 2 * BLOCK)
                if data is not None:
                    found.append(data)

        self.write(0, bytes(2 * BLOCK))
        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for value in range(400):
            self.write(0, bytes([value % 256]) * 2 * BLOCK)
        stop.set()
        for reader in readers:
            reader.join()
        self.assertTrue(found)
        self.assertEqual([], [data for data in found if data != data[:1] * 2 * BLOCK])


class Between(ReadTest):
    """Things that happen after the bytes were read, or before, and never were while."""

    def assert_refused(self, action):
        self.assertIsNotNone(self.file.read(0, BLOCK))
        for length in (BLOCK, 100, 4 * BLOCK):
            file = self.file = self.share()
            with self.after_the_read(action):
                self.assertIsNone(file.read(0, length), length)
        file = self.file = self.share()
        with self.after_the_read(action):
            self.assertFalse(file.read_into(0, memoryview(bytearray(BLOCK))))
        self.file = self.share()
        self.assertEqual(self.expected(0, BLOCK), self.file.read(0, BLOCK))

    def test_a_write_that_is_on_its_way_already(self):
        self.page.begin(OID)
        self.assertIsNone(self.file.read(0, BLOCK))
        self.put(0, b"x" * BLOCK)
        # It is there, but perhaps not everywhere yet.
        self.assertIsNone(self.file.read(0, BLOCK))
        self.assertFalse(self.file.read_into(0, memoryview(bytearray(BLOCK))))
        self.page.end(OID)
        self.assertEqual(b"x" * BLOCK, self.file.read(0, BLOCK))

    def test_a_write_that_begins(self):
        self.page.begin(OID)
        self.page.end(OID)

        def begin():
            self.page.begin(OID)

        self.file.read(0, BLOCK)
        with self.after_the_read(begin):
            self.assertIsNone(self.file.read(0, BLOCK))

    def test_a_write_that_begins_and_ends(self):
        self.assert_refused(lambda: self.write(0, os.urandom(BLOCK)))

    def test_a_new_map(self):
        revisions = iter(range(2, 100))

        def change():
            revision = next(revisions)
            self.page.show(view(revision, is_open=False))
            self.page.show(view(revision))

        self.assert_refused(change)

    def test_a_map_that_is_not_open_yet(self):
        self.file.read(0, BLOCK)
        with self.after_the_read(lambda: self.page.show(view(2, is_open=False))):
            self.assertIsNone(self.file.read(0, BLOCK))
        self.assertTrue(self.file.is_over())

    def test_a_lease_that_runs_out(self):
        self.file.read(0, BLOCK)
        with self.after_the_read(lambda: self._renew(-1e-6)):
            self.assertIsNone(self.file.read(0, BLOCK))
        # Renewed in time it goes on; a lease alone is no reason to ask for the file again.
        self.assertFalse(self.file.is_over())
        self._renew(_HOUR)
        self.assertEqual(self.expected(0, BLOCK), self.file.read(0, BLOCK))

    def test_a_session_that_is_suspended(self):
        self.file.read(0, BLOCK)
        with self.after_the_read(lambda: self.page.set_lease(0.0)):
            self.assertIsNone(self.file.read(0, BLOCK))

    def test_the_death_of_the_sheep(self):
        self.file.read(0, BLOCK)
        at, life = self.page.life
        with memoryview(self.page._map).cast("I") as halves:
            def die():
                # As the kernel does it.
                halves[at] = 0x40000000

            with self.after_the_read(die):
                self.assertIsNone(self.file.read(0, BLOCK))
            self.assertTrue(self.file.is_over())
            halves[at] = life

    def test_another_file_for_the_object(self):
        def replace():
            self.content[:] = os.urandom(SIZE)
            call(self.store.create, OID, SIZE, 0, self.content)

        self.assert_refused(replace)

    def test_the_object_set_aside_and_brought_back(self):
        def turn():
            self.store.retire([OID], 1)
            self.store.promote(OID, 1)

        self.assert_refused(turn)

    def test_the_end_of_the_object(self):
        self.file.read(0, BLOCK)
        with self.after_the_read(lambda: call(self.store.remove, OID)):
            self.assertIsNone(self.file.read(0, BLOCK))
        self.assertTrue(self.file.is_over())
        self.assertIsNone(self.file.read(0, BLOCK))

    def test_checksums_that_are_read_while_somebody_writes(self):
        # The table is half new, the data as it will be: nothing of it may be used later.
        self.write(0, os.urandom(BLOCK))
        real = os.preadv

        def preadv(fd, buffers, offset, flags=0):
            if offset >= SIZE:
                self.write(0, os.urandom(BLOCK))
            return real(fd, buffers, offset, flags)

        with mock.patch.object(shared_file, "_preadv", preadv):
            self.assertIsNone(self.file.read(0, BLOCK))
        self.assertEqual(self.expected(0, BLOCK), self.file.read(0, BLOCK))


class Rot(ReadTest):

    def test_a_flipped_bit_is_left_to_the_sheep(self):
        for offset, length in ((2 * BLOCK, BLOCK), (2 * BLOCK + 7, 3), (0, SIZE),
                               (2 * BLOCK, 2 * BLOCK)):
            self.assertEqual(self.expected(offset, length), self.file.read(offset, length))
            self.flip(self.object_path(OID), 8 * (2 * BLOCK + 9))
            self.assertIsNone(self.file.read(offset, length))
            self.assertFalse(self.file.read_into(offset, memoryview(bytearray(length))))
            # What is not damaged can be read.
            self.assertEqual(self.expected(0, BLOCK), self.file.read(0, BLOCK))
            self.store.repair(OID, 2, self.expected(2 * BLOCK, BLOCK))
            self.assertEqual(self.expected(offset, length), self.file.read(offset, length))

    def test_a_flipped_bit_of_a_checksum(self):
        self.flip(self.object_path(OID), 8 * (SIZE + 4 * 2))
        fresh = self.share()
        self.assertIsNone(fresh.read(2 * BLOCK, BLOCK))
        self.assertEqual(self.expected(0, BLOCK), fresh.read(0, BLOCK))

    def test_a_file_cut_short(self):
        os.truncate(self.object_path(OID), 10 * BLOCK)
        self.assertIsNone(self.file.read(20 * BLOCK, BLOCK))
        self.assertIsNone(self.file.read(0, SIZE))


class Descriptors(ReadTest):

    def test_a_file_is_open_as_long_as_somebody_reads(self):
        number = self.file._fd
        with self.after_the_read(lambda: setattr(self, "file", None)):
            self.assertEqual(self.expected(0, BLOCK), self.file.read(0, BLOCK))
        with self.assertRaises(OSError):
            os.fstat(number)

    def test_what_is_not_in_memory_is_left_to_the_sheep(self):
        self.file.read(0, BLOCK)
        with mock.patch.object(shared_file, "_preadv", side_effect=BlockingIOError):
            self.assertIsNone(self.file.read(0, BLOCK))
        self.assertEqual(self.expected(0, BLOCK), self.file.read(0, BLOCK))

    def test_a_disk_that_fails_is_left_to_the_sheep(self):
        self.file.read(0, BLOCK)
        with mock.patch.object(shared_file, "_preadv", side_effect=OSError(5, "EIO")):
            self.assertIsNone(self.file.read(0, BLOCK))
            self.assertIsNone(self.file.read(0, 2 * BLOCK))

    def test_there_are_never_more_than_so_many(self):
        pool = SimpleNamespace(generation=1, lead=lambda: None)
        files = Direct(pool, None, None, 1.0)
        self.addCleanup(files.close)
        files._limit = 3
        for number in range(10):
            files._keep(number, self.share())
        self.assertEqual(3, len(files._files))
        self.assertIn(9, files._files)

    def test_what_is_over_is_let_go_of(self):
        pool = SimpleNamespace(generation=1, lead=lambda: None)
        files = Direct(pool, None, None, 1.0)
        self.addCleanup(files.close)
        files._keep(OID, self.file)
        number, self.file = self.file._fd, None
        self.assertIs(files.get(OID), files.find(OID, BLOCK))
        self.assertTrue(files.sweep())
        call(self.store.remove, OID)
        self.assertFalse(files.sweep())
        with self.assertRaises(OSError):
            os.fstat(number)

    def test_another_gateway_has_other_files(self):
        pool = SimpleNamespace(generation=1, lead=lambda: None)
        files = Direct(pool, None, None, 1.0)
        self.addCleanup(files.close)
        files._keep(OID, self.file)
        pool.generation = 2
        self.assertIsNone(files.find(OID, BLOCK))
        self.assertIsNone(files.get(OID))

    def test_a_child_begins_without_any(self):
        pool = SimpleNamespace(generation=1, lead=lambda: None)
        files = Direct(pool, None, None, 1.0)
        self.addCleanup(files.close)
        files._keep(OID, self.file)
        child = os.fork()
        if not child:
            os._exit(0 if files.get(OID) is None and files._page is None else 1)
        self.assertEqual(0, os.waitpid(child, 0)[1])
        self.assertEqual(self.expected(0, BLOCK), files.get(OID).read(0, BLOCK))


class Handshake(unittest.TestCase):

    TOKEN = b"t" * direct.TOKEN_SIZE

    def test_both_ends_prove_that_they_know_the_token(self):
        request = direct.attach_request(self.TOKEN)
        self.assertTrue(direct.is_attach_request(request, self.TOKEN))
        self.assertFalse(direct.is_attach_request(request, b"u" * direct.TOKEN_SIZE))
        self.assertFalse(direct.is_attach_request(request[:-1], self.TOKEN))
        self.assertFalse(direct.is_attach_request(b"", self.TOKEN))
        attached = direct.Attached(17, 4711, 99)
        answer = attached.pack(self.TOKEN, request)
        self.assertEqual(attached, direct.Attached.unpack(answer, self.TOKEN, request))
        other = direct.attach_request(self.TOKEN)
        for wrong in (attached.pack(b"u" * direct.TOKEN_SIZE, request),
                      attached.pack(self.TOKEN, other), answer[:-1], b"",
                      direct.Attached(0, 1, 2).pack(self.TOKEN, request)):
            with self.assertRaises(RemoteProtocolError):
                direct.Attached.unpack(wrong, self.TOKEN, request)

    def test_an_answer_may_come_in_pieces(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            answer = Response(0, data_length=5).pack() + b"hello"
            read, write = os.pipe()
            os.close(write)

            def reply():
                theirs.recv(100)
                theirs.send(answer[:20])
                socket.send_fds(theirs, [answer[20:50]], [read])
                theirs.send(answer[50:])

            thread = threading.Thread(target=reply)
            thread.start()
            header, payload, descriptor = exchange(ours, b"question", 10)
            thread.join()
            self.assertEqual((answer[:HEADER_SIZE], b"hello"), (header, payload))
            self.assertFalse(os.get_inheritable(descriptor))
            os.close(descriptor)
            os.close(read)

    def test_an_answer_that_is_too_long_or_breaks_off(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(Response(0, data_length=11).pack())
            with self.assertRaises(RemoteProtocolError):
                exchange(ours, b"question", 10)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            theirs.shutdown(socket.SHUT_WR)
            with self.assertRaises(OSError):
                exchange(ours, b"question", 10)
