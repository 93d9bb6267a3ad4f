"""Loss of power at any moment: what was acknowledged by a durable store is there."""

import os
import random
import shutil
import tempfile
import threading
import time
import unittest

from sheepstack.store import ObjectStore
from tests.unit import store_workload as workload
from tests.unit.store_case import IN_MEMORY, call
from tests.unit.store_powerloss import Disk

OBJECTS = {0x100000001: 163840, 0x100000002: 200000, 0x200000001: 66536,
           0x8000000300000000: 12345}
#: Small objects that are left alone most of the time.
QUIET = {0x900000000 + at: 8192 + 100 * at for at in range(16)}

LIMIT = 4000


class PowerLossTest(unittest.TestCase):

    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="sheepstore-", dir=IN_MEMORY)
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)

    def _reopen(self, path):
        return ObjectStore(path, journal_size=1 << 20, reserve=0)

    def _run(self, seed, objects):
        rng = random.Random(seed)
        path = os.path.join(self.top, "disk%d" % seed)
        os.mkdir(path)
        ledger = workload.Ledger(
            bytearray(workload.Ledger.bytes_for(objects, LIMIT)), objects, LIMIT)
        stop = threading.Event()
        with Disk(path, seed) as power:
            store = self._reopen(path)
            threads = workload.drive_all(store, seed, ledger, stop)
            cuts = []
            deadline = time.monotonic() + 120
            for enough in sorted(rng.randint(20, 400) for _ in range(4)):
                while ledger.acknowledged() < enough:
                    self.assertLess(time.monotonic(), deadline, "the load came to a halt")
                    time.sleep(rng.random() / 500)
                    if seed % 2:
                        store.checkpoint()
                target = os.path.join(self.top, "after%d-%d" % (seed, enough))
                if not os.path.exists(target):
                    noted = power.cut(target, ledger.copy)
                    # The load went on while the state was taken.
                    noted.catch_up(ledger)
                    cuts.append((target, noted))
            stop.set()
            for thread in threads:
                thread.join(120)
                self.assertFalse(thread.is_alive())
            store.close()
        self.assertEqual(0, ledger.refused())
        self._judge(path, seed, ledger)
        for target, noted in cuts:
            self._judge(target, seed, noted)

    def _judge(self, path, seed, ledger):
        store = self._reopen(path)
        try:
            self.assertEqual([], workload.judge(store, seed, ledger),
                             "seed %d, suspects %r" % (seed, list(map(hex, store.suspects))))
        finally:
            store.close()
        # What was brought up to date stays so, without the journal.
        store = self._reopen(path)
        try:
            self.assertEqual([], workload.judge(store, seed, ledger), "seed %d, again" % seed)
        finally:
            store.close()
        shutil.rmtree(path)

    def test_busy_objects(self):
        for _ in range(4):
            seed = random.SystemRandom().randrange(1 << 30) & ~1
            with self.subTest(seed=seed):
                self._run(seed, OBJECTS)

    def test_objects_that_rest(self):
        for _ in range(4):
            seed = random.SystemRandom().randrange(1 << 30) | 1
            with self.subTest(seed=seed):
                self._run(seed, QUIET)


