"""Who is let in, and what an operator is told who starts a sheep wrongly."""

import os
import socket
import subprocess
import sys

import pytest

from sheepstack.client import Cluster
from sheepstack.client.errors import AuthenticationFailed, SheepError
from sheepstack.wire.header import COMMON, MAX_DATA_LENGTH
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op
from sheepstack.wire.peer import PEER_VER, REQUEST, PeerOp
from sheepstack.wire.results import Result
from tests.functional.harness import HOST, free_port
from tests.functional.test_bad_input import answer, ping, raw
from tests.functional.workload import MIB, wait_order

KEY = b"a secret of some length"


def start_alone(*arguments):
    """Run sheep until it ends by itself: (status, lines it said)."""
    done = subprocess.run(
        [sys.executable, "-m", "sheepstack.cmd.sheep", *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.returncode, [line for line in done.stderr.splitlines() if "sheep: " in line]


@pytest.mark.deployment("eventlet+local", "threading+local")
def test_the_secret(make_cluster, tmp_path):
    cluster = make_cluster(3, settings={"auth_key": KEY})
    with cluster.client() as client:
        client.create_vdi("disk", 8 * MIB)
        with client.open_vdi("disk") as vdi:
            vdi.pwrite(0, b"hidden")
    for key in (b"another secret of a length", None):
        with Cluster(cluster.addresses, auth_key=key, timeout=5) as client:
            with pytest.raises(AuthenticationFailed):
                client.lookup("disk")
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"another secret of a length")
    ran = subprocess.run(
        [sys.executable, "-m", "sheepstack.dog", "vdi", "list", "-p",
         str(cluster.sheep[0].port), "--auth-key-file", str(wrong)],
        capture_output=True, text=True)
    assert ran.returncode and "disk" not in ran.stdout
    assert "disk" in cluster.dog("vdi", "list").text
    # Sheep prove it to one another, too, also after they were away.
    cluster.kill(1)
    cluster.wait_recovered()
    cluster.restart(1)
    wait_order(cluster)
    vid = cluster.client().lookup("disk").vdi_id
    for message in (
            COMMON.pack(PROTO_VER, Op.READ_OBJ, 0, 0, 1, 512) + bytes(32),
            COMMON.pack(PROTO_VER, Op.KILL_NODE, 0, 0, 1, 0) + bytes(32),
            COMMON.pack(PROTO_VER, Op.WRITE_OBJ, Flag.WRITE, 0, 1, MAX_DATA_LENGTH) + bytes(32),
            COMMON.pack(PROTO_VER, Op.AUTH_HELLO, Flag.WRITE, 0, 1, 32) + bytes(64),
            COMMON.pack(PROTO_VER, Op.AUTH_PROVE, Flag.WRITE, 0, 1, 32) + bytes(64),
            REQUEST.pack(PEER_VER, PeerOp.READ, 2, 4, 1, 0, vid << 32, 0, 0, 0, 512)):
        with raw(cluster) as sock:
            sock.sendall(message)
            sock.shutdown(socket.SHUT_WR)
            found = answer(sock)
            hello = message[1] == Op.AUTH_HELLO
            assert found is None or found[0] == (
                Result.SUCCESS if hello else Result.NOT_AUTHENTICATED)
            assert answer(sock) is None


@pytest.mark.deployment("eventlet+local")
def test_a_sheep_with_another_secret_does_not_get_in(make_cluster, tmp_path):
    cluster = make_cluster(2, copies=2, settings={"auth_key": KEY})
    cluster.client().create_vdi("disk", 8 * MIB)
    other = tmp_path / "other"
    other.write_bytes(b"another secret of a length")
    stranger = cluster.add(options=("--auth-key-file", other), wait=False)
    cluster.wait_log(stranger, "secret")
    with cluster.client(0) as client:
        with client.open_vdi("disk") as vdi:
            vdi.pwrite(0, b"x")
        names = [str(node.nid) for node in client.nodes()]
    assert cluster.sheep[stranger].address not in names
    cluster.kill(stranger)


@pytest.mark.deployment("threading+local")
def test_legacy_clients_only_where_they_are_named(make_cluster):
    cluster = make_cluster(1, copies=1, settings={
        "auth_key": KEY, "options": ["--allow-legacy", "unix,127.0.0.2/32"]})
    with raw(cluster) as sock:
        assert not ping(sock)
    with socket.create_connection((HOST, cluster.sheep[0].port), 10, ("127.0.0.2", 0)) as sock:
        assert ping(sock)
    with socket.create_connection((HOST, cluster.sheep[0].port), 10, ("127.0.0.3", 0)) as sock:
        assert not ping(sock)
    with Cluster("unix:%s" % cluster.sheep[0].socket) as client:
        client.create_vdi("disk", 8 * MIB)
        assert client.lookup("disk")


@pytest.mark.deployment("eventlet+local")
def test_a_port_a_store_and_a_cluster_of_somebody_else(make_cluster, tmp_path):
    """Each is refused with one line and a status other than zero; who was there goes on."""
    one = make_cluster(1, copies=1)
    two = make_cluster(1, copies=1)
    one.client().create_vdi("disk", 8 * MIB)

    status, said = start_alone(
        "-f", "-c", one.coordination, "-p", one.sheep[0].port, tmp_path / "new")
    assert status == 1 and len(said) == 1
    assert "listen" in said[0] and str(one.sheep[0].port) in said[0]

    status, said = start_alone(
        "-f", "-c", one.coordination, "-p", free_port(), one.sheep[0].directory)
    assert status == 1 and len(said) == 1 and str(one.sheep[0].directory) in said[0]

    two.terminate(0)
    for runtime in ("eventlet", "threading"):
        status, said = start_alone(
            "-f", "--runtime", runtime, "-c", one.coordination, "-p", free_port(),
            two.sheep[0].directory)
        assert status == 1 and len(said) == 1 and "cluster" in said[0]
    # In the background, too.
    status, said = start_alone("-c", one.coordination, "-p", free_port(), two.sheep[0].directory)
    assert status == 1 and len(said) == 1 and "cluster" in said[0]
    assert one.client().lookup("disk")
    two.restart(0)
    two.wait_recovered()


@pytest.mark.parametrize("arguments, word", [
    ((), "STORE_DIR"),
    (("-p", "70000", "STORE"), "-p"),
    (("-p", "x", "STORE"), "-p"),
    (("-z", "-1", "STORE"), "-z"),
    (("-V", "many", "STORE"), "-V"),
    (("-b", "nowhere.invalid", "STORE"), "-b"),
    (("-b", "0.0.0.0", "STORE"), "-y"),
    (("-b", "192.0.2.1", "STORE"), "--auth-key-file"),
    (("-b", "0.0.0.0", "-y", "192.0.2.1", "STORE"), "--auth-key-file"),
    (("-c", "corosync", "STORE"), "corosync"),
    (("-c", "zookeeper:host:x", "STORE"), "zookeeper:host:x"),
    (("-l", "level=loud", "STORE"), "loud"),
    (("-R", "max=x", "STORE"), "-R"),
    (("-i", "port=5", "STORE"), "-i"),
    (("--runtime", "asyncio", "STORE"), "asyncio"),
    (("--auth-key-file", "/nonexistent", "STORE"), "/nonexistent"),
    (("--allow-legacy", "everybody", "STORE"), "everybody"),
    (("--config-file", "/nonexistent", "STORE"), "/nonexistent"),
    (("--no-such-option", "STORE"), "--no-such-option"),
    (("/dev/null/store",), "/dev/null"),
])
def test_wrong_options_get_one_line(tmp_path, arguments, word):
    store = tmp_path / "store"
    arguments = [store if argument == "STORE" else argument for argument in arguments]
    status, said = start_alone("-f", *arguments)
    assert status == 1 and len(said) == 1, said
    assert word in said[0] and "Traceback" not in said[0]
    assert not os.path.exists(store / "obj") or not os.listdir(store / "obj")


@pytest.mark.deployment("threading+local")
def test_nobody_comes_in_from_outside_by_default(make_cluster):
    """It listens on loopback, and on nothing else, unless told an address."""
    cluster = make_cluster(1, copies=1)
    with open("/proc/net/tcp") as file:
        listening = [line.split()[1] for line in file.readlines()[1:]
                     if line.split()[3] == "0A"]
    port = "%04X" % cluster.sheep[0].port
    assert [local for local in listening if local.endswith(":" + port)] == ["0100007F:" + port]
    with pytest.raises(SheepError):
        Cluster("127.0.0.2:%d" % cluster.sheep[0].port, timeout=2).info()
