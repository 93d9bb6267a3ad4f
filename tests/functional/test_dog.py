"""Every command of dog against a cluster of three sheep."""

import os
import pty
import subprocess
import sys
import time

import pytest

from sheepstack.wire import admin
from tests.functional.harness import HOST, wait_until

# What dog does depends on neither the sheep's runtime nor their coordination.
pytestmark = pytest.mark.deployment("eventlet+local")

MIB = 1 << 20
PATTERN = b"".join(b"%15d\n" % number for number in range(10 * MIB // 16))


def run_dog(*args, **options):
    """dog with exactly these words; :class:`subprocess.CompletedProcess`."""
    return subprocess.run([sys.executable, "-m", "sheepstack.dog", *map(str, args)],
                          capture_output=True, timeout=60, **options)


def rows(cluster, *args):
    """The words of each line of a raw listing."""
    return [line.split(" ") for line in cluster.dog(*args, "-r").lines]


# -- cluster


def test_cluster_info(cluster):
    members = "[%s]" % ", ".join("%s:128" % address for address in sorted(cluster.addresses))
    out = cluster.dog("cluster", "info").lines
    assert out[0] == "Cluster status: running, auto-recovery enabled"
    assert out[2].startswith("Cluster created at ")
    assert out[4] == "Epoch Time           Version [Host:Port:V-Nodes,,,]"
    assert out[5].endswith("      1 " + members) and len(out) == 6

    out = cluster.dog("cluster", "info", "-v").lines
    assert out[1:4] == ["Cluster store: plain with 3 redundancy policy",
                        "Cluster vnodes strategy: auto", "Cluster vnode mode: node"]

    status, empty, log = cluster.dog("cluster", "info", "-r").lines
    seconds, epoch, nodes = log.split(" ", 2)
    assert (status, empty) == ("running, auto-recovery enabled", "")
    assert (epoch, nodes) == ("1", members) and abs(int(seconds) - time.time()) < 120


def test_history_shows_who_left(cluster):
    gone = sorted(cluster.addresses)[2]
    cluster.kill(cluster.index_of(gone))
    cluster.wait_members()
    lines = cluster.dog("cluster", "info", "-d").lines
    assert lines[-2].endswith("      2 [-%s]" % gone)
    assert lines[-1].endswith("      1 [formated]")


def test_format_asks_before_it_destroys(cluster):
    cluster.dog("vdi", "create", "keep", "16M")
    for answer, status in ((b"", 1), (b"no\n", 0), (b"y\n", 0)):
        ran = cluster.dog("cluster", "format", "-c", 2, input=answer, check=False)
        assert ran.status == status
        assert "Caution! The cluster is not empty." in ran.text
        assert "using backend" not in ran.text
        assert len(rows(cluster, "vdi", "list")) == 1
    ran = cluster.dog("cluster", "format", "-c", 2, input=b"yes\n")
    assert ran.text.endswith("using backend plain store\n")
    assert cluster.dog("vdi", "list", "-r") == (0, b"", "")
    assert cluster.dog("cluster", "info", "-v").lines[1] == \
        "Cluster store: plain with 2 redundancy policy"
    cluster.dog("vdi", "create", "keep", "16M")
    assert cluster.dog("vdi", "read", "keep", 0, 4).out == bytes(4)


def test_format_warns_of_too_few_zones(cluster):
    ran = cluster.dog("cluster", "format", "-c", 4, input=b"no\n")
    assert "Number of copies (4) is larger than number of zones (3)." in ran.text
    assert cluster.dog("cluster", "format", "-c", 4, "-f").text == "using backend plain store\n"


def test_format_refuses_what_the_sheep_are_not(cluster):
    ran = cluster.dog("cluster", "format", "-b", "bogus", check=False)
    assert ran.status == 2
    assert ran.err.startswith("Format failed: Targeted backend store is not found\n")
    ran = cluster.dog("cluster", "format", "-V", check=False)
    assert ran.status == 1 and ran.err.startswith("Option '-V' cannot be used: ")


@pytest.mark.deployment("eventlet+local", "threading+local")
def test_an_unformatted_cluster_says_so(make_cluster):
    cluster = make_cluster(copies=None)
    waiting = "Waiting for cluster to be formatted"
    assert cluster.dog("cluster", "info").lines[0] == "Cluster status: " + waiting
    assert len(rows(cluster, "node", "list")) == 3
    for args, status, line in (
            (("vdi", "create", "x", "16M"), 1, "Failed to create VDI x: " + waiting),
            (("vdi", "read", "x"), 1,
             "Failed to open VDI x (snapshot id: 0 snapshot tag: ): " + waiting),
            (("vdi", "setattr", "x", "k", "v"), 1, "Failed to set attribute: " + waiting),
            (("cluster", "recover", "enable"), 1, "Response's result: " + waiting)):
        ran = cluster.dog(*args, check=False)
        assert (ran.status, ran.err, ran.out) == (status, line + "\n", b"")


def test_recovery_can_be_switched(cluster):
    assert cluster.dog("cluster", "recover", "disable").text == "Cluster recovery: disable\n"
    assert cluster.dog("cluster", "info").lines[0].endswith("auto-recovery disabled")
    assert cluster.dog("cluster", "recover", "enable").text == "Cluster recovery: enable\n"
    assert cluster.dog("cluster", "info").lines[0].endswith("auto-recovery enabled")
    ran = cluster.dog("cluster", "recover", "force", "-f", check=False)
    assert ran.status == 1 and ran.err.startswith("failed to execute request, ")


def test_shutdown_and_going_on_without_a_node(cluster):
    cluster.dog("vdi", "create", "a", "16M")
    cluster.dog("vdi", "write", "a", input=PATTERN)
    assert cluster.dog("cluster", "shutdown").out == b""
    cluster.wait_ended()
    for index in (0, 1):
        cluster.restart(index)
    cluster.wait_status(admin.ClusterStatus.WAIT)
    info = cluster.dog("cluster", "info").lines
    assert info[0] == "Cluster status: Waiting for other nodes to join cluster"
    assert cluster.addresses[2] in info[-1]
    ran = cluster.dog("cluster", "recover", "force", input=b"no\n")
    assert "Are you sure you want to continue? [yes/no]: " in ran.text
    cluster.dog("cluster", "recover", "force", input=b"yes\n")
    cluster.wait_members([0, 1], status=admin.ClusterStatus.OK)
    assert cluster.dog("vdi", "read", "a", 0, len(PATTERN)).out == PATTERN


def test_default_redundancy_can_be_changed(cluster):
    ran = cluster.dog("cluster", "alter-copy", "-c", 2, "-f")
    assert ran.err == "The cluster's redundancy level is set to 2, the old one was 3.\n"
    ran = cluster.dog("cluster", "alter-copy", "-c", 2, "-f", check=False)
    assert (ran.status, ran.err) == (
        1, "The cluster's redundancy level is already set to 2, nothing changed.\n")
    cluster.dog("vdi", "create", "a", "16M")
    assert rows(cluster, "vdi", "list")[0][8] == "2"


# -- node


def test_nodes(cluster):
    addresses = sorted(cluster.addresses)
    assert [row[:3] for row in rows(cluster, "node", "list")] == [
        [str(number), address, "128"] for number, address in enumerate(addresses)]
    heading, *lines = cluster.dog("node", "list").lines
    assert heading == "  Id   Host:Port         V-Nodes       Zone"
    assert [line.split()[1] for line in lines] == addresses

    *nodes, total = rows(cluster, "node", "info")
    assert [row[0] for row in nodes] == ["0", "1", "2"]
    assert total[0] == "Total" and int(total[1]) == sum(int(row[1]) for row in nodes)
    assert cluster.dog("node", "info").lines[-1] == "Total virtual image size\t0.0 MB"

    disks = rows(cluster, "node", "md", "info", "-A")
    assert [disk[0] for disk in disks] == addresses
    assert {disk[-1] for disk in disks} == {str(path / "obj") for path in cluster.dirs}


def test_settings_of_a_node(cluster):
    assert cluster.dog("node", "log", "level", "get").err == "info (6)\n"
    cluster.dog("node", "log", "level", "set", "debug")
    assert cluster.dog("node", "log", "level", "get").err == "debug (7)\n"
    assert len(cluster.dog("node", "log", "level", "list").err.splitlines()) == 8

    cluster.dog("node", "recovery", "set-throttle", 5, 100)
    assert cluster.dog("node", "recovery", "get-throttle").err == "max (5), interval (100)\n"
    cluster.dog("node", "recovery", "set-throttle", 0, 0)
    assert cluster.dog("node", "recovery", "get-throttle").err == "max (0), interval (0)\n"


def test_requests_are_counted(cluster):
    cluster.dog("vdi", "create", "a", "16M")
    cluster.dog("vdi", "write", "a", input=PATTERN)
    client, peer = ([int(cell) for cell in line.split("\t")]
                    for line in cluster.dog("node", "stat", "-r").lines)
    assert client[2] >= 3 and client[6] >= len(PATTERN)
    assert cluster.dog("node", "stat").lines[0] == \
        "Request\tActive\tTotal\tWrite\tRead\tRemove\tFlush\tAll WR\tAll RD"


def test_kill(cluster):
    victim = sorted(cluster.addresses)[2]
    index = cluster.index_of(victim)
    ran = cluster.dog("node", "kill", 3, check=False)
    assert (ran.status, ran.err) == (64, "Invalid node id '3'\n")
    cluster.sheep[index].expected_to_end = True
    cluster.dog("node", "kill", 2, sheep=(index + 1) % 3)
    cluster.sheep[index].wait_ended(20)
    cluster.wait_members()
    assert [row[1] for row in rows(cluster, "node", "list")] == sorted(cluster.addresses)[:2]


def test_recovery_is_shown(cluster):
    heading = cluster.dog("node", "recovery").lines
    assert heading == ["Nodes In Recovery:",
                       "  Id   Host:Port         V-Nodes       Zone       Progress"]
    assert cluster.dog("node", "recovery", "-r").out == b""
    assert cluster.dog("node", "recovery", "-P").out == b""


# -- vdi


def test_a_vdi_from_birth_to_death(cluster):
    dog = cluster.dog
    assert dog("vdi", "create", "a", "16M").out == b""
    ran = dog("vdi", "create", "a", "16M", check=False)
    assert (ran.status, ran.err) == (1, "Failed to create VDI a: VDI exists already\n")
    dog("vdi", "write", "a", input=PATTERN)
    dog("vdi", "snapshot", "-s", "first", "a")
    ran = dog("vdi", "snapshot", "-s", "first", "a", check=False)
    assert ran.status == 1 and ran.err.startswith("Failed to create snapshot for a, maybe ")
    dog("vdi", "write", "a", input=b"changed")
    dog("vdi", "clone", "-s", "first", "a", "b")

    kind, name, number, size, own, shared, created, vid, copies, tag, shift = 0, 1, 2, 3, 4, 5, \
        6, 7, 8, 9, 10
    found = {(row[kind], row[name]): row for row in rows(cluster, "vdi", "list")}
    assert sorted(found) == [("=", "a"), ("c", "b"), ("s", "a")]
    snapshot, current, clone = found["s", "a"], found["=", "a"], found["c", "b"]
    assert [row[size] for row in found.values()] == [str(16 * MIB)] * 3
    assert (snapshot[number], snapshot[tag], current[number]) == ("1", "first", "0")
    assert [(int(row[own]) // MIB, int(row[shared]) // MIB)
            for row in (snapshot, current, clone)] == [(12, 0), (4, 8), (0, 12)]
    assert {row[copies] for row in found.values()} == {"3"}
    assert {row[shift] for row in found.values()} == {"22"}
    assert abs(int(current[created]) - time.time()) < 120
    assert len({row[vid] for row in found.values()}) == 3
    assert [row[name] for row in rows(cluster, "vdi", "list", "b")] == ["b"]

    assert dog("vdi", "read", "a", 0, 8).out == b"changed" + PATTERN[7:8]
    assert dog("vdi", "read", "-s", "first", "a", 0, 8).out == PATTERN[:8]
    assert dog("vdi", "read", "-s", 1, "a", 0, 8).out == PATTERN[:8]
    assert dog("vdi", "read", "b", 0, len(PATTERN)).out == PATTERN

    ran = dog("vdi", "rollback", "-s", "first", "a", input=b"no\n")
    assert ran.text.startswith("This operation discards any changes made since the previous\n")
    assert dog("vdi", "read", "a", 0, 7).out == b"changed"
    dog("vdi", "rollback", "-f", "-s", "first", "a")
    assert dog("vdi", "read", "a", 0, len(PATTERN)).out == PATTERN

    dog("vdi", "resize", "a", "20M")
    assert rows(cluster, "vdi", "list", "a")[-1][size] == str(20 * MIB)
    ran = dog("vdi", "resize", "a", "8M", check=False)
    assert ran.status == 64 and ran.err == "Shrinking VDIs is not implemented\n"

    dog("vdi", "delete", "a")
    dog("vdi", "delete", "-s", "first", "a")
    assert [row[name] for row in rows(cluster, "vdi", "list")] == ["b"]
    assert dog("vdi", "read", "b", 0, len(PATTERN)).out == PATTERN
    dog("vdi", "delete", "b")
    assert dog("vdi", "list", "-r").out == b""


def test_ids_are_told_to_those_who_ask(cluster):
    dog = cluster.dog
    vid = dog("vdi", "create", "-v", "-r", "a", "16M").text.strip()
    assert rows(cluster, "vdi", "list")[0][7] == vid
    line = dog("vdi", "snapshot", "-v", "-s", "s", "a").text
    words = line.replace(",", "").split()
    assert line.startswith("new VID of original VDI: ") and words[-1] == vid
    line = dog("vdi", "clone", "-v", "-s", "s", "a", "b").text
    assert line == "VDI ID of newly created clone: %s\n" % rows(cluster, "vdi", "list", "b")[0][7]
    line = dog("vdi", "snapshot", "-R", "-v", "-s", "t", "a").err
    assert line == "VDI a doesn't have its own objects, skipping creation of snapshot\n"


def test_tree_and_graph(cluster):
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "snapshot", "-s", "one", "a")
    dog("vdi", "snapshot", "-s", "two", "a")
    dog("vdi", "rollback", "-f", "-s", "one", "a")
    first, second = dog("vdi", "tree").lines
    assert first.startswith("a---[20") and "]-+-[20" in first
    assert second.endswith("`-(you are here)") and second.index("`") == first.index("+")
    assert "\033" not in first + second
    graph = dog("vdi", "graph").text
    vid = rows(cluster, "vdi", "list", "a")[0][7]
    assert graph.startswith("digraph G {\n") and graph.endswith("}\n")
    assert '\n  "0" -> "%s";\n  "%s" [\n    group = "a",\n' % (vid, vid) in graph
    assert graph.count('color="red"') == 1


def test_reading_and_writing_parts(cluster):
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "write", "a", "4M", input=b"four")
    dog("vdi", "write", "a", 4095, 3, input=b"xyzzy")
    dog("vdi", "write", "a", 8 * MIB - 2, input=b"edge")
    dog("vdi", "write", "a", 16 * MIB - 2, input=b"too long")
    expected = bytearray(16 * MIB)
    for offset, data in ((4 * MIB, b"four"), (4095, b"xyz"), (8 * MIB - 2, b"edge"),
                         (16 * MIB - 2, b"to")):
        expected[offset:offset + len(data)] = data
    assert dog("vdi", "read", "a").out == expected
    assert dog("vdi", "read", "a", 4094, 5).out == b"\0xyz\0"
    assert dog("vdi", "read", "a", "8191K", 4096).out == expected[8191 * 1024:][:4096]
    assert dog("vdi", "read", "a", 16 * MIB - 1, 5).out == b"o"
    assert dog("vdi", "read", "a", "16M").out == b""
    for command, line in (("read", "Read"), ("write", "Write")):
        ran = dog("vdi", command, "a", "17M", input=b"x", check=False)
        assert (ran.status, ran.err) == (
            1, line + " offset is beyond the end of the VDI\n")
        ran = dog("vdi", command, "a", "4X", check=False)
        assert ran.status == 64 and ran.err.startswith("Invalid size '4X'\n")
        ran = dog("vdi", command, "nosuch", check=False)
        assert (ran.status, ran.err) == (
            1, "Failed to open VDI nosuch (snapshot id: 0 snapshot tag: ): No VDI found\n")


def test_a_reader_that_goes_away(cluster):
    cluster.dog("vdi", "create", "a", "64M")
    cluster.dog("vdi", "write", "a", input=PATTERN)
    port = cluster.sheep[0].port
    dog = subprocess.Popen(
        [sys.executable, "-m", "sheepstack.dog", "vdi", "read", "a", "-p", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert dog.stdout.read(16) == PATTERN[:16]
    dog.stdout.close()
    assert dog.wait(60) == 141
    assert dog.stderr.read() == b""
    dog.stderr.close()


def test_objects_made_at_once(cluster):
    cluster.dog("vdi", "create", "-P", "a", "10M")
    assert rows(cluster, "vdi", "list")[0][4] == str(12 * MIB)
    cluster.dog("vdi", "write", "a", input=b"data")
    cluster.dog("vdi", "snapshot", "-s", "s", "a")
    cluster.dog("vdi", "clone", "-n", "-s", "s", "a", "copy")
    cluster.dog("vdi", "clone", "-P", "-s", "s", "a", "full")
    for name in ("copy", "full"):
        row = rows(cluster, "vdi", "list", name)[0]
        assert row[4:6] == [str(12 * MIB), "0"], row
        assert cluster.dog("vdi", "read", name).out == b"data" + bytes(10 * MIB - 4)


def test_limits(cluster):
    dog = cluster.dog
    dog("vdi", "create", "a", "4M")
    assert dog("vdi", "limit", "a").text == ""
    dog("vdi", "limit", "a", "total_iops_sec=500", "write_bytes_sec=1000")
    assert dog("vdi", "limit", "a").text == "total_iops_sec=500 write_bytes_sec=1000\n"
    dog("vdi", "snapshot", "a", "-s", "old")
    assert dog("vdi", "limit", "a").text == "total_iops_sec=500 write_bytes_sec=1000\n"
    for words in (("iops=5",), ("total_iops_sec=many",), ("off", "total_iops_sec=1")):
        assert dog("vdi", "limit", "a", *words, check=False).status
    assert dog("vdi", "setattr", "a", "limits", "nonsense", check=False).status
    dog("vdi", "limit", "a", "off")
    dog("vdi", "limit", "a", "off")
    assert dog("vdi", "limit", "a").text == ""
    assert "VDI not found" in dog("vdi", "limit", "b", check=False).err


def test_attributes(cluster):
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "setattr", "a", "key", "value")
    assert dog("vdi", "getattr", "a", "key").out == b"value"
    dog("vdi", "setattr", "a", "key", input=b"two\nlines\n")
    assert dog("vdi", "getattr", "a", "key").out == b"two\nlines\n"
    ran = dog("vdi", "setattr", "-x", "a", "key", "other", check=False)
    assert (ran.status, ran.err) == (3, "The attribute 'key' already exists\n")
    dog("vdi", "setattr", "-d", "a", "key")
    for args in (("getattr", "a", "key"), ("setattr", "-d", "a", "key")):
        ran = dog("vdi", *args, check=False)
        assert (ran.status, ran.err) == (5, "Attribute 'key' not found\n")
    ran = dog("vdi", "getattr", "nosuch", "key", check=False)
    assert (ran.status, ran.err) == (5, "VDI not found\n")
    ran = dog("vdi", "setattr", "a", "big", input=bytes(65537), check=False)
    assert (ran.status, ran.err) == (1, "An attribute's value has at most 65536 bytes\n")


def test_objects_and_where_they_are(make_cluster):
    cluster = make_cluster(copies=2)
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "write", "a", "4M", input=b"x")
    vid = rows(cluster, "vdi", "list")[0][7]
    assert dog("vdi", "object", "map", "a").lines == ["Index       VID", "00000001 %8s" % vid]
    assert dog("vdi", "object", "map", "-i", "0x2", "a").lines[1] == "00000002        0"

    oid = "%08x%08x" % (int(vid, 16), 1)
    out = dog("vdi", "object", "location", "-i", 1, "a").lines
    assert out[0] == "Looking for the object %s (vid 0x%s idx 1, 2 copies) with 3 nodes" % (
        oid, vid)
    holders = {address for address, path in zip(cluster.addresses, cluster.dirs)
               if (path / "obj" / oid).exists()}
    assert {line.split()[0] for line in out if line.endswith(" has the object")} == holders
    assert len([line for line in out if line.endswith("doesn't have the object")]) == 1
    assert out[-2] == "According to sheepdog algorithm, the object should be located at:"
    assert set(out[-1].split()) == holders
    assert dog("vdi", "object", "location", "-i", 2, "a").text == \
        "The inode object 0x%s idx 2 is not allocated\n" % vid

    out = dog("vdi", "track", "-i", 1, "a").lines
    assert out[2] == "obj %s locations at epoch 1, copies = 2" % oid
    assert set(out[4:]) == holders
    assert [row[1] for row in rows(cluster, "vdi", "list", "-o", oid)] == ["a"]

    inode = cluster.object_files("%08x%08x" % (0x80000000 | int(vid, 16), 0))[0]
    dump = dog("vdi", "object", "dump-inode", inode).lines
    assert dump[0] == "name: a" and "vdi_id: %s" % vid in dump and "1: %s" % vid in dump
    ran = dog("vdi", "object", "dump-inode", "/no/such/file", check=False)
    assert (ran.status, ran.err) == (
        1, "failed to open inode object file: No such file or directory\n")


def test_check_repairs_a_rotten_copy(cluster):
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "write", "a", input=PATTERN)
    assert dog("vdi", "check", "a").text == "finish check&repair a\n"
    assert dog("vdi", "check", "-e", "a").text == "a is fine, no object is missing.\n"
    vid = rows(cluster, "vdi", "list")[0][7]
    oid = "%08x%08x" % (int(vid, 16), 1)
    path = cluster.object_files(oid)[0]
    with path.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    assert dog("vdi", "check", "a").text == \
        "fixed replica %s\nfinish check&repair a\n" % oid
    assert path.read_bytes()[100:101] == byte
    dog("vdi", "snapshot", "-s", "s", "a")
    assert dog("cluster", "check").text == (
        'fix snapshot a (id: 1, tag: "s")\nfinish check&repair a\n'
        'fix vdi a\nfinish check&repair a\n')


