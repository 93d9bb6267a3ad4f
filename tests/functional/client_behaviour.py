"""What the client does with any cluster, ours or one of C sheep.

Each function of :data:`BEHAVIOURS` takes a client and a name that no VDI has.
"""

import io
import os
import random
import tempfile
import threading

import pytest

from sheepstack.client import (
    AttributeExists, Closed, NoSuchAttribute, NoSuchTag, NoSuchVdi, NotSupported, ReadOnly,
    TagExists, VdiExists)
from tests.functional.harness import wait_until

MIB = 1 << 20
OBJECT = 4 * MIB


def noise(length, seed):
    return random.Random(seed).randbytes(length)


def bytes_come_back(client, name):
    client.create_vdi(name, 40 * MIB)
    data = noise(9 * MIB + 100, 1)
    with client.open_vdi(name) as vdi:
        assert vdi.pread(0, vdi.size) == bytes(40 * MIB)
        assert vdi.pwrite(3 * MIB + 7, data) == len(data)
        assert vdi.pread(3 * MIB, len(data) + 20) == bytes(7) + data + bytes(13)
        assert vdi.extents(0, vdi.size) == [(0, 4 * OBJECT, True), (4 * OBJECT, 24 * MIB, False)]
        assert vdi.extents(4 * OBJECT - 5, 10) == [
            (4 * OBJECT - 5, 5, True), (4 * OBJECT, 5, False)]
        vdi.pwrite(40 * MIB - 3, b"end")
        assert vdi.pread(40 * MIB - 4, 100) == b"\0end"
        assert vdi.pread(40 * MIB, 1) == b""
        buffer = bytearray(b"x" * 12)
        assert vdi.preadinto(40 * MIB - 2, buffer) == 2
        assert buffer == b"nd" + b"x" * 10
        for offset, length in ((40 * MIB - 3, 4), (-1, 2), (41 * MIB, 1)):
            with pytest.raises(ValueError):
                vdi.pwrite(offset, bytes(length))
        vdi.pwrite(0, b"")
        vdi.flush()
    with pytest.raises(Closed):
        vdi.pread(0, 1)
    with client.open_vdi(name, read_only=True) as vdi:
        assert vdi.pread(3 * MIB + 7, len(data)) == data
        with pytest.raises(ReadOnly):
            vdi.pwrite(0, b"x")


def snapshots_keep_what_was(client, name):
    client.create_vdi(name, 40 * MIB)
    first, second = noise(2 * OBJECT, 3), noise(OBJECT, 4)
    clone = name + "-clone"
    with client.open_vdi(name) as vdi:
        vdi.pwrite(0, first)
        old_id = vdi.vdi_id
        assert vdi.snapshot("one") == old_id != vdi.vdi_id
        vdi.pwrite(100, second[:1000])
        vdi.pwrite(OBJECT, second)
        client.clone(name, "one", clone)
        with pytest.raises(TagExists):
            vdi.snapshot("one")
        with pytest.raises(TagExists):
            client.snapshot(name, "one")
        assert vdi.pread(0, 2 * OBJECT) == (
            first[:100] + second[:1000] + first[1100:OBJECT] + second)
    with client.open_vdi(clone) as vdi:
        assert vdi.pread(0, 2 * OBJECT) == first
        vdi.pwrite(OBJECT, second)
        assert vdi.pread(OBJECT, OBJECT) == second
    assert client.snapshot(name, "two").vdi_id == client.lookup(name, "two").vdi_id
    with client.open_vdi(name, "one") as vdi, client.open_vdi(name, 1) as same:
        assert vdi.is_snapshot and vdi.read_only and vdi.vdi_id == same.vdi_id == old_id
        assert vdi.pread(0, 2 * OBJECT) == first
    client.rollback(name, "one")
    with client.open_vdi(name) as vdi:
        assert vdi.pread(0, 2 * OBJECT) == first
    tags = {(header.tag, header.is_snapshot) for header in client.list_vdis()
            if header.name == name}
    assert tags == {("one", True), ("two", True), ("", False)}
    client.delete_vdi(name)
    client.delete_vdi(name, "one")
    with client.open_vdi(name, "two") as vdi:
        assert vdi.pread(OBJECT, OBJECT) == second
    client.rollback(name, "two", former="former")
    assert {header.tag for header in client.list_vdis() if header.name == name} == {"two", ""}
    with client.open_vdi(name) as vdi:
        assert vdi.pread(OBJECT, OBJECT) == second
    client.delete_vdi(name, "two")
    client.delete_vdi(name)
    with client.open_vdi(clone) as vdi:
        assert vdi.pread(0, 2 * OBJECT) == first[:OBJECT] + second
    client.delete_vdi(clone)
    for gone in (name, clone):
        with pytest.raises(NoSuchVdi):
            client.lookup(gone)
        with pytest.raises(NoSuchVdi):
            client.delete_vdi(gone)


