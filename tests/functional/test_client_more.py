"""What the faces ask of the client beside reading and writing."""

import concurrent.futures
import threading

import pytest

from sheepstack.client.errors import InvalidParameters, NoSuchVdi, TagExists
from tests.functional.harness import wait_until
from tests.functional.workload import MIB, leader_of

OBJECT = 4 * MIB


class InOrder:
    """Writes a number to one VDI and, when that is acknowledged, to the next, and so on."""

    def __init__(self, disks):
        self.number = 0
        self._disks = disks
        self._ended = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            while not self._ended.is_set():
                self.number += 1
                for disk in self._disks:
                    disk.pwrite(0, self.number.to_bytes(8, "little"))
        except Exception as error:
            self._failure = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *exc_info):
        self._ended.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def test_snapshots_of_several_vdis_are_of_one_instant(cluster):
    names = ["a", "b", "c"]
    client = cluster.client()
    for name in names:
        client.create_vdi(name, OBJECT)
    disks = [client.open_vdi(name) for name in names]
    # Through another sheep than the one that the writer uses.
    taker = cluster.client(2)
    with InOrder(disks) as writer:
        for round in range(10):
            goal = writer.number + 2
            wait_until(lambda: writer.number >= goal, 30, "writes")
            tag = "s%d" % round
            taker.snapshot_together([(name, tag) for name in reversed(names)])
            numbers = []
            for name in names:
                with taker.open_vdi(name, tag) as snapshot:
                    numbers.append(int.from_bytes(snapshot.pread(0, 8), "little"))
            first = numbers[0]
            assert numbers in (
                [first, first, first], [first, first, first - 1], [first, first - 1, first - 1])
    for disk in disks:
        disk.close()


@pytest.mark.deployment("eventlet+local")
def test_snapshots_together_that_cannot_be_are_not_taken(cluster):
    client = cluster.client()
    for name in ("a", "b"):
        client.create_vdi(name, OBJECT)
    client.snapshot("b", "taken")
    with pytest.raises(TagExists):
        client.snapshot_together([("a", "taken"), ("b", "taken")])
    with pytest.raises(NoSuchVdi):
        client.snapshot_together([("a", "new"), ("missing", "new")])
    with pytest.raises(InvalidParameters):
        client.snapshot_together([("a", "new"), ("a", "newer")])
    assert [header.tag for header in client.list_vdis() if header.is_snapshot] == ["taken"]
    client.snapshot_together([("a", "new"), ("b", "new")])
    assert client.lookup("a", "new") != client.lookup("a")


def test_snapshots_of_one_vdi_at_the_same_time(cluster):
    """Each has its tag, none takes that of another."""
    client = cluster.client()
    client.create_vdi("a", OBJECT)
    tags = ["s%d" % number for number in range(8)]
    takers = [cluster.client(number % 3) for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for made in [pool.submit(taker.snapshot, "a", tag) for taker, tag in zip(takers, tags)]:
            made.result()
    assert sorted(header.tag for header in client.list_vdis() if header.is_snapshot) == tags
    for tag in tags:
        client.delete_vdi("a", tag)
    client.delete_vdi("a")
    assert not list(client.list_vdis())


@pytest.mark.deployment("threading+zookeeper")
def test_a_leader_that_dies_takes_no_half_of_the_snapshots_for_granted(cluster):
    client = cluster.client()
    names = ["v%d" % number for number in range(8)]
    for name in names:
        client.create_vdi(name, OBJECT)
    leader = leader_of(cluster)
    outcome = []

    def take():
        try:
            client.snapshot_together([(name, "s") for name in names])
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    cluster.kill(leader)
    thread.join()
    tags = [header.name for header in client.list_vdis() if header.tag == "s"]
    working = sorted(header.name for header in client.list_vdis() if not header.is_snapshot)
    assert working == names
    if outcome == [None]:
        assert sorted(tags) == names
    else:
        assert isinstance(outcome[0], TagExists), outcome
        assert 0 < len(tags) < len(names)


@pytest.mark.deployment("eventlet+local")
def test_differences_between_vdis_that_are_related_or_not(cluster):
    client = cluster.client()
    client.create_vdi("disk", 10 * OBJECT + MIB)
    with client.open_vdi("disk") as disk:
        disk.pwrite(0, b"1")
        disk.pwrite(5 * OBJECT, b"1")
        client.snapshot("disk", "first")
        disk.pwrite(2 * OBJECT - 1, b"22")
        disk.pwrite(10 * OBJECT, b"2")
        disk.discard(5 * OBJECT, OBJECT)
    client.clone("disk", "first", "clone")
    with client.open_vdi("disk", read_only=True) as disk, \
            client.open_vdi("disk", "first") as first, \
            client.open_vdi("clone", read_only=True) as clone:
        expected = [(OBJECT, 2 * OBJECT), (5 * OBJECT, OBJECT), (10 * OBJECT, MIB)]
        assert disk.differences(first) == expected
        assert disk.differences(clone) == expected
        assert clone.differences(first) == []
    client.create_vdi("other", OBJECT, block_size_shift=20)
    with client.open_vdi("other") as other, client.open_vdi("disk", read_only=True) as disk, \
            pytest.raises(ValueError):
        disk.differences(other)


@pytest.mark.deployment("eventlet+local")
def test_content_of_one_vdi_becomes_that_of_another(cluster):
    client = cluster.client()
    for name, byte, size in (("old", b"o", OBJECT), ("new", b"n", 2 * OBJECT)):
        client.create_vdi(name, size, copies=len(name) - 1)
        with client.open_vdi(name) as disk:
            disk.pwrite(0, byte * 100)
    client.snapshot("old", "kept")
    client.snapshot("new", "moved")
    client.rollback("old", "moved", source="new")
    client.delete_vdi("new", "moved")
    client.delete_vdi("new")
    with client.open_vdi("old") as disk, client.open_vdi("old", "kept") as kept:
        assert (disk.size, disk.pread(0, 100)) == (2 * OBJECT, b"n" * 100)
        assert (kept.size, kept.pread(0, 100)) == (OBJECT, b"o" * 100)
    assert sorted((header.name, header.tag) for header in client.list_vdis()) == [
        ("old", ""), ("old", "kept")]


@pytest.mark.deployment("eventlet+local")
def test_space_is_that_of_the_sheep_that_answer(cluster):
    client = cluster.client()
    space = client.space()
    assert 0 < space.free <= space.total
    cluster.kill(1)
    cluster.wait_members()
    assert client.space().total < space.total
