"""What a store does for its callers, in both modes."""

import os
import random
import tempfile
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sheepstack.store import (
    BadStore, NoObject, ObjectStore, Rotten, StoreError, StoreIOError, StoreLocked)
from sheepstack.store import activity, disk
from sheepstack.store.slots import SlotFile
from sheepstack.wire.checksum import crc32c
from sheepstack.wire.hashing import oid_hash
from sheepstack.wire.inode_layout import INODE_SIZE
from tests.unit.store_case import MODES, StoreTestCase, call

OID = 0x1234560000000A
MIB = 1 << 20


class ModelTest(StoreTestCase):
    """A store against a dictionary of bytearrays."""

    SIZES = (4096, 10000, 300000, 66320)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.booleans(), st.lists(st.tuples(
        st.sampled_from("cwwwwwwddrsRpo"), st.integers(0, 3), st.floats(0, 1),
        st.floats(0, 1), st.integers(0, 255)), max_size=40))
    def test_any_sequence(self, durable, steps):
        with tempfile.TemporaryDirectory(dir=self.path) as path:
            self._store = ObjectStore(path, durable, journal_size=1 << 20, reserve=0)
            try:
                self._follow(steps, durable, path)
            finally:
                self._store.close()

    def _follow(self, steps, durable, path):
        store, model, stamps, stale = self._store, {}, {}, {}
        for kind, which, start, part, seed in steps:
            oid, size = OID + which, self.SIZES[which]
            offset = int(start * (size - 1))
            if seed & 1:
                offset &= ~4095
            length = int(part * part * (size - offset))
            if seed & 2 and length > 4096:
                length &= ~4095
            data = random.Random(seed).randbytes(length)
            if kind == "c":
                call(store.create, oid, size, offset, data)
                model[oid] = bytearray(size)
                model[oid][offset:offset + length] = data
                stamps[oid] = 0
            elif kind == "o":
                store.close()
                store = self._store = ObjectStore(path, durable, 1 << 20, 0)
                for suspect in list(store.suspects):
                    self.assertEqual(0, stamps[suspect])
                    store.accept(suspect)
            elif kind == "R":
                self.assertEqual(oid in model, store.retire([oid], 7) == 1)
                if oid in model:
                    stale[oid] = model.pop(oid), stamps.pop(oid)
            elif kind == "p":
                if oid in stale:
                    store.promote(oid, 7)
                    model[oid], stamps[oid] = stale.pop(oid)
                else:
                    with self.assertRaises(NoObject):
                        store.promote(oid, 7)
            elif oid not in model:
                with self.assertRaises(NoObject):
                    call(store.write, oid, 0, b"x")
                with self.assertRaises(NoObject):
                    call(store.remove, oid)
                with self.assertRaises(NoObject):
                    store.stamp(oid)
            elif kind == "w":
                call(store.write, oid, offset, memoryview(bytearray(data)))
                model[oid][offset:offset + length] = data
                stamps[oid] = 0 if length else stamps[oid]
            elif kind == "d":
                call(store.discard, oid, offset, length)
                model[oid][offset:offset + length] = bytes(length)
                stamps[oid] = 0 if length else stamps[oid]
            elif kind == "r":
                call(store.remove, oid)
                del model[oid], stamps[oid]
            elif kind == "s":
                store.settle(oid, seed + 1)
                stamps[oid] = seed + 1
            self.assertEqual(set(model), set(store.oids()))
            self.assertEqual(len(model), store.count())
            self.assertEqual(set(stale), set(store.stale_oids(7)))
            if oid in model:
                self._compare(store, oid, model[oid], stamps[oid], offset, length)
            if oid in stale:
                self.assertEqual([(7, stale[oid][1], size)], store.stale_info(oid))
                self.assertEqual(stale[oid][0], store.stale_read(oid, 7, 0, size))
        for oid in model:
            self.assertEqual([], store.verify(oid))

    def _compare(self, store, oid, expected, stamp, offset, length):
        self.assertEqual(expected[offset:offset + length], store.read(oid, offset, length))
        self.assertEqual(expected, store.read(oid, 0, len(expected)))
        buffer = bytearray(length)
        store.read_into(oid, offset, buffer)
        self.assertEqual(expected[offset:offset + length], buffer)
        self.assertEqual(stamp, store.stamp(oid))
        self.assertEqual(len(expected), store.size(oid))
        covered = bytearray(len(expected))
        for start, count in store.extents(oid):
            self.assertEqual(0, start % 4096)
            covered[start:start + count] = expected[start:start + count]
        self.assertEqual(expected, covered)
        part = bytearray(length)
        for start, count in store.occupied(oid, offset, offset + length):
            self.assertTrue(count and offset <= start and start + count <= offset + length)
            part[start - offset:start - offset + count] = expected[start:start + count]
        self.assertEqual(expected[offset:offset + length], part)


