"""VDIs as iSCSI targets: sheepstack's library and ``sheep-iscsi``, Debian's tgtd and libiscsi."""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from sheepstack.client import Limits, NoSuchTag, NoSuchVdi
from sheepstack.export.iscsi import (
    ANYBODY, BadTarget, Chap, TargetConflict, Targets, TgtdUnreachable)
from sheepstack.export.iscsi import Tgtd as Control
from tests.functional.client_behaviour import MIB, OBJECT, noise
from tests.functional.nbd import run
from tests.functional.tgt import BLOCK, MISSING, Disk, Tgtd, Writer

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason="not installed: %s" % ", ".join(MISSING)),
    pytest.mark.skipif(os.geteuid() != 0, reason="tgtd serves only root"),
    pytest.mark.deployment("eventlet+local"),
]

SIZE = 32 * MIB
NAME = "iqn.2026-11.org.example:disk"
OTHER = "iqn.2026-11.org.example:other"
CHAP = Chap("alice", "correct-horse")
HOST_A = "iqn.1993-08.org.debian:01:a"


@pytest.fixture
def cluster(make_cluster):
    """One sheep, whose clients tgtd and we are."""
    return make_cluster(nodes=1, copies=1, settings={"sync": False})


@pytest.fixture
def client(cluster):
    client = cluster.client()
    client.create_vdi("disk", SIZE)
    return client


@pytest.fixture
def targets(cluster, tgtd, tmp_path):
    return Targets(tgtd.gateway(cluster.sheep[0]), tmp_path / "targets", tgtd=tgtd.control)


@pytest.fixture
def disk(tgtd):
    """Function that gives a target as an initiator sees it that logs in with ``chap``."""
    def disk(name=NAME, chap=None, read_only=False):
        return Disk("127.0.0.1:%d" % tgtd.port, name, tgtd.log, chap, read_only)
    return disk


def is_write_protected(disk) -> bool:
    done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 64k", disk.url],
                          capture_output=True, text=True, timeout=60)
    return done.returncode != 0 and "write protected" in done.stderr


def log_in(disk, initiator=None) -> str:
    """How a login as ``initiator`` ends: "" where it succeeds."""
    argv = ["iscsi-inq", *(["-i", initiator] if initiator else []), disk.url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return done.stderr + done.stdout if done.returncode else ""


def test_a_target_comes_and_goes(client, targets, tgtd, disk):
    made = targets.create(NAME, "disk", addresses=[ANYBODY])
    assert targets.list() == [made] and targets.get(NAME) == made
    assert NAME in tgtd.targets()
    disk().io("write -P 5 0 1M", "flush")
    assert targets.create(NAME, "disk", addresses=[ANYBODY]) == made
    disk().io("read -P 5 0 1M")
    with client.open_vdi("disk", read_only=True) as vdi:
        assert vdi.pread(0, MIB) == b"\5" * MIB
    assert "Vendor:SHEEP" in disk().tool("iscsi-inq")
    targets.delete(NAME)
    targets.delete(NAME)
    assert not targets.list() and not tgtd.control.targets()
    assert "Login Failed" in log_in(disk())


def test_who_may_log_in(client, targets, disk):
    targets.create(NAME, "disk", chap=CHAP, initiators=[HOST_A])
    assert log_in(disk(chap=CHAP), HOST_A) == ""
    assert "Authentication failure" in log_in(disk(), HOST_A)
    assert "Authentication failure" in log_in(disk(chap=("alice", "wrong-horse")), HOST_A)
    assert "Authentication failure" in log_in(disk(chap=("bob", CHAP.password)), HOST_A)
    assert "Login Failed" in log_in(disk(chap=CHAP), "iqn.1993-08.org.debian:01:b")
    targets.create(NAME, "disk", chap=CHAP, addresses=["192.0.2.0/24"])
    assert "Login Failed" in log_in(disk(chap=CHAP), HOST_A)
    targets.create(NAME, "disk", chap=CHAP, addresses=["192.0.2.0/24", "127.0.0.0/8"])
    assert log_in(disk(chap=CHAP), HOST_A) == ""
    targets.create(NAME, "disk", chap=CHAP)
    assert "Login Failed" in log_in(disk(chap=CHAP), HOST_A)


def test_accounts_end_with_the_last_target_that_has_them(client, targets, tgtd):
    client.create_vdi("other", SIZE)
    targets.create(NAME, "disk", chap=CHAP)
    targets.create(OTHER, "other", chap=CHAP)
    with pytest.raises(TargetConflict, match="another password"):
        targets.create(NAME + "2", "disk", chap=Chap("alice", "something-else"))
    with pytest.raises(TargetConflict, match="another chap"):
        targets.create(NAME, "disk", chap=Chap("bob", "correct-horse"))
    targets.delete(NAME)
    assert tgtd.control.accounts() == {"alice"}
    targets.delete(OTHER)
    assert not tgtd.control.accounts()


def test_a_snapshot_is_exported_read_only(client, targets, disk):
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"\1" * 6 * MIB)
        vdi.snapshot("tag")
        vdi.pwrite(0, b"\2" * 6 * MIB)
    made = targets.create(NAME, "disk", "tag", addresses=[ANYBODY])
    assert made.read_only
    disk(read_only=True).io("read -P 1 0 6M", "read -P 0 6M 26M")
    assert is_write_protected(disk())
    before = {header.name for header in client.list_vdis()}
    targets.delete(NAME)
    assert before - {header.name for header in client.list_vdis()} == {made.clone}