class MoveTest(unittest.TestCase):
    """Objects that are retired and promoted: each is somewhere, as its stamp says."""

    SIZE = 8192

    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="sheepstore-", dir=IN_MEMORY)
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)

    def _content(self, oid, version):
        return (oid + version).to_bytes(8, "little") * (self.SIZE // 8)

    def _move_about(self, store, rng, versions, stop):
        """``versions`` holds, by id, those that the object may have now."""
        oids = list(versions)
        for oid in oids:
            call(store.create, oid, self.SIZE, 0, self._content(oid, 0))
        stop.ready.set()
        epoch = 1
        while not stop.is_set():
            oid = rng.choice(oids)
            dice = rng.random()
            if not store.exists(oid):
                store.promote(oid, store.stale_info(oid)[0][0])
            elif dice < 0.4:
                version = max(versions[oid]) + 1
                versions[oid] = versions[oid] + [version]
                call(store.write, oid, 0, self._content(oid, version))
                versions[oid] = [version]
            elif dice < 0.7:
                store.settle(oid, max(versions[oid]) + 1)
            elif dice < 0.95:
                store.retire(rng.sample(oids, 3), epoch)
            else:
                epoch += 1
                store.retire_all(epoch)
            if rng.random() < 0.2:
                store.checkpoint()

    def _run(self, seed):
        rng = random.Random(seed)
        path = os.path.join(self.top, "disk")
        os.mkdir(path)
        versions = {0x500000000 + at: [0] for at in range(6)}
        stop = threading.Event()
        stop.ready = threading.Event()
        cuts = []
        with Disk(path, seed) as power:
            store = ObjectStore(path, journal_size=1 << 20, reserve=0)
            mover = threading.Thread(target=self._move_about,
                                     args=(store, rng, versions, stop), daemon=True)
            mover.start()
            self.assertTrue(stop.ready.wait(60))
            for at in range(6):
                time.sleep(random.random() / 20)
                target = os.path.join(self.top, "after%d" % at)
                before = {oid: list(some) for oid, some in versions.items()}
                power.cut(target)
                cuts.append((target, before, dict(versions)))
            stop.set()
            mover.join(60)
            self.assertFalse(mover.is_alive())
            store.close()
        for target, before, after in cuts:
            self._judge(target, before, after, seed)
        shutil.rmtree(path)

    def _judge(self, target, before, after, seed):
        store = ObjectStore(target, journal_size=1 << 20, reserve=0)
        try:
            for oid in before:
                some = range(min(before[oid]), max(after[oid]) + 1)
                where = store.stale_info(oid)
                self.assertEqual(1, len(where) + store.exists(oid), "seed %d" % seed)
                if where:
                    epoch, stamp, _ = where[0]
                    data = bytes(store.stale_read(oid, epoch, 0, self.SIZE))
                else:
                    stamp = store.stamp(oid)
                    data = bytes(store.read(oid, 0, self.SIZE, oid not in store.suspects))
                found = [version for version in some if self._content(oid, version) == data]
                self.assertTrue(found or oid in store.suspects, "seed %d" % seed)
                if stamp:
                    self.assertEqual([stamp - 1], found, "seed %d" % seed)
        finally:
            store.close()
            shutil.rmtree(target)

    def test_moving_objects(self):
        for _ in range(5):
            seed = random.SystemRandom().randrange(1 << 30)
            with self.subTest(seed=seed):
                self._run(seed)

    def _cuts(self, steps):
        """Yields the store as it may be found after ``steps(store)`` and a power failure."""
        for seed in range(8):
            path = os.path.join(self.top, "disk%d" % seed)
            os.mkdir(path)
            with Disk(path, seed) as power:
                store = ObjectStore(path, journal_size=1 << 20, reserve=0)
                steps(store)
                power.cut(path + "-after")
                store.close()
            store = ObjectStore(path + "-after", journal_size=1 << 20, reserve=0)
            yield store
            store.close()

    def test_a_move_that_returned_has_happened(self):
        def steps(store):
            for oid in (1, 2, 3, 4):
                call(store.create, oid, 4096, 0, b"first")
                store.settle(oid, 7)
            store.retire([1, 2], 5)
            store.promote(2, 5)
            call(store.remove, 3)
            store.retire_all(6)
            call(store.create, 4, 4096, 0, b"second")

        for store in self._cuts(steps):
            self.assertEqual({4}, set(store.oids()))
            self.assertEqual([(5, 7, 4096)], store.stale_info(1))
            self.assertEqual([(6, 7, 4096)], store.stale_info(2))
            self.assertEqual([], store.stale_info(3))
            self.assertEqual([(6, 7, 4096)], store.stale_info(4))
            self.assertEqual(b"second", store.read(4, 0, 6))

    def test_the_journal_does_not_touch_what_was_promoted(self):
        def steps(store):
            for oid in (1, 2, 3):
                call(store.create, oid, 4096, 0, b"first")
                store.settle(oid, 7)
            store.retire([1, 2, 3], 5)
            call(store.create, 1, 4096, 0, b"second")
            call(store.remove, 1)
            call(store.create, 2, 4096, 0, b"second")
            call(store.write, 2, 0, b"third")
            for oid in (1, 2, 3):
                store.promote(oid, 5)
            call(store.write, 3, 1, b"-")

        for store in self._cuts(steps):
            self.assertEqual({1, 2, 3}, set(store.oids()))
            self.assertEqual(b"first", store.read(1, 0, 5))
            self.assertEqual(b"first", store.read(2, 0, 5))
            self.assertEqual(b"f-rst", store.read(3, 0, 5))
