"""CRC-32C, and the value that makes zeros come out as zero."""

import random
import unittest

from sheepstack.wire import checksum


class ChecksumTest(unittest.TestCase):

    def test_known_values(self):
        # RFC 3720, appendix B.4, and the customary check value.
        self.assertEqual(0xE3069283, checksum.crc32c(b"123456789"))
        self.assertEqual(0x8A9136AA, checksum.crc32c(bytes(32)))
        self.assertEqual(0x62A8AB43, checksum.crc32c(b"\xff" * 32))
        self.assertEqual(0x46DD794E, checksum.crc32c(bytes(range(32))))

    def test_it_can_go_on_from_a_value(self):
        self.assertEqual(checksum.crc32c(b"123456789"),
                         checksum.crc32c(b"6789", checksum.crc32c(b"12345")))

    def test_zeros_have_checksum_zero(self):
        for length in (1, 7, 568, 4095, 4096):
            self.assertEqual([0], checksum.block_checksums(bytes(length)))

    def test_it_is_the_crc_xor_that_of_zeros(self):
        rng = random.Random(1)
        for length in (1, 100, 568, 4096):
            data = rng.randbytes(length)
            self.assertEqual([checksum.crc32c(data) ^ checksum.crc32c(bytes(length))],
                             checksum.block_checksums(data))

    def test_one_checksum_for_each_block(self):
        data = random.Random(2).randbytes(2 * 4096 + 100)
        self.assertEqual(
            checksum.block_checksums(data[:4096]) + checksum.block_checksums(data[4096:8192])
            + checksum.block_checksums(data[8192:]), checksum.block_checksums(data))

    def test_splicing(self):
        rng = random.Random(3)
        for length in (4096, 568):
            old = rng.randbytes(length)
            for start, end in ((0, 10), (5, 500), (length - 3, length), (0, length)):
                new = rng.randbytes(end - start)
                self.assertEqual(
                    checksum.block_checksums(old[:start] + new + old[end:]),
                    [checksum.spliced_checksum(old, start, memoryview(new))])

    def test_any_library_gives_the_same(self):
        from crcmod.predefined import mkPredefinedCrcFun
        other = mkPredefinedCrcFun("crc-32c")
        data = random.Random(4).randbytes(300)
        self.assertEqual(other(data), checksum.crc32c(data))
        self.assertEqual(other(memoryview(data)[100:], other(data[:100])),
                         checksum.crc32c(memoryview(data)[100:], checksum.crc32c(data[:100])))
        self.assertEqual(checksum.crc32c(data, 12345), other(data, 12345))
