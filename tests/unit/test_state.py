"""Until when a sheep serves: its session and its knowledge of the map, whichever ends first.
And what becomes of calls to itself."""

import unittest
from types import SimpleNamespace

from sheepstack.coordination.session import Session, now
from sheepstack.sheep.direct_page import NoPage
from sheepstack.sheep.state import ClusterState
from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.view import View
from sheepstack.wire.results import Result

LONG = 1000.0


class _Page(NoPage):
    until = 0.0

    def set_lease(self, until):
        self.until = until


class _Coordinator:
    """With the session of the real ones."""

    def __init__(self):
        self.session = Session(LONG, 0.0, lambda: None)
        self.watch_lease = self.session.watch_lease
        self.history = None

    def lease_valid(self):
        return now() < self.session.valid_until


class LeaseTest(unittest.TestCase):

    def setUp(self):
        self.page = _Page()
        self.state = ClusterState("here:7000", LONG, self.page)
        self.coordinator = _Coordinator()
        self.state.attach(self.coordinator)

    def renew(self):
        session = self.coordinator.session
        self.assertTrue(session.renew(now(), session.round))

    def test_a_session_alone_is_not_enough(self):
        self.renew()
        self.assertFalse(self.state.lease_valid())
        self.assertLess(self.page.until, now())

    def test_knowing_the_map_alone_is_not_enough(self):
        self.state.map_holds(now() + LONG)
        self.assertFalse(self.state.lease_valid())
        self.assertLess(self.page.until, now())

    def test_what_ends_first_counts(self):
        self.renew()
        soon = now() + LONG / 2
        self.state.map_holds(soon)
        self.assertTrue(self.state.lease_valid())
        self.assertEqual(soon, self.page.until)
        self.state.map_holds(now() + 2 * LONG)
        self.assertEqual(self.coordinator.session.valid_until, self.page.until)

    def test_it_ends_with_no_look_at_the_map(self):
        self.renew()
        self.state.map_holds(now() - 0.001)
        self.assertFalse(self.state.lease_valid())
        self.assertLess(self.page.until, now())

    def test_a_session_that_is_suspended_ends_it_at_once(self):
        self.renew()
        self.state.map_holds(now() + LONG)
        self.coordinator.session.suspend()
        self.assertFalse(self.state.lease_valid())
        self.state.map_holds(now() + LONG)
        self.assertLess(self.page.until, now())


class CallsToItself(unittest.TestCase):
    """The leader is often the one who asks, and may be about to lose the lead."""

    def setUp(self):
        self.state = ClusterState("here:7000", LONG)
        self.state.set_view(View(SimpleNamespace(revision=1, epoch=1), None, 0, (None,)))

    def test_are_answered(self):
        self.state.answer_call = lambda question: question["vid"] + 1
        self.assertEqual(8, self.state.call_node(0, {"call": "any", "vid": 7}))

    def test_have_no_answer_where_they_fail_like_those_to_others(self):
        def answer(question):
            raise Failure(Result.AGAIN)

        self.state.answer_call = answer
        self.assertIsNone(self.state.call_node(0, {"call": "any"}))


if __name__ == "__main__":
    unittest.main()
