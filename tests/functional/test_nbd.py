"""VDIs over NBD: ``sheep-nbd`` with Debian's nbdkit, libnbd and QEMU's tools."""

import errno
import os
import random
import socket
import subprocess
import sys
import threading

import pytest

from sheepstack.client import VdiLocked
from tests.functional.client_behaviour import MIB, OBJECT, noise
from tests.functional.harness import wait_until
from tests.functional.nbd import (
    COMMAND, MISSING, NBDSH, NbdServer, info, io, listing, run, script)

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason="not installed: %s" % ", ".join(MISSING)),
    pytest.mark.deployment("eventlet+local"),
]

SIZE = 32 * MIB


@pytest.fixture
def cluster(make_cluster):
    """One sheep of a cluster that uses locks."""
    return make_cluster(nodes=1, copies=1, settings={"sync": False}, format_options=["-l"])


@pytest.fixture
def client(cluster):
    client = cluster.client()
    client.create_vdi("disk", SIZE)
    return client


@pytest.fixture
def serve(cluster, tmp_path):
    """Function that starts a server; its options are those of :class:`NbdServer`."""
    servers = []

    def serve(*options, **more):
        servers.append(NbdServer(tmp_path, cluster.addresses, *options, **more))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def server(serve, client, request):
    """On a Unix socket, or where a test asks for "tcp"."""
    return serve(tcp=getattr(request, "param", "unix") == "tcp")


over_both = pytest.mark.parametrize("server", ["unix", "tcp"], indirect=True)


def read_vdi(client, snapshot=None, name="disk"):
    with client.open_vdi(name, snapshot, read_only=True) as vdi:
        return vdi.pread(0, vdi.size)


# -- what is exported

def test_vdis_and_snapshots_are_exports(client, serve):
    client.create_vdi("a/b c@d", 5 * MIB + 512)
    client.snapshot("disk", "tag")
    client.snapshot("disk", "0")
    server = serve()
    found = listing(server.uri())
    assert {name: export["export-size"] for name, export in found.items()} == {
        "disk": SIZE, "disk@tag": SIZE, "disk@0": SIZE, "a/b c@d": 5 * MIB + 512}
    assert {name for name, export in found.items() if export["is_read_only"]} == {
        "disk@tag", "disk@0"}
    by_id = info(server.uri("disk@1"))
    assert by_id["is_read_only"] and by_id["export-size"] == SIZE
    only = serve("disk")
    assert set(listing(only.uri())) == {"disk", "disk@tag", "disk@0"}
    assert info(only.uri())["export-size"] == SIZE
    for nobody in ("", "none", "disk@none", "disk@", "@tag", "a/b c@d", "x" * 300):
        assert "nbdinfo" in run("nbdinfo", only.uri(nobody) if nobody else server.uri(), status=1)


def test_what_an_export_can_do(client, server):
    export = info(server.uri("disk"))
    for can in ("can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_multi_conn"):
        assert export[can], can
    assert not export["is_read_only"] and not export["is_rotational"]
    assert export["block_size_minimum"] == 1


# -- data

@over_both
def test_images_go_through_and_come_back(client, server, tmp_path):
    image = noise(5 * MIB, 1) + bytes(9 * MIB) + noise(SIZE - 14 * MIB, 2)
    source, target, third = tmp_path / "source", tmp_path / "target", tmp_path / "third"
    source.write_bytes(image)
    uri = server.uri("disk")
    run("nbdcopy", "--connections=4", source, uri)
    assert read_vdi(client) == image
    run("nbdcopy", "--connections=4", uri, target)
    assert target.read_bytes() == image
    client.create_vdi("other", SIZE)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", uri, server.uri("other"))
    assert read_vdi(client, name="other") == image
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri("other"), source)
    io(uri, "write -P 1 0 1")
    assert run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, source, status=1) == ""
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", server.uri("other"), third)
    run("qemu-img", "compare", third, source)


