"""The map that tgt is given."""

import unittest

from sheepstack.sheep.tgt import OPEN, is_from_tgt, map_for_tgt
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.inode import InodeHeader, pack_map, unpack_map
from sheepstack.wire.opcodes import Flag

VID, PARENT = 0x123456, 0x654321


def inode(entries, objects):
    header = InodeHeader(name="disk", vdi_size=objects << 22, block_size_shift=22, vdi_id=VID)
    return header.pack() + pack_map(entries)


class MapTest(unittest.TestCase):

    def test_only_own_objects_are_settled(self):
        data = inode([VID, PARENT, 0, VID, 0, 0], 6)
        entries = unpack_map(map_for_tgt(data)[layout.DATA_VDI_ID_OFFSET:])
        self.assertEqual([VID, VID | OPEN, VID | OPEN, VID, VID | OPEN, VID | OPEN],
                         list(entries))

    def test_zeros_that_were_left_out_are_open_too(self):
        answer = map_for_tgt(inode([VID], 3))
        self.assertEqual([VID, VID | OPEN, VID | OPEN],
                         list(unpack_map(answer[layout.DATA_VDI_ID_OFFSET:])))

    def test_what_is_behind_the_vdi_stays(self):
        answer = map_for_tgt(inode([0, PARENT, 7], 1))
        self.assertEqual([VID | OPEN, PARENT, 7],
                         list(unpack_map(answer[layout.DATA_VDI_ID_OFFSET:])))
        self.assertEqual(inode([], 0), map_for_tgt(inode([], 0)))

    def test_who_is_tgt(self):
        self.assertTrue(is_from_tgt(1, Flag.TGT | Flag.WRITE))
        self.assertFalse(is_from_tgt(2, Flag.TGT))
        self.assertFalse(is_from_tgt(1, Flag.WRITE))
