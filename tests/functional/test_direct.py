"""Clients that read objects out of the page cache of a sheep on their host, and when not to."""

import os
import pathlib
import subprocess
import sys
import threading

import pytest

from sheepstack.client import Cluster
from sheepstack.wire import direct
from sheepstack.wire.admin import SheepStat
from sheepstack.wire.header import ClusterRequest, version_of
from sheepstack.wire.oid import data_oid
from sheepstack.wire.opcodes import Op
from tests.functional.harness import wait_until

pytestmark = pytest.mark.skipif(not direct.is_possible(), reason="another processor")

MIB = 1 << 20
OBJECT = 4 * MIB
BLOCK = 4096
_STAT_SIZE = 216


def open_disk(client, name="disk", size=16 * MIB, **options):
    """A new VDI, open, with noise in its first two objects."""
    client.create_vdi(name, size, **options)
    vdi = client.open_vdi(name)
    vdi.pwrite(0, os.urandom(2 * OBJECT))
    return vdi


def file_of(vdi, index=0):
    """The file that the client has of an object of the VDI, or None."""
    return vdi._files.get(data_oid(vdi._inode.entry(index), index))


def until_direct(vdi, offset=0):
    """Read until that is done directly; the file."""
    def is_direct():
        vdi.pread(offset, BLOCK)
        before = vdi._files.reads
        vdi.pread(offset, BLOCK)
        # The count is told, and begins anew, once a second.
        return vdi._files.reads > before

    wait_until(is_direct, 30, "a direct read")
    return file_of(vdi, offset // OBJECT)


def stat(client):
    request = ClusterRequest(Op.STAT, data_length=_STAT_SIZE, proto_ver=version_of(Op.STAT))
    return SheepStat.unpack(client.execute(request)[1])


def test_reads_are_direct_and_counted(cluster):
    client = cluster.client(0)
    with open_disk(client) as vdi:
        content = vdi.pread(0, 2 * OBJECT)
        until_direct(vdi)
        until_direct(vdi, OBJECT)
        before = stat(client)
        for _ in range(50):
            assert vdi.pread(BLOCK, BLOCK) == content[BLOCK:2 * BLOCK]
            assert vdi.submit_pread(7, 100).result() == content[7:107]
            assert vdi.pread(OBJECT - 10, 20) == content[OBJECT - 10:OBJECT + 10]
        buffer = bytearray(2 * OBJECT)
        assert vdi.preadinto(0, buffer) == len(buffer)
        assert buffer == content
        assert vdi.pread(3 * OBJECT, BLOCK) == bytes(BLOCK)

        def told():
            after = stat(client)
            return (after.gway_total_read_nr - before.gway_total_read_nr >= 150
                    and after.gway_total_tx - before.gway_total_tx > 2 * OBJECT)

        wait_until(told, 10, "the statistics")


def test_it_can_be_switched_off_at_either_end(make_cluster):
    cluster = make_cluster(2, copies=2)
    with open_disk(cluster.client(0)) as vdi:
        until_direct(vdi)
    with cluster.client(0, direct=False) as client, client.open_vdi("disk") as vdi:
        for _ in range(5):
            vdi.pread(0, OBJECT)
        assert file_of(vdi) is None
    cluster.terminate(1)
    cluster.restart(1, "--no-direct")
    cluster.wait_recovered()
    with cluster.client(1) as client, client.open_vdi("disk") as vdi:
        for _ in range(5):
            vdi.pread(0, OBJECT)
        assert file_of(vdi) is None


def test_through_the_unix_socket(cluster):
    with Cluster("unix:%s" % cluster.sheep[0].socket) as client, open_disk(client) as vdi:
        until_direct(vdi)


def test_with_a_secret(make_cluster):
    cluster = make_cluster(1, copies=1, settings={"auth_key": b"k" * 32})
    with open_disk(cluster.client(0)) as vdi:
        until_direct(vdi)


def test_what_others_wrote_is_seen_once_it_is_acknowledged(cluster):
    """Also never goes back, whoever reads which way."""
    first, second = cluster.client(0), cluster.client(1)
    open_disk(first).close()
    acknowledged = [0]
    stop = threading.Event()
    complaints = []

    def write(client):
        with client.open_vdi("disk", lock=False) as vdi:
            value = 0
            while not stop.is_set():
                value += 1
                vdi.pwrite(0, value.to_bytes(8, "little") * (2 * BLOCK // 8))
                acknowledged[0] = value

    def read(client, options):
        seen = reads = 0
        with client.open_vdi("disk", read_only=True) as vdi:
            while not stop.is_set() and reads < 1_000_000:
                least = max(seen, acknowledged[0])
                data = vdi.pread(0, 2 * BLOCK)
                seen = int.from_bytes(data[:8], "little")
                reads += 1
                if acknowledged[0] and (data != data[:8] * (2 * BLOCK // 8) or seen < least):
                    complaints.append((least, seen))
                    return

    second.open_vdi("disk", lock=False).pwrite(0, bytes(2 * BLOCK))
    threads = [threading.Thread(target=write, args=(second,)),
               threading.Thread(target=read, args=(first, {})),
               threading.Thread(target=read, args=(cluster.client(2), {})),
               threading.Thread(target=read, args=(second, {}))]
    for thread in threads:
        thread.start()
    wait_until(lambda: acknowledged[0] > 500 or complaints, 60, "writes")
    stop.set()
    for thread in threads:
        thread.join()
    assert not complaints


def test_own_writes_are_seen_at_once(cluster):
    with open_disk(cluster.client(0)) as vdi:
        file = until_direct(vdi)
        for value in range(200):
            data = bytes([value]) * BLOCK
            vdi.pwrite(BLOCK, data)
            assert vdi.pread(BLOCK, BLOCK) == data
            # Not only by way of the sheep.
            assert file.read(BLOCK, BLOCK) == data


@pytest.mark.everywhere
def test_a_stopped_sheep_serves_nothing_once_its_lease_is_over(make_cluster):
    cluster = make_cluster(3)
    reader = cluster.client(0)
    with open_disk(cluster.client(1)) as writer, reader.open_vdi(
            "disk", read_only=True) as vdi:
        old = b"o" * BLOCK
        writer.pwrite(0, old)
        file = until_direct(vdi)
        assert vdi.pread(0, BLOCK) == old
        cluster.stop(0)
        try:
            # Goes on when the sheep is out of the map, which it does not know of.
            writer.pwrite(0, b"n" * BLOCK)
            assert file.read(0, BLOCK) is None
            assert not file.read_into(0, memoryview(bytearray(BLOCK)))
        finally:
            cluster.cont(0)
        assert file.read(0, BLOCK) is None
        assert vdi.pread(0, BLOCK) == b"n" * BLOCK
        cluster.wait_recovered()
        until_direct(vdi)
        assert vdi.pread(0, BLOCK) == b"n" * BLOCK


@pytest.mark.everywhere
def test_a_killed_sheep_serves_nothing(make_cluster):
    cluster = make_cluster(3)
    with open_disk(cluster.client()) as vdi:
        file = until_direct(vdi)
        held = file.read(0, BLOCK)
        cluster.kill(0)
        assert file.read(0, BLOCK) is None
        assert vdi.pread(0, BLOCK) == held
        del file
        wait_until(lambda: file_of(vdi) is None or file_of(vdi).generation
                   == vdi._pool.generation, 10, "the files to be let go of")


def test_a_map_change_ends_all_files(make_cluster):
    cluster = make_cluster(3)
    with open_disk(cluster.client(0)) as vdi:
        file = until_direct(vdi)
        cluster.add()
        cluster.wait_members()
        assert file.read(0, BLOCK) is None and file.is_over()
        cluster.wait_recovered()
        held = vdi.pread(0, 2 * OBJECT)
        for _ in range(3):
            assert vdi.pread(0, 2 * OBJECT) == held


def test_what_becomes_of_an_object_is_noticed(cluster):
    client = cluster.client(0)
    with open_disk(client) as vdi:
        file = until_direct(vdi)
        vdi.discard(0, OBJECT)
        assert file.read(0, BLOCK) in (None, bytes(BLOCK))
        assert vdi.pread(0, BLOCK) == bytes(BLOCK)
        vdi.pwrite(0, b"made anew" * 500)
        assert vdi.pread(0, 9) == b"made anew"
        until_direct(vdi)
        assert vdi.pread(0, 9) == b"made anew"
        vdi.snapshot("tag")
        vdi.pwrite(0, b"after it")
        until_direct(vdi)
        assert vdi.pread(0, 8) == b"after it"
        with client.open_vdi("disk", "tag") as frozen:
            until_direct(frozen)
            assert frozen.pread(0, 9) == b"made anew"
        file = file_of(vdi)
    client.rollback("disk", "tag")
    with client.open_vdi("disk") as vdi:
        until_direct(vdi)
        assert vdi.pread(0, 9) == b"made anew"
    client.delete_vdi("disk", "tag")
    client.delete_vdi("disk")
    wait_until(file.is_over, 30, "the object to be removed")
    assert file.read(0, BLOCK) is None
    number = file._fd
    del file, vdi, frozen
    # Its space is given back though nobody reads any more.
    wait_until(lambda: not is_open(number), 10, "the file to be closed")


def is_open(number):
    try:
        return "(deleted)" in os.readlink("/proc/self/fd/%d" % number)
    except OSError:
        return False


def test_rot_is_noticed_and_repaired(cluster):
    with open_disk(cluster.client(0)) as vdi:
        wait_until(lambda: len(cluster.object_files(data_oid(vdi.vdi_id, 0))) == 3, 10, "copies")
        held = vdi.pread(0, OBJECT)
        until_direct(vdi)
        path = next(path for path in cluster.object_files(data_oid(vdi.vdi_id, 0))
                    if cluster.index_of_path(path) == 0)
        for position, offset, length in ((5000, BLOCK, BLOCK), (9000, 9000, 1), (77, 0, OBJECT)):
            with open(path, "r+b") as file:
                file.seek(position)
                byte = file.read(1)[0]
                file.seek(position)
                file.write(bytes([byte ^ 4]))
            assert vdi.pread(offset, length) == held[offset:offset + length]
            with open(path, "rb") as file:
                file.seek(position)
                assert file.read(1)[0] == byte
        until_direct(vdi)
        assert vdi.pread(0, OBJECT) == held


def test_an_object_that_is_cut_into_strips(make_cluster):
    cluster = make_cluster(3, settings={"options": ("--strip-after", "0.2")})
    client = cluster.client(0)
    with open_disk(client, policy="2:1") as vdi:
        held = vdi.pread(0, 2 * OBJECT)
        oid = data_oid(vdi.vdi_id, 0)
        wait_until(lambda: not cluster.object_files(oid), 60, "strips")
        assert vdi.pread(0, BLOCK) == held[:BLOCK]
        file = file_of(vdi)
        assert file is None or file.read(0, BLOCK) is None
        vdi.pwrite(0, b"whole again")
        assert vdi.pread(0, 2 * OBJECT) == b"whole again" + held[11:]


def test_a_child_reads_by_itself(cluster):
    with open_disk(cluster.client(0)) as vdi:
        file = until_direct(vdi)
        held = vdi.pread(0, BLOCK)
        child = os.fork()
        if not child:
            status = 1
            try:
                if file_of(vdi) is None and vdi.pread(0, BLOCK) == held:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert file.read(0, BLOCK) == vdi.pread(0, BLOCK) == held


def test_a_stopped_sheep_does_not_keep_readers(make_cluster):
    """While it may still serve, asking it for a file must not take long."""
    cluster = make_cluster(3)
    with open_disk(cluster.client(0)) as vdi:
        until_direct(vdi)
        page = vdi._files._page
        cluster.stop(0)
        wait_until(lambda: is_stopped(cluster.sheep[0].process.pid), 10, "all threads to stop")
        try:
            with pytest.raises(OSError):
                page.open(data_oid(vdi.vdi_id, 1), 0, 0)
        finally:
            cluster.cont(0)


def is_stopped(pid):
    states = [path.read_text().rpartition(")")[2].split()[0]
              for path in pathlib.Path("/proc/%d/task" % pid).glob("*/stat")]
    return set(states) == {"T"}


_GREEN = """
from sheepstack import runtime
runtime.choose("eventlet")
import sys, threading
from sheepstack.client import Cluster
with Cluster(sys.argv[1:]) as client, client.open_vdi("disk", read_only=True) as vdi:
    turns = []
    stop = threading.Event()
    def turn():
        while not stop.is_set():
            turns.append(1)
            stop.wait(0.001)
    thread = threading.Thread(target=turn)
    thread.start()
    for _ in range(3):
        vdi.pread(0, 4096)
    before = len(turns)
    for _ in range(100_000):
        vdi.pread(0, 4096)
    print(vdi._files.get(next(iter(vdi._files._files))) is not None, len(turns) - before > 20)
    stop.set()
    thread.join()
"""


@pytest.mark.deployment("eventlet+local")
def test_green_threads_have_their_turns(cluster):
    open_disk(cluster.client(0)).close()
    done = subprocess.run([sys.executable, "-c", _GREEN, *cluster.addresses],
                          capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "True"], done.stderr


@pytest.mark.deployment("eventlet+local")
def test_nobody_who_is_not_attached_gets_a_file(cluster):
    from sheepstack.client.direct import exchange
    from sheepstack.wire.header import OBJ_REQUEST, RESULT_RESPONSE, Header
    from sheepstack.wire.opcodes import Flag
    from sheepstack.wire.results import Result
    from sheepstack.client.address import GatewayAddress, parse

    with open_disk(cluster.client(0)) as vdi:
        until_direct(vdi)
        ask = OBJ_REQUEST.pack(2, Op.DIRECT_OPEN, 0, 0, 1, 0, data_oid(vdi.vdi_id, 0), 0, 0, 0, 0,
                               0, 0, 0)
        request = direct.attach_request(b"x" * direct.TOKEN_SIZE)
        guess = Header(10, Op.DIRECT_ATTACH, Flag.WRITE, 0, 2, len(request)).pack() + request
        for address in (GatewayAddress(path=str(cluster.sheep[0].socket)),
                        parse(cluster.addresses[0])):
            sock = address.connect(5)
            with sock:
                for message, wanted in (
                        (ask, {Result.INVALID_PARMS}),
                        (guess, {Result.NOT_AUTHENTICATED, Result.INVALID_PARMS}),
                        (ask, {Result.INVALID_PARMS})):
                    header, _, descriptor = exchange(sock, message, 0)
                    assert descriptor is None
                    assert RESULT_RESPONSE.unpack(header)[6] in wanted


def test_a_sheep_in_another_store_is_not_taken_for_ours(make_cluster):
    """The path that a sheep tells may mean another sheep's socket to us."""
    cluster = make_cluster(2, copies=2)
    with open_disk(cluster.client(0)) as vdi:
        vdi.pread(0, BLOCK)
        ours, other = (cluster.sheep[index].socket for index in (0, 1))
        os.rename(ours, str(ours) + ".away")
        os.symlink(other, ours)
        try:
            for _ in range(4):
                vdi.pread(0, OBJECT)
            assert file_of(vdi) is None
        finally:
            os.unlink(ours)
            os.rename(str(ours) + ".away", ours)
