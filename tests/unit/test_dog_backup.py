"""The format of incremental backups."""

import io
import unittest

from hypothesis import given, strategies as st

from sheepstack.dog import backup
from sheepstack.dog.exits import Failure

#: What the C project's dog wrote for "five" at 5 MiB of a VDI with 4 MiB objects.
C_BACKUP = bytes.fromhex(
    "0100000092119211" "01000000000010000002000000000000" "66697665") + bytes(508) + bytes.fromhex(
    "ffffffff000000000000000000000000")


def records(raw, block_size=4 << 20):
    stream = io.BytesIO(raw)
    backup.read_header(stream)
    return list(backup.read_records(stream, block_size))


class Regions(unittest.TestCase):

    def test_equal_buffers_have_no_difference(self):
        self.assertIsNone(backup.differing_region(bytes(4096), bytes(4096)))

    def test_from_the_first_to_the_last_sector_that_differs(self):
        new = bytearray(4096)
        new[700] = new[2048] = 1
        self.assertEqual(backup.differing_region(bytes(4096), bytes(new)), (512, 2048))

    def test_the_last_sector_may_be_cut(self):
        self.assertEqual(backup.differing_region(bytes(1000), bytes(999) + b"x"), (512, 488))

    @given(st.integers(0, 5000), st.data())
    def test_the_region_covers_every_difference(self, length, data):
        old = bytes(length)
        new = bytearray(old)
        for at in data.draw(st.lists(st.integers(0, max(0, length - 1)), max_size=4)):
            if length:
                new[at] = 1
        region = backup.differing_region(old, bytes(new))
        if region is None:
            self.assertEqual(old, new)
            return
        start, end = region.offset, region.offset + region.length
        self.assertEqual(old[:start] + bytes(new[start:end]) + old[end:], new)
        self.assertEqual(start % backup.SECTOR, 0)


class Reading(unittest.TestCase):

    def test_what_the_c_dog_wrote(self):
        self.assertEqual(records(C_BACKUP), [(5 << 20, b"five" + bytes(508))])

    def test_positions_follow_the_block_size(self):
        self.assertEqual(records(C_BACKUP, 8 << 20)[0][0], (8 << 20) + (1 << 20))

    def test_an_empty_backup(self):
        self.assertEqual(records(C_BACKUP[:8] + C_BACKUP[-16:]), [])

    def test_long_records_come_in_pieces(self):
        data = bytes(range(256)) * (24 << 10)
        raw = (backup.HEADER.pack(backup.VERSION, backup.MAGIC)
               + backup.RECORD.pack(3, 512, len(data)) + data
               + backup.RECORD.pack(backup.END, 0, 0))
        found = records(raw, 8 << 20)
        self.assertEqual(b"".join(piece for _, piece in found), data)
        self.assertEqual([at for at, _ in found],
                         [(24 << 20) + 512, (28 << 20) + 512])

    def test_every_truncation_is_noticed(self):
        for length in range(len(C_BACKUP)):
            with self.subTest(length=length), self.assertRaises(Failure):
                records(C_BACKUP[:length])

    def test_records_that_cannot_be(self):
        for index, offset, length in ((0, 4 << 20, 1), (1 << 20, 0, 512), (0, 1, 4 << 20)):
            raw = C_BACKUP[:8] + backup.RECORD.pack(index, offset, length) + bytes(4 << 20)
            with self.subTest(index=index), self.assertRaises(Failure):
                records(raw)

    @given(st.binary(max_size=200))
    def test_garbage_is_no_backup(self, raw):
        with self.assertRaises(Failure):
            records(raw)

    @given(st.binary(max_size=200))
    def test_garbage_behind_a_good_header_fails_with_a_line(self, raw):
        try:
            records(C_BACKUP[:8] + raw)
        except Failure as failure:
            self.assertEqual(len(failure.lines), 1)


if __name__ == "__main__":
    unittest.main()