def test_what_cannot_be_is_refused_and_leaves_nothing(client, targets, tgtd):
    client.create_vdi("a,b", SIZE)
    client.create_vdi("a:b", SIZE)
    for error, arguments in (
            (BadTarget, ("not a name", "disk")),
            (BadTarget, (NAME + "/x", "disk")),
            (BadTarget, ("iqn.2026-11.org:" + "x" * 230, "disk")),
            (BadTarget, (NAME, "a,b")),
            (BadTarget, (NAME, "a:b")),
            (NoSuchVdi, (NAME, "nothing")),
            (NoSuchTag, (NAME, "disk", "nothing"))):
        with pytest.raises(error):
            targets.create(*arguments)
    for options in ({"initiators": ["bad name"]}, {"addresses": ["10.0.0.1/8"]},
                    {"addresses": ["nobody"]}, {"chap": Chap("a b", "c")},
                    {"chap": Chap("a", "b,c")}, {"chap": Chap("", "c")},
                    {"gateway": "unix:/" + "x" * 120}, {"gateway": "[::1]:7000"},
                    {"gateway": "127.0.0.1:23456"}):
        with pytest.raises(BadTarget):
            targets.create(NAME, "disk", **options)
    assert not targets.list() and not tgtd.control.targets() and not tgtd.control.accounts()


def test_without_tgtd_it_says_so(client, cluster, tgtd, tmp_path):
    nowhere = Control(0, str(tmp_path / "nowhere"))
    targets = Targets(tgtd.gateway(cluster.sheep[0]), tmp_path / "targets", tgtd=nowhere)
    with pytest.raises(TgtdUnreachable, match="does it run"):
        targets.create(NAME, "disk")


def test_many_processes_do_it_at_once(client, targets, tgtd, cluster, tmp_path):
    """Each name is wanted by two processes, and is made once."""
    names = ["%s%d" % (NAME, number) for number in range(4)]
    program = (
        "import sys\n"
        "from sheepstack.export.iscsi import ANYBODY, Targets, Tgtd\n"
        "targets = Targets(sys.argv[1], sys.argv[2], tgtd=Tgtd(sys.argv[3], sys.argv[4]))\n"
        "for name in sys.argv[5:]: targets.create(name, 'disk', addresses=[ANYBODY])\n")
    command = [sys.executable, "-c", program, tgtd.gateway(cluster.sheep[0]),
               str(tmp_path / "targets"), tgtd.control_port, tgtd.control_socket]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(
            lambda names: subprocess.run([*command, *names], capture_output=True, text=True,
                                         timeout=120),
            (names, names[::-1])))
    assert [run.stderr for run in runs] == ["", ""]
    live = tgtd.control.targets()
    assert sorted(each.name for each in live) == names
    assert all(len(each.units) == 2 and each.acl == (ANYBODY,) for each in live)
    assert len({each.number for each in live}) == 4