def test_backup_and_restore(cluster):
    dog = cluster.dog
    dog("vdi", "create", "a", "24M")
    dog("vdi", "write", "a", input=PATTERN)
    dog("vdi", "snapshot", "-s", "one", "a")
    dog("vdi", "write", "a", "5M", input=b"five")
    dog("vdi", "write", "a", "20M", input=PATTERN[:3 * MIB])
    dog("vdi", "snapshot", "-s", "two", "a")
    dog("vdi", "write", "a", "1M", input=b"current")
    second = dog("vdi", "read", "-s", "two", "a").out
    current = dog("vdi", "read", "a").out
    saved = dog("vdi", "backup", "-F", "one", "-s", "two", "a").out
    assert len(saved) < 4 * MIB and saved.startswith(bytes.fromhex("0100000092119211"))
    assert dog("vdi", "backup", "-F", "one", "-s", "one", "a").out == \
        bytes.fromhex("0100000092119211ffffffff000000000000000000000000")
    dog("vdi", "delete", "-s", "two", "a")

    dog("vdi", "restore", "-s", "one", "a", input=saved)
    snapshots = [row for row in rows(cluster, "vdi", "list") if row[0] == "s"]
    assert [row[9] for row in snapshots] == ["one", ""]
    assert dog("vdi", "read", "-s", snapshots[1][2], "a").out == second
    assert dog("vdi", "read", "a").out == current