class ObjectTest(StoreTestCase):

    where = None

    def test_an_inode_object_has_a_short_last_block(self):
        for durable in MODES:
            with self.subTest(durable=durable):
                store = self.open(durable)
                call(store.create, OID, INODE_SIZE, 0, b"name")
                call(store.write, OID, INODE_SIZE - 5, b"tail!")
                self.assertEqual(b"\0tail!", store.read(OID, INODE_SIZE - 6, 6))
                self.assertEqual([], store.verify(OID))
                self.assertEqual(INODE_SIZE, store.size(OID))
                tail = INODE_SIZE & ~4095
                self.assertEqual([(0, 4096), (tail, INODE_SIZE - tail)], store.extents(OID))
                store.close()

    def test_holes_take_no_space(self):
        store = self.open()
        call(store.create, OID, 4 * MIB, MIB, b"x" * 4096)
        self.assertLessEqual(os.stat(self.object_path(OID)).st_blocks * 512, 5 * 4096)
        call(store.write, OID, 0, bytes(range(256)) * 4096)
        call(store.discard, OID, 100, 3 * MIB)
        self.assertLessEqual(os.stat(self.object_path(OID)).st_blocks * 512, 5 * 4096)
        self.assertEqual(bytes(range(100)) + bytes(4000), store.read(OID, 0, 4100))
        self.assertEqual([(0, 4096)], store.extents(OID))

    def test_a_hole_that_should_be_none_is_looked_at(self):
        store = self.open()
        call(store.create, OID, 4 * MIB, MIB, b"x" * 8192)
        call(store.write, OID, 2 * MIB, b"y")
        self.assertEqual([(MIB + 4, 8188), (2 * MIB, 1)],
                         store.occupied(OID, MIB + 4, 2 * MIB + 1))
        fd = os.open(self.object_path(OID), os.O_RDWR)
        disk.punch_hole(fd, MIB, 8192)
        os.close(fd)
        self.assertEqual([(MIB, 8192)], store.occupied(OID, 0, 2 * MIB))
        with self.assertRaises(Rotten):
            store.read(OID, MIB, 8192)

    def test_bounds(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 10000, 0, b"")
            for _ in range(2):
                for offset, length in ((-1, 1), (10000, 1), (9999, 2), (0, 10001), (5904, 4097)):
                    with self.assertRaises(ValueError):
                        store.read(OID, offset, length)
                    with self.assertRaises(ValueError):
                        store.write(OID, offset, bytes(length), self.fail)
                    with self.assertRaises(ValueError):
                        store.discard(OID, offset, length, self.fail)
                call(store.write, OID, 0, b"now it is active")
            with self.assertRaises(ValueError):
                store.create(OID, 100, 99, b"xx", self.fail)
            with self.assertRaises(ValueError):
                store.create(OID, 0, 0, b"", self.fail)
            with self.assertRaises(ValueError):
                store.settle(OID, 1 << 128)
            self.assertEqual(b"", store.read(OID, 10000, 0))
            store.close()

    def test_what_was_called_for_is_seen_before_it_is_done(self):
        store = self.open(durable=True)
        results = []
        store.create(OID, 8192, 0, b"one", results.append)
        self.assertTrue(store.exists(OID))
        self.assertEqual(b"one", store.read(OID, 0, 3))
        store.settle(OID, 5)
        store.write(OID, 0, b"two", results.append)
        store.write(OID, 3, b"three", results.append)
        self.assertEqual(b"twothree", store.read(OID, 0, 8))
        store.remove(OID, results.append)
        store.write(OID, 0, b"x", results.append)
        store.create(OID, 4096, 0, b"new", results.append)
        store.write(OID, 4095, b"!", results.append)
        self.assertEqual(b"new\0", store.read(OID, 0, 4))
        self.assertEqual(4096, store.size(OID))
        store.close()
        self.assertEqual(7, len(results))
        self.assertEqual(1, sum(isinstance(error, NoObject) for error in results))
        self.assertEqual(6, results.count(None))

    def test_a_buffer_may_be_used_again_at_once(self):
        store = self.open(durable=True)
        for large in (False, True):
            call(store.create, OID, MIB, 0, b"")
            store.settle(OID, 1)
            buffer = bytearray(b"a" * (256 << 10 if large else 4096))
            length = len(buffer)
            for at in range(3):
                buffer[:] = bytes([97 + at]) * length
                store.write(OID, at * length, buffer, lambda error: self.assertIsNone(error))
            buffer[:] = b"z" * length
            for at in range(3):
                self.assertEqual(bytes([97 + at]) * length, store.read(OID, at * length, length))

    def test_sparse_creation_settles(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 8192, 0, b"old content")
            extents = [(5, b"five"), (2 * MIB, b"x" * MIB), (4 * MIB - 1, b"!")]
            for data in (extents, extents[:1]):
                call(store.create_sparse, OID, 4 * MIB, data, 1 << 100)
                self.assertEqual(1 << 100, store.stamp(OID))
                self.assertFalse(store.is_active(OID))
                self.assertEqual(b"\0" * 5 + b"five\0", store.read(OID, 0, 10))
            store.close()
            store = self.open(durable)
            self.assertEqual(set(), store.suspects)
            self.assertEqual(1 << 100, store.stamp(OID))
            store.close()

    def test_what_was_prepared_is_seen_once_it_is_installed(self):
        for durable in MODES:
            source = self.open(durable)
            call(source.create, OID, 4 * MIB - 100, 0, b"a" * MIB)
            call(source.write, OID, 3 * MIB, b"b" * (MIB - 100))
            extents, sums = source.unchecked(OID)
            extents = [(offset, bytes(data)) for offset, data in extents]
            whole = bytes(source.read(OID, 0, 4 * MIB - 100))
            former, new = OID + 1 + durable, OID + 8 + durable
            call(source.create, former, 8192, 0, b"old content")
            for oid in (former, new):
                prepared = source.prepare(oid, 4 * MIB - 100, extents, 77, sums)
                self.assertEqual(oid == former, source.exists(oid))
                call(source.install, prepared)
            source.close()
            store = self.open(durable)
            for oid in (former, new):
                self.assertEqual(whole, bytes(store.read(oid, 0, 4 * MIB - 100)))
                self.assertEqual(77, store.stamp(oid))
                self.assertEqual([], store.verify(oid))
            self.assertNotIn(new, store.suspects)
            store.close()

    def test_what_is_prepared_and_not_wanted_leaves_nothing(self):
        store = self.open()
        call(store.create, OID, 2 * MIB, 0, b"a" * 2 * MIB)
        extents, sums = store.unchecked(OID)
        store.forsake(store.prepare(OID + 1, 2 * MIB, extents, 0, sums))
        wrong = bytearray(sums)
        wrong[-1] ^= 1
        with self.assertRaises(Rotten):
            store.prepare(OID + 1, 2 * MIB, extents, 0, wrong)
        for bad in ([(5, b"x")], [(0, b"x" * 5)], [(2 * MIB, b"x" * 4096)]):
            with self.assertRaises(ValueError):
                store.prepare(OID + 1, 2 * MIB, bad, 0)
        with self.assertRaises(ValueError):
            store.prepare(OID + 1, 2 * MIB, extents, 0, sums[:-4])
        self.assertEqual([], os.listdir(os.path.join(self.path, "new")))
        self.assertFalse(store.exists(OID + 1))

    def test_activity(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 8192, 0, b"")
            self.assertTrue(store.is_active(OID))
            self.assertEqual([OID], store.active())
            store.settle(OID, 9)
            self.assertFalse(store.is_active(OID))
            self.assertEqual(9, store.stamp(OID))
            call(store.write, OID, 0, b"x")
            self.assertTrue(store.is_active(OID))
            self.assertEqual(0, store.stamp(OID))
            store.close()
            store = self.open(durable)
            self.assertEqual({OID}, store.suspects)
            self.assertEqual(0, store.stamp(OID))
            store.accept(OID)
            self.assertEqual(set(), store.suspects)
            self.assertEqual(0, store.stamp(OID))
            store.close()
            store = self.open(durable)
            self.assertEqual(set(), store.suspects)
            call(store.remove, OID)
            store.close()

    def test_more_active_objects_than_the_log_had_slots_for(self):
        path = os.path.join(self.path, "log")
        log = activity.ActivityLog(path, False)
        for oid in range(activity.SLOTS + 10):
            log.add(oid)
        log.settle(0)
        log.mark(flushed=False)
        log.close()
        log = activity.ActivityLog(path, False)
        self.assertEqual(set(range(1, activity.SLOTS + 10)), set(log.found))
        log.close()

    def test_listing(self):
        store = self.open()
        oids = [oid << 32 | 7 for oid in range(1, 40)] + [0x8000000500000000]
        for oid in oids:
            call(store.create, oid, 4096, 0, b"")
        self.assertEqual(sorted(oids), sorted(store.oids()))
        middle = 1 << 63
        lower = set(store.oids_in([(0, middle)]))
        upper = set(store.oids_in([(middle, 0)]))
        self.assertEqual({oid for oid in oids if oid_hash(oid) < middle}, lower)
        self.assertEqual(set(oids) - lower, upper)
        for name in ("lost+found", "0000000000000X0", "ABCDEF0000000000", "x" * 16):
            with open(os.path.join(self.path, "obj", name), "w"):
                pass
        store.close()
        store = self.open()
        self.assertEqual(sorted(oids), sorted(store.oids()))
        self.assertEqual(len(oids), store.count())

    def test_space(self):
        store = self.open()
        total, free = store.space()
        facts = os.statvfs(self.path)
        self.assertEqual(facts.f_blocks * facts.f_frsize, total)
        self.assertTrue(0 <= free <= total)
        self.assertFalse(store.is_full)
        store.close()
        store = self.open(reserve=total)
        self.assertTrue(store.is_full)


