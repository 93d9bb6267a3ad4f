"""Garbage on the port: an error result or a closed connection, and everybody else is served."""

import contextlib
import random
import select
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sheepstack.wire.header import COMMON, HEADER_SIZE, MAX_DATA_LENGTH
from sheepstack.wire.opcodes import PROTO_VER, SHEEP_PROTO_VER, Flag, Op
from sheepstack.wire.peer import PEER_VER, REQUEST, PeerOp
from sheepstack.wire.results import Result
from tests.functional.harness import HOST, wait_until
from tests.functional.workload import MIB, Writers, cluster_map, wait_order

#: What would end the daemon by rights.
DEADLY = frozenset((Op.KILL_NODE, Op.SHUTDOWN, Op.MAKE_FS, Op.FORCE_RECOVER))
ANSWER_TIMEOUT = 20

fields = st.fixed_dictionaries({
    "version": st.one_of(st.sampled_from((0, 1, PROTO_VER, SHEEP_PROTO_VER, PEER_VER)),
                         st.integers(0, 255)),
    "opcode": st.one_of(st.sampled_from([int(op) for op in Op]),
                        st.sampled_from([int(op) for op in PeerOp]),
                        st.integers(0, 255)).filter(lambda opcode: opcode not in DEADLY),
    "flags": st.one_of(st.sampled_from((0, Flag.WRITE, Flag.WRITE | Flag.COW)),
                       st.integers(0, 65535)),
    "revision": st.one_of(st.just(None), st.integers(0, 2 ** 32 - 1)),
    "length": st.one_of(st.just(None), st.integers(0, 256), st.sampled_from(
        (2 ** 31, 2 ** 32 - 1, MAX_DATA_LENGTH + 1))),
    "rest": st.binary(min_size=32, max_size=32),
    "payload": st.binary(max_size=300),
    "cut": st.integers(0, 400),
})


