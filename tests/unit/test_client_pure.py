"""The parts of the client that touch no socket."""

import unittest
from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from sheepstack.client import address
from sheepstack.client.call import ByteBuffer, ControlCall, ReadCall, object_call
from sheepstack.client.errors import NoSuchVdi, SheepError, error_for
from sheepstack.client.inode_map import PAGE_BYTES, PAGE_ENTRIES, InodeMap, packed_run
from sheepstack.client.inventory import set_bits
from sheepstack.client.outbox import rest_of
from sheepstack.client.sparse_copy import nonzero_span
from sheepstack.client.splitting import runs, split
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import Header, ObjRequest
from sheepstack.wire.inode import pack_map
from sheepstack.wire.inode_layout import DATA_INDEX
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.results import Result


class SplitTest(unittest.TestCase):
    @given(st.integers(0, 1 << 45), st.integers(0, 1 << 24), st.integers(20, 31))
    def test_parts_cover_the_range_and_stay_in_their_objects(self, offset, length, shift):
        position = offset
        for part in split(offset, length, shift):
            self.assertEqual((part.index << shift) + part.within, position)
            self.assertEqual(part.start, position - offset)
            self.assertGreater(part.length, 0)
            self.assertLessEqual(part.within + part.length, 1 << shift)
            position += part.length
        self.assertEqual(position, offset + length)

    @given(st.sets(st.integers(0, 60)), st.integers(1, 5))
    def test_runs(self, numbers, limit):
        found = list(runs(sorted(numbers), limit))
        covered = [n for first, count in found for n in range(first, first + count)]
        self.assertEqual(covered, sorted(numbers))
        for (first, count), (following, _) in zip(found, found[1:]):
            self.assertTrue(count == limit or first + count < following)
        self.assertTrue(all(0 < count <= limit for _, count in found))


class InodeMapTest(unittest.TestCase):
    def test_unknown_until_installed(self):
        known = InodeMap()
        self.assertIsNone(known.peek(5))
        self.assertEqual(known.missing(0, PAGE_ENTRIES), [0, 1])
        known.install(0, pack_map([7, 0, 9]))
        self.assertEqual([known.peek(i) for i in range(4)], [7, 0, 9, 0])
        self.assertEqual(known.missing(0, PAGE_ENTRIES), [1])
        self.assertEqual(known.pages(), [0])

    @settings(max_examples=20, deadline=None)
    @given(st.dictionaries(st.integers(0, DATA_INDEX - 1), st.integers(1, 0xFFFFFF), max_size=30))
    def test_whole_map(self, entries):
        image = array("I", bytes(4 * DATA_INDEX))
        for index, vid in entries.items():
            image[index] = vid
        known = InodeMap()
        # As a server sends it: without the zeros at the end.
        known.install_all(pack_map(image[:max(entries, default=-1) + 1]))
        self.assertEqual(list(known.used(0, DATA_INDEX - 1)), sorted(entries))
        self.assertEqual(known.missing(0, DATA_INDEX - 1), [])
        for index, vid in entries.items():
            self.assertEqual(known.peek(index), vid)
            self.assertIn(index, known.owned_by(vid))

    def test_used_stays_in_its_range(self):
        known = InodeMap()
        known.install(0, pack_map([1] * 10))
        known.install(1, pack_map([2]))
        self.assertEqual(list(known.used(3, 5)), [3, 4, 5])
        self.assertEqual(list(known.used(8, PAGE_ENTRIES)), [8, 9, PAGE_ENTRIES])
        known.set(4, 0)
        self.assertEqual(list(known.used(3, 5)), [3, 5])
        self.assertEqual(list(known.owned_by(1)), [0, 1, 2, 3, 5, 6, 7, 8, 9])

    def test_in_doubt_until_trusted_whatever_is_read(self):
        known = InodeMap()
        known.install(0, pack_map([1, 2, 3]))
        known.doubt([1])
        self.assertEqual([known.peek(i) for i in range(3)], [1, None, 3])
        self.assertEqual([known.missing(0, 0), known.missing(0, 1)], [[], [0]])
        # Of what is not in doubt we know better than who read it a moment ago.
        known.install(0, pack_map([7, 8, 9]))
        self.assertEqual([known.as_read(i) for i in range(3)], [1, 8, 3])
        self.assertIsNone(known.peek(1))
        known.trust([1])
        known.install(0, pack_map([7, 9, 9]))
        self.assertEqual([known.peek(i) for i in range(3)], [1, 8, 3])
        self.assertEqual(known.missing(0, 1), [])

    def test_a_page_has_one_size(self):
        known = InodeMap()
        known.install(63, bytes(PAGE_BYTES))
        self.assertEqual(known.peek(DATA_INDEX - 1), 0)

    def test_packed_run(self):
        self.assertEqual(packed_run({4: 1, 5: 2, 9: 3}, 4, 2), pack_map([1, 2]))


