"""The news that writes settled must arrive, whatever becomes of one message."""

import itertools
import threading
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
    def _tell(self, *results):
        other = _Other(*results)
        state = ClusterState("here", 1.0)
        state.set_view(View(SimpleNamespace(revision=1), None, 0, (None, other), serving=True))
        gateway = SimpleNamespace(
            issued=7, settled_upto=lambda: 7, has_parked=lambda: False, unpark=lambda: None)
        Settler(state, SimpleNamespace(settle_quiet=lambda: None), gateway).start()
        self.addCleanup(state.stop)
        state.settling()
        self.assertTrue(other.told.wait(20))
        self.assertEqual(7, other.knows_upto)

    def test_the_others_are_told(self):
        self._tell()

    def test_who_missed_it_is_told_again_though_nothing_new_settles(self):
        """Its lease may have been over for a moment, or the link down."""
        self._tell(Result.NETWORK_ERROR, Result.NETWORK_ERROR)


if __name__ == "__main__":
    unittest.main()
