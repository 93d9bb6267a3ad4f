"""How dog writes numbers, times, names, trees and progress bars."""

import io
import os
import time
import unittest

from hypothesis import given, strategies as st

from sheepstack.dog import output, treeview
from sheepstack.dog.exits import Failure, UsageError
from sheepstack.dog.progress import Progress, render
from sheepstack.dog.sizes import parse_size
from sheepstack.dog.treeview import Leaf

MIB, GIB, TIB, PIB = 1 << 20, 1 << 30, 1 << 40, 1 << 50


class Sizes(unittest.TestCase):

    def test_one_decimal_below_ten_and_none_above(self):
        for number, text in (
                (0, "0.0 MB"), (4096, "0.0 MB"), (MIB, "1.0 MB"), (276 * MIB, "276 MB"),
                (10 * MIB - 1, "10.0 MB"), (10 * MIB, "10 MB"), (1023 * MIB, "1023 MB"),
                (GIB, "1.0 GB"), (8 * GIB, "8.0 GB"), (27 * GIB // 10, "2.7 GB"),
                (4 * TIB, "4.0 TB"), (16 * PIB, "16 PB"), (1 << 63, "8.0 EB")):
            with self.subTest(number=number):
                self.assertEqual(output.size(number), text)

    def test_raw_sizes_are_bytes(self):
        self.assertEqual(output.size(8 * GIB, raw=True), "8589934592")

    def test_units_end_somewhere(self):
        self.assertEqual(output.size(1 << 110), "1073741824 YB")

    def test_what_people_write(self):
        for text, number in (
                ("0", 0), ("512", 512), ("512B", 512), ("1k", 1024), ("10G", 10 * GIB),
                ("10g", 10 * GIB), ("1.5M", 3 * MIB // 2), (".5K", 512), ("2.K", 2048),
                ("16P", 16 * PIB), ("0x1000", 4096), ("0.1", 0), ("1.9999", 1)):
            with self.subTest(text=text):
                self.assertEqual(parse_size(text), number)

    def test_what_is_no_size(self):
        for text in ("", "abc", "10MB", "10 M", "1E", "10X", "-5", "+5", "1e3", "inf", "nan",
                     "0x", "1..5", ".", "٣", "10G\n"):
            with self.subTest(text=text), self.assertRaises(UsageError) as caught:
                parse_size(text)
            self.assertEqual(caught.exception.lines[0], "Invalid size '%s'" % text)

    @given(st.integers(0, 1 << 70))
    def test_numbers_come_back(self, number):
        self.assertEqual(parse_size(output.size(number, raw=True)), number)

    @given(st.text(max_size=8))
    def test_any_text_is_a_size_or_is_refused(self, text):
        try:
            self.assertGreaterEqual(parse_size(text), 0)
        except Failure:
            pass

    def test_ratio_of_nothing(self):
        self.assertEqual(output.ratio(0, 0), 0)
        self.assertEqual(output.ratio(999, 1000), 99)


class Times(unittest.TestCase):

    def setUp(self):
        self._zone = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()

    def tearDown(self):
        if self._zone is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = self._zone
        time.tzset()

    def test_forms(self):
        seconds = 1391612645
        self.assertEqual(output.minute(seconds), "2014-02-05 15:04")
        self.assertEqual(output.second(seconds), "2014-02-05 15:04:05")
        self.assertEqual(output.day(seconds), "2014-02-05")
        self.assertEqual(output.time_of_day(seconds), "15:04:05")
        self.assertEqual(output.long_date(seconds), "Wed Feb  5 15:04:05 2014")

    def test_seconds_are_the_upper_half(self):
        self.assertEqual(output.clock_seconds(1391612645 << 32 | 999), 1391612645)

    @given(st.integers(0, (1 << 64) - 1))
    def test_a_time_that_no_calendar_has_is_no_crash(self, seconds):
        output.minute(seconds)
        output.long_date(seconds)


class Names(unittest.TestCase):

    def test_raw_names_are_one_word(self):
        self.assertEqual(output.escaped("a b\\c\td"), "a\\ b\\\\c\\\td")

    def test_redundancy(self):
        self.assertEqual(output.redundancy(3, 0), "3")
        self.assertEqual(output.redundancy(6, 0x22), "4:2")
        self.assertEqual(output.redundancy(31, 0x8F), "16:15")


class Trees(unittest.TestCase):

    def test_a_line_of_snapshots(self):
        leaves = [Leaf("n", "[1]", 1, 0), Leaf("n", "[2]", 2, 1), Leaf("n", "(here)", 3, 2)]
        self.assertEqual(list(treeview.render(leaves)), ["n---[1]---[2]---(here)"])

    def test_branches(self):
        leaves = [Leaf("b", "(x)", 9, 2), Leaf("b", "(y)", 10, 9), Leaf("b", "z", 11, 10),
                  Leaf("b", "zz", 12, 10), Leaf("b", "w", 13, 9), Leaf("b", "v", 14, 13)]
        self.assertEqual(list(treeview.render(leaves)), [
            "b---(x)-+-(y)-+-z",
            "        |     `-zz",
            "        `-w---v"])

    def test_three_children(self):
        leaves = [Leaf("a", "[old]", 1, 0)] + [Leaf("a", "[%d]" % i, i, 1) for i in (2, 3, 4)]
        self.assertEqual(list(treeview.render(leaves)), [
            "a---[old]-+-[2]",
            "          |-[3]",
            "          `-[4]"])

    def test_clones_are_trees_of_their_own(self):
        leaves = [Leaf("a", "[1]", 1, 0), Leaf("c", "(c)", 7, 1), Leaf("a", "(a)", 2, 1)]
        self.assertEqual(list(treeview.render(leaves)), ["a---[1]---(a)", "c---(c)"])

    def test_a_parent_that_comes_later_or_never(self):
        leaves = [Leaf("a", "(new)", 1, 9), Leaf("a", "[lost]", 3, 2), Leaf("a", "[old]", 9, 0)]
        self.assertEqual(list(treeview.render(leaves)), ["a---[lost]", "a---[old]---(new)"])

    def test_highlighting_does_not_shift_branches(self):
        leaves = [Leaf("a", "[1]", 1, 0), Leaf("a", "[2]", 2, 1), Leaf("a", "me", 3, 1, True)]
        self.assertEqual(list(treeview.render(leaves)), [
            "a---[1]-+-[2]", "        `-\033[1mme\033[0m"])

    def test_circles_end(self):
        leaves = [Leaf("a", "x", 1, 2), Leaf("a", "y", 2, 1), Leaf("a", "z", 3, 3)]
        self.assertEqual(sum(line.count("x") + line.count("y") + line.count("z")
                             for line in treeview.render(leaves)), 3)

    def test_a_chain_longer_than_the_stack(self):
        leaves = [Leaf("a", "[%d]" % i, i, i - 1) for i in range(1, 5001)]
        self.assertEqual(len(list(treeview.render(leaves))), 1)

    @given(st.lists(st.integers(0, 12), max_size=12))
    def test_every_leaf_is_drawn_once(self, parents):
        leaves = [Leaf("a", "<%d>" % vid, vid, parent)
                  for vid, parent in enumerate(parents, 1)]
        text = "\n".join(treeview.render(leaves))
        for leaf in leaves:
            self.assertEqual(text.count(leaf.label), 1)


class Terminal(io.StringIO):

    def isatty(self):
        return True


class ProgressBars(unittest.TestCase):

    def test_halfway(self):
        self.assertEqual(render(180 * MIB, 400 * MIB, 60),
                         " 45.0 % [=============>                ] 180 MB / 400 MB".ljust(60))

    def test_the_end(self):
        self.assertEqual(render(51, 51, 50, raw=True),
                         "100.0 % [====================] 51 / 51".ljust(50))

    def test_nothing_to_do_is_done(self):
        self.assertTrue(render(0, 0, 50).startswith("100.0 %"))

    @given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 300))
    def test_a_bar_fills_its_width_and_no_more(self, done, total, width):
        self.assertEqual(len(render(min(done, total), total, width)), width)

    def test_a_pipe_sees_no_bar(self):
        stream = io.StringIO()
        with Progress(10, stream=stream) as progress:
            progress.show(5)
            progress.line("fixed it")
        self.assertEqual(stream.getvalue(), "fixed it\n")

    def test_a_terminal_sees_the_bar_complete(self):
        stream = Terminal()
        with Progress(10, raw=True, stream=stream) as progress:
            progress.advance(5)
        self.assertTrue(stream.getvalue().endswith("\n"))
        self.assertIn("100.0 %", stream.getvalue().rpartition("\r")[2])

    def test_a_failure_leaves_the_bar_where_it_is(self):
        stream = Terminal()
        with self.assertRaises(ValueError), Progress(10, raw=True, stream=stream):
            raise ValueError()
        self.assertNotIn("100.0 %", stream.getvalue())
        self.assertTrue(stream.getvalue().endswith("\n"))


if __name__ == "__main__":
    unittest.main()
