"""Disks that fill up, and bytes that rot."""

import os
import random

import pytest

from sheepstack.client.errors import InputOutputError, NoSpace
from sheepstack.store.object_file import FOOTER_SIZE
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import oid as oids
from tests.functional.harness import wait_until
from tests.functional.test_recovery import check, fill
from tests.functional.workload import MIB, set_aside, vids_on_disk, wait_order
from tests.thrash import disk_faults

OBJECT = 4 * MIB


def fill_up(vdi, first, last):
    """Write objects until there is no space; {offset: bytes} of what was acknowledged."""
    content = {}
    for index in range(first, last):
        data = random.Random(index).randbytes(MIB)
        try:
            for piece in range(4):
                vdi.pwrite(index * OBJECT + piece * MIB, data)
                content[index * OBJECT + piece * MIB] = data
        except NoSpace:
            return content
    raise AssertionError("the disk never filled up")


def test_a_full_disk_refuses_writes_serves_reads_and_starts_again(make_cluster, small_disk):
    cluster = make_cluster(2, copies=None)
    disk = small_disk(96)
    small = cluster.add(directory=disk / "store")
    cluster.format(3)
    client = cluster.client()
    client.create_vdi("disk", 100 * OBJECT)
    vdi = client.open_vdi("disk", lock=False)
    content = fill_up(vdi, 0, 40)
    assert len(content) > 20
    check(cluster.client(small), "disk", content)
    # What is there can be overwritten.
    offset = min(content)
    content[offset] = content[offset][::-1]
    vdi.pwrite(offset, content[offset])
    wait_order(cluster)

    cluster.kill(small)
    cluster.restart(small)
    cluster.wait_recovered()
    check(cluster.client(small), "disk", content)
    with pytest.raises(NoSpace):
        for index in range(50, 70):
            vdi.pwrite(index * OBJECT, random.Random(index).randbytes(OBJECT))

    vdi.discard(0, 8 * OBJECT)
    content = {offset: data for offset, data in content.items() if offset >= 8 * OBJECT}
    wait_until(lambda: writable(vdi, 80), 30, "space to be there again")
    check(client, "disk", content)
    wait_order(cluster)


def writable(vdi, index):
    try:
        vdi.pwrite(index * OBJECT, random.Random(index).randbytes(MIB))
    except NoSpace:
        return False
    return True


def test_recovery_onto_a_full_disk_loses_nothing(make_cluster, small_disk):
    cluster = make_cluster(3, copies=2)
    content = fill(cluster.client(), "disk", 40, piece=3 * MIB)
    small = cluster.add(directory=small_disk(48) / "store", vnodes=256)
    cluster.wait_log(small, "cannot recover")
    for index in (0, small):
        check(cluster.client(index), "disk", content)
    assert any(set_aside(cluster, index) for index in range(3))
    cluster.kill(small)
    wait_order(cluster, copies=2)
    check(cluster.client(), "disk", content)


def test_deleting_makes_room_where_recovery_has_filled_a_disk(make_cluster, small_disk):
    """The cluster is not complete until all has its place, and that waits for the space."""
    cluster = make_cluster(3, copies=2)
    client = cluster.client()
    kept = fill(client, "kept", 6, piece=3 * MIB)
    fill(client, "deleted", 40, piece=3 * MIB)
    vid = client.lookup("deleted").vdi_id
    small = cluster.add(directory=small_disk(64) / "store", vnodes=256)
    cluster.wait_log(small, "cannot recover")
    cluster.client().delete_vdi("deleted")
    cluster.wait_recovered()
    check(cluster.client(small), "kept", kept)
    wait_order(cluster, copies=2)
    wait_until(lambda: vid not in vids_on_disk(cluster), 30, "nothing to be left of the VDI")