def test_a_restarted_tgtd_gets_its_targets_back(client, cluster, targets, tgtd, disk, tmp_path):
    client.create_vdi("other", SIZE)
    with client.open_vdi("other") as vdi:
        vdi.pwrite(0, b"\7" * MIB)
        vdi.snapshot("tag")
    targets.create(NAME, "disk", chap=CHAP, initiators=[HOST_A], addresses=["127.0.0.1"])
    targets.create(OTHER, "other", "tag", addresses=[ANYBODY])
    targets.create(NAME + "2", "other", addresses=[ANYBODY])
    identity = disk(chap=CHAP).tool("iscsi-inq", "-e", "1", "-c", "128")
    disk(chap=CHAP).io("write -P 9 3M 2M")
    client.delete_vdi("other")
    tgtd.kill()
    tgtd.start()
    assert not tgtd.control.targets()
    failed = targets.restore()
    assert list(failed) == [NAME + "2"] and isinstance(failed[NAME + "2"], NoSuchVdi)
    disk(chap=CHAP).io("read -P 9 3M 2M")
    assert "Authentication failure" in log_in(disk(), HOST_A)
    assert disk(chap=CHAP).tool("iscsi-inq", "-e", "1", "-c", "128") == identity
    disk(OTHER, read_only=True).io("read -P 7 0 1M")
    assert is_write_protected(disk(OTHER))
    assert targets.restore().keys() == {NAME + "2"}
    targets.delete(NAME + "2")
    assert not targets.restore()


def test_who_stays_logged_in_goes_on_after_a_restart_of_tgtd(client, targets, tgtd, disk):
    targets.create(NAME, "disk", addresses=[ANYBODY])
    initiator = subprocess.Popen(
        ["qemu-io", "-f", "raw", "-t", "none", disk().url], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        def ask(command, answer):
            initiator.stdin.write(command + "\n")
            initiator.stdin.flush()
            line = ""
            while answer not in line:
                line = initiator.stdout.readline()
                assert line and "failed" not in line, line

        ask("write -P 1 0 64k", "wrote 65536/65536")
        tgtd.kill()
        tgtd.start()
        assert not targets.restore()
        ask("write -P 2 64k 64k", "wrote 65536/65536")
        ask("read -P 1 0 64k", "read 65536/65536")
    finally:
        initiator.communicate("quit\n", timeout=60)
    disk().io("read -P 1 0 64k", "read -P 2 64k 64k")


def test_a_vdi_that_was_made_bigger_is_seen(client, targets, disk):
    targets.create(NAME, "disk", addresses=[ANYBODY])
    client.resize("disk", 2 * SIZE)
    assert disk().size() == SIZE
    targets.reopen(NAME)
    assert disk().size() == 2 * SIZE
    disk().io("write -P 1 %d 1M" % (2 * SIZE - MIB), "read -P 1 %d 1M" % (2 * SIZE - MIB))


# -- what initiators say

def test_programs_of_initiators(client, targets, disk, tmp_path):
    """(Debian's libiscsi-bin has no iscsi-dd; qemu-img dd does its work.)"""
    client.create_vdi("other", SIZE)
    for name, vdi in ((NAME, "disk"), (OTHER, "other")):
        targets.create(name, vdi, addresses=[ANYBODY])
    portal = "iscsi://" + disk().portal
    listed = run("iscsi-ls", "-s", portal)
    assert {name for name in (NAME, OTHER) if "Target:%s " % name in listed} == {NAME, OTHER}
    assert listed.count("Lun:1    Type:DIRECT_ACCESS") == 2, listed
    assert "Product:VDI" in disk().tool("iscsi-inq")
    assert disk().size() == SIZE
    image = noise(5 * MIB, 1) + bytes(9 * MIB) + noise(SIZE - 14 * MIB, 2)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(image)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, disk().url)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, disk().url)
    run("qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", "if=" + disk().url,
        "of=%s" % target)
    assert target.read_bytes() == image
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", disk().url, disk(OTHER).url)
    with client.open_vdi("other", read_only=True) as vdi:
        assert vdi.pread(0, SIZE) == image
    assert "Run completed" in run("qemu-img", "bench", "-f", "raw", "-t", "none", "-n", "-w", "-c",
                                  "1000", "-d", "16", "-S", "12288", disk().url)


