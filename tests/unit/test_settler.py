"""The news that writes settled must arrive, whatever becomes of one message."""

import itertools
import logging
import threading
import time
import unittest
from types import SimpleNamespace

from sheepstack.sheep.peer_link import Answer
from sheepstack.sheep.settler import Settler
from sheepstack.sheep.state import ClusterState
from sheepstack.sheep.view import View
from sheepstack.wire.results import Result


class _Other:
    """A link to a sheep that gives each of ``results`` once, then SUCCESS."""

    def __init__(self, *results):
        self._results = itertools.chain(results, itertools.repeat(Result.SUCCESS))
        self.knows_upto = 0
        self.told = threading.Event()

    def submit(self, opcode, revision, callback, stamp, settled):
        result = next(self._results)
        if result == Result.SUCCESS:
            self.knows_upto = settled
            self.told.set()
        callback(Answer(result), None)


class SettlerTest(unittest.TestCase):
    def _start(self, other, serving=True):
        state = ClusterState("here", 1.0)
        state.set_view(View(SimpleNamespace(revision=1), None, 0, (None, other), serving=serving))
        gateway = SimpleNamespace(
            issued=7, settled_upto=lambda: 7, has_parked=lambda: False, unpark=lambda: None,
            oldest=lambda: None)
        settler = Settler(state, SimpleNamespace(settle_quiet=lambda: None), gateway)
        settler.start()
        self.addCleanup(state.stop)
        state.settling()
        return state, settler

    def _tell(self, *results):
        other = _Other(*results)
        self._start(other)
        self.assertTrue(other.told.wait(20))
        self.assertEqual(7, other.knows_upto)

    def test_the_others_are_told(self):
        self._tell()

    def test_who_missed_it_is_told_again_though_nothing_new_settles(self):
        """Its lease may have been over for a moment, or the link down."""
        self._tell(Result.NETWORK_ERROR, Result.NETWORK_ERROR)

    def test_who_does_not_serve_for_a_moment_tells_later(self):
        other = _Other()
        state, settler = self._start(other, serving=False)
        while not settler._missed:
            self.assertFalse(state.stopping.wait(0.001))
        state.change_view(serving=True)
        self.assertTrue(other.told.wait(20))
        self.assertEqual(7, other.knows_upto)

    def test_of_a_write_that_does_not_end_the_operator_hears(self):
        gateway = SimpleNamespace()
        settler = Settler(None, None, gateway)
        heard, now = 0, time.monotonic()
        for write, later, told in (("a", 0, 0), ("a", 19, 0), ("a", 21, 1), ("a", 30, 1),
                                   ("b", 50, 1), ("b", 71, 2), (None, 99, 2), (None, 150, 2)):
            gateway.oldest = lambda: write
            with self.subTest(write=write, later=later), self.assertLogs(
                    "sheepstack.sheep.settler", "DEBUG") as logs:
                logging.getLogger("sheepstack.sheep.settler").debug("so that there is something")
                settler._look_at_oldest(now + 1000 + later)
            heard += sum("does not come to its end" in line for line in logs.output)
            self.assertEqual(told, heard)


if __name__ == "__main__":
    unittest.main()
