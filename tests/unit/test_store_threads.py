"""Many threads at once, native ones and eventlet's green ones."""

import importlib.util
import os
import random
import subprocess
import sys
import threading
import unittest
from unittest import mock

from sheepstack.placement.ring import RING_SIZE
from sheepstack.store import NoObject, StoreError, journal
from tests.unit import store_workload as workload
from tests.unit.store_case import MODES, StoreTestCase, call

OID = 0x1234560000000A
BLOCK = 4096


def run_threads(*functions):
    """Runs functions at the same time; raises what the first of them raised."""
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), daemon=True)
               for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        if thread.is_alive():
            raise AssertionError("a thread hangs")
    if failures:
        raise failures[0]


class ThreadsTest(StoreTestCase):

    def test_a_random_load(self):
        objects = {OID + at: size for at, size in enumerate((163840, 8192, 66320, 20000))}
        for durable in MODES:
            seed = random.SystemRandom().randrange(1 << 30) & ~1
            ledger = workload.Ledger(
                bytearray(workload.Ledger.bytes_for(objects, 250)), objects, 250)
            store = self.open(durable)
            run_threads(*[lambda oid=oid: workload.drive(
                store, seed, oid, ledger, threading.Event()) for oid in objects])
            self.assertEqual(250 * len(objects), ledger.acknowledged())
            for _ in range(2):
                self.assertEqual([], workload.judge(store, seed, ledger), "seed %d" % seed)
                store.close()
                store = self.open(durable)
            for oid in list(store.oids()):
                call(store.remove, oid)
            store.close()

    def test_files_are_put_out_while_they_are_used(self):
        store = self.open()
        store._core.files._limit = 3
        oids = [OID + at for at in range(24)]
        for oid in oids:
            call(store.create, oid, 8 * BLOCK, 0, oid.to_bytes(8, "little") * BLOCK)

        def use(seed):
            rng = random.Random(seed)
            for _ in range(1500):
                oid = rng.choice(oids)
                content = oid.to_bytes(8, "little")
                offset, length = BLOCK * rng.randrange(8), rng.choice((BLOCK, 800))
                if rng.random() < 0.4:
                    call(store.write, oid, offset, content * (length // 8))
                else:
                    self.assertEqual(content * (length // 8), store.read(oid, offset, length))

        descriptors = len(os.listdir("/proc/self/fd"))
        run_threads(*[lambda seed=seed: use(seed) for seed in range(6)])
        self.assertLess(len(os.listdir("/proc/self/fd")), descriptors + 12)
        for oid in oids:
            self.assertEqual([], store.verify(oid))

    def test_readers_see_whole_blocks(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 64 * BLOCK, 0, b"\1" * 64 * BLOCK)
            stop = threading.Event()

            def write():
                try:
                    rng = random.Random(1)
                    for _ in range(400):
                        first = rng.randrange(64)
                        count = rng.randint(1, 64 - first)
                        data = bytes([rng.randint(1, 255)]) * count * BLOCK
                        call(store.write, OID, first * BLOCK, data)
                finally:
                    stop.set()

            def read():
                buffer = bytearray(64 * BLOCK)
                while not stop.is_set():
                    store.read_into(OID, 0, buffer)
                    for data in (buffer, store.read(OID, 0, 64 * BLOCK)):
                        for at in range(0, len(data), BLOCK):
                            self.assertEqual(1, len(set(data[at:at + BLOCK])))
                    self.assertEqual([], store.verify(OID))

            run_threads(write, read, read)
            store.close()

    def test_callbacks_may_use_the_store(self):
        for durable in MODES:
            store = self.open(durable)
            finished = threading.Event()
            seen = []

            def step(error):
                try:
                    self.assertIsNone(error)
                    seen.append(len(seen))
                    at = len(seen)
                    if at == 60:
                        return finished.set()
                    oid = OID + at % 3
                    if at > 3:
                        # A change that nobody waits for, which the reading waits for.
                        store.settle(oid, 5)
                        store.write(oid, 0, b"read at once", lambda error: None)
                        self.assertEqual(b"read", store.read(oid, 0, 4))
                        store.settle(oid, at)
                        store.verify(oid)
                        store.stamp(oid)
                    if at == 30:
                        store.retire([oid], 1)
                        store.promote(oid, 1)
                        store.checkpoint()
                    if at == 40:
                        store.retire_all(2)
                        for oid in list(store.stale_oids(2)):
                            store.promote(oid, 2)
                    if at <= 3:
                        store.create(oid, 300000, 0, b"x" * (1 if at % 2 else 200000), step)
                    elif at % 5:
                        store.write(oid, 4096, b"y" * 100, step)
                    elif at % 2:
                        store.write(oid, 0, b"z" * 200000, step)
                    else:
                        store.discard(oid, 0, 5000, step)
                except BaseException as failure:
                    seen.append(failure)
                    finished.set()

            store.create(OID, 300000, 0, b"", step)
            self.assertTrue(finished.wait(60), "stuck after %r" % seen[-1:])
            self.assertEqual(list(range(60)), seen)
            for oid in list(store.oids()):
                call(store.remove, oid)
            store.close()

    def test_a_list_has_what_is_still_on_its_way_to_the_disk(self):
        """Else, when the map changes, what does not belong here any more would stay."""
        store = self.open(True)
        call(store.create, OID, BLOCK, 0, b"")
        flushing, go_on = threading.Event(), threading.Event()
        write_and_flush = journal._write_and_flush

        def slow(*arguments):
            flushing.set()
            go_on.wait(60)
            write_and_flush(*arguments)

        with mock.patch.object(journal, "_write_and_flush", slow):
            store.create(OID + 1, BLOCK, 0, b"new", lambda error: None)
            self.assertTrue(flushing.wait(60))
            lists = []
            reader = threading.Thread(target=lambda: lists.extend(
                [set(store.oids()), set(store.oids_in([(0, RING_SIZE)]))]))
            reader.start()
            go_on.set()
            reader.join(60)
        self.assertEqual([{OID, OID + 1}] * 2, lists)

    def test_everything_at_once_comes_to_an_end(self):
        store = self.open(True)
        oids = [OID + at for at in range(12)]
        for oid in oids:
            call(store.create, oid, 200000, 0, b"")
        stop = threading.Event()

        def change(seed):
            rng = random.Random(seed)
            while not stop.is_set():
                oid = rng.choice(oids)
                try:
                    dice = rng.random()
                    if dice < 0.6:
                        call(store.write, oid, rng.randrange(1000), bytes(rng.choice(
                            (100, 50000, 150000))))
                    elif dice < 0.7:
                        store.settle(oid, 1)
                    elif dice < 0.8:
                        call(store.create, oid, 200000, 0, b"x" * rng.choice((10, 150000)))
                    else:
                        store.read(oid, 0, 5000)
                except NoObject:
                    pass

        def move():
            rng = random.Random(9)
            try:
                for epoch in range(60):
                    if rng.random() < 0.3:
                        store.retire_all(epoch)
                    else:
                        store.retire(rng.sample(oids, 5), epoch)
                    for oid in list(store.stale_oids(epoch)):
                        try:
                            if not store.exists(oid):
                                store.promote(oid, epoch)
                        except NoObject:
                            # The other one was faster.
                            pass
            finally:
                stop.set()

        run_threads(move, move, *[lambda seed=seed: change(seed) for seed in range(4)])
        for oid in store.oids():
            self.assertEqual([], store.verify(oid))

    def test_closing_under_load(self):
        for durable in MODES:
            store = self.open(durable)
            counts = [0, 0]
            lock = threading.Lock()
            call(store.create, OID, 1 << 20, 0, b"")

            def done(error):
                with lock:
                    counts[1] += 1
                if error is not None:
                    self.assertIn("closed", str(error))
                    stop.set()

            def load():
                while not stop.is_set():
                    with lock:
                        counts[0] += 1
                    store.write(OID, 8 * (counts[0] % 1000), b"x" * 5000, done)

            stop = threading.Event()
            threads = [threading.Thread(target=load) for _ in range(3)]
            for thread in threads:
                thread.start()
            while counts[1] < 200:
                stop.wait(0.001)
            store.close()
            for thread in threads:
                thread.join(60)
                self.assertFalse(thread.is_alive())
            self.assertEqual(counts[0], counts[1])
            store = self.open(durable)
            self.assertEqual([], store.verify(OID))
            store.close()

    def test_more_than_the_journal_holds(self):
        store = self.open(True)
        errors = []
        for at in range(12):
            store.create(OID + at, 1 << 20, 0, b"", errors.append)
        for at in range(600):
            store.write(OID + at % 12, 100 * at, b"%03d" % (at % 1000) * 30000, errors.append)
        store.close()
        self.assertEqual([None] * 612, errors)
        store = self.open(True)
        self.assertEqual(b"599" * 30000, store.read(OID + 599 % 12, 59900, 90000))
        for oid in store.oids():
            self.assertEqual([], store.verify(oid))


_GREEN = """
import sys
from sheepstack import runtime
runtime.choose("eventlet")
import random, threading, time
from sheepstack.store import ObjectStore
from tests.unit import store_workload as workload
objects = {1 << 32: 163840, 2 << 32: 8192, 3 << 32: 66320, 4 << 32: 20000}
for durable in (False, True):
    seed = random.SystemRandom().randrange(1 << 30)
    path = sys.argv[1] + "/" + str(durable)
    ledger = workload.Ledger(bytearray(workload.Ledger.bytes_for(objects, 150)), objects, 150)
    store = ObjectStore(path, durable=durable, journal_size=1 << 20, reserve=0)
    threads = workload.drive_all(store, seed, ledger, threading.Event())
    for thread in threads:
        thread.join()
    assert ledger.acknowledged() == 600, ledger.acknowledged()
    for again in range(2):
        assert not workload.judge(store, seed, ledger), workload.judge(store, seed, ledger)
        store.retire_all(4)
        for oid in list(store.stale_oids(4)):
            store.promote(oid, 4)
        store.close()
        store = ObjectStore(path, durable=durable, journal_size=1 << 20, reserve=0)
    store.close()
print("green")
"""

_COLD = """
import sys
from sheepstack import runtime
runtime.choose("eventlet")
import os, threading
from sheepstack.store import ObjectStore, disk
store = ObjectStore(sys.argv[1], durable=False)
done = threading.Event()
store.create(1 << 32, 4 << 20, 0, os.urandom(4 << 20), lambda error: done.set())
done.wait()
os.sync()
data = bytes(store.read(1 << 32, 0, 4 << 20))
offloaded = []
real = runtime.offload
runtime.offload = lambda *arguments: offloaded.append(arguments) or real(*arguments)
fd = os.open(sys.argv[1] + "/obj/0000000100000000", os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
assert bytes(store.read(1 << 32, 0, 4 << 20)) == data
buffer = bytearray(4 << 20)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
store.read_into(1 << 32, 0, buffer)
assert buffer == data
print("offloaded", len(offloaded))
store.close()
"""


class GreenTest(StoreTestCase):

    where = None

    def _run(self, script):
        return subprocess.run(
            [sys.executable, "-c", script, self.path], stdout=subprocess.PIPE, text=True,
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            timeout=120, check=True).stdout.split()

    def setUp(self):
        super().setUp()
        if importlib.util.find_spec("eventlet") is None:
            self.skipTest("eventlet is not installed")

    def test_a_random_load_under_eventlet(self):
        self.assertEqual(["green"], self._run(_GREEN))

    def test_cold_data_do_not_stop_other_threads(self):
        words = self._run(_COLD)
        self.assertEqual("offloaded", words[0])
        self.assertGreaterEqual(int(words[1]), 1)


class ErrorsTest(unittest.TestCase):

    def test_every_error_is_one_clear_line(self):
        from sheepstack.store import NoSpace, Rotten
        from sheepstack.store.errors import from_os_error
        for error in (NoObject(OID), NoObject(OID, 3), Rotten(OID, [1, 2]), Rotten(OID, []),
                      Rotten(OID, range(100)), from_os_error(OSError(5, "I/O error"), "doing")):
            self.assertIsInstance(error, StoreError)
            self.assertRegex(str(error), r"\A[^\n]{5,120}\Z")
        self.assertIsInstance(from_os_error(OSError(28, "full"), "x"), NoSpace)
        self.assertIsInstance(from_os_error(OSError(122, "quota"), "x"), NoSpace)