def test_a_vdi_in_use_is_not_restored(cluster):
    cluster.dog("cluster", "format", "-l", "-c", 3, "-f")
    cluster.dog("vdi", "create", "a", "16M")
    cluster.dog("vdi", "snapshot", "-s", "one", "a")
    saved = cluster.dog("vdi", "backup", "-F", "one", "-s", "one", "a").out
    before = cluster.dog("vdi", "list", "-r").out
    with cluster.client().open_vdi("a"):
        ran = cluster.dog("vdi", "restore", "-s", "one", "a", input=saved, check=False)
    assert ran.status == 1 and ran.err.startswith("VDI a is locked: ")
    assert cluster.dog("vdi", "list", "-r").out == before


@pytest.mark.parametrize("damage", ["garbage", "cut", "empty"])
def test_a_damaged_backup_changes_nothing(cluster, damage):
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "snapshot", "-s", "one", "a")
    dog("vdi", "write", "a", input=PATTERN)
    dog("vdi", "snapshot", "-s", "two", "a")
    dog("vdi", "write", "a", input=b"current")
    before = [row[:6] for row in rows(cluster, "vdi", "list")]
    saved = dog("vdi", "backup", "-F", "one", "-s", "two", "a").out
    damaged = {"garbage": b"garbage" * 9, "cut": saved[:-20], "empty": b""}[damage]
    ran = dog("vdi", "restore", "-s", "one", "a", input=damaged, check=False)
    assert ran.status == 2 and len(ran.err.splitlines()) == 1
    assert [row[:6] for row in rows(cluster, "vdi", "list")][:2] == before[:2]
    assert len(rows(cluster, "vdi", "list")) == len(before)
    assert dog("vdi", "read", "a", 0, len(PATTERN)).out == b"current" + PATTERN[7:]


