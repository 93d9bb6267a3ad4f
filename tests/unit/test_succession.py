"""Which map comes next."""

import unittest

from sheepstack.placement.cluster_map import Node, Status
from sheepstack.placement.succession import (
    AUTO_VNODES, Member, cut_off, first_map, forced_map, left_out, map_with_vnodes, next_map,
    vnodes_by_space)


def member(name, run=1, **fields):
    vnodes = fields.pop("vnodes", AUTO_VNODES)
    space = fields.pop("space", 100)
    node = Node(name, 7000, ord(name[0]), vnodes, space, "%s%d" % (name, run))
    fields.setdefault("uuid", "u")
    return Member(node, **fields)


def running(*members, **fields):
    made = first_map(members, "u", 1)
    return made._replace(settled=True, epoch=3, revision=7, last_settled=6, **fields)


A, B, C = member("a"), member("b"), member("c")


class NextMapTest(unittest.TestCase):
    def test_nothing_changes_in_a_settled_cluster(self):
        self.assertIsNone(next_map(running(A, B, C), [A, B, C], 9))

    def test_a_dead_node_leaves(self):
        new = next_map(running(A, B, C), [A, B], 9)
        self.assertEqual([node.host for node in new.nodes], ["a", "b"])
        self.assertEqual((new.epoch, new.revision, new.settled, new.last_settled, new.changed),
                         (4, 8, False, 7, 9))

    def test_a_new_node_joins_weighted_by_space(self):
        new = next_map(running(A, B), [A, B, member("d", space=200)], 9)
        self.assertEqual([node.vnodes for node in new.nodes], [128, 128, 256])

    def test_other_vnodes_make_a_new_epoch(self):
        present = running(A, B, C)
        new = map_with_vnodes(present, {B.node.key: 64}, 9)
        self.assertEqual([node.vnodes for node in new.nodes], [128, 64, 128])
        self.assertEqual((new.epoch, new.revision, new.settled, new.last_settled, new.changed),
                         (4, 8, False, 7, 9))
        self.assertIs(present, map_with_vnodes(present, {B.node.key: 128}, 9))

    def test_vnodes_follow_space_where_they_were_not_given(self):
        present = running(A, B, C)
        spaces = {A.node.key: 100, B.node.key: 300, C.node.key: 200}
        self.assertEqual({A.node.key: 64, B.node.key: 192},
                         vnodes_by_space(present, spaces, [A.node.key, B.node.key]))

    def test_settles_once_all_have_left_the_former_revision(self):
        unsettled = running(A, B)._replace(settled=False)
        slow = [A._replace(acked=7), B._replace(acked=6)]
        self.assertIsNone(next_map(unsettled, slow, 9))
        settled = next_map(unsettled, [A._replace(acked=7), B._replace(acked=7)], 9)
        self.assertEqual(settled, unsettled._replace(settled=True))

    def test_settles_once_those_left_out_know_it_or_are_fenced(self):
        """Their sessions live, so they would go on serving under the map before."""
        unsettled = running(A, B)._replace(settled=False)
        acked = [A._replace(acked=7), B._replace(acked=7)]
        out = C._replace(acked=6, unreachable=("a:7000",))
        acked[0] = acked[0]._replace(unreachable=(C.node.name,))
        self.assertEqual([C.node.incarnation], left_out(unsettled, acked + [out]))
        self.assertIsNone(next_map(unsettled, acked + [out], 9))
        for members, fenced in ((acked + [out._replace(acked=0)], ()), (acked, ()),
                                (acked + [out], {C.node.incarnation})):
            self.assertTrue(next_map(unsettled, members, 9, fenced).settled)

    def test_an_unsettled_revision_does_not_count_as_settled_later(self):
        unsettled = running(A, B, C)._replace(settled=False)
        self.assertEqual(next_map(unsettled, [A, B], 9).last_settled, 6)

    def test_a_node_that_started_again_is_a_change(self):
        again = member("b", run=2)
        new = next_map(running(A, B), [A, B, again], 9)
        self.assertEqual([node.incarnation for node in new.nodes], ["a1", "b2"])
        self.assertEqual(new.epoch, 4)

    def test_a_cold_start_waits_for_all_nodes_of_the_last_epoch(self):
        old = running(A, B, C)
        again = [member(name, run=2, last_revision=7) for name in "abc"]
        self.assertIsNone(next_map(old, again[:2], 9))
        new = next_map(old, again, 9)
        self.assertEqual((new.epoch, new.revision, new.settled), (3, 8, False))
        self.assertEqual([node.incarnation for node in new.nodes], ["a2", "b2", "c2"])

    def test_a_cold_start_keeps_vnodes(self):
        old = running(A, member("d", space=200))
        again = [member("a", 2), member("d", 2, space=400)]
        self.assertEqual([node.vnodes for node in next_map(old, again, 9).nodes],
                         [node.vnodes for node in old.nodes])

    def test_after_a_shutdown_the_same_holds(self):
        old = running(A, B, status=Status.SHUTDOWN)
        again = [member(name, run=2) for name in "ab"]
        self.assertIsNone(next_map(old, again[:1], 9))
        self.assertIs(next_map(old, again, 9).status, Status.OK)

    def test_a_shutdown_is_not_undone_by_those_that_still_end(self):
        self.assertIsNone(next_map(running(A, B, status=Status.SHUTDOWN), [A, B], 9))

    def test_a_cold_start_takes_new_nodes_along(self):
        again = [member(name, run=2) for name in "abx"]
        new = next_map(running(A, B), again, 9)
        self.assertEqual((new.epoch, len(new.nodes)), (4, 3))

    def test_the_operator_can_go_on_without_the_missing(self):
        new = forced_map(running(A, B, C), [member("a", run=2)], 9)
        self.assertEqual(([node.host for node in new.nodes], new.epoch, new.forced),
                         (["a"], 4, 8))

    def test_a_store_of_another_cluster_does_not_join(self):
        self.assertIsNone(next_map(running(A, B), [A, B, member("x", uuid="other")], 9))

    def test_a_store_from_the_future_does_not_join(self):
        self.assertIsNone(next_map(running(A, B), [A, B, member("x", last_revision=8)], 9))

    def test_a_node_that_wants_to_leave_leaves(self):
        new = next_map(running(A, B), [A, B._replace(leaving=True)], 9)
        self.assertEqual([node.host for node in new.nodes], ["a"])

    def test_a_node_that_nobody_reaches_is_left_out(self):
        members = [A._replace(unreachable=("c:7000",)), B._replace(unreachable=("c:7000",)), C]
        new = next_map(running(A, B, C), members, 9)
        self.assertEqual([node.host for node in new.nodes], ["a", "b"])

    def test_and_not_let_in_again_until_it_is_reached(self):
        members = [A._replace(unreachable=("c:7000",)), B, C]
        self.assertIsNone(next_map(running(A, B), members, 9))
        self.assertEqual(len(next_map(running(A, B), [A, B, C], 9).nodes), 3)

    def test_the_last_node_is_never_left_out(self):
        self.assertIsNone(next_map(running(A), [A._replace(leaving=True)], 9))