def raw(cluster, index=0):
    sock = socket.create_connection((HOST, cluster.sheep[index].port), ANSWER_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_exactly(sock, length):
    """So many bytes, or fewer where the other side closes."""
    data = b""
    while len(data) < length:
        try:
            piece = sock.recv(length - len(data))
        except ConnectionResetError:
            break
        if not piece:
            break
        data += piece
    return data


def answer(sock):
    """(result, payload) of the next answer; None: the connection was closed."""
    header = read_exactly(sock, HEADER_SIZE)
    if len(header) < HEADER_SIZE:
        return None
    length = COMMON.unpack_from(header)[5]
    return struct.unpack_from("<I", header, 16)[0], read_exactly(sock, length)


@pytest.fixture
def served(make_cluster):
    """A cluster, and a client that writes all the time and must not notice anything."""
    cluster = make_cluster(3)
    client = cluster.client(0)
    client.create_vdi("disk", 16 * MIB)
    vdi = client.open_vdi("disk", lock=False)
    with Writers([vdi]) as writers:
        yield cluster, writers
        writers.progress(5)
    writers.check(vdi)
    wait_order(cluster)


def test_fuzzed_headers(served):
    cluster, writers = served
    revision = cluster_map(cluster).revision

    @settings(max_examples=150, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(fields)
    def fuzz(request):
        payload = request["payload"]
        length = len(payload) if request["length"] is None else request["length"]
        header = COMMON.pack(
            request["version"], request["opcode"], request["flags"],
            revision if request["revision"] is None else request["revision"], 7, length)
        message = header + request["rest"] + payload
        with raw(cluster) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(message[:max(1, len(message) - request["cut"] % 50)])
            sock.shutdown(socket.SHUT_WR)
            # Everything is answered or hung up on; nothing hangs.
            while answer(sock) is not None:
                pass

    fuzz()
    writers.progress()
    with raw(cluster) as sock:
        assert ping(sock)


def ping(sock):
    sock.sendall(COMMON.pack(PROTO_VER, Op.GET_CLUSTER_DEFAULT, 0, 0, 1, 0) + bytes(32))
    found = answer(sock)
    return found is not None and found[0] == Result.SUCCESS


@pytest.mark.deployment("eventlet+local", "threading+local")
def test_wrong_requests_get_their_error(served):
    """On one connection, which goes on to be served."""
    cluster, _ = served
    oid = 0x00123456 << 32
    object_fields = struct.Struct("<QQBBBxIII")
    cases = [
        (PROTO_VER, 0x7F, 0, 0, bytes(32), Result.INVALID_PARMS),
        (PROTO_VER + 1, Op.READ_OBJ, 0, 512, bytes(32), Result.VER_MISMATCH),
        (PROTO_VER, Op.READ_OBJ, 0, 512, object_fields.pack(oid, 0, 0, 0, 0, 0, 0, 0),
         Result.NO_OBJ),
        (PROTO_VER, Op.WRITE_OBJ, Flag.WRITE, 512,
         object_fields.pack(oid, 0, 0, 0, 0, 0, 0, 0), Result.NO_VDI),
        (PROTO_VER, Op.WRITE_OBJ, Flag.WRITE, 512,
         object_fields.pack(2 ** 64 - 1, 0, 0, 0, 0, 0, 0, 0), Result.INVALID_PARMS),
        (PROTO_VER, Op.NEW_VDI, Flag.WRITE, 3, bytes(32), Result.INVALID_PARMS),
        (PROTO_VER, Op.NEW_VDI, 0, 0, bytes(32), Result.INVALID_PARMS),
        (PROTO_VER, Op.GET_VDI_INFO, Flag.WRITE, 256, bytes(32), Result.NO_VDI),
        (PROTO_VER, Op.READ_VDIS, 0, 5, bytes(32), Result.INVALID_PARMS),
        (SHEEP_PROTO_VER, Op.GET_VDI_ATTR, Flag.WRITE, 9, bytes(32), Result.INVALID_PARMS),
        (SHEEP_PROTO_VER, Op.SET_RECOVERY, Flag.WRITE, 1, bytes(32), Result.INVALID_PARMS),
        (SHEEP_PROTO_VER, Op.SET_LOGLEVEL, Flag.WRITE, 4, bytes(32), Result.SUCCESS),
    ]
    vid = cluster.client().lookup("disk").vdi_id
    beyond = object_fields.pack((vid << 32) | 3, 0, 0, 0, 0, 0, 4 * MIB - 4, 0)
    cases += [
        (PROTO_VER, Op.WRITE_OBJ, Flag.WRITE, 512, beyond, Result.INVALID_PARMS),
        (PROTO_VER, Op.CREATE_AND_WRITE_OBJ, Flag.WRITE, 512, beyond, Result.INVALID_PARMS)]
    with raw(cluster) as sock:
        for version, opcode, flags, length, rest, expected in cases:
            if opcode == Op.SET_LOGLEVEL:
                payload = struct.pack("<i", 6)
            else:
                payload = bytes(length) if flags & Flag.WRITE else b""
            sock.sendall(COMMON.pack(version, opcode, flags, 0, 5, length) + rest + payload)
            assert answer(sock)[0] == expected, (hex(opcode), rest)
            assert ping(sock)


def test_peer_opcodes_with_garbage(served):
    """With the right revision, so that it is looked at."""
    cluster, writers = served
    revision = cluster_map(cluster).revision
    chance = random.Random(4)
    oids = [0, 1, 2 ** 63, 2 ** 64 - 1, 0x123456 << 32]
    payloads = [b"", b"{}", b"[" * 5000, b'{"call": "holding"}', b'{"call": 5}', b"null",
                b'{"call": "objects", "vids": "x"}', b'{"call": "vdi", "vid": [], "fields": 1}',
                b'{"call": "no"}', b'{"call": "adopt", "oid": -1, "sources": [99]}', b"\xff" * 64]
    for opcode in range(0xE8, 0x100):
        for payload in payloads:
            with raw(cluster) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(REQUEST.pack(
                    PEER_VER, opcode, chance.choice((0, 1, 2)), revision, 3, len(payload),
                    chance.choice(oids[2:]) if opcode in (0xEA, 0xEB, 0xEC, 0xED)
                    else chance.choice(oids), 0, 0, 2 ** 32 - 1, 2 ** 32 - 1) + payload)
                sock.shutdown(socket.SHUT_WR)
                answer(sock)
    writers.progress()


def test_claims_of_huge_payloads_cost_no_memory(served):
    """Many connections announce much, send little, and stay."""
    cluster, writers = served
    writers.progress()
    before = resident(cluster.pids[0])
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            sock = stack.enter_context(raw(cluster))
            sock.sendall(COMMON.pack(
                PROTO_VER, Op.WRITE_OBJ, Flag.WRITE, 0, 1, MAX_DATA_LENGTH) + bytes(32 + 1000))
        with raw(cluster) as sock:
            assert ping(sock)
        writers.progress()
        assert resident(cluster.pids[0]) - before < 300 * MIB


def resident(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * 4096


def test_who_sends_and_never_reads_costs_bounded_memory(served):
    cluster, writers = served
    before = resident(cluster.pids[0])
    vid = cluster.client().lookup("disk").vdi_id
    request = COMMON.pack(PROTO_VER, Op.READ_OBJ, 0, 0, 1, 4 * MIB) + struct.pack(
        "<QQBBBxIII", 1 << 63 | vid << 32, 0, 0, 0, 0, 0, 4664, 0)
    with raw(cluster) as sock:
        sock.setblocking(False)
        sent = 0
        while sent < 4096 * HEADER_SIZE and select.select([], [sock], [], 1)[1]:
            sent += sock.send(request * 64)
        writers.progress()
        assert resident(cluster.pids[0]) - before < 500 * MIB


def test_slow_and_silent_connections_do_not_stand_in_the_way(served):
    cluster, writers = served
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(raw(cluster)) for _ in range(300)]
        message = COMMON.pack(PROTO_VER, Op.GET_CLUSTER_DEFAULT, 0, 0, 1, 0) + bytes(32)
        for position in range(HEADER_SIZE):
            for sock in socks[::10]:
                sock.sendall(message[position:position + 1])
        writers.progress()
        for sock in socks[::10]:
            assert answer(sock)[0] == Result.SUCCESS
        wait_until(lambda: ping(socks[1]), 20, "an answer for who was silent")
