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
from tests.unit.store_powerloss import Disk

OBJECTS = {0x100000001: 163840, 0x100000002: 200000, 0x200000001: 66536,
           0x8000000300000000: 12345}
#: Small objects that are left alone most of the time.
QUIET = {0x900000000 + at: 8192 + 100 * at for at in range(16)}

LIMIT = 4000


class PowerLossTest(unittest.TestCase):

    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="sheepstore-")
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
            deadline = time.monotonic() + 30
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
                thread.join(20)
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
        for _ in range(6):
            seed = random.SystemRandom().randrange(1 << 30) | 1
            with self.subTest(seed=seed):
                self._run(seed, QUIET)