class CutOffTest(unittest.TestCase):
    def test_the_isolated_one_goes_whoever_complains(self):
        lonely = A._replace(unreachable=("b:7000", "c:7000"))
        self.assertEqual(cut_off([lonely, B, C]), {"a:7000"})

    def test_of_two_the_newcomer_goes(self):
        pair = [A._replace(unreachable=("b:7000",)), B]
        self.assertEqual(cut_off(pair), {"b:7000"})
        self.assertEqual(cut_off(pair, newcomers={"a:7000"}), {"a:7000"})

    def test_complaints_about_strangers_do_not_count(self):
        self.assertEqual(cut_off([A._replace(unreachable=("zz:1",)), B]), set())


class TwoLivesTest(unittest.TestCase):
    def test_the_life_before_counts_no_more_though_its_session_lives(self):
        """A sheep was killed and started again sooner than its old session expires."""
        before, again = B._replace(born=1), member("b", run=2, born=2)
        for present in ([A, before, again], [A, again, before]):
            following = next_map(running(A, B), present, 9)
            self.assertEqual([node.incarnation for node in following.nodes], ["a1", "b2"])
            self.assertIsNone(next_map(following, present, 9))

    def test_of_two_who_lost_each_other_the_silent_one_goes(self):
        for complaining, silent in ((A, B), (B, A)):
            complaining = complaining._replace(unreachable=(silent.node.name,))
            self.assertEqual(cut_off([complaining, silent]), {silent.node.name})