def test_holes_are_told_and_made(client, server):
    uri = server.uri("disk")
    assert [*map(str.split, run("nbdinfo", "--map", uri).splitlines())] == [
        ["0", str(SIZE), "3", "hole,zero"]]
    io(uri, "write -P 7 3M 10M", "discard 8M 4M", "read -P 0 8M 4M", "read -P 7 3M 5M",
       "write -z 5M 1M", "read -P 0 5M 1M", "read -P 7 6M 2M", "write -z -u 0 4M",
       "read -P 0 0 4M", "discard 13M 1k", "read -P 7 12M 1M")
    assert [line.split()[:3] for line in run("nbdinfo", "--map", uri).splitlines()] == [
        ["0", str(OBJECT), "3"], [str(OBJECT), str(OBJECT), "0"],
        [str(2 * OBJECT), str(OBJECT), "3"], [str(3 * OBJECT), str(OBJECT), "0"],
        [str(4 * OBJECT), str(SIZE - 4 * OBJECT), "3"]]
    expected = bytearray(SIZE)
    expected[4 * MIB:5 * MIB] = b"\7" * MIB
    expected[6 * MIB:8 * MIB] = b"\7" * 2 * MIB
    expected[12 * MIB:13 * MIB] = b"\7" * MIB
    assert read_vdi(client) == expected


def test_zeros_that_stay_allocated(client, server):
    script(server.uri("disk"), "h.zero(4 << 20, 4 << 20, nbd.CMD_FLAG_NO_HOLE)")
    with client.open_vdi("disk", read_only=True) as vdi:
        assert vdi.extents(0, SIZE) == [
            (0, OBJECT, False), (OBJECT, OBJECT, True), (2 * OBJECT, SIZE - 2 * OBJECT, False)]


def test_any_offset_and_length(client, server):
    """Writes of odd sizes over several connections at a time, the last one with FUA."""
    client.create_vdi("odd", 9 * MIB + 3)
    script(server.uri("odd"), """if True:
        import random
        dice = random.Random(5)
        size = h.get_size()
        expected = bytearray(size)
        others = [nbd.NBD() for _ in range(3)]
        for other in others:
            other.connect_uri(h.get_uri())
        handles = [h, *others]
        for _ in range(60):
            offset = dice.randrange(size)
            data = dice.randbytes(min(size - offset, dice.choice([1, 511, 70000, 1 << 20])))
            dice.choice(handles).pwrite(data, offset)
            expected[offset:offset + len(data)] = data
            offset = dice.randrange(size - 1)
            length = min(size - offset, dice.randrange(1, 100000))
            assert dice.choice(handles).pread(length, offset) == expected[offset:offset + length]
        h.pwrite(b"end", size - 3, nbd.CMD_FLAG_FUA)
        expected[-3:] = b"end"
        h.flush()
        assert h.pread(size, 0) == expected
        open('%s', 'wb').write(expected)
        """ % (server.log.parent / "expected"))
    assert read_vdi(client, name="odd") == (server.log.parent / "expected").read_bytes()


def test_many_requests_at_a_time(client, server):
    printed = run("qemu-img", "bench", "-f", "raw", "-t", "none", "-n", "-w", "-c", "2000", "-d",
                  "32", "-s", "4096", "-S", "12288", "--pattern=9", server.uri("disk"))
    assert "Run completed" in printed
    now = read_vdi(client)
    assert all(now[at:at + 4096] == b"\x09" * 4096 and not any(now[at + 4096:at + 12288])
               for at in range(0, 2000 * 12288, 12288))


def test_a_snapshot_is_taken_below(cluster, client, server):
    uri = server.uri("disk")
    script(uri, """if True:
        import subprocess, sys
        h.pwrite(b'1' * 65536, 0)
        subprocess.run(%r, check=True)
        h.pwrite(b'2' * 65536, 32768)
        """ % ([sys.executable, "-m", "sheepstack.dog", "vdi", "snapshot", "-p",
                str(cluster.sheep[0].port), "-s", "tag", "disk"],))
    assert read_vdi(client, "tag")[:131072] == b"1" * 65536 + bytes(65536)
    assert read_vdi(client)[:131072] == b"1" * 32768 + b"2" * 65536 + bytes(32768)
    run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x31 0 64k", server.uri("disk@tag"))
    assert run("qemu-io", "-f", "raw", "-c", "write 0 512", server.uri("disk@tag"), status=1)


# -- who may write

