"""How fast recovery goes while clients are served, and while they are not."""

import unittest

from sheepstack.sheep.pace import GENTLE, Pace

SIZE = 4 << 20
HERE, THERE = 0, 1


class PaceTest(unittest.TestCase):
    def setUp(self):
        self.pace = Pace()
        self.pace.size = SIZE
        self.pace.note(HERE, 5, 10.0)
        self.pace.note(THERE, 7, 10.0)

    def test_nobody_is_served(self):
        self.assertEqual([10.0] * 9, [self.pace.next(10.0) for _ in range(9)])

    def test_what_was_before_the_first_look_does_not_count(self):
        self.pace.note(HERE, 5, 11.0)
        self.assertEqual([11.0, 11.0], [self.pace.next(11.0) for _ in range(2)])

    def test_clients_are_served_on_either_side(self):
        for node, number in (HERE, 6), (THERE, 8):
            with self.subTest(node=node):
                self.setUp()
                self.pace.note(node, number, 11.0)
                moments = [self.pace.next(11.0) for _ in range(51)]
                self.assertEqual(11.0, moments[0])
                self.assertAlmostEqual(50 * SIZE / GENTLE, moments[-1] - 11.0)

    def test_what_is_slow_anyway_is_not_made_slower(self):
        for second in range(20, 40):
            self.pace.note(HERE, second, second)
            self.assertEqual(second, self.pace.next(second))

    def test_small_objects_are_let_pass(self):
        self.pace.note(HERE, 6, 11.0)
        self.pace.size = 0
        self.assertEqual([11.0] * 9, [self.pace.next(11.0) for _ in range(9)])

    def test_when_clients_rest_all_goes_at_once_again(self):
        self.pace.note(HERE, 6, 11.0)
        for _ in range(500):
            self.pace.next(11.0)
        self.assertEqual([13.0, 13.0], [self.pace.next(13.0) for _ in range(2)])


if __name__ == "__main__":
    unittest.main()
