"""The thrasher's judges must see what is wrong, and nothing else."""

import itertools
import random
import tempfile
import unittest

from sheepstack.placement.cluster_map import ClusterMap, Node
from sheepstack.placement.ring import Ring
from sheepstack.wire import oid as oids
from sheepstack.wire.inode import InodeHeader
from tests.thrash import sectors
from tests.thrash.checker import check
from tests.thrash.history import NEVER, History, Origin, Read, Write
from tests.thrash.offline import Copies, Inode, check_copies, check_use


def write(value, start, end, volume="a", first=0, count=1):
    return Write(volume, value, first, count, start, end, "writer")


def read(values, start, end, volume="a", first=0):
    if isinstance(values, int):
        values = (values,)
    return Read(volume, first, tuple(values), start, end, "reader")


def rules(*events):
    return sorted({violation.rule for violation in check(events)})


class RegisterTest(unittest.TestCase):

    def test_the_last_write_is_read(self):
        self.assertEqual([], rules(
            read(0, 0, 1), write(1, 2, 3), read(1, 4, 5), write(2, 6, 7), read(2, 8, 9)))

    def test_a_lost_write(self):
        self.assertEqual(["went back"], rules(
            write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)))

    def test_a_lost_write_that_nobody_saw_before(self):
        self.assertEqual(["went back"], rules(
            write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)))

    def test_zeros_after_a_write(self):
        self.assertEqual(["went back"], rules(write(1, 0, 1), read(0, 2, 3)))

    def test_a_write_under_way_may_be_read_or_not(self):
        for value in (1, 2):
            self.assertEqual([], rules(
                write(1, 0, 1), write(2, 2, 9), read(value, 3, 4)))

    def test_what_was_read_once_stays(self):
        self.assertEqual(["went back"], rules(
            write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)))

    def test_reads_at_the_same_time_may_differ(self):
        self.assertEqual([], rules(
            write(1, 0, 1), write(2, 2, 9), read(2, 3, 6), read(1, 3, 6)))

    def test_a_failed_write_may_come_late(self):
        self.assertEqual([], rules(
            write(1, 0, 1), write(2, 2, NEVER), read(1, 3, 4), write(3, 5, 6), read(3, 7, 8),
            read(2, 9, 10)))

    def test_a_failed_write_does_not_come_and_go(self):
        self.assertEqual(["went back"], rules(
            write(1, 0, 1), write(2, 2, NEVER), read(2, 3, 4), read(1, 5, 6)))

    def test_a_failed_write_comes_once(self):
        self.assertEqual(["went back"], rules(
            write(2, 0, NEVER), read(2, 1, 2), write(3, 3, 4), read(3, 5, 6), read(2, 7, 8)))

    def test_an_acknowledged_write_does_not_come_twice(self):
        self.assertEqual(["went back"], rules(
            write(1, 0, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)))

    def test_a_write_that_was_sent_again_may_take_effect_twice(self):
        sent_again = write(1, 0, 9)._replace(again=True)
        others = [read(1, 1, 2), write(2, 3, 4), read(2, 5, 6)]
        self.assertEqual(["twice"], rules(sent_again, *others, read(1, 10, 11)))
        self.assertEqual(["went back"], rules(write(1, 0, 9), *others, read(1, 10, 11)))
        self.assertEqual(["went back"], rules(
            sent_again, *others, write(3, 12, 13), read(1, 14, 15)))

    def test_of_several_writes_that_were_sent_again_each_may_take_effect_again(self):
        first, second = (write(value, 0, 99)._replace(again=True) for value in (1, 2))
        history = [read(1, 1, 2), read(2, 3, 4), write(3, 5, 6), read(3, 7, 8), read(1, 9, 10),
                   write(4, 11, 12), read(2, 13, 14), write(5, 15, 16), read(1, 17, 18)]
        self.assertEqual(["twice"], rules(first, second, *history))
        self.assertEqual(["went back"], rules(first, write(2, 0, 99), *history))
        self.assertEqual(["went back"], rules(
            first, second, *history, write(6, 100, 101), read(5, 102, 103)))

    def test_a_read_before_its_write(self):
        self.assertIn("future", rules(read(1, 0, 1), write(1, 2, 3)))

    def test_bytes_of_nobody(self):
        self.assertEqual(["garbage"], rules(write(1, 0, 1), read(sectors.GARBAGE, 2, 3)))

    def test_bytes_of_another_volume(self):
        self.assertEqual(["foreign"], rules(write(1, 0, 1, "b"), read(1, 2, 3, "a")))

    def test_sectors_are_apart(self):
        self.assertEqual([], rules(
            write(1, 0, 1, count=2), write(2, 2, 3, first=1), read((1, 2), 4, 5)))
        violations = check([write(1, 0, 1, count=2), write(2, 2, 3), read((2, 0), 4, 5)])
        self.assertEqual([1], [violation.sector for violation in violations])

    def test_against_all_orders_there_are(self):
        """The zones give what trying all linearizations gives."""
        verdicts = set()
        for seed in range(400):
            events = _random_register(random.Random(seed))
            expected = _is_linearizable(events)
            verdicts.add(expected)
            self.assertEqual(expected, not check(events), "seed %d: %r" % (seed, events))
        self.assertEqual({True, False}, verdicts)