@pytest.mark.skipif(not shutil.which("iscsi-test-cu"), reason="iscsi-test-cu is not installed")
def test_scsi_conformance(client, targets, tgtd, disk, tmp_path):
    """All tests of libiscsi's suite: what fails on a VDI fails on tgt with a file, too."""
    client.create_vdi("big", 128 * MIB)
    targets.create(NAME, "big", addresses=[ANYBODY])
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(128 * MIB)
    plain = tgtd.export_file(image)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        on_vdi, on_file = pool.map(failures, (disk(), plain))
    print("fails on a file, too: %s" % ", ".join(sorted(on_file)))
    assert on_vdi <= on_file


def failures(disk) -> set:
    # The other families hold the same tests once more.
    done = subprocess.run(["iscsi-test-cu", "--dataloss", "--normal", "--test=ALL", disk.url],
                          text=True, capture_output=True, errors="replace", timeout=400)
    ran = re.search(r"tests +(\d+) +(\d+) +(\d+)", done.stdout)
    assert ran and int(ran[3]) > 200, done.stdout[-2000:] + done.stderr[-2000:]
    return set(re.findall(r"Suite (\w+, Test \S+) had failures", done.stdout))


# -- several paths to one VDI

@pytest.fixture
def paths(make_cluster, tmp_path):
    """A cluster of three sheep, and a VDI that is exported through two of them, each with a
    tgtd of its own."""
    cluster = make_cluster(settings={"sync": False}, format_options=["-l"])
    cluster.client().create_vdi("disk", SIZE)
    daemons, disks = [], []
    try:
        for number in range(2):
            directory = tmp_path / ("path%d" % number)
            directory.mkdir()
            daemon = Tgtd(directory)
            daemons.append(daemon)
            targets = Targets(daemon.gateway(cluster.sheep[number]), directory / "targets",
                              tgtd=daemon.control)
            targets.create(NAME, "disk", addresses=[ANYBODY])
            disks.append(Disk("127.0.0.1:%d" % daemon.port, NAME, daemon.log))
        yield cluster, *disks
    finally:
        for daemon in daemons:
            daemon.close()


def differing_blocks(client, contents, name="disk", snapshot=None) -> set:
    """Numbers of blocks of a VDI that are not as writers left them, or not empty."""
    expected = {}
    for content in contents:
        expected.update(content)
    with client.open_vdi(name, snapshot, read_only=True) as vdi:
        now = vdi.pread(0, SIZE)
    return {number for number in range(SIZE // BLOCK)
            if now[number * BLOCK:(number + 1) * BLOCK] !=
            bytes([expected.get(number, 0)]) * BLOCK}


def test_reads_that_run_into_a_hole(client, targets, disk):
    """What tgt is told of the map keeps it from clearing the wrong part of its buffer."""
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"\1" * OBJECT)
        vdi.pwrite(2 * OBJECT, b"\2" * OBJECT)
    targets.create(NAME, "disk", addresses=[ANYBODY])
    edge = 64 << 10
    disk().io("read -P 1 -l %d %d %d" % (edge, OBJECT - edge, 2 * edge),
              "read -P 0 -s %d %d %d" % (edge, OBJECT - edge, 2 * edge),
              "read -P 0 -l %d %d %d" % (edge, 2 * OBJECT - edge, 2 * edge),
              "read -P 2 -s %d %d %d" % (edge, 2 * OBJECT - edge, 2 * edge),
              "read -P 1 -l %d 0 12M" % OBJECT, "read -P 2 -s %d 0 12M" % (2 * OBJECT),
              "read -P 0 -s %d -l %d 0 12M" % (OBJECT, OBJECT))


