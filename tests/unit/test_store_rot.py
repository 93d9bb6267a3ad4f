"""Bytes that rot are noticed, and mended."""

import os
import random
import shutil
import unittest

from sheepstack.store import Rotten, StoreError
from sheepstack.store.object_file import FOOTER_SIZE, file_length, object_size
from sheepstack.wire.inode_layout import INODE_SIZE
from tests.unit.store_case import MODES, StoreTestCase, call

OID = 0x1234560000000A


class LengthTest(unittest.TestCase):

    def test_a_file_s_length_tells_the_size(self):
        sizes = list(range(1, 9000)) + [66320, 4 << 20, INODE_SIZE, (1 << 31) - 1, 1 << 31]
        for size in sizes:
            self.assertEqual(size, object_size(file_length(size)))
        self.assertLessEqual(object_size(0), 0)
        self.assertLessEqual(object_size(FOOTER_SIZE), 0)


class RotTest(StoreTestCase):

    SIZE = 5 * 4096 + 777

    def _make(self, store, size=SIZE):
        content = random.Random(7).randbytes(size)
        call(store.create, OID, size, 0, content)
        store.settle(OID, 99)
        return content

    def test_any_flipped_bit_is_detected(self):
        rng = random.Random()
        store = self.open()
        content = self._make(store)
        path = self.object_path(OID)
        length = os.path.getsize(path)
        bits = [rng.randrange(8 * length) for _ in range(120)]
        # Everywhere in the table of checksums and in the footer.
        bits += range(8 * self.SIZE, 8 * length, 3)
        for bit in bits:
            self.flip(path, bit)
            bad = store.verify(OID)
            self.assertEqual(1, len(bad), "bit %d" % bit)
            self._read_around(store, content, bit, bad[0])
            store.close()
            store = self.open()
            self.assertEqual(bad, store.verify(OID), "bit %d, opened again" % bit)
            with self.assertRaises(Rotten) as caught:
                store.read(OID, 0, self.SIZE)
            self.assertEqual(bad, caught.exception.blocks)
            self.assertEqual(OID, caught.exception.oid)
            block = bad[0]
            store.repair(OID, block, content[4096 * block:4096 * (block + 1)])
            self.assertEqual([], store.verify(OID))
            self.assertEqual(content, store.read(OID, 0, self.SIZE))
            self.assertIn(store.stamp(OID), (99, 0))
            store.settle(OID, 99)

    def _read_around(self, store, content, bit, block):
        if bit < 8 * self.SIZE:
            self.assertEqual(bit // 8 // 4096, block)
            at = bit // 8
            for offset, length in ((at, 1), (0, self.SIZE), (at & ~4095, 1)):
                with self.assertRaises(Rotten):
                    store.read(OID, offset, length)
            with self.assertRaises(Rotten):
                store.read_into(OID, at & ~4095, bytearray(1))
            store.read(OID, at, 1, verify=False)
        for other in range(6):
            start, end = 4096 * other, min(4096 * (other + 1), self.SIZE)
            if other != block:
                self.assertEqual(content[start:end], store.read(OID, start, end - start))

    def test_only_the_damaged_blocks_are_named(self):
        store = self.open()
        self._make(store)
        for block in (1, 2, 5):
            self.flip(self.object_path(OID), 8 * 4096 * block + 5)
        with self.assertRaises(Rotten) as caught:
            store.read(OID, 4096, 3 * 4096)
        self.assertEqual([1, 2], caught.exception.blocks)
        self.assertEqual([1, 2, 5], store.verify(OID))
        self.assertRegex(str(caught.exception), "%016x.*1, 2" % OID)

    def test_a_flipped_bit_in_a_hole(self):
        store = self.open()
        call(store.create, OID, 65536, 0, b"x")
        self.flip(self.object_path(OID), 8 * 50000)
        self.assertEqual([12], store.verify(OID))
        with self.assertRaises(Rotten):
            store.read(OID, 50001, 1)

    def test_a_partial_write_does_not_hide_damage(self):
        for durable in MODES:
            store = self.open(durable)
            content = self._make(store)
            self.flip(self.object_path(OID), 8 * 4096 * 2 + 5)
            for offset, data in ((8192, b"x" * 100), (8000, b"x" * 1000), (9000, bytes(5000))):
                with self.assertRaises(Rotten):
                    call(store.write, OID, offset, data)
                with self.assertRaises(Rotten):
                    call(store.discard, OID, 8192 + 100, 1000)
            self.assertEqual([2], store.verify(OID))
            # The whole block replaced: nothing of the damage is left.
            call(store.write, OID, 8192, content[:4096])
            self.assertEqual([], store.verify(OID))
            call(store.remove, OID)
            store.close()

    def test_what_the_journal_holds_was_refused_stays_refused(self):
        store = self.open(True)
        self._make(store)
        # Out of the activity log, so that the journal comes first.
        store.checkpoint()
        self.flip(self.object_path(OID), 8 * 4096 * 2 + 5)
        with self.assertRaises(Rotten):
            call(store.write, OID, 8192, b"never")
        # As after SIGKILL.
        original = self.path
        self.path = original + "-copy"
        shutil.copytree(original, self.path)
        self.addCleanup(shutil.rmtree, self.path)
        again = self.open(True)
        self.assertNotEqual(b"never", bytes(again.read(OID, 8192, 5, verify=False)))

    def test_a_repair_does_not_undo_a_write(self):
        store = self.open()
        content = self._make(store)
        call(store.write, OID, 4096, b"newer" + bytes(4091))
        store.repair(OID, 1, content[4096:8192])
        self.assertEqual(b"newer", store.read(OID, 4096, 5))
        for block, data in ((1, b"short"), (5, bytes(4096)), (6, b""), (-1, bytes(4096))):
            with self.assertRaises(ValueError):
                store.repair(OID, block, data)

    def test_a_file_cut_short_or_grown(self):
        store = self.open()
        content = self._make(store)
        path = self.object_path(OID)
        for length in (0, 10, FOOTER_SIZE, 4096, self.SIZE, os.path.getsize(path) - 1):
            store.close()
            os.truncate(path, length)
            store = self.open()
            with self.assertRaises(Rotten):
                store.read(OID, 0, 10000)
                self.assertEqual([], store.verify(OID))
            call(store.create, OID, self.SIZE, 0, content)
            store.settle(OID, 99)
            self.assertEqual(content, store.read(OID, 0, self.SIZE))

    def test_a_file_cut_short_while_it_is_open(self):
        store = self.open()
        self._make(store)
        os.truncate(self.object_path(OID), 4096 * 2 + 5)
        self.assertEqual([2, 3, 4, 5], sorted(set(store.verify(OID)) - {0, 1}))
        with self.assertRaises(Rotten):
            store.read(OID, 4096 * 2, 4096)
        with self.assertRaises(Rotten):
            store.read_into(OID, 4096 * 2, bytearray(4096 * 2))

    def test_another_object_s_file(self):
        store = self.open()
        self._make(store)
        store.close()
        os.rename(self.object_path(OID), self.object_path(OID + 1))
        store = self.open()
        self.assertEqual([5], store.verify(OID + 1))
        self.assertEqual(0, store.stamp(OID + 1))

    def test_copies_of_earlier_epochs_are_checked_too(self):
        store = self.open()
        self._make(store)
        store.retire([OID], 4)
        self.assertEqual([], store.stale_verify(OID, 4))
        self.flip(self.object_path(OID, "stale", "00000004"), 8 * 5000)
        with self.assertRaises(Rotten):
            store.stale_read(OID, 4, 0, self.SIZE)
        self.assertEqual([1], store.stale_verify(OID, 4))


class SuspectTest(StoreTestCase):

    def _torn(self, durable):
        """A store with a suspect whose block 1 is torn."""
        store = self.open(durable)
        call(store.create, OID, 20000, 0, b"a" * 20000)
        store.close()
        self.flip(self.object_path(OID), 8 * 5000)
        store = self.open(durable)
        self.assertEqual({OID}, store.suspects)
        self.assertEqual([1], store.verify(OID))
        return store

    def test_accepting(self):
        for durable in MODES:
            store = self._torn(durable)
            store.accept(OID)
            self.assertEqual(set(), store.suspects)
            self.assertEqual([], store.verify(OID))
            self.assertEqual(b"a" * 1000 + b"`" + b"a" * 99, store.read(OID, 4000, 1100))
            call(store.remove, OID)
            store.close()

    def test_settling_accepts(self):
        store = self._torn(False)
        store.settle(OID, 12)
        self.assertEqual([], store.verify(OID))
        self.assertEqual(12, store.stamp(OID))
        self.assertEqual(set(), store.suspects)

    def test_retiring_accepts(self):
        for everything in (False, True):
            store = self._torn(True)
            if everything:
                store.retire_all(3)
            else:
                store.retire([OID], 3)
            self.assertEqual(set(), store.suspects)
            self.assertEqual([(3, 0, 20000)], store.stale_info(OID))
            self.assertEqual([], store.stale_verify(OID, 3))
            store.drop_stale(OID, 3)
            store.close()
            store = self.open(True)
            self.assertEqual(set(), store.suspects)
            store.close()

    def test_a_torn_block_can_be_written_in_part(self):
        for durable in MODES:
            store = self._torn(durable)
            call(store.write, OID, 4100, b"new")
            self.assertEqual([], store.verify(OID))
            self.assertEqual({OID}, store.suspects)
            call(store.remove, OID)
            self.assertEqual(set(), store.suspects)
            store.close()

    def test_new_content_ends_the_suspicion(self):
        store = self._torn(True)
        call(store.create, OID, 4096, 0, b"fresh")
        self.assertEqual(set(), store.suspects)
        with self.assertRaises(StoreError):
            call(store.write, OID + 1, 0, b"x")