def _random_register(draw):
    events, values = [], [0]
    for number in range(1, draw.randint(2, 3) + 1):
        start = draw.randrange(12)
        end = NEVER if draw.random() < 0.25 else start + draw.randint(1, 5)
        events.append(write(number, start + number / 100, end + number / 100))
        values.append(number)
    for number in range(draw.randint(1, 2)):
        start = draw.randrange(14)
        events.append(read(draw.choice(values), start + 0.5 + number / 100,
                           start + 0.5 + draw.randint(1, 4) + number / 100))
    return events


def _is_linearizable(events):
    needed = [event for event in events if isinstance(event, Read) or event.end != NEVER]
    open_ended = [event for event in events if isinstance(event, Write) and event.end == NEVER]
    for extra in range(len(open_ended) + 1):
        for some in itertools.combinations(open_ended, extra):
            for order in itertools.permutations(needed + list(some)):
                if _fits(order):
                    return True
    return False


def _fits(order):
    value = 0
    for position, event in enumerate(order):
        if any(later.end < event.start for later in order[position + 1:]):
            return False
        if isinstance(event, Write):
            value = event.value
        elif event.values[0] != value:
            return False
    return True


class DiscardTest(unittest.TestCase):

    def test_zeros_after_a_discard(self):
        self.assertEqual([], rules(write(1, 0, 1), write(0, 2, 3), read(0, 4, 5)))

    def test_a_discard_that_is_undone(self):
        self.assertEqual(["went back"], rules(write(1, 0, 1), write(0, 2, 3), read(1, 4, 5)))

    def test_zeros_that_were_overwritten(self):
        self.assertEqual(["lost"], rules(
            write(1, 0, 1), write(0, 2, 3), write(2, 4, 5), read(0, 6, 7)))

    def test_a_failed_discard_may_come_late(self):
        self.assertEqual([], rules(
            write(1, 0, 1), write(0, 2, NEVER), read(1, 3, 4), read(0, 5, 6)))


