"""How fast a VDI may be used: the limits' text, the arithmetic, and the queues of a gateway."""

import threading
import types
import unittest

from hypothesis import given
from hypothesis import strategies as st

from sheepstack.sheep.bucket import BURST, Bucket
from sheepstack.sheep.limiter import Limiter
from sheepstack.wire.limits import Limits, parse

VID = 0x123456
SECONDS = 20


class TextTest(unittest.TestCase):

    @given(st.builds(Limits, *[st.integers(0, 1 << 53)] * 6))
    def test_what_is_written_is_read(self, limits):
        self.assertEqual(limits, parse(str(limits)))

    def test_what_makes_no_sense(self):
        for text in ("iops=3", "read_iops_sec", "read_iops_sec=", "read_iops_sec=-1",
                     "read_iops_sec=1.5", "read_iops_sec=1 read_iops_sec=2",
                     "total_bytes_sec=99999999999999999999", "read_iops_sec=\u0663"):
            with self.assertRaises(ValueError):
                parse(text)


def let_through(bucket, requests):
    """When each of ``(is_write, length)`` goes on that come one after the other; from 0 on."""
    now, times = 0.0, []
    for is_write, length in requests:
        while wait := bucket.take(now, is_write, length):
            now += wait
        times.append(now)
    return times


REQUESTS = st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 20)), min_size=1, max_size=60)


class BucketTest(unittest.TestCase):

    @given(st.builds(Limits, *[st.one_of(st.just(0), st.integers(1, 1 << 20))] * 6), REQUESTS)
    def test_no_limit_is_exceeded(self, limits, requests):
        times = let_through(Bucket(limits), requests)
        for name, rate in zip(Limits._fields, limits):
            kind, unit, _ = name.split("_")
            ours = [(when, length if unit == "bytes" else 1)
                    for when, (is_write, length) in zip(times, requests)
                    if kind == "total" or is_write == (kind == "write")]
            if rate and ours:
                # The last one is free to be large: those after it pay for it.
                used = sum(cost for _, cost in ours[:-1])
                self.assertLessEqual(used / rate, ours[-1][0] + BURST + 1e-4, name)

    @given(st.integers(1, 1000), REQUESTS)
    def test_what_may_go_is_not_held_longer(self, rate, requests):
        times = let_through(Bucket(Limits(total_iops_sec=rate)), requests)
        for number, when in enumerate(times):
            self.assertAlmostEqual(max(0, number / rate - BURST), when, places=3)

    def test_rest_is_not_saved_up(self):
        bucket = Bucket(Limits(write_iops_sec=10))
        self.assertEqual(0, bucket.take(1000.0, True, 1))
        self.assertEqual(0, bucket.take(1000.0, True, 1))
        self.assertAlmostEqual(0.1, bucket.take(1000.0, True, 1))

    def test_reads_do_not_pay_for_writes(self):
        bucket = Bucket(Limits(write_iops_sec=1, read_iops_sec=100))
        bucket.take(0, True, 1)
        self.assertTrue(bucket.take(0, True, 1))
        self.assertEqual(0, bucket.take(0, False, 1))


class _Workers:
    """Threads, so that whoever submits something need not wait for it."""

    def __init__(self):
        self._threads = []

    def submit(self, function, *args):
        self._threads.append(threading.Thread(target=function, args=args, daemon=True))
        self._threads[-1].start()

    def join(self):
        for thread in self._threads:
            thread.join(SECONDS)


class LimiterTest(unittest.TestCase):

    def setUp(self):
        self.state = types.SimpleNamespace(
            view=types.SimpleNamespace(revision=7), stopping=threading.Event())
        self.asked = threading.Semaphore(0)
        self.answered = threading.Event()
        self.text = "total_iops_sec=1"
        self.workers = _Workers()
        self.limiter = Limiter(self.state, self.ask, self.workers)
        self.addCleanup(self.state.stopping.set)

    def ask(self, question):
        self.assertEqual({"call": "limits", "vid": VID}, question)
        self.asked.release()
        self.answered.wait(SECONDS)
        return self.text

    def know(self):
        """Have the leader's answer."""
        self.answered.set()
        self.limiter.admit(VID, True, 1, None)
        while self.limiter._gates[VID].bucket is None:
            self.assertFalse(self.state.stopping.wait(0.001))

    def test_nobody_waits_for_the_leader(self):
        self.assertTrue(self.limiter.admit(VID, True, 1, None))
        self.assertTrue(self.asked.acquire(timeout=SECONDS))
        self.assertTrue(self.limiter.admit(VID, True, 1, None))
        self.know()
        self.assertFalse(self.asked.acquire(blocking=False), "asked twice")

    def test_a_change_lets_go_what_waits_in_its_order(self):
        self.know()
        begun, done = [], threading.Semaphore(0)

        def begin(number):
            begun.append(number)
            done.release()

        while self.limiter.admit(VID, True, 1, begin, 0):
            pass
        self.assertFalse(self.limiter.admit(VID, True, 1, begin, 1))
        self.limiter.change(VID, "total_iops_sec=1000000")
        for _ in range(2):
            self.assertTrue(done.acquire(timeout=SECONDS))
        self.assertEqual({0, 1}, set(begun))

    def test_what_waits_goes_on_by_itself(self):
        self.text = "total_iops_sec=50"
        self.know()
        done = threading.Semaphore(0)
        waiting = [not self.limiter.admit(VID, False, 1, done.release) for _ in range(20)]
        self.assertTrue(waiting[-1])
        for _ in range(sum(waiting)):
            self.assertTrue(done.acquire(timeout=SECONDS))

    def test_a_late_answer_does_not_undo_a_change(self):
        self.assertTrue(self.limiter.admit(VID, True, 1, None))
        self.assertTrue(self.asked.acquire(timeout=SECONDS))
        self.limiter.change(VID, "")
        self.answered.set()
        self.workers.join()
        self.assertIsNone(self.limiter._gates[VID].bucket)

    def test_the_leader_is_asked_again_when_the_map_has_changed(self):
        self.know()
        self.assertTrue(self.asked.acquire(timeout=SECONDS))
        self.state.view = types.SimpleNamespace(revision=8)
        self.limiter.admit(VID, False, 1, lambda: None)
        self.assertTrue(self.asked.acquire(timeout=SECONDS))