def a_writer_follows_the_snapshots_of_others(client, name):
    client.create_vdi(name, 40 * MIB)
    with client.open_vdi(name) as vdi:
        vdi.pwrite(0, b"one")
        client.snapshot(name, "first")
        vdi.pwrite(0, b"two")
        client.snapshot(name, "second")
        write = vdi.submit_pwrite(1, b"...")
        assert write.result() is None
        client.snapshot(name, "third")
        vdi.pwrite(OBJECT, b"new")
        client.snapshot(name, "fourth")
        vdi.discard(0, OBJECT)
        client.snapshot(name, "fifth")
        vdi.resize(44 * MIB)
        assert vdi.pread(0, 4) == bytes(4)
        assert vdi.pread(OBJECT, 4) == b"new\0"
    for tag, content in (("first", b"one\0"), ("second", b"two\0"), ("third", b"t..."),
                         ("fourth", b"t..."), ("fifth", bytes(4))):
        with client.open_vdi(name, tag) as vdi:
            assert vdi.pread(0, 4) == content, tag
    assert client.header(name).vdi_size == 44 * MIB
    assert client.header(name, "fifth").vdi_size == 40 * MIB


def wrong_names_have_their_own_errors(client, name):
    client.create_vdi(name, MIB)
    with pytest.raises(VdiExists):
        client.create_vdi(name, MIB)
    client.snapshot(name, "tag")
    with pytest.raises(VdiExists):
        client.clone(name, "tag", name)
    for call in (client.open_vdi, client.lookup, client.delete_vdi, client.rollback):
        with pytest.raises(NoSuchTag):
            call(name, "none")
        with pytest.raises(NoSuchTag):
            call(name, 1000)
    with pytest.raises(NoSuchVdi):
        client.open_vdi(name + "-none")
    with pytest.raises(NoSuchVdi):
        client.snapshot(name + "-none", "tag")
    with pytest.raises(NotSupported):
        client.create_vdi(name + "-hyper", MIB, hyper=True)
    for call in (lambda: client.create_vdi("", MIB), lambda: client.create_vdi("x" * 256, MIB),
                 lambda: client.create_vdi(name + "-big", 5 << 40),
                 lambda: client.snapshot(name, ""), lambda: client.clone(name, None, "c"),
                 lambda: client.open_vdi(name, lock="none")):
        with pytest.raises(ValueError):
            call()


def attributes_are_kept(client, name):
    client.create_vdi(name, MIB)
    client.snapshot(name, "tag")
    client.setattr(name, "key", b"one" * 1000)
    assert client.getattr(name, "key") == b"one" * 1000
    client.setattr(name, "key", b"two")
    assert client.getattr(name, "key") == b"two"
    client.setattr(name, "key", b"of the snapshot", snapshot="tag")
    assert client.getattr(name, "key") == b"two"
    assert client.getattr(name, "key", "tag") == b"of the snapshot"
    with pytest.raises(AttributeExists):
        client.setattr(name, "key", b"", exclusive=True)
    client.setattr(name, "empty", b"", exclusive=True)
    assert client.getattr(name, "empty") == b""
    client.delattr(name, "key")
    for call in (client.getattr, client.delattr):
        with pytest.raises(NoSuchAttribute):
            call(name, "key")
        with pytest.raises(NoSuchVdi):
            call(name + "-none", "key")


def what_is_discarded_reads_as_zeros(client, name):
    client.create_vdi(name, 5 * OBJECT - 1000)
    data = noise(5 * OBJECT - 1000, 6)
    with client.open_vdi(name) as vdi:
        vdi.pwrite(0, data)
        vdi.discard(100, 3 * OBJECT)
        expected = bytearray(data)
        expected[OBJECT:3 * OBJECT] = bytes(2 * OBJECT)
        assert vdi.pread(0, len(data)) == expected
        vdi.write_zeroes(3 * OBJECT + 50, 2 * OBJECT - 1050)
        expected[3 * OBJECT + 50:] = bytes(2 * OBJECT - 1050)
        assert vdi.pread(0, len(data)) == expected
        assert vdi.extents(0, len(data)) == [
            (0, OBJECT, True), (OBJECT, 2 * OBJECT, False), (3 * OBJECT, OBJECT, True),
            (4 * OBJECT, OBJECT - 1000, False)]
        vdi.pwrite(2 * OBJECT - 10, b"x" * 20)
        expected[2 * OBJECT - 10:2 * OBJECT + 10] = b"x" * 20
        vdi.snapshot("s")
        vdi.discard(0, len(data))
        assert vdi.pread(0, len(data)) == bytes(len(data))
    with client.open_vdi(name) as vdi, client.open_vdi(name, "s") as snapshot:
        assert vdi.extents(0, len(data)) == [(0, len(data), False)]
        assert snapshot.pread(0, len(data)) == expected