class SnapshotTest(unittest.TestCase):

    def test_a_snapshot_holds_what_was_there(self):
        self.assertEqual([], rules(
            write(1, 0, 1), Origin("s", "a", 2, 3), write(2, 4, 5), read(2, 6, 7),
            read(1, 8, 9, "s"), read(1, 10, 11, "s")))

    def test_a_snapshot_that_changes(self):
        self.assertEqual(["changed"], rules(
            write(1, 0, 1), Origin("s", "a", 2, 9), write(2, 4, 5),
            read(1, 10, 11, "s"), read(2, 12, 13, "s")))

    def test_a_snapshot_that_holds_a_later_write(self):
        self.assertEqual(["future"], rules(
            write(1, 0, 1), Origin("s", "a", 2, 3), write(2, 4, 5), read(2, 6, 7, "s")))

    def test_a_snapshot_that_lacks_a_write(self):
        self.assertEqual(["went back"], rules(
            write(1, 0, 1), write(2, 2, 3), Origin("s", "a", 4, 5), read(1, 6, 7, "s")))

    def test_a_write_during_the_snapshot_is_in_it_or_not(self):
        for value in (0, 1):
            self.assertEqual([], rules(
                Origin("s", "a", 0, 9), write(1, 2, 3), read(value, 10, 11, "s")))

    def test_a_snapshot_is_of_one_moment(self):
        events = [Origin("s", "a", 0, 9), write(1, 1, 2), write(2, 3, 4, first=1)]
        self.assertEqual([], rules(*events, read((1, 0), 10, 11, "s")))
        self.assertEqual(["cut"], rules(*events, read((0, 2), 10, 11, "s")))
        discarded = [write(3, -4, -3), write(0, -2, -1), *events]
        self.assertEqual([], rules(*discarded, read((0, 0), 10, 11, "s")))
        self.assertEqual(["cut"], rules(*discarded, read((0, 2), 10, 11, "s")))

    def test_a_clone_begins_as_its_snapshot(self):
        events = [write(1, 0, 1), Origin("s", "a", 2, 3), write(2, 4, 5), Origin("c", "s", 6, 7)]
        self.assertEqual([], rules(
            *events, read(1, 8, 9, "c"), write(3, 10, 11, "c"), read(3, 12, 13, "c"),
            read(1, 14, 15, "s"), read(2, 14, 15, "a")))
        self.assertEqual(["future"], rules(*events, read(2, 8, 9, "c")))
        self.assertEqual(["went back"], rules(*events, read(0, 8, 9, "c")))
        self.assertEqual(["changed"], rules(
            *events, read(1, 8, 9, "c"), write(3, 10, 11, "c"), read(3, 12, 13, "s"),
            read(1, 14, 15, "s")))

    def test_a_clone_and_its_snapshot_that_differ(self):
        self.assertEqual(["changed"], rules(
            Origin("s", "a", 0, 9), write(1, 2, 3), Origin("c", "s", 10, 11),
            read(1, 12, 13, "c"), read(0, 12, 13, "s")))

    def test_rolled_back(self):
        events = [write(1, 0, 1), Origin("s", "a", 2, 3), write(2, 4, 5), Origin("a2", "s", 6, 7)]
        self.assertEqual([], rules(*events, read(1, 8, 9, "a2")))
        self.assertEqual(["future"], rules(*events, read(2, 8, 9, "a2")))


class SectorsTest(unittest.TestCase):

    def test_each_sector_names_its_write(self):
        data = sectors.pattern(7, 5, 3)
        self.assertEqual((7, 7, 7), sectors.decode(data, 5))
        self.assertEqual((0, 7), sectors.decode(bytes(512) + data[:512], 4))

    def test_a_torn_sector_is_garbage(self):
        one, other = sectors.pattern(7, 5, 1), sectors.pattern(8, 5, 1)
        self.assertEqual((sectors.GARBAGE,), sectors.decode(one[:100] + other[100:], 5))
        self.assertEqual((sectors.GARBAGE,), sectors.decode(one[:256] + bytes(256), 5))

    def test_a_sector_in_the_wrong_place_is_garbage(self):
        self.assertEqual((sectors.GARBAGE,), sectors.decode(sectors.pattern(7, 5, 1), 6))