def test_locks(cluster):
    cluster.dog("cluster", "format", "-l", "-c", 3, "-f")
    for name in ("a", "b"):
        cluster.dog("vdi", "create", name, "16M")
    heading = "  Name         Id  VDI id  Tag            Owner node(s)"
    assert cluster.dog("vdi", "lock", "list").lines == [heading]
    with cluster.client(1).open_vdi("a"):
        line = cluster.dog("vdi", "lock", "list").lines[1]
        assert line.startswith("  a             0")
        assert line.endswith(" IPv4 ip:%s port:%d" % (HOST, cluster.sheep[1].port))
        ran = cluster.dog("vdi", "lock", "unlock", "b", check=False)
        vid = rows(cluster, "vdi", "list", "b")[0][7]
        assert (ran.status, ran.err) == (1, "VDI b (vid=%s) is not locked\n" % vid)
        cluster.dog("vdi", "lock", "unlock", "a")
        assert cluster.dog("vdi", "lock", "list").lines == [heading]
        with cluster.client(2).open_vdi("a") as other:
            assert other.size == 16 * MIB


def test_redundancy_of_a_vdi(make_cluster):
    cluster = make_cluster(3, format_options=("-l",))
    dog = cluster.dog
    dog("vdi", "create", "a", "16M")
    dog("vdi", "write", "a", 5 * MIB, len(PATTERN), input=PATTERN)
    dog("vdi", "setattr", "a", "key", "value")
    before = rows(cluster, "vdi", "list", "a")[0]
    ran = dog("vdi", "alter-copy", "-c", 3, "-f", "a", check=False)
    assert (ran.status, ran.err) == (
        1, "a's redundancy level is already set to 3, nothing changed.\n")
    with cluster.client().open_vdi("a"):
        ran = dog("vdi", "alter-copy", "-c", 2, "-f", "a", check=False)
    assert ran.status == 1 and "lock" in ran.err, "it is in use"
    ran = dog("vdi", "alter-copy", "-c", 2, "-f", "a")
    assert ran.err == "a's redundancy level is set to 2, the old one was 3.\n"
    after = rows(cluster, "vdi", "list")
    assert len(after) == 1 and after[0][8] == "2"
    assert after[0][6] == before[6], "the time of its creation"
    assert dog("vdi", "read", "a", 5 * MIB, len(PATTERN)).out == PATTERN
    assert dog("vdi", "getattr", "a", "key").out == b"value"
    dog("vdi", "snapshot", "-s", "s", "a")
    ran = dog("vdi", "alter-copy", "-c", 1, "-f", "a", check=False)
    assert ran.status == 1
    assert ran.err.startswith("Only standalone vdi supports changing redundancy level.\n")