def sizes_change(client, name):
    client.create_vdi(name, 64 * MIB)
    with client.open_vdi(name) as vdi:
        vdi.pwrite(10 * MIB, b"y" * MIB)
        vdi.resize(10 * MIB + 5)
        assert vdi.pread(10 * MIB, MIB) == b"yyyyy"
        vdi.resize(100 * MIB)
        assert vdi.pread(10 * MIB, MIB) == b"yyyyy" + bytes(MIB - 5)
        vdi.pwrite(100 * MIB - 3, b"end")
        for size in (-1, (4 << 40) + 1):
            with pytest.raises(ValueError):
                vdi.resize(size)
    with client.open_vdi(name) as vdi:
        assert vdi.size == 100 * MIB
        assert vdi.pread(100 * MIB - 3, 10) == b"end"
    client.resize(name, 101 * MIB)
    assert client.header(name).vdi_size == 101 * MIB


def all_can_be_allocated_before(client, name):
    client.create_vdi(name, 18 * MIB + 5, copies=1, block_size_shift=20, prealloc=True)
    header = client.header(name)
    assert (header.nr_copies, header.block_size_shift) == (1, 20)
    with client.open_vdi(name) as vdi:
        assert vdi.block_size == MIB
        assert vdi.extents(0, vdi.size) == [(0, 18 * MIB + 5, True)]
        assert vdi.pread(0, vdi.size) == bytes(18 * MIB + 5)
        vdi.pwrite(MIB - 2, b"over")
        vdi.snapshot("s")
        vdi.preallocate()
        assert vdi.pread(MIB - 3, 6) == b"\0over\0"


def futures_end(client, name):
    client.create_vdi(name, 64 * MIB)
    with client.open_vdi(name) as vdi:
        writes = [vdi.submit_pwrite(i * 4096, bytes([i]) * 4096) for i in range(200)]
        for write in writes:
            assert write.result() is None
            assert write.done() and write.exception() is None
        seen = []
        for i in range(200):
            vdi.submit_pread(i * 4096, 4096).add_done_callback(
                lambda future: seen.append(future.result()[0]))
        wait_until(lambda: sorted(seen) == list(range(200)), 10, "all callbacks")
        across = vdi.submit_pwrite(OBJECT - 4, b"12345678")
        vdi.flush()
        assert across.done()
        assert vdi.submit_pread(OBJECT - 4, 8).result(10) == b"12345678"
        assert vdi.submit_pread(60 * MIB, 8).result() == bytes(8)
        last = vdi.submit_pwrite(0, b"last")
    assert last.done()
    with client.open_vdi(name) as vdi:
        assert vdi.pread(0, 4) == b"last"


def copies_skip_zeros(client, name):
    client.create_vdi(name, 64 * MIB)
    source = tempfile.TemporaryFile()
    source.truncate(40 * MIB)
    for position, data in ((9 * MIB, noise(MIB, 7)), (33 * MIB, noise(5 * MIB, 8))):
        source.seek(position)
        source.write(data)
    source.seek(0)
    content = source.read()
    source.seek(0)
    steps = []
    with source, client.open_vdi(name) as vdi:
        assert vdi.copy_in(source, progress=steps.append) == 40 * MIB
        assert steps == [OBJECT * i for i in range(1, 11)]
        assert [extent for extent in vdi.extents(0, vdi.size) if extent[2]] == [
            (2 * OBJECT, OBJECT, True), (8 * OBJECT, 2 * OBJECT, True)]
        with tempfile.TemporaryFile() as target:
            assert vdi.copy_out(target, length=40 * MIB) == 40 * MIB
            assert os.fstat(target.fileno()).st_blocks * 512 < 16 * MIB
            target.seek(0)
            assert target.read() == content
        target = io.BytesIO()
        assert vdi.copy_out(target, 9 * MIB - 5, 100, sparse=False) == 100
        assert target.getvalue() == content[9 * MIB - 5:][:100]
        # Zeros take the place of data, too.
        assert vdi.copy_in(io.BytesIO(bytes(OBJECT)), 8 * OBJECT + 1) == OBJECT
        assert vdi.pread(8 * OBJECT, 2 * OBJECT) == (
            content[8 * OBJECT:8 * OBJECT + 1] + bytes(OBJECT) + content[9 * OBJECT + 1:])
        assert vdi.copy_in(io.BytesIO(b"abc"), 64 * MIB - 3) == 3
        assert vdi.copy_in(io.BytesIO(b"abcd"), 64 * MIB - 3, 3) == 3
        with pytest.raises(ValueError):
            vdi.copy_in(io.BytesIO(b"abcd"), 64 * MIB - 3)