class HistoryTest(unittest.TestCase):

    def test_a_history_survives_a_file(self):
        history = History()
        for event in (write(1, 0, NEVER), read((1, 0), 2, 3), Origin("s", "a", 4, 5)):
            history.add(event)
        with tempfile.NamedTemporaryFile() as file:
            history.save(file.name)
            self.assertEqual(history.events, History.load(file.name).events)


class OfflineTest(unittest.TestCase):

    def setUp(self):
        nodes = tuple(Node("127.0.0.1", 7000 + index, index, 128, 1 << 30, str(index))
                      for index in range(4))
        self.map = ClusterMap("u", 1, 1, nodes)
        self.vid = 0x1234
        self.oid = oids.data_oid(self.vid, 0)
        self.inodes = {self.vid: Inode(
            InodeHeader("disk", vdi_id=self.vid, nr_copies=3), {0: self.vid})}
        holders = Ring.of(self.map).holders(self.oid, 3)
        self.copies = {node.name: Copies(node.name, {}, set(), {}) for node in nodes}
        self.right = [nodes[index].name for index in holders]
        self.wrong = (set(self.copies) - set(self.right)).pop()
        for name in self.right:
            self.copies[name].digests[self.oid] = "same"

    def judge(self):
        return [line.partition(":")[0] for line in check_copies(
            self.map, list(self.copies.values()), self.inodes)]

    def test_as_it_should_be(self):
        self.assertEqual([], self.judge())

    def test_a_copy_that_differs(self):
        self.copies[self.right[1]].digests[self.oid] = "other"
        self.assertEqual(["unequal"], self.judge())

    def test_a_copy_too_few(self):
        del self.copies[self.right[2]].digests[self.oid]
        self.assertEqual(["too few"], self.judge())

    def test_a_copy_in_the_wrong_place(self):
        self.copies[self.wrong].digests[self.oid] = "same"
        self.assertEqual(["too many"], self.judge())

    def test_a_copy_that_should_be_gone(self):
        self.copies[self.wrong].stale.add(self.oid)
        self.assertEqual(["stale"], self.judge())

    def test_a_rotten_copy(self):
        self.copies[self.right[0]].rotten[self.oid] = [3]
        self.assertEqual(["rotten"], self.judge())

    def test_an_object_in_use_is_there(self):
        inode = oids.vdi_oid(self.vid)
        self.assertEqual(([], []), check_use({self.oid, inode}, self.inodes))
        violations, _ = check_use({inode}, self.inodes)
        self.assertEqual(["missing"], [line.partition(":")[0] for line in violations])

    def test_objects_of_nobody(self):
        violations, unlinked = check_use({self.oid, oids.data_oid(5, 1)}, self.inodes)
        self.assertEqual(1, len(violations))
        self.assertEqual([], unlinked)

    def test_objects_of_a_deleted_vdi(self):
        deleted = InodeHeader("", vdi_id=self.vid, nr_copies=3)
        present = {self.oid, oids.vdi_oid(self.vid)}
        violations, _ = check_use(present, {self.vid: Inode(deleted, {0: self.vid})})
        self.assertEqual(2, len(violations))

    def test_a_deleted_vdi_whose_objects_a_clone_uses(self):
        deleted = InodeHeader("", vdi_id=self.vid, nr_copies=3)
        clone = InodeHeader("clone", vdi_id=9, nr_copies=3, parent_vdi_id=self.vid)
        present = {self.oid, oids.vdi_oid(self.vid), oids.vdi_oid(9)}
        inodes = {self.vid: Inode(deleted, {0: self.vid}), 9: Inode(clone, {0: self.vid})}
        self.assertEqual(([], []), check_use(present, inodes))

    def test_an_object_whose_entry_was_never_written(self):
        stray = oids.data_oid(self.vid, 7)
        violations, unlinked = check_use({self.oid, stray, oids.vdi_oid(self.vid)}, self.inodes)
        self.assertEqual([], violations)
        self.assertEqual([oids.name_of(stray)], unlinked)


if __name__ == "__main__":
    unittest.main()