def test_cluster_snapshots(cluster, tmp_path):
    dog, farm = cluster.dog, str(tmp_path / "farm")
    assert dog("cluster", "snapshot", "list", farm).lines == ["Index\t\tTag\t\tSnapshot Time"]
    dog("vdi", "create", "a", "12M")
    ran = dog("cluster", "snapshot", "save", "s1", farm, check=False)
    assert ran.status == 2 and "Fail to save snapshot to path: %s." % farm in ran.err
    dog("vdi", "write", "a", input=PATTERN)
    dog("vdi", "snapshot", "-s", "one", "a")
    dog("vdi", "write", "a", 5 * MIB, 3, input=b"two")
    dog("vdi", "snapshot", "a")
    dog("vdi", "clone", "-s", "one", "a", "b")
    dog("vdi", "write", "b", 0, 1, input=b"b")
    dog("vdi", "snapshot", "-s", "bsnap", "b")
    dog("vdi", "rollback", "-f", "-s", "one", "a")
    dog("vdi", "write", "a", 9 * MIB, 5, input=b"three")
    dog("vdi", "snapshot", "-s", "three", "a")
    before = [row[1:7] + row[8:] for row in rows(cluster, "vdi", "list") if row[0] == "s"]
    states = (("a", "one"), ("a", 2), ("a", "three"), ("b", "bsnap"))
    content = [dog("vdi", "read", "-s", tag, name).out for name, tag in states]
    assert len(set(content)) == 4

    dog("cluster", "snapshot", "save", "s1", farm)
    ran = dog("cluster", "snapshot", "save", "s1", farm, check=False)
    assert ran.status == 2 and ran.err.startswith("Snapshot tag has already been used")
    assert dog("cluster", "snapshot", "save", "1s", farm, check=False).status == 64
    dog("cluster", "snapshot", "save", "s2", farm, "b")
    listed = dog("cluster", "snapshot", "list", farm).lines
    assert [line.split("\t\t")[:2] for line in listed[1:]] == [["1", "s1"], ["2", "s2"]]
    shown = dog("cluster", "snapshot", "show", "s2", farm).err.splitlines()
    assert len(shown) == 1 and shown[0].endswith("name: b, tag: bsnap")

    dog("vdi", "create", "other", "8M")
    dog("cluster", "snapshot", "load", "-f", "1", farm)
    loaded = rows(cluster, "vdi", "list")
    assert [row[1:7] + row[8:] for row in loaded if row[0] == "s"] == before
    assert sorted(row[1] for row in loaded if row[0] != "s") == ["a", "b"]
    assert [dog("vdi", "read", "-s", tag, name).out for name, tag in states] == content
    assert dog("vdi", "read", "a").out == content[2], "as its newest snapshot"

    dog("cluster", "snapshot", "load", "-f", "s1", farm, "b")
    assert {row[1] for row in rows(cluster, "vdi", "list")} == {"b"}
    assert dog("vdi", "read", "b").out == content[3]
    part = max((tmp_path / "farm" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    ran = dog("cluster", "snapshot", "load", "-f", "s1", farm, check=False)
    assert ran.status == 2 and "is damaged" in ran.err


@pytest.mark.deployment("eventlet+local")
def test_numbers_of_vnodes(make_cluster):
    cluster = make_cluster(3, copies=2, vnodes=(128, 128, 128), format_options=("-V",))
    cluster.dog("vdi", "create", "-P", "a", "64M")
    cluster.dog("vdi", "write", "a", input=PATTERN)
    cluster.dog("node", "vnodes", "set", 10, sheep=1)
    cluster.wait_epoch(2)
    assert [row[2] for row in rows(cluster, "node", "list")] == ["128", "10", "128"]
    cluster.wait_recovered()
    assert cluster.dog("vdi", "read", "a", 0, len(PATTERN)).out == PATTERN
    assert cluster.dog("vdi", "check", "-e", "a").status == 0
    ran = cluster.dog("cluster", "reweight", check=False)
    assert (ran.status, ran.err) == (1, "Response's result: Invalid v-nodes strategy\n")

    cluster = make_cluster(2, copies=2)
    ran = cluster.dog("node", "vnodes", "set", 10, check=False)
    assert (ran.status, ran.err) == (
        255, "Failed to execute request: Invalid v-nodes strategy\n")
    cluster.dog("cluster", "reweight")
    assert [row[2] for row in rows(cluster, "node", "list")] == ["128", "128"]


def test_deleting_what_is_not_there(cluster):
    cluster.dog("vdi", "create", "a", "16M")
    ran = cluster.dog("vdi", "delete", "nosuch", check=False)
    assert (ran.status, ran.err) == (
        5, "Failed to open VDI nosuch (snapshot id: 0 snapshot tag: ): No VDI found\n")
    ran = cluster.dog("vdi", "delete", "-s", "nosuch", "a", check=False)
    assert (ran.status, ran.err) == (
        1, "Failed to open VDI a (snapshot id: 0 snapshot tag: nosuch): "
           "Failed to find requested tag\n")
    assert len(rows(cluster, "vdi", "list")) == 1


# -- how it is reached


def test_addresses(cluster):
    host, port = cluster.addresses[1].split(":")
    for args, environment in (
            (("-a", host, "-p", port), {}), (("--address=localhost", "--port", port), {}),
            ((), {"SHEEPDOG_DOG_ADDR": host, "SHEEPDOG_DOG_PORT": port}),
            (("-a", "unix:%s" % cluster.sheep[1].socket), {})):
        ran = run_dog("node", "list", "-r", *args, env={**os.environ, **environment})
        assert (ran.returncode, ran.stderr, ran.stdout.count(b"\n")) == (0, b"", 3)


def test_nobody_there(cluster):
    port = cluster.sheep[0].port
    cluster.kill(0)
    ran = run_dog("node", "list", "-p", port)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.endswith(b"Connection refused\nFailed to get node list\n")
    ran = run_dog("vdi", "delete", "a", "-p", port)
    assert ran.returncode == 2 and ran.stderr.count(b"\n") == 1


def test_the_secret(make_cluster, tmp_path):
    cluster = make_cluster(settings={"auth_key": b"0123456789abcdef"})
    port = cluster.sheep[0].port
    environment = {**os.environ, "SHEEPSTACK_AUTH_KEY_FILE": str(cluster.auth_key_file)}
    assert run_dog("node", "list", "-r", "-p", port, env=environment).returncode == 0
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"another secret, another secret")
    for args in ((), ("--auth-key-file", wrong)):
        ran = run_dog("vdi", "create", "a", "16M", "-p", port, *args)
        assert ran.returncode != 0 and ran.stderr.count(b"\n") == 1
        assert b"secret" in ran.stderr
    assert cluster.dog("vdi", "list", "-r").out == b""


# -- terminals


def test_a_progress_bar_on_a_terminal_and_none_in_a_pipe(cluster):
    ours, theirs = pty.openpty()
    dog = subprocess.Popen(
        [sys.executable, "-m", "sheepstack.dog", "vdi", "create", "-P", "a", "40M",
         "-p", str(cluster.sheep[0].port)], stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert dog.wait(60) == 0
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert shown.startswith("\r  0.0 % [>")
    assert shown.rpartition("\r100.0 % [====")[2].rstrip().endswith("] 40 MB / 40 MB")
    assert cluster.dog("vdi", "create", "-P", "b", "40M").out == b""


def test_elapsed_time(cluster):
    *lines, empty, last = cluster.dog("node", "list", "-r", "-T").lines
    assert len(lines) == 3 and empty == ""
    assert last.startswith("Elapsed time: ") and last.endswith(" seconds")


def test_stat_is_watched_until_nobody_looks(cluster):
    dog = subprocess.Popen(
        [sys.executable, "-m", "sheepstack.dog", "node", "stat", "-w", "-r",
         "-p", str(cluster.sheep[0].port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(4):
        assert dog.stdout.readline().count(b"\t") == 10
    dog.stdout.close()
    wait_until(lambda: dog.poll() is not None, 10, "dog to end")
    assert (dog.returncode, dog.stderr.read()) == (141, b"")
    dog.stderr.close()