@pytest.mark.parametrize("where", ["data", "checksums", "footer"])
def test_a_flipped_bit_in_each_copy_in_turn(cluster, where):
    """The read is right, and the copy is repaired, whoever is asked."""
    content = fill(cluster.client(), "disk", 1, piece=MIB)
    (offset, data), = content.items()
    vid = cluster.client().lookup("disk").vdi_id
    name = oids.name_of(oids.data_oid(vid, 0))
    wait_order(cluster)
    for index in range(3):
        path = cluster.sheep[index].directory / "obj" / name
        sound = path.read_bytes()
        size = OBJECT
        position = {"data": offset + 5000, "checksums": size + 4 * (offset // 4096 + 1) + 2,
                    "footer": len(sound) - FOOTER_SIZE + 3}[where]
        # A sheep that runs may have looked at it already; after a restart it has not.
        cluster.terminate(index)
        flip(path, position)
        cluster.restart(index)
        cluster.wait_recovered()
        with cluster.client(index) as client, client.open_vdi("disk", read_only=True) as vdi:
            assert vdi.pread(0, OBJECT)[offset:offset + len(data)] == data
        wait_order(cluster)
        assert path.read_bytes()[:-FOOTER_SIZE] == sound[:-FOOTER_SIZE]


def flip(path, position):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("what", ["data", "inode"])
def test_rot_under_a_running_sheep_is_noticed_and_repaired(cluster, what):
    content = fill(cluster.client(), "disk", 1, piece=MIB)
    vid = cluster.client().lookup("disk").vdi_id
    oid = oids.data_oid(vid, 0) if what == "data" else oids.vdi_oid(vid)
    position = min(content) + 9000 if what == "data" else layout.DATA_VDI_ID_OFFSET + 1
    wait_order(cluster)
    for index in range(3):
        path = cluster.sheep[index].directory / "obj" / oids.name_of(oid)
        sound = path.read_bytes()
        flip(path, position)
        check(cluster.client(index), "disk", content)
        wait_until(lambda: path.read_bytes() == sound, 10, "the copy to be repaired")
        if what == "data":
            # A write to a part of a damaged block must not take over the damage.
            flip(path, position)
            with cluster.client(index).open_vdi("disk", lock=False) as vdi:
                vdi.pwrite(position // 4096 * 4096, content[min(content)][:10])
                at = position // 4096 * 4096 - min(content)
                data = content[min(content)]
                content[min(content)] = data[:at] + data[:10] + data[at + 10:]
            check(cluster.client(index), "disk", content)
    wait_order(cluster)


@pytest.mark.parametrize("what, length", [("data", OBJECT), ("inode", 0)])
def test_a_copy_that_is_cut_short(cluster, what, length):
    """By a file system that forgot what was written before the power went, say."""
    client = cluster.client(0)
    content = fill(client, "disk", 1, piece=MIB)
    (offset, data), = content.items()
    vid = client.lookup("disk").vdi_id
    path = cluster.sheep[2].directory / "obj" / oids.name_of(
        oids.data_oid(vid, 0) if what == "data" else oids.vdi_oid(vid))

    def cut_short(end):
        wait_order(cluster)
        sound = path.stat().st_size
        with client.open_vdi("disk", lock=False) as vdi:
            if end == cluster.kill:
                # So that it is compared with the others at the start.
                vdi.pwrite(offset, data) if what == "data" else vdi.resize(vdi.size + OBJECT)
        end(2)
        os.truncate(path, length)
        cluster.restart(2)
        cluster.wait_recovered()
        check(cluster.client(2), "disk", content)
        with cluster.client(2).open_vdi("disk", lock=False) as vdi:
            vdi.pwrite(offset + 10, data[10:20])
        check(cluster.client(2), "disk", content)
        wait_order(cluster)
        assert path.stat().st_size == sound

    cut_short(cluster.terminate)
    cut_short(cluster.kill)


def test_what_is_damaged_everywhere_is_an_error_and_nothing_else(cluster):
    content = fill(cluster.client(), "disk", 2, piece=MIB)
    vid = cluster.client().lookup("disk").vdi_id
    wait_order(cluster)
    damaged, sound = sorted(content)
    for path in cluster.object_files(oids.data_oid(vid, 0)):
        flip(path, damaged + 9000)
    with cluster.client().open_vdi("disk", lock=False) as vdi:
        with pytest.raises(InputOutputError):
            vdi.pread(damaged, MIB)
        assert vdi.pread(sound, MIB) == content[sound]
        block = (damaged + 9000) // 4096 * 4096
        with pytest.raises(InputOutputError):
            vdi.pwrite(block + 512, bytes(512))
        vdi.pwrite(block, bytes(4096))
        data = content[damaged]
        expected = data[:block - damaged] + bytes(4096) + data[block + 4096 - damaged:]
        assert vdi.pread(damaged, MIB) == expected
    wait_order(cluster)


def test_object_files_deleted_by_hand_come_back(cluster):
    content = fill(cluster.client(), "disk", 4)
    wait_order(cluster)
    for index in range(3):
        cluster.terminate(index)
        for name in cluster.objects(index):
            if oids.is_data(int(name, 16)):
                os.unlink(cluster.sheep[index].directory / "obj" / name)
        cluster.restart(index)
        cluster.wait_recovered()
        check(cluster.client(index), "disk", content)
        cluster.dog("vdi", "check", "disk")
        wait_order(cluster)


@pytest.mark.may_die
@pytest.mark.skipif(not disk_faults.are_possible(), reason="only root can trace, with strace")
def test_a_disk_that_fails_ends_its_sheep_and_nobody_else(make_cluster):
    """It says so, leaves nothing behind, and the others serve on."""
    cluster = make_cluster(3)
    client = cluster.client(0)
    content = fill(client, "disk", 2)
    victim = cluster.sheep[2]
    fault = disk_faults.begin(victim.process.pid, "write", 1)
    try:
        with client.open_vdi("disk", lock=False) as vdi:
            position = min(content)
            while victim.running:
                vdi.pwrite(position, content[position][:4096])
        assert victim.wait_ended(30) == 1
    finally:
        fault.end()
    assert "Input/output error" in cluster.logs(2)
    assert not victim.socket.exists()
    cluster.wait_members([0, 1])
    check(client, "disk", content)
    cluster.restart(2)
    wait_order(cluster)