def test_one_client_at_a_time(cluster, client, serve, tmp_path):
    first, second, reader = serve(), serve(), serve(nbdkit_options=["-r"])
    uri = first.uri("disk")
    holder = subprocess.Popen(
        [*NBDSH, "-u", uri, "-c", "h.pwrite(b'x', 0); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with pytest.raises(VdiLocked):
            client.open_vdi("disk")
        run("nbdinfo", uri, status=1)
        run("nbdinfo", second.uri("disk"), status=1)
        assert "open for writing by process %d" % holder.pid in first.log.read_text()
        run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x78 0 1", reader.uri("disk"))
        assert run("qemu-io", "-f", "raw", "-c", "write 0 1", reader.uri("disk"), status=1)
    finally:
        holder.communicate(b"\n", timeout=30)
    wait_until(lambda: not is_locked(client), 20, "the lock to be given back")
    io(second.uri("disk"), "read -P 0x78 0 1", "write -P 0x79 0 1")
    # The server notices the end of a connection after the client has ended.
    wait_until(lambda: not is_locked(client), 20, "the lock to be given back")
    with client.open_vdi("disk"):
        run("nbdinfo", uri, status=1)
    io(uri, "read -P 0x79 0 1")


def is_locked(client) -> bool:
    try:
        client.open_vdi("disk").close()
    except VdiLocked:
        return True
    return False


def test_sharers_see_each_other(client, serve):
    first, second = serve("--lock", "shared"), serve("--lock", "shared")
    script(first.uri("disk"), """if True:
        other = nbd.NBD()
        other.connect_uri(%r)
        dice = __import__('random').Random(6)
        for turn in range(40):
            offset = dice.randrange(h.get_size() - 4096)
            data = dice.randbytes(4096)
            (h, other)[turn %% 2].pwrite(data, offset)
            assert (other, h)[turn %% 2].pread(4096, offset) == data
        """ % second.uri("disk"))


def test_a_server_that_is_to_end_lets_its_clients_finish(client, serve):
    server = serve()
    holder = subprocess.Popen(
        [*NBDSH, "-u", server.uri("disk"), "-c",
         "h.pwrite(b'last', 0); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        server.process.terminate()
        assert is_locked(client)
    finally:
        holder.communicate(b"\n", timeout=30)
    assert holder.returncode == 0
    assert server.process.wait(30) == 0
    assert not is_locked(client)
    assert read_vdi(client)[:5] == b"last\0"


# -- what is wrong

@over_both
def test_bad_requests_get_errors(client, server):
    """Requests that libnbd itself would refuse go out; the connection outlives them."""
    printed = script(server.uri("disk"), """if True:
        h.set_strict_mode(0)
        size = h.get_size()
        requests = {
            'read beyond the end': lambda: h.pread(512, size),
            'read across the end': lambda: h.pread(1024, size - 512),
            'read at 2^63': lambda: h.pread(512, (1 << 63) - 512),
            'write beyond the end': lambda: h.pwrite(b'x' * 512, size),
            'write across the end': lambda: h.pwrite(b'x' * 1024, size - 512),
            'trim beyond the end': lambda: h.trim(512, size),
            'zero beyond the end': lambda: h.zero(1 << 20, size - 512),
            'unknown flags': lambda: h.pread(512, 0, 0x8000),
            'status of nothing': lambda: h.block_status(512, size + 512, lambda *_: None),
        }
        for name, request in requests.items():
            try:
                request()
            except nbd.Error as error:
                print(name, error.errno)
            assert h.pread(512, 0) == bytes(512), name
        """)
    assert {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in printed.splitlines()} \
        == {"read beyond the end": "EINVAL", "read across the end": "EINVAL",
            "read at 2^63": "EINVAL",
            "write beyond the end": "ENOSPC", "write across the end": "ENOSPC",
            "trim beyond the end": "EINVAL", "zero beyond the end": "ENOSPC",
            "unknown flags": "EINVAL", "status of nothing": "EINVAL"}
    assert read_vdi(client) == bytes(SIZE)


@over_both
def test_garbage_ends_only_its_own_connection(client, server):
    dice = random.Random(7)
    unix = server.socket.exists()
    for _ in range(30):
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as garbler:
            garbler.settimeout(20)
            garbler.connect(str(server.socket) if unix else server.address)
            garbler.recv(18)
            try:
                garbler.sendall(dice.choice([b"", b"\0\0\0\3IHAVEOPT"]) + dice.randbytes(
                    dice.choice([1, 20, 3000])))
                garbler.shutdown(socket.SHUT_WR)
                while garbler.recv(65536):
                    pass
            except OSError as error:
                assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
    io(server.uri("disk"), "write -P 3 0 1M", "read -P 3 0 1M")
    assert server.process.poll() is None


def test_a_start_that_cannot_be_says_why(cluster, client, serve, tmp_path):
    empty = {**os.environ, "PATH": "/nonexistent"}
    for options, environment, text in (
            (["-g", "127.0.0.1:99999"], None, "is no port number"),
            (["--auth-key-file", "/nonexistent"], None, "/nonexistent"),
            (["--timeout", "-1"], None, "above zero"),
            ([], empty, "nbdkit is not installed")):
        done = subprocess.run([COMMAND, *options, "--", "-f", "-s"], env=environment, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 1 and text in done.stderr, done.stderr


def test_tls(client, serve, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("alice:%s\n" % ("5a" * 32))
    wrong = tmp_path / "wrong"
    wrong.write_text("alice:%s\n" % ("a5" * 32))
    for tcp in (False, True):
        server = serve(tcp=tcp, nbdkit_options=["--tls=require", "--tls-psk=%s" % keys])

        def uri(file):
            return server.uri("disk", scheme="nbds", login="alice@",
                              query="&tls-psk-file=%s" % file)

        assert info(uri(keys))["export-size"] == SIZE
        image = tmp_path / "image"
        image.write_bytes(noise(SIZE, 10 + tcp))
        run("nbdcopy", image, uri(keys))
        assert read_vdi(client) == image.read_bytes()
        run("nbdinfo", uri(wrong), status=1)
        run("nbdinfo", server.uri("disk"), status=1)


# -- faults

def test_a_client_sees_nothing_of_lost_sheep(make_cluster, tmp_path):
    """A replica dies, and the server's gateway, while blocks are written and read back."""
    cluster = make_cluster(nodes=4, copies=3, settings={"sync": False})
    cluster.client().create_vdi("disk", SIZE)
    server = NbdServer(tmp_path, cluster.addresses)
    try:
        with Load(server.uri("disk")) as load:
            load.wait_rounds(20)
            cluster.kill(3)
            load.wait_rounds(20)
            cluster.kill(0)
            load.wait_rounds(20)
            cluster.restart(0)
            cluster.restart(3)
            cluster.wait_recovered()
            load.wait_rounds(5)
        assert load.check() > 40
    finally:
        server.close()


class Load:
    """Keeps a script of nbdsh writing and reading while the ``with`` block runs."""

    _TEXT = """if True:
        import random, sys
        dice = random.Random(8)
        blocks = h.get_size() >> 16
        content = {}
        print('ready', flush=True)
        while sys.stdin.readline().strip() == 'go':
            number = dice.randrange(blocks)
            content[number] = dice.randbytes(65536)
            h.pwrite(content[number], number << 16)
            other = dice.choice(list(content))
            assert h.pread(65536, other << 16) == content[other]
            print('done', flush=True)
        for number in range(blocks):
            assert h.pread(65536, number << 16) == content.get(number, bytes(65536)), number
        print(len(content), flush=True)
        """

    def __init__(self, uri):
        self.rounds = 0
        self._process = subprocess.Popen(
            [*NBDSH, "-u", uri, "-c", self._TEXT], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while self._process.stdout.readline() and not self._ended.is_set():
            self.rounds += 1
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._ended.set()
        self._thread.join(120)

    def wait_rounds(self, count):
        goal = self.rounds + count
        wait_until(lambda: self.rounds >= goal or not self._thread.is_alive(), 120,
                   "requests over NBD")
        assert self.rounds >= goal, "the client ended with status %s" % self._process.wait()

    def check(self) -> int:
        """Have the client read everything; how many blocks it had written."""
        printed, _ = self._process.communicate("\n", timeout=120)
        assert self._process.returncode == 0
        return int(printed.split()[-1])
