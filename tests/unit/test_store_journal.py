"""The journal's files, whole, torn and garbled."""

import os
import random
import shutil
import threading
import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from sheepstack.store import journal, journal_format as form
from sheepstack.store.journal_format import Kind
from sheepstack.store.replay import Replay
from sheepstack.store.workers import Workers
from tests.unit.store_case import StoreTestCase, call

OID = 0x1234560000000A


class FormatTest(StoreTestCase):

    RECORDS = st.lists(st.tuples(
        st.sampled_from(list(Kind)), st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 40),
        st.integers(0, 1 << 40), st.binary(max_size=300), st.integers(0, (1 << 128) - 1)),
        max_size=8)

    def _write(self, records, salt, first):
        path = os.path.join(self.path, "journal")
        with open(path, "wb") as sink:
            sink.write(form.pack_header(salt, first))
            ends = [sink.tell()]
            for number, (kind, oid, size, offset, payload, stamp) in enumerate(records, first):
                sink.write(form.pack_record(
                    salt, number, kind, oid, size, offset, payload, stamp) + payload)
                ends.append(sink.tell())
        return path, ends

    @settings(deadline=None)
    @given(RECORDS, st.integers(0, (1 << 32) - 1), st.integers(1, 1 << 60))
    def test_round_trip(self, records, salt, first):
        path, _ = self._write(records, salt, first)
        self.assertEqual((salt, first), form.read_header(path))
        read = list(form.read_records(path, salt, first))
        self.assertEqual(records, [
            (record.kind, record.oid, record.size, record.offset, record.payload, record.stamp)
            for record in read])
        self.assertEqual(list(range(first, first + len(records))),
                         [record.number for record in read])
        self.assertEqual([], list(form.read_records(path, salt + 1, first)))
        self.assertEqual([], list(form.read_records(path, salt, first + 1)))

    @settings(deadline=None)
    @given(RECORDS, st.data())
    def test_any_damage_ends_it(self, records, data):
        path, ends = self._write(records, 7, 1)
        length = os.path.getsize(path)
        if length == form.HEADER_SIZE:
            return
        bit = data.draw(st.integers(8 * form.HEADER_SIZE, 8 * length - 1))
        intact = sum(end <= bit // 8 for end in ends) - 1
        if data.draw(st.booleans()):
            os.truncate(path, bit // 8)
            self.assertEqual(intact, len(list(form.read_records(path, 7, 1))))
        else:
            self.flip(path, bit)
            self.assertEqual(intact, len(list(form.read_records(path, 7, 1))))

    def test_extents(self):
        extents = [(0, b""), (5, b"five"), (1 << 40, bytes(1000))]
        self.assertEqual(extents, form.unpack_extents(form.pack_extents(extents)))

    def test_headers(self):
        path = os.path.join(self.path, "journal")
        for content in (b"", b"short", bytes(4096), form.pack_header(1, 2)[:20]):
            with open(path, "wb") as sink:
                sink.write(content)
            self.assertIsNone(form.read_header(path))


class JournalTest(StoreTestCase):

    SIZE = 1 << 20

    def _start(self, checkpoint=None, number=1):
        paths = [os.path.join(self.path, "journal.%d" % which) for which in (0, 1)]
        for path in paths:
            journal.make_file(path, self.SIZE)
        finisher = Workers("test", 1)
        made = []
        ours = journal.Journal(paths, self.SIZE, 77, number, finisher,
                               checkpoint or (lambda: made.append(1)))
        self.addCleanup(finisher.close)
        return ours, paths

    def test_it_goes_round_and_round(self):
        checkpoints = []

        def start_checkpoint():
            checkpoint = threading.Thread(target=self._checkpoint)
            checkpoint.start()
            checkpoints.append(checkpoint)

        ours, paths = self._start(start_checkpoint)
        self.ours = ours
        done = []
        rng = random.Random(1)
        for at in range(400):
            ours.append(Kind.WRITE, at, offset=at, payload=rng.randbytes(rng.randint(1, 60000)),
                        callback=done.append)
        # A checkpoint makes records of its own, and a flush may ask for one more.
        for checkpoint in checkpoints:
            checkpoint.join()
        ours.flush()
        for checkpoint in checkpoints:
            checkpoint.join()
        ours.flush()
        replay = Replay(paths)
        self.assertFalse(replay.damaged)
        self.assertEqual(ours.next_number, replay.number)
        ours.close(in_place=False)
        self.assertEqual(set(), set(done) - {None})

    def _checkpoint(self):
        self.ours.void_before(self.ours.next_number)

    def test_voiding(self):
        ours, paths = self._start()
        ours.append(Kind.WRITE, 1, payload=b"a")
        ours.append(Kind.WRITE, 2, payload=b"b")
        self.assertTrue(ours.mentions(1))
        number = ours.next_number
        ours.append(Kind.WRITE, 3, payload=b"c")
        ours.void(2, ours.next_number)
        ours.flush()
        self.assertEqual({1, 2, 3}, Replay(paths).oids)
        ours.void_before(number)
        ours.flush()
        # An object with a record that was voided alone is in doubt all the same.
        self.assertEqual({2, 3}, Replay(paths).oids)
        ours.close(in_place=True)
        self.assertEqual(set(), Replay(paths).oids)
        self.assertFalse(Replay(paths).damaged)

    def test_gates_open_before_callbacks_are_called(self):
        from sheepstack.store.deferral import Deferral
        ours, _ = self._start()
        seen = []
        gate = Deferral(1)
        ours.append(Kind.INTENT, 1, gate=gate,
                    callback=lambda error: seen.append((gate.gate.is_set(), error)))
        ours.flush()
        ours.close(in_place=True)
        self._cleanups.pop()[0]()
        self.assertEqual([(True, None)], seen)
        self.assertEqual(1, gate.number)

    def test_a_missing_file_in_the_chain_is_noticed(self):
        ours, paths = self._start()
        for at in range(150):
            ours.append(Kind.WRITE, at, payload=bytes(10000))
        ours.flush()
        ours.close(in_place=False)
        self.assertFalse(Replay(paths).damaged)
        self.assertEqual(150, len(Replay(paths).oids))
        second = [path for path in paths if form.read_header(path)[1] > 1]
        self.assertEqual(1, len(second))
        first = [path for path in paths if path not in second]
        self.flip(first[0], 8 * 500000)
        replay = Replay(paths)
        self.assertTrue(replay.damaged)
        self.assertEqual(151, replay.number)
        self.flip(second[0], 8 * 20)
        self.assertTrue(Replay(paths).damaged)


class ReplayTest(StoreTestCase):
    """A store whose objects are as they were, and whose journal is as it is now."""

    def _crash(self, store, objects_before):
        """What the disk holds when nothing but the journal got there in time."""
        target = self.path + "-after"
        shutil.copytree(self.path, target)
        self.addCleanup(shutil.rmtree, target, ignore_errors=True)
        shutil.rmtree(os.path.join(target, "obj"))
        shutil.copytree(objects_before, os.path.join(target, "obj"))
        store.close()
        shutil.rmtree(self.path)
        os.rename(target, self.path)

    def _objects(self):
        kept = self.path + "-before"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(os.path.join(self.path, "obj"), kept)
        self.addCleanup(shutil.rmtree, kept, ignore_errors=True)
        return kept

    def test_records_are_applied_in_order(self):
        store = self.open(True)
        for at in range(6):
            call(store.create, OID + at, 20000, 0, b"before")
        store.checkpoint()
        kept = self._objects()
        call(store.write, OID, 0, b"first second")
        call(store.write, OID, 6, b"third")
        call(store.discard, OID, 3, 2)
        call(store.remove, OID + 1)
        call(store.remove, OID + 2)
        call(store.create, OID + 2, 5000, 10, b"again")
        call(store.create, OID + 3, 30000, 0, b"larger")
        call(store.write, OID + 3, 29999, b"!")
        call(store.create_sparse, OID + 4, 6000, [(1, b"one"), (5000, b"two")], 44)
        call(store.create, OID + 9, 100, 0, b"fresh")
        self._crash(store, kept)
        store = self.open(True)
        self.assertEqual(b"fir\0\0 thirdd", store.read(OID, 0, 12))
        self.assertFalse(store.exists(OID + 1))
        self.assertEqual(5000, store.size(OID + 2))
        self.assertEqual(b"\0again\0", store.read(OID + 2, 9, 7))
        self.assertEqual(b"larger\0", store.read(OID + 3, 0, 7))
        self.assertEqual(b"!", store.read(OID + 3, 29999, 1))
        self.assertEqual(b"two", store.read(OID + 4, 5000, 3))
        self.assertEqual(b"before", store.read(OID + 5, 0, 6))
        self.assertEqual(b"fresh", store.read(OID + 9, 0, 5))
        self.assertEqual({OID, OID + 2, OID + 3, OID + 4, OID + 5, OID + 9}, store.suspects)
        for oid in store.oids():
            self.assertEqual([], store.verify(oid))

    def test_a_large_write_is_not_undone(self):
        store = self.open(True)
        call(store.create, OID, 1 << 20, 0, b"before")
        store.checkpoint()
        call(store.write, OID, 0, b"small")
        call(store.write, OID, 0, b"L" * (512 << 10))
        kept = self._objects()
        call(store.write, OID, 3, b"after")
        self._crash(store, kept)
        store = self.open(True)
        self.assertEqual(b"LLLafterL", store.read(OID, 0, 9))
        self.assertEqual([], store.verify(OID))
        self.assertEqual({OID}, store.suspects)

    def test_a_large_creation_is_not_undone(self):
        store = self.open(True)
        call(store.create, OID, 1 << 20, 0, b"before")
        call(store.remove, OID)
        call(store.create, OID, 1 << 20, 0, b"L" * (1 << 20))
        kept = self._objects()
        self._crash(store, kept)
        store = self.open(True)
        self.assertEqual(b"LLL", store.read(OID, 1000, 3))

    def test_a_garbled_tail(self):
        store = self.open(True)
        call(store.create, OID, 40960, 0, b"")
        store.checkpoint()
        kept = self._objects()
        for at in range(10):
            call(store.write, OID, 4096 * at, bytes([at + 1]) * 4096)
        self._crash(store, kept)
        whole = self.path + "-whole"
        os.rename(self.path, whole)
        self.addCleanup(shutil.rmtree, whole, ignore_errors=True)
        path = os.path.join(self.path, "journal.0")
        rng = random.Random(3)
        for _ in range(12):
            shutil.copytree(whole, self.path)
            begin = rng.randrange(4096, 4096 + 12 * 4200)
            with open(path, "r+b") as file:
                file.seek(begin)
                file.write(rng.randbytes(8192))
            store = self.open(True)
            # All the writes up to some one, and none after it.
            written = [store.read(OID, 4096 * at, 1)[0] for at in range(10)]
            count = sum(map(bool, written))
            self.assertEqual(list(range(1, count + 1)) + [0] * (10 - count), written)
            self.assertGreaterEqual(count, (begin - 4096 - 2 * 4200) // 4160)
            self.assertEqual([], store.verify(OID))
            store.close()
            shutil.rmtree(self.path)
        shutil.copytree(whole, self.path)

    def test_opening_without_durability_replays_too(self):
        store = self.open(True)
        call(store.create, OID, 40960, 0, b"")
        store.checkpoint()
        kept = self._objects()
        call(store.write, OID, 0, b"journaled")
        self._crash(store, kept)
        store = self.open(False)
        self.assertEqual(b"journaled", store.read(OID, 0, 9))
        call(store.write, OID, 0, b"later")
        store.close()
        store = self.open(True)
        self.assertEqual(b"lateraled", store.read(OID, 0, 9))


class WorkersTest(unittest.TestCase):

    def test_all_jobs_are_done(self):
        workers = Workers("test", 3)
        done = []
        for at in range(100):
            workers.put(lambda at=at: done.append(at))
        workers.close()
        self.assertEqual(set(range(100)), set(done))
        workers.put(lambda: done.append("late"))
        workers.close()
        self.assertEqual("late", done[-1])

    def test_one_thread_keeps_the_order_and_survives_failures(self):
        workers = Workers("test", 1)
        done = []
        with self.assertLogs("sheepstack.store.workers", "ERROR"):
            for at in range(50):
                workers.put(lambda at=at: done.append(at))
                workers.put(lambda: 1 // 0)
            workers.close()
        self.assertEqual(list(range(50)), done)