class OpeningTest(StoreTestCase):

    where = None

    def test_one_at_a_time(self):
        store = self.open()
        with self.assertRaises(StoreLocked):
            ObjectStore(self.path)
        store.close()
        self.open().close()

    def test_things_in_the_way(self):
        path = os.path.join(self.path, "file")
        with open(path, "w"):
            pass
        with self.assertRaisesRegex(BadStore, "not a directory"):
            ObjectStore(path)
        with open(os.path.join(self.path, "obj"), "w"):
            pass
        with self.assertRaisesRegex(BadStore, "obj is not a directory"):
            ObjectStore(self.path)
        os.unlink(os.path.join(self.path, "obj"))
        self.open().close()

    def test_another_version(self):
        self.open().close()
        path = os.path.join(self.path, "active")
        with open(path, "r+b") as file:
            head = file.read(32)
            head = head[:8] + (99).to_bytes(4, "little") + head[12:]
            file.seek(0)
            file.write(head + crc32c(head).to_bytes(4, "little"))
        with self.assertRaises(BadStore):
            ObjectStore(self.path)

    def test_a_closed_store(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 8192, 0, b"x")
            store.read(OID, 0, 1)
            store.close()
            store.close()
            with self.assertRaisesRegex(StoreError, "closed"):
                store.read(OID, 0, 1)
            with self.assertRaisesRegex(StoreError, "closed"):
                call(store.write, OID, 0, b"y")
            with self.assertRaisesRegex(StoreError, "closed"):
                call(store.create, OID + 1, 4096, 0, b"y")

    def test_changing_between_modes_and_journal_sizes(self):
        content = random.Random(1).randbytes(8192)
        store = self.open(True)
        call(store.create, OID, 8192, 0, content)
        store.close()
        for durable, size in ((False, MIB), (True, 2 * MIB), (True, MIB), (False, MIB)):
            store = self.open(durable, journal_size=size)
            self.assertEqual(content, store.read(OID, 0, 8192))
            content = content[1:] + b"x"
            call(store.write, OID, 0, content)
            store.close()

    def test_damaged_activity_log(self):
        store = self.open()
        for at in range(5):
            call(store.create, OID + at, 4096, 0, b"")
            store.settle(OID + at, 3)
        store.retire([OID + 4], 1)
        store.close()
        path = os.path.join(self.path, "active")
        for bit in (8 * 4, 8 * 14, 8 * 20, 8 * 4096 + 3):
            self.flip(path, bit)
            store = self.open()
            self.assertEqual({OID, OID + 1, OID + 2, OID + 3}, store.suspects)
            self.assertEqual(0, store.stamp(OID))
            # It stays that way until each has been looked after.
            store.close()
            store = self.open()
            self.assertEqual(4, len(store.suspects))
            self.assertEqual([(1, 0, 4096)], store.stale_info(OID + 4))
            for oid in list(store.suspects):
                store.settle(oid, 5)
            store.close()
            store = self.open()
            self.assertEqual(set(), store.suspects)
            self.assertEqual(5, store.stamp(OID))
            store.close()
        os.unlink(path)
        self.assertEqual(4, len(self.open().suspects))

    def test_the_machine_went_down_under_a_store_that_is_not_durable(self):
        store = self.open()
        call(store.create, OID, 4096, 0, b"")
        store.settle(OID, 3)
        # As after SIGKILL: the log in its file says that the store is open.
        with open(os.path.join(self.path, "active"), "rb") as file:
            log = file.read()
        store.close()
        for boot, suspects in ((disk.boot_id(), set()), (b"another boot id!", {OID})):
            with open(os.path.join(self.path, "active"), "wb") as file:
                file.write(log)
            with mock.patch.object(disk, "boot_id", lambda: boot):
                store = self.open()
                self.assertEqual(suspects, store.suspects)
                store.close()


