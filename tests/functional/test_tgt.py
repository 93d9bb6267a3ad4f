"""Debian's tgt with its ``sheepdog`` backing store, used by real iSCSI initiators."""

import os

import pytest

from sheepstack.client import VdiLocked
from tests.functional.client_behaviour import MIB, OBJECT, noise
from tests.functional.tgt import BLOCK, MISSING, Writer, short_port

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason="not installed: %s" % ", ".join(MISSING)),
    pytest.mark.skipif(os.geteuid() != 0, reason="tgtd serves only root"),
]

SIZE = 32 * MIB


@pytest.fixture
def cluster(make_cluster):
    """Three sheep that keep three copies, and do not wait for the disk."""
    return make_cluster(settings={"sync": False})


@pytest.fixture
def client(cluster):
    client = cluster.client()
    client.create_vdi("disk", SIZE)
    return client


@pytest.fixture(params=["unix", "tcp"])
def export(cluster, tgtd, request):
    """Function that exports a VDI through a sheep's Unix socket, or through TCP."""
    sheep = 0
    if request.param == "tcp":
        sheep = cluster.add(gateway=True, port=short_port())

    def export(vdi):
        return tgtd.export(cluster.sheep[sheep], vdi, over=request.param)

    return export


def read_vdi(client, snapshot=None, name="disk"):
    with client.open_vdi(name, snapshot, read_only=True) as vdi:
        return vdi.pread(0, SIZE)


def test_an_image_goes_through_and_comes_back(client, export, tgtd, tmp_path):
    disk = export("disk")
    assert disk.name in tgtd.targets()
    assert disk.size() == SIZE
    assert "Vendor:IET" in disk.tool("iscsi-inq")
    image = noise(5 * MIB, 1) + bytes(9 * MIB) + noise(SIZE - 14 * MIB, 2)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(image)
    disk.write_file(source)
    assert read_vdi(client) == image
    disk.read_file(target)
    assert target.read_bytes() == image


def test_what_we_write_an_initiator_reads(cluster, client, tgtd, tmp_path):
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(3 * MIB, b"\x11" * 6 * MIB)
    disk = tgtd.export(cluster.sheep[1], "disk")
    disk.io("read -P 0 0 3M", "read -P 0x11 3M 6M", "read -P 0 9M 23M")


def test_nobody_else_opens_what_tgt_has_open(make_cluster, tgtd):
    cluster = make_cluster(settings={"sync": False}, format_options=["-l"])
    client = cluster.client()
    client.create_vdi("disk", SIZE)
    disk = tgtd.export(cluster.sheep[0], "disk")
    with pytest.raises(VdiLocked):
        client.open_vdi("disk")
    disk.io("write -P 1 0 1M")
    cluster.dog("vdi", "snapshot", "-s", "tag", "disk")
    disk.io("write -P 2 0 1M")
    with pytest.raises(VdiLocked):
        client.open_vdi("disk")
    tgtd.withdraw(disk)
    with client.open_vdi("disk") as vdi:
        assert vdi.pread(0, MIB) == b"\2" * MIB


def test_a_snapshot_is_taken_while_tgt_has_the_disk(cluster, client, export):
    disk = export("disk")
    disk.io("write -P 1 0 12M", "flush")
    before = read_vdi(client)
    cluster.dog("vdi", "snapshot", "-s", "tag", "disk")
    # Part of an object that the snapshot has, an object that nobody has, and one that is
    # only read: each takes another way through tgt's backing store.
    disk.io("write -P 2 1M 1M", "write -P 3 20M 1M", "read -P 1 8M 4M",
            "read -P 1 0 1M", "read -P 2 1M 1M", "read -P 1 2M 2M", "read -P 3 20M 1M")
    assert read_vdi(client, "tag") == before == b"\1" * 12 * MIB + bytes(20 * MIB)
    now = bytearray(before)
    now[1 * MIB:2 * MIB] = b"\2" * MIB
    now[20 * MIB:21 * MIB] = b"\3" * MIB
    assert read_vdi(client) == now
    client.snapshot("disk", "second")
    disk.io("write -P 4 0 64k", "read -P 4 0 64k", "read -P 2 1M 1M")
    now[:BLOCK] = b"\4" * BLOCK
    assert read_vdi(client) == now
    assert read_vdi(client, "tag") == before


def test_a_clone_is_a_disk_too(cluster, client, tgtd):
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(OBJECT, b"\x22" * OBJECT)
        vdi.snapshot("tag")
        vdi.pwrite(OBJECT, b"\x33" * OBJECT)
    client.clone("disk", "tag", "clone")
    disk = tgtd.export(cluster.sheep[0], "clone")
    disk.io("read -P 0 0 4M", "read -P 0x22 4M 4M", "write -P 0x44 5M 64k",
            "read -P 0x22 4M 1M", "read -P 0x44 5M 64k", "read -P 0 8M 4M")
    assert read_vdi(client, "tag")[OBJECT:2 * OBJECT] == b"\x22" * OBJECT
    assert read_vdi(client)[OBJECT:2 * OBJECT] == b"\x33" * OBJECT


def test_an_initiator_sees_nothing_of_lost_sheep(cluster, client, tgtd):
    """A replica goes and comes back; then the very sheep that tgt talks to."""
    disk = tgtd.export(cluster.sheep[0], "disk")
    with Writer(disk, SIZE // BLOCK, seed=3) as writer:
        writer.wait_rounds(2, 30)
        cluster.kill(2)
        writer.wait_rounds(2, 60)
        cluster.restart(2)
        cluster.wait_recovered()
        writer.wait_rounds(1, 30)
        cluster.kill(0)
        cluster.restart(0)
        writer.wait_rounds(2, 60)
    cluster.wait_recovered()
    assert writer.content
    now = read_vdi(client)
    wrong = {number for number, byte in writer.content.items()
             if now[number * BLOCK:(number + 1) * BLOCK] != bytes([byte]) * BLOCK}
    assert not wrong
    unwritten = set(range(SIZE // BLOCK)) - set(writer.content)
    assert not any(any(now[number * BLOCK:(number + 1) * BLOCK]) for number in unwritten)