def a_vdi_is_a_file(client, name):
    client.create_vdi(name, MIB)
    with client.open_vdi(name) as vdi:
        with vdi.open_file() as file:
            assert file.seekable() and file.readable() and file.writable()
            assert file.write(b"some text\nand more\n") == 19
            assert file.tell() == 19 and file.seek(-3, os.SEEK_END) == MIB - 3
            assert file.write(b"12345") == 3
            with pytest.raises(OSError):
                file.write(b"4")
            assert file.read() == b""
            file.seek(5)
            assert file.read(4) == b"text"
            assert len(file.read()) == MIB - 9
            assert file.truncate(MIB + 10) == MIB + 10
            with pytest.raises(ValueError):
                file.seek(-1)
        with pytest.raises(ValueError):
            file.read()
        assert vdi.pread(MIB - 3, 20) == b"123" + bytes(10)
        with io.BufferedReader(vdi.open_file()) as file:
            assert file.readline() == b"some text\n"
            assert file.readline() == b"and more\n"
    with client.open_vdi(name, read_only=True) as vdi, vdi.open_file() as file:
        assert not file.writable()
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")


def many_threads_share_a_vdi(client, name):
    client.create_vdi(name, 64 * MIB)
    with client.open_vdi(name) as vdi:
        with Model(vdi, threads=8, blocks=8192) as model:
            for number in range(3):
                before = model.writes
                wait_until(lambda: model.writes > before + 150, 30, "writes")
                client.snapshot(name, "s%d" % number)
        model.check(vdi)
        vdi.reload()
        model.check(vdi)
    with client.open_vdi(name) as vdi:
        model.check(vdi)


def sharers_see_each_other(client, name):
    client.create_vdi(name, 40 * MIB)
    with client.open_vdi(name) as vdi:
        vdi.pwrite(0, b"old")
        vdi.snapshot("s")
    with client.open_vdi(name, lock="shared") as mine, \
            client.open_vdi(name, lock="shared") as yours:
        assert yours.pread(0, 2 * OBJECT) == mine.pread(0, 2 * OBJECT) == (
            b"old" + bytes(2 * OBJECT - 3))
        mine.pwrite(1, b"new")
        assert yours.pread(0, 5) == b"onew\0"
        yours.pwrite(5, b"too")
        mine.pwrite(OBJECT, b"mine")
        yours.pwrite(OBJECT + 4, b"yours")
        assert mine.pread(OBJECT, 9) == yours.pread(OBJECT, 9) == b"mineyours"
        assert mine.pread(0, 8) == b"onew\0too"
        mine.discard(0, OBJECT)
        assert yours.pread(0, 8) == bytes(8)
        yours.pwrite(2, b"x")
        assert mine.pread(0, 4) == b"\0\0x\0"


BEHAVIOURS = (
    bytes_come_back, snapshots_keep_what_was, a_writer_follows_the_snapshots_of_others,
    wrong_names_have_their_own_errors, attributes_are_kept, what_is_discarded_reads_as_zeros,
    sizes_change, all_can_be_allocated_before, futures_end, copies_skip_zeros, a_vdi_is_a_file,
    sharers_see_each_other, many_threads_share_a_vdi)


class Model:
    """Threads that write blocks of a VDI, each its own, and what the VDI must hold then.

    Every block is read back at once.  On leaving it raises what went wrong in a thread.
    """

    BLOCK = 8192

    def __init__(self, vdi, threads, blocks):
        self.content = {}
        self.writes = 0
        self._vdi = vdi
        self._blocks = blocks
        self._errors = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number, threads))
                         for number in range(threads)]

    def _run(self, number, step):
        chance = random.Random(number)
        try:
            while not self._stopping.is_set():
                block = chance.randrange(self._blocks // step) * step + number
                data = bytes([chance.randrange(1, 256)]) * self.BLOCK
                self._vdi.pwrite(block * self.BLOCK, data)
                self.content[block] = data
                self.writes += 1
                assert self._vdi.pread(block * self.BLOCK, self.BLOCK) == data, block
        except BaseException as error:
            self._errors.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def check(self, vdi):
        for block, data in self.content.items():
            assert vdi.pread(block * self.BLOCK, self.BLOCK) == data, "block %d" % block