class IdentityTest(StoreTestCase):

    def test_fields(self):
        store = self.open()
        self.assertEqual({}, store.identity.all())
        store.identity.update(cluster="abc", epoch=3, node={"port": 7000})
        store.identity.update(epoch=4, cluster=None)
        self.assertEqual({"epoch": 4, "node": {"port": 7000}}, store.identity.all())
        self.assertEqual(4, store.identity.get("epoch"))
        self.assertEqual("?", store.identity.get("cluster", "?"))
        with self.assertRaises(ValueError):
            store.identity.update(blob="x" * 20000)
        with self.assertRaises(TypeError):
            store.identity.update(blob=b"x")
        store.close()
        self.assertEqual({"epoch": 4, "node": {"port": 7000}}, self.open().identity.all())

    def test_a_torn_update_leaves_the_earlier_one(self):
        path = os.path.join(self.path, "slots")
        contents = []
        file = SlotFile(path)
        for value in (b"first", b"second" * 20, b"third" * 10):
            file.replace(value)
            with open(path, "rb") as source:
                contents.append(source.read())
        file.close()
        for before, after in zip(contents, contents[1:]):
            seen = []
            for length in range(0, len(after) + 1, 128):
                with open(path, "wb") as sink:
                    sink.write(after[:length] + before[length:])
                file = SlotFile(path)
                seen.append(file.value)
                file.close()
            # The one or the other, and a single moment at which it changes.
            self.assertEqual(2, len(set(seen)))
            self.assertEqual(seen, sorted(seen, key=seen.index))

    def test_damage(self):
        store = self.open()
        store.identity.update(epoch=1)
        store.identity.update(epoch=2)
        store.close()
        path = os.path.join(self.path, "identity")
        self.flip(path, 8 * 30)
        self.flip(path, 8 * (16384 + 30))
        with self.assertRaisesRegex(BadStore, "identity is damaged"):
            ObjectStore(self.path)

    def test_epochs(self):
        store = self.open()
        self.assertIsNone(store.epochs.last())
        for epoch in (1, 2, 10, 100000000):
            store.epochs.put(epoch, b"map %d" % epoch)
        store.epochs.put(2, b"another")
        self.assertEqual([1, 2, 10, 100000000], store.epochs.list())
        self.assertEqual(100000000, store.epochs.last())
        self.assertEqual(b"another", store.epochs.get(2))
        self.assertIsNone(store.epochs.get(3))
        self.flip(os.path.join(self.path, "epoch", "00000002"), 8 * 17)
        with self.assertRaisesRegex(StoreIOError, "epoch 2 is damaged"):
            store.epochs.get(2)
        store.epochs.drop(2)
        self.assertIsNone(store.epochs.get(2))
        with self.assertRaises(ValueError):
            store.epochs.put(-1, b"")