class CallTest(unittest.TestCase):
    @given(st.integers(0, 40), st.binary(max_size=40), st.integers(0, 40), st.booleans())
    def test_zeros_that_were_left_out_come_back(self, skipped, data, behind, large):
        expected = bytes(skipped) + data + bytes(behind)
        sink = bytearray(b"x" * len(expected))
        for call in (ReadCall(1, 0, len(expected)),
                     ReadCall(1, 0, len(expected), memoryview(sink))):
            if large:
                with call.open_sink(0, skipped, len(data)) as view:
                    view[:] = data
                call.close_sink()
            else:
                call.accept(0, skipped, memoryview(data))
            self.assertEqual(sink if call.sink is not None else call.data, expected)
            self.assertEqual(call.status, 0)

    def test_more_than_was_asked_for_is_refused(self):
        call = ReadCall(1, 0, 10)
        with self.assertRaises(RemoteProtocolError):
            call.accept(0, 5, memoryview(b"123456"))
        with self.assertRaises(RemoteProtocolError):
            call.open_sink(0, 5, 6)

    def test_an_error_leaves_the_sink_alone(self):
        sink = bytearray(b"12345")
        call = ReadCall(1, 0, 5, memoryview(sink))
        call.accept(Result.NO_OBJ, 0, memoryview(b""))
        self.assertEqual((call.status, sink), (Result.NO_OBJ, b"12345"))

    def test_byte_buffer(self):
        for length in (0, 1, 70000):
            buffer = ByteBuffer(length)
            buffer.view[:] = b"a" * length
            data = buffer.take()
            self.assertEqual((type(data), data), (bytes, b"a" * length))

    def test_headers_on_the_wire(self):
        call = object_call(int(Op.WRITE_OBJ), 0x5600000003, 4096, b"data", int(Flag.COW),
                           0x5500000003, 3, 0x21)
        request = ObjRequest.unpack(call.header)
        self.assertEqual(request, ObjRequest(
            Op.WRITE_OBJ, Flag.WRITE | Flag.COW, 0, call.ident, 4, 0x5600000003, 0x5500000003, 3,
            0x21, offset=4096))
        request = ObjRequest.unpack(ReadCall(0x5600000003, 512, 1024).header)
        self.assertEqual(request[:2] + request[4:7] + (request.offset,),
                         (Op.READ_OBJ, 0, 1024, 0x5600000003, 0, 512))

    def test_a_control_call_replaces_only_the_id(self):
        header = Header(10, 0x87, 3, 99, 1234, 48, bytes(range(32)))
        call = ControlCall(header.pack())
        self.assertEqual(Header.unpack(call.header), header._replace(id=call.ident))
        self.assertNotEqual(call.ident, ControlCall(header.pack()).ident)


class AddressTest(unittest.TestCase):
    def test_forms(self):
        for text, expected in (
                ("host", ("host", 7000, "")), ("host:81", ("host", 81, "")),
                ("[::1]:81", ("::1", 81, "")), ("[::1]", ("::1", 7000, "")),
                ("fe80::1", ("fe80::1", 7000, "")), ("10.0.0.1:7001", ("10.0.0.1", 7001, "")),
                ("unix:/a b", ("", 7000, "/a b"))):
            self.assertEqual(tuple(address.parse(text)), expected)
            self.assertEqual(address.parse(str(address.parse(text))), address.parse(text))

    def test_a_port_for_those_that_name_none(self):
        for text, port in (("h", 1), ("::1", 1), ("[::1]", 1), ("h:2", 2), ("[::1]:2", 2)):
            self.assertEqual(address.parse(text, 1).port, port)
        self.assertEqual(str(address.parse("unix:/s", 1)), "unix:/s")

    def test_nonsense(self):
        for text in ("", "unix:", "host:", "host:0", "host:65536", "host:x", ":7000", "[::1",
                     "[::1]x", "[]:70"):
            with self.assertRaises(ValueError, msg=text):
                address.parse(text)


class SparseTest(unittest.TestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 100), st.integers(0, 4096))
    def test_what_is_outside_of_the_span_is_zero(self, before, length, behind, odd):
        step = 1024
        data = bytes(before * step) + b"\1" * (length * step) + bytes(behind * step + odd)
        start, end = nonzero_span(data)
        if not length:
            self.assertEqual((start, end), (0, 0))
        else:
            self.assertLessEqual(start, before * step)
            self.assertLess(before * step - start, 64 * 1024)
            self.assertGreaterEqual(end, (before + length) * step)
            self.assertLess(end - (before + length) * step, 64 * 1024)
            self.assertLessEqual(end, len(data))


class BitsTest(unittest.TestCase):
    @given(st.sets(st.integers(0, 2000)))
    def test_set_bits(self, numbers):
        bitmap = bytearray(251)
        for number in numbers:
            bitmap[number // 8] |= 1 << number % 8
        self.assertEqual(list(set_bits(bytes(bitmap))), sorted(numbers))


class RestTest(unittest.TestCase):
    @given(st.lists(st.binary(min_size=1, max_size=9)), st.data())
    def test_rest_of(self, buffers, data):
        whole = b"".join(buffers)
        sent = data.draw(st.integers(0, len(whole)))
        rest = rest_of(list(buffers), sent)
        self.assertEqual(b"".join(rest), whole[sent:])
        self.assertTrue(all(len(buffer) for buffer in rest))


class ErrorsTest(unittest.TestCase):
    def test_every_result_has_an_error(self):
        for result in Result:
            error = error_for(result, "it")
            self.assertIsInstance(error, SheepError)
            self.assertEqual(error.result, result)
        self.assertIsInstance(error_for(Result.NO_VDI, "it"), NoSuchVdi)
        self.assertEqual(str(error_for(0x7777, "it")), "it: Invalid error code 0x7777")