def test_paths_see_each_other(paths):
    """Also what the other one made anew, and across a snapshot and a discard."""
    cluster, first, second = paths
    client = cluster.client()
    assert first.tool("iscsi-inq", "-e", "1", "-c", "128") == \
        second.tool("iscsi-inq", "-e", "1", "-c", "128")
    first.io("write -P 1 0 64k", "read -P 0 64k 1M")
    second.io("read -P 1 0 64k", "write -P 2 64k 64k", "read -P 1 0 64k", "write -P 3 8M 64k")
    first.io("read -P 1 0 64k", "read -P 2 64k 64k", "read -P 3 8M 64k")
    client.snapshot("disk", "tag")
    first.io("write -P 4 0 32k")
    second.io("read -P 4 0 32k", "read -P 1 32k 32k", "read -P 2 64k 64k", "read -P 3 8M 64k",
              "write -P 5 8M 4k", "write -P 6 64k 4k", "write -P 7 16M 4k")
    first.io("read -P 4 0 32k", "read -P 1 32k 32k", "read -P 6 64k 4k", "read -P 2 68k 60k",
             "read -P 5 8M 4k", "read -P 3 %d 60k" % (8 * MIB + 4096), "read -P 7 16M 4k")
    assert not differing_blocks(client, [{0: 1, 1: 2, 8 * MIB // BLOCK: 3}], snapshot="tag")
    with client.open_vdi("disk", lock="shared") as vdi:
        vdi.discard(16 * MIB, OBJECT)
        vdi.pwrite(20 * MIB, b"\x08" * 4096)
    first.io("read -P 0 16M 4M", "read -P 8 20M 4k", "write -P 9 17M 4k", "read -P 9 17M 4k")
    second.io("read -P 0 16M 1M", "read -P 9 17M 4k", "read -P 8 20M 4k", "write -P 3 16M 4k",
              "read -P 3 16M 4k")


def test_paths_write_to_the_same_objects_at_a_time(paths):
    """Neighbours in objects that neither has made yet: no write gets lost."""
    cluster, first, second = paths
    client = cluster.client()
    blocks = range(SIZE // BLOCK)
    with Writer(first, blocks[::2], 1) as even, Writer(second, blocks[1::2], 2) as odd:
        even.wait_rounds(3, 60)
        odd.wait_rounds(3, 60)
        client.snapshot("disk", "tag")
        even.wait_rounds(3, 60)
        odd.wait_rounds(3, 60)
    assert even.content and odd.content
    assert not differing_blocks(client, [even.content, odd.content])


def test_one_path_loses_its_sheep(paths):
    """The other path goes on; the lost one comes back with its sheep and sees all."""
    cluster, first, second = paths
    blocks = SIZE // BLOCK
    first.io("write -P 1 0 12M")
    with Writer(second, blocks, 3) as writer:
        writer.wait_rounds(2, 60)
        cluster.kill(0)
        # A command that waits at the lost path until its sheep is back.
        lost = subprocess.Popen(
            ["qemu-io", "-f", "raw", "-t", "none", "-r", "-c", "read 28M 64k", first.url],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        writer.wait_rounds(3, 90)
        assert lost.poll() is None
        cluster.restart(0)
        writer.wait_rounds(2, 90)
    assert "read 65536/65536" in lost.communicate(timeout=90)[0]
    expected = {**dict.fromkeys(range(12 * MIB // BLOCK), 1), **writer.content}
    first.io(*["read -P %d %d %d" % (expected.get(number, 0), number * BLOCK, BLOCK)
               for number in range(blocks)])
    first.io("write -P 2 3M 2M")
    second.io("read -P 2 3M 2M")


def test_the_command(client, cluster, tgtd, disk, tmp_path):
    def command(*words, input="", status=0):
        done = subprocess.run(
            [sys.executable, "-c",
             "import sys; from sheepstack.cmd.sheep_iscsi import main; sys.exit(main())",
             "-g", tgtd.gateway(cluster.sheep[0]), "-d", tmp_path / "targets",
             "-C", tgtd.control_port, *words],
            env={**os.environ, "TGT_IPC_SOCKET": tgtd.control_socket}, input=input,
            capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        return done.stdout or done.stderr

    command("create", NAME, "disk", "-i", HOST_A, "-I", "127.0.0.1", "--chap-file", "-",
            input="alice correct-horse\n")
    disk(chap=CHAP).io("write -P 1 0 1M")
    assert re.fullmatch(r"%s\tdisk\trw\t-\n" % re.escape(NAME), command("list"))
    [row] = json.loads(command("list", "--json"))
    assert row["user"] == "alice" and row["live"] and "horse" not in command("list", "--json")
    tgtd.kill()
    assert "does it run" in command("list", status=1)
    tgtd.start()
    assert "not in tgtd" in command("list")
    command("restore")
    disk(chap=CHAP).io("read -P 1 0 1M")
    assert command("portal", "list").split() == ["127.0.0.1:%d" % tgtd.port]
    assert "is no iSCSI name" in command("create", "disk", "disk", status=1)
    command("delete", NAME)
    assert command("list") == ""


def test_limits_hold_for_a_clone_too(client, targets, disk):
    """What lies in objects that others have as well is read no faster."""
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, noise(12 * MIB, 1))
    client.snapshot("disk", "monday")
    client.clone("disk", "monday", "clone")
    client.set_limits("clone", Limits(read_bytes_sec=2 * MIB, write_iops_sec=10))
    assert client.limits("clone") == Limits(read_bytes_sec=2 * MIB, write_iops_sec=10)
    targets.create(NAME, "clone", addresses=[ANYBODY])
    # The sheep learns of the limits while the first requests pass.
    disk().io("read 0 512", "write 16M 512", "read 0 512")
    began = time.monotonic()
    disk().io("read 0 12M")
    assert time.monotonic() - began > 3
    began = time.monotonic()
    disk().io(*["write %dk 512" % number for number in range(0, 60, 4)])
    assert time.monotonic() - began > 1


def test_limits_change_while_requests_wait(client, targets, disk):
    client.set_limits("disk", Limits(write_iops_sec=1))
    targets.create(NAME, "disk", addresses=[ANYBODY])
    disk().io("write 0 512")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # By themselves these take ten minutes.
        slow = pool.submit(disk().io, *["write -P 7 %dk 512" % number for number in range(600)])
        assert not concurrent.futures.wait([slow], timeout=1).done
        client.set_limits("disk", Limits())
        slow.result(timeout=60)
    assert client.limits("disk") == Limits()
    with client.open_vdi("disk", read_only=True) as vdi:
        assert vdi.pread(599 << 10, 512) == b"\7" * 512


def test_limits_stay_over_a_snapshot(client, targets, disk):
    client.set_limits("disk", Limits(total_iops_sec=10))
    targets.create(NAME, "disk", addresses=[ANYBODY])
    disk().io("write 0 512")
    client.snapshot("disk", "monday")
    disk().io("write 0 512")
    began = time.monotonic()
    disk().io(*["write %dk 512" % number for number in range(0, 60, 4)])
    assert time.monotonic() - began > 1
