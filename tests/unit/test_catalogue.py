"""The leader's list of VDIs."""

import unittest

from sheepstack.sheep.catalogue import Catalogue, bitmap
from sheepstack.wire.hashing import vdi_name_hash
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.results import Result


def inode(vid, name="disk", snap_id=1, snapshot=False, parent=0, tag=""):
    return InodeHeader(name, tag, 1, 5 if snapshot else 0, vdi_id=vid, snap_id=snap_id,
                       parent_vdi_id=parent)


class CatalogueTest(unittest.TestCase):
    def setUp(self):
        self.catalogue = Catalogue([
            inode(1, snap_id=1, snapshot=True, tag="first"),
            inode(2, snap_id=2, snapshot=True, parent=1),
            inode(3, snap_id=3, parent=2),
            inode(9, "other", parent=1)])

    def found(self, *arguments):
        found = self.catalogue.look_up(*arguments)
        return found.inode.vdi_id if found.inode else found.result

    def test_look_up(self):
        self.assertEqual(self.found("disk"), 3)
        self.assertEqual(self.found("disk", "first"), 1)
        self.assertEqual(self.found("disk", "", 2), 2)
        self.assertEqual(self.found("none"), Result.NO_VDI)
        self.assertEqual(self.found("disk", "second"), Result.NO_TAG)
        self.assertEqual(self.found("other", "first"), Result.NO_TAG)

    def test_tags_and_ids_name_snapshots_only(self):
        self.assertEqual(self.found("disk", "", 3), Result.NO_TAG)

    def test_without_a_working_vdi_there_is_none(self):
        self.catalogue.put(inode(3, name=""))
        self.assertEqual(self.found("disk"), Result.NO_VDI)
        self.assertEqual(self.found("disk", "first"), 1)

    def test_ids_start_at_the_hash_and_skip_those_in_use_deleted_ones_too(self):
        first = self.catalogue.free_vid("new")
        self.assertEqual(first, vdi_name_hash(b"new"))
        self.catalogue.put(inode(first, name=""))
        self.assertEqual(self.catalogue.free_vid("new"), first + 1)
        self.catalogue.drop(first)
        self.assertEqual(self.catalogue.free_vid("new"), first)

    def test_ancestors(self):
        self.assertEqual(self.catalogue.ancestors(self.catalogue.get(3)), [2, 1])
        self.assertEqual(self.catalogue.ancestors(inode(7, parent=7)), [])

    def test_children_follow_their_parents(self):
        def children(vid):
            return sorted(inode.vdi_id for inode in self.catalogue.children(vid))

        self.assertEqual([2, 9], children(1))
        self.catalogue.put(inode(9, "other", parent=2))
        self.assertEqual([[2], [3, 9]], [children(1), children(2)])
        self.catalogue.put(inode(3, name="", parent=2))
        self.catalogue.drop(9)
        self.assertEqual([3], children(2))
        self.catalogue.drop(3)
        self.assertEqual([], children(2))
        self.assertEqual([], children(77))

    def test_a_snapshot_id_is_never_given_twice_while_one_lives(self):
        self.assertEqual(self.catalogue.next_snap_id("disk"), 4)
        self.assertEqual(self.catalogue.next_snap_id("none"), 1)

    def test_unfinished(self):
        self.assertEqual(self.catalogue.unfinished(), [])
        self.catalogue.put(inode(4, snap_id=4, parent=3))
        self.assertEqual([found.vdi_id for found in self.catalogue.unfinished()], [4])

    def test_bitmap(self):
        bits = bitmap([1, 8, 0xFFFFFF])
        self.assertEqual((bits[0], bits[1], bits[-1], len(bits)), (2, 1, 0x80, 1 << 21))
