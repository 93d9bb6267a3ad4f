"""Erasure-coded VDIs: what they survive, and that they take the space that they should."""

import os
import random
import threading

import pytest

from sheepstack.client.errors import SheepError
from sheepstack.redundancy import erasure
from sheepstack.wire import oid as oids
from tests.functional.harness import wait_until
from tests.thrash.campaign import Plan, thrash

MIB = 1 << 20
OBJECT = 4 * MIB
QUICKLY = {"options": ("--strip-after", "0.2")}


class Model:
    """A VDI, and what it should hold."""

    def __init__(self, cluster, name="disk", objects=3, seed=1):
        self.cluster = cluster
        self.name = name
        self.random = random.Random(seed)
        self.bytes = bytearray(objects * OBJECT)
        self.vdi_id = cluster.client().create_vdi(name, len(self.bytes)).vdi_id
        self.vdi = cluster.client().open_vdi(name, lock=False)

    def fill(self):
        self.write(0, self.random.randbytes(len(self.bytes)))

    def write(self, offset, data):
        self.vdi.pwrite(offset, data)
        self.bytes[offset:offset + len(data)] = data

    def write_some(self, count=10, most=20000):
        for _ in range(count):
            length = self.random.randrange(1, most)
            offset = self.random.randrange(len(self.bytes) - length)
            self.write(offset, self.random.randbytes(length))

    def check(self, *gateways):
        """Read all of it from each of these sheep, or from those that run, and pieces of it."""
        for index in gateways or [sheep.index for sheep in self.cluster.live]:
            with self.cluster.client(index).open_vdi(self.name, read_only=True) as vdi:
                assert vdi.pread(0, len(self.bytes)) == self.bytes, "by way of sheep %d" % index
                for _ in range(5):
                    length = self.random.randrange(1, 50000)
                    offset = self.random.randrange(len(self.bytes) - length)
                    assert vdi.pread(offset, length) == self.bytes[offset:offset + length]

    def oids(self):
        return [oids.data_oid(self.vdi_id, index) for index in range(len(self.bytes) // OBJECT)]

    def wait_cut(self):
        """Wait until nothing of it is whole any more."""
        wait_until(lambda: not any(self.cluster.object_files(oid) for oid in self.oids()), 60,
                   "objects to be cut")

    def strips(self, oid, width):
        """{position: path} of the strips of an object."""
        return {position: path for position in range(width)
                for path in self.cluster.object_files(oids.strip_oid(oid, position))}


def used(cluster):
    """Bytes that data objects take on all sheep."""
    return sum(path.stat().st_blocks * 512 for sheep in cluster.sheep
               for path in (sheep.directory / "obj").iterdir() if path.name[0] not in "8a2")


@pytest.mark.deployment("eventlet+local")
def test_any_two_of_six_nodes_may_be_lost(make_cluster):
    cluster = make_cluster(7, "4:2", settings=QUICKLY)
    assert cluster.dog("vdi", "list").status == 0
    model = Model(cluster)
    model.fill()
    listed = cluster.dog("vdi", "list", "-r").text.split()
    assert listed[8] == "4:2"
    model.wait_cut()
    assert used(cluster) < 1.6 * len(model.bytes), "six quarters and little more"
    for oid in model.oids():
        assert sorted(model.strips(oid, 6)) == list(range(6))
    model.check()

    cluster.kill(0)
    cluster.kill(1)
    model.check(2)
    model.write_some()
    cluster.wait_recovered()
    model.check()
    model.write_some()

    cluster.restart(0)
    cluster.restart(1)
    cluster.wait_recovered()
    model.wait_cut()
    model.check()
    cluster.kill(5)
    cluster.kill(6)
    model.check(0, 3)
    cluster.wait_recovered()
    model.check()


@pytest.mark.deployment("threading+zookeeper")
def test_small_writes_while_objects_are_cut_and_made_whole(make_cluster):
    cluster = make_cluster(4, "2:1", settings=QUICKLY)
    model = Model(cluster, objects=2)
    model.fill()
    for _ in range(3):
        model.wait_cut()
        model.write_some(4)
        model.check(1)
    # The other way round: whoever reads comes before and after the cut.
    for _ in range(15):
        model.write_some(1)
        model.check(model.random.randrange(4))


@pytest.mark.deployment("eventlet+local")
def test_snapshots_clones_and_what_a_delete_leaves(make_cluster):
    cluster = make_cluster(4, "2:1", settings=QUICKLY)
    model = Model(cluster, objects=2)
    model.fill()
    model.wait_cut()
    before = bytes(model.bytes)
    client = cluster.client()
    model.vdi.snapshot("snap")
    client.clone("disk", "snap", "clone")
    model.write_some(3)
    with client.open_vdi("clone") as clone:
        assert clone.pread(0, len(before)) == before
        clone.pwrite(5000, b"clone")
    with client.open_vdi("disk", snapshot="snap") as snapshot:
        assert snapshot.pread(0, len(before)) == before
    model.check()
    model.vdi.discard(OBJECT, OBJECT)
    model.bytes[OBJECT:] = bytes(OBJECT)
    model.check()
    model.vdi.close()
    client.delete_vdi("clone")
    client.delete_vdi("disk", "snap")
    client.delete_vdi("disk")
    wait_until(lambda: used(cluster) == 0, 60, "all objects to be reclaimed")


@pytest.mark.deployment("eventlet+local")
def test_rot_is_computed_anew(make_cluster):
    cluster = make_cluster(6, "4:2", settings=QUICKLY)
    model = Model(cluster, objects=2)
    model.fill()
    model.wait_cut()
    first, second = model.oids()
    strips = model.strips(first, 6)
    for position in (0, 5):
        flip(strips[position], 70000)
    model.check(0)
    assert cluster.dog("vdi", "check", "disk").text.count("fixed") == 1
    assert "fixed" not in cluster.dog("vdi", "check", "disk").text
    trailers = set()
    for position in range(6):
        trailer, _ = erasure.unpack_strip(strips[position].read_bytes()[:MIB + 32])
        trailers.add(trailer.version)
    assert len(trailers) == 1
    # As many as there are parity strips, and none of them can be told any more.
    for position in (1, 2, 3):
        flip(model.strips(second, 6)[position], 4096)
    failed = cluster.dog("vdi", "check", "disk", check=False)
    assert failed.status == 1 and "failed to repair" in failed.err
    assert cluster.dog("vdi", "check", "-e", "disk").status == 0


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
        os.fsync(file.fileno())


@pytest.mark.deployment("eventlet+local")
def test_too_few_zones(make_cluster):
    cluster = make_cluster(3, 2, settings=QUICKLY)
    made = cluster.dog("vdi", "create", "-c", "4:2", "disk", "8M")
    assert "needs 6 zones" in made.err
    with cluster.client().open_vdi("disk", lock=False) as vdi:
        vdi.pwrite(0, b"x" * OBJECT)
    oid = oids.data_oid(vdi.vdi_id, 0)
    assert len(cluster.object_files(oid)) == 3, "as safe as it can be"
    for _ in range(3):
        cluster.add()
    cluster.wait_recovered()
    wait_until(lambda: not cluster.object_files(oid), 60, "the object to be cut")
    with cluster.client(5).open_vdi("disk", read_only=True) as vdi:
        assert vdi.pread(0, OBJECT) == b"x" * OBJECT

    strict = make_cluster(2, 2, format_options=("-t",))
    strict.dog("vdi", "create", "-c", "2", "good", "8M")
    assert strict.dog("vdi", "create", "-c", "2:1", "bad", "8M", check=False).status != 0


@pytest.mark.deployment("eventlet+local")
def test_a_gateway_dies_while_it_writes(make_cluster):
    """Again and again: every sector holds what was acknowledged last, or what was under way."""
    cluster = make_cluster(5, "2:1", settings={"sync": False, **QUICKLY})
    model = Model(cluster, objects=1)
    model.fill()
    for turn in range(2):
        model.wait_cut()
        victim = turn % 5
        under_way = threading.Event()
        sectors = {}

        def write():
            try:
                with cluster.client(victim, timeout=5).open_vdi("disk", lock=False) as vdi:
                    for number in range(2000):
                        offset = model.random.randrange(OBJECT // 512) * 512
                        data = b"%08d" % number * 64
                        sectors.setdefault(offset, [model.bytes[offset:offset + 512]])
                        sectors[offset].append(data)
                        vdi.pwrite(offset, data)
                        del sectors[offset][:-1]
                        if number == 5:
                            under_way.set()
            except SheepError:
                pass

        writer = threading.Thread(target=write)
        writer.start()
        assert under_way.wait(30)
        cluster.kill(victim)
        writer.join()
        cluster.wait_recovered()
        copies = []
        for sheep in cluster.live:
            with cluster.client(sheep.index).open_vdi("disk", read_only=True) as vdi:
                copies.append(vdi.pread(0, OBJECT))
        assert len(set(copies)) == 1, "all gateways see the same"
        for offset in range(0, OBJECT, 512):
            sector = copies[0][offset:offset + 512]
            assert sector in sectors.get(offset, [model.bytes[offset:offset + 512]])
        model.bytes[:] = copies[0]
        cluster.restart(victim)
        cluster.wait_recovered()


@pytest.mark.parametrize("plan", [
    Plan(seed=5, faults=4, runtime="eventlet", sheep=4, owners=2, policy="2:1"),
], ids=str)
def test_seed(plan, tmp_path):
    verdict = thrash(plan, directory=tmp_path)
    assert not verdict.violations, str(verdict)
