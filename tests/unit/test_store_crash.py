"""Death of the process at any moment."""

import mmap
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import unittest

from sheepstack.store import ObjectStore
from tests.unit import store_workload as workload
from tests.unit.store_case import IN_MEMORY

#: Sizes with a short last block, with large writes in them, and small ones.
OBJECTS = {0x100000001: 163840, 0x100000002: 200000, 0x200000001: 66536,
           0x8000000300000000: 12345, 0x400000000000001: 4096, 0x300000005: 163840}
LIMIT = 60000


def in_child(function, *args):
    """Forks; the child runs ``function`` and never returns."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function(*args)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(3)
    finally:
        os._exit(4)


def die(pid):
    """Kills a child; returns how it ended."""
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


class KillTest(unittest.TestCase):

    def setUp(self):
        self.path = tempfile.mkdtemp(prefix="sheepstore-", dir=IN_MEMORY)
        self.addCleanup(shutil.rmtree, self.path, ignore_errors=True)

    def _load(self, seed, durable, memory):
        ledger = workload.Ledger(memory, OBJECTS, LIMIT)
        store = ObjectStore(self.path, durable=durable, journal_size=1 << 20, reserve=0)
        workload.drive_all(store, seed, ledger, threading.Event())
        threading.Event().wait()

    def _crash_once(self, seed, durable):
        memory = mmap.mmap(-1, workload.Ledger.bytes_for(OBJECTS, LIMIT))
        ledger = workload.Ledger(memory, OBJECTS, LIMIT)
        pid = in_child(self._load, seed, durable, memory)
        deadline = time.monotonic() + 120
        enough = random.Random(seed).randint(30, 700)
        while ledger.acknowledged() < enough:
            if time.monotonic() > deadline:
                die(pid)
                self.fail("the load came to a halt after %d" % ledger.acknowledged())
            time.sleep(random.random() / 1000)
        self.assertEqual(signal.SIGKILL, die(pid))
        self.assertEqual(0, ledger.refused())
        store = ObjectStore(self.path, durable=durable, journal_size=1 << 20, reserve=0)
        try:
            self.assertEqual([], workload.judge(store, seed, ledger), "seed %d" % seed)
            self.assertEqual([], os.listdir(os.path.join(self.path, "new")))
            for oid in list(store.suspects):
                store.accept(oid)
                self.assertEqual([], store.verify(oid))
        finally:
            store.close()
        shutil.rmtree(self.path)

    def test_killed_at_random_moments(self):
        for round_ in range(12):
            for durable in (False, True):
                with self.subTest(durable=durable, round=round_):
                    self._crash_once(random.SystemRandom().randrange(1 << 30), durable)

    def _move(self, durable, memory):
        store = ObjectStore(self.path, durable=durable, journal_size=1 << 20, reserve=0)
        oids = list(store.oids())
        rng = random.Random(5)
        epoch = 0
        while True:
            epoch += 1
            memory[0] = 1
            if rng.random() < 0.5:
                store.retire_all(epoch % 3)
            else:
                store.retire(oids, epoch % 3)
            for oid in oids:
                store.promote(oid, epoch % 3)

    def test_killed_while_objects_move(self):
        oids = [0x100000000 + at for at in range(60)]
        for durable in (False, True):
            store = ObjectStore(self.path, durable=durable, journal_size=1 << 20)
            for oid in oids:
                store.create(oid, 8192, 0, oid.to_bytes(8, "little") * 512, lambda error: None)
            for oid in oids:
                store.read(oid, 0, 8)
                store.settle(oid, oid)
            store.close()
            for _ in range(6):
                memory = mmap.mmap(-1, 4096)
                pid = in_child(self._move, durable, memory)
                while not memory[0]:
                    time.sleep(0.001)
                time.sleep(random.random() / 30)
                self.assertEqual(signal.SIGKILL, die(pid))
                store = ObjectStore(self.path, durable=durable, journal_size=1 << 20)
                self._nothing_lost(store, oids)
                store.close()
            shutil.rmtree(self.path)

    def _nothing_lost(self, store, oids):
        for oid in oids:
            content = oid.to_bytes(8, "little") * 512
            places = store.stale_info(oid)
            self.assertEqual(1, len(places) + store.exists(oid), "%x" % oid)
            if places:
                (epoch, stamp, size), = places
                self.assertEqual((oid, 8192), (stamp, size))
                self.assertEqual(content, bytes(store.stale_read(oid, epoch, 0, 4096)))
                store.promote(oid, epoch)
            self.assertEqual(content, bytes(store.read(oid, 0, 4096)))
            self.assertEqual(oid, store.stamp(oid))


class LockTest(unittest.TestCase):

    def test_the_lock_dies_with_its_process(self):
        path = tempfile.mkdtemp(prefix="sheepstore-", dir=IN_MEMORY)
        self.addCleanup(shutil.rmtree, path)
        read_end, write_end = os.pipe()

        def hold():
            self.store = ObjectStore(path, durable=False)
            os.write(write_end, b"x")
            threading.Event().wait()

        pid = in_child(hold)
        os.read(read_end, 1)
        from sheepstack.store import StoreLocked
        with self.assertRaisesRegex(StoreLocked, "process %d" % pid):
            ObjectStore(path)
        die(pid)
        ObjectStore(path, durable=False).close()
