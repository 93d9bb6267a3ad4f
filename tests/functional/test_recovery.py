"""Objects move to where the map says: nodes come and go, also in the middle of it."""

import os
import random

import pytest

from sheepstack.client.errors import Halted, SheepError
from sheepstack.store.object_file import FOOTER_SIZE, unpack_footer
from sheepstack.wire import oid as oids
from tests.functional.harness import wait_until
from tests.functional.workload import MIB, Writers, disorder, vids_on_disk, wait_order

OBJECT = 4 * MIB


def fill(client, name, objects, seed=1, piece=16 * 1024):
    """A new VDI of so many objects with a piece of noise in each: {offset: bytes}."""
    client.create_vdi(name, objects * OBJECT)
    chance = random.Random(seed)
    content = {}
    with client.open_vdi(name, lock=False) as vdi:
        for index in range(objects):
            offset = index * OBJECT + chance.randrange(OBJECT - piece)
            content[offset] = chance.randbytes(piece)
            vdi.pwrite(offset, content[offset])
    return content


def check(client, name, content, snapshot=None):
    with client.open_vdi(name, snapshot, read_only=True) as vdi:
        for offset, data in content.items():
            assert vdi.pread(offset, len(data)) == data


def test_a_second_sheep_dies_in_the_middle_of_recovery(make_cluster):
    cluster = make_cluster(5, settings={"options": ["-R", "max=1,interval=100"]})
    content = fill(cluster.client(), "disk", 60)
    cluster.kill(4)
    wait_until(lambda: cluster.recovery(0).nr_finished >= 2, 30, "recovery to be under way")
    cluster.kill(3)
    wait_until(lambda: len(cluster.info(0).nodes) == 3, 30, "three nodes")
    cluster.wait_recovered()
    check(cluster.client(), "disk", content)
    wait_order(cluster)
    cluster.restart_all()
    cluster.wait_recovered()
    check(cluster.client(4), "disk", content)
    wait_order(cluster)


def test_nodes_are_added_while_clients_write(make_cluster):
    cluster = make_cluster(3)
    content = fill(cluster.client(), "disk", 40)
    cluster.client().create_vdi("busy", 16 * MIB)
    vdi = cluster.client().open_vdi("busy")
    with Writers([vdi]) as writers:
        writers.progress()
        first = cluster.add()
        second = cluster.add(vnodes=256)
        cluster.wait_recovered()
        writers.progress()
    assert len(cluster.objects(second)) > len(cluster.objects(first)) > 0
    check(cluster.client(first), "disk", content)
    writers.check(vdi)
    wait_order(cluster)


def test_what_is_asked_for_comes_ahead_of_the_queue(make_cluster):
    """With recovery almost at a standstill, everything can be read and written at once."""
    cluster = make_cluster(4, copies=2)
    content = fill(cluster.client(), "disk", 30)
    for index in range(4):
        cluster.dog("node", "recovery", "set-throttle", "1", "600000", sheep=index)
    cluster.kill(3)
    wait_until(lambda: len(cluster.info(0).nodes) == 3, 30, "the map to change")
    wait_until(lambda: cluster.recovery(0).in_recovery, 30, "recovery to begin")
    check(cluster.client(), "disk", content)
    with cluster.client().open_vdi("disk") as vdi:
        for offset, data in content.items():
            content[offset] = data[::-1]
            vdi.pwrite(offset, content[offset])
    check(cluster.client(1), "disk", content)
    assert any(cluster.recovery(index).in_recovery for index in range(3))
    for index in range(3):
        cluster.dog("node", "recovery", "set-throttle", "0", "0", sheep=index)
    cluster.wait_recovered()
    check(cluster.client(2), "disk", content)
    wait_order(cluster, copies=2)


def test_a_throttle_shows_and_limits(make_cluster):
    cluster = make_cluster(4, settings={"options": ["-R", "max=1,interval=300000"]})
    content = fill(cluster.client(), "disk", 30)
    cluster.kill(0)
    wait_until(lambda: any(state.in_recovery and state.nr_total > 2 for state in map(
        cluster.recovery, (1, 2, 3))), 30, "a sheep with several objects to recover")
    states = [cluster.recovery(index) for index in (1, 2, 3)]
    assert all(state.nr_finished <= 1 for state in states)
    # Nothing is lost when it is broken off.
    cluster.restart(0)
    wait_until(lambda: len(cluster.info(1).nodes) == 4, 30, "the map to change")
    for index in range(4):
        cluster.dog("node", "recovery", "set-throttle", "0", "0", sheep=index)
    cluster.wait_recovered()
    check(cluster.client(), "disk", content)
    wait_order(cluster)


def test_recovery_can_be_switched_off_and_on(make_cluster):
    cluster = make_cluster(4, copies=2)
    content = fill(cluster.client(), "disk", 20)
    cluster.dog("cluster", "recover", "disable")
    cluster.kill(3)
    wait_until(lambda: len(cluster.info(0).nodes) == 3, 30, "the map to change")
    check(cluster.client(), "disk", content)
    assert disorder(cluster, 2) is not None
    cluster.dog("cluster", "recover", "enable")
    wait_order(cluster, copies=2)
    check(cluster.client(), "disk", content)


def test_too_few_zones_are_degraded_and_mend_when_there_are_more(make_cluster):
    cluster = make_cluster(3, zones=[1, 1, 2], format_options=["-f"])
    content = fill(cluster.client(), "disk", 8)
    wait_order(cluster)
    names = cluster.objects(0) | cluster.objects(1) | cluster.objects(2)
    assert {len(cluster.object_files(name)) for name in names} == {2}
    assert cluster.objects(2) == names
    cluster.add(zone=3)
    wait_order(cluster)
    assert {len(cluster.object_files(name)) for name in names} == {3}
    check(cluster.client(), "disk", content)


def test_strict_means_no_writes_with_too_few_zones(cluster):
    cluster.format(3, "-t", "-f")
    client = cluster.client(0, timeout=8)
    content = fill(client, "disk", 4)
    vdi = client.open_vdi("disk")
    cluster.kill(2)
    cluster.wait_recovered()
    check(client, "disk", content)
    with pytest.raises(Halted):
        vdi.pwrite(next(iter(content)), b"x")
    check(client, "disk", content)
    cluster.restart(2)
    cluster.wait_recovered()
    vdi.pwrite(next(iter(content)), b"x")
    wait_order(cluster)


def test_objects_deleted_while_a_sheep_is_away_do_not_come_back(make_cluster):
    cluster = make_cluster(4)
    client = cluster.client()
    kept = fill(client, "kept", 10)
    fill(client, "gone", 20)
    client.snapshot("kept", "then")
    changed = {offset: data[::-1] for offset, data in kept.items()}
    client.delete_vdi("gone")
    cluster.kill(3)
    with client.open_vdi("kept") as vdi:
        for offset, data in changed.items():
            vdi.pwrite(offset, data)
    vids = {client.lookup("kept").vdi_id, client.lookup("kept", "then").vdi_id}
    wait_until(lambda: vids_on_disk(cluster) == vids, 60, "the deleted VDI's id to be free")
    away = len(cluster.objects(3))
    cluster.restart(3)
    wait_order(cluster)
    assert away and vids_on_disk(cluster) == vids
    assert {oids.vid_of(int(name, 16)) for name in cluster.objects(3)} <= vids
    check(client, "kept", changed)
    check(client, "kept", kept, "then")


def test_a_copy_that_missed_nothing_is_not_sent_again(make_cluster):
    """A sheep that was away for a moment compares; only what changed travels."""
    cluster = make_cluster(3)
    content = fill(cluster.client(), "disk", 12, piece=MIB)
    wait_until(lambda: not active(cluster, 2), 30, "the copies to come to rest")
    inodes = {path.name: path.stat().st_ino
              for path in (cluster.sheep[2].directory / "obj").iterdir()}
    cluster.terminate(2)
    cluster.wait_recovered()
    changed = min(content)
    content[changed] = content[changed][::-1]
    with cluster.client().open_vdi("disk", lock=False) as vdi:
        vdi.pwrite(changed, content[changed])
    cluster.restart(2)
    wait_order(cluster)
    check(cluster.client(2), "disk", content)
    moved = [name for name, inode in inodes.items()
             if (cluster.sheep[2].directory / "obj" / name).stat().st_ino != inode]
    data = [name for name in moved if oids.is_data(int(name, 16))]
    assert [oids.index_of(int(name, 16)) for name in data] == [changed // OBJECT]


def active(cluster, index):
    """Whether writes to a sheep's objects have not come to rest: some footer has no stamp."""
    for path in (cluster.sheep[index].directory / "obj").iterdir():
        with path.open("rb") as file:
            file.seek(-FOOTER_SIZE, os.SEEK_END)
            raw = file.read()
        oid = int(path.name, 16)
        if not unpack_footer(raw, oid, oids.object_size(oid, OBJECT)):
            return True
    return False


def test_sheep_come_and_go_at_random_and_nothing_is_lost(make_cluster):
    cluster = make_cluster(5)
    content = fill(cluster.client(), "disk", 20)
    cluster.client().create_vdi("busy", 16 * MIB)
    vdi = cluster.client().open_vdi("busy", lock=False)
    chance = random.Random(5)
    with Writers([vdi]) as writers:
        for _ in range(4):
            victim = chance.randrange(5)
            cluster.kill(victim) if chance.random() < 0.5 else cluster.terminate(victim)
            writers.progress(5)
            if chance.random() < 0.5:
                cluster.wait_recovered()
            cluster.restart(victim)
            if chance.random() < 0.5:
                cluster.wait_recovered()
                writers.progress(5)
            else:
                cluster.wait_members()
    writers.check(vdi)
    check(cluster.client(), "disk", content)
    wait_order(cluster)


def _holders_of_one(cluster, client, besides):
    """The sheep that have some data object of "disk", which that of our gateway has not."""
    vid = client.lookup("disk").vdi_id
    held = [cluster.objects(index) for index in range(5)]
    for name in sorted(set().union(*held)):
        holders = [index for index in range(5) if name in held[index]]
        if oids.is_data(int(name, 16)) and oids.vid_of(int(name, 16)) == vid and (
                besides not in holders):
            return holders
    raise AssertionError("sheep %d has a copy of every object" % besides)


def test_all_holders_at_once_go_away_and_come_back(make_cluster):
    """The others go on, wait for what nobody has, throw nothing away, and make nothing new."""
    cluster = make_cluster(5, copies=2)
    client = cluster.client(0)
    content = fill(client, "disk", 24)
    client.create_vdi("other", 4 * MIB, copies=1)
    victims = _holders_of_one(cluster, client, besides=0)
    for victim in victims:
        cluster.kill(victim)
    cluster.wait_members(sorted(set(range(5)).difference(victims)))
    wait_until(lambda: "waiting for those" in cluster.logs(0), 30, "it to be said")
    impatient = cluster.client(0, timeout=3)
    with pytest.raises(SheepError):
        impatient.create_vdi("new", 4 * MIB)
    with pytest.raises(SheepError):
        with impatient.open_vdi("disk", read_only=True) as vdi:
            for offset, data in content.items():
                assert vdi.pread(offset, len(data)) == data
    for victim in victims:
        cluster.restart(victim)
    cluster.wait_recovered()
    check(client, "disk", content)
    client.delete_vdi("other")
    wait_order(cluster, copies=2)
    client.create_vdi("new", 4 * MIB)


def test_nodes_that_never_come_back_are_given_up_by_force(make_cluster):
    cluster = make_cluster(4, copies=1)
    client = cluster.client(0)
    content = fill(client, "disk", 12)
    lost = {oids.index_of(int(name, 16)) for name in cluster.objects(3)
            if oids.is_data(int(name, 16))}
    inode_is_lost = oids.name_of(oids.vdi_oid(client.lookup("disk").vdi_id)) in cluster.objects(3)
    assert cluster.dog("cluster", "recover", "force", "-f", check=False).status
    cluster.kill(3)
    cluster.wait_members([0, 1, 2])
    wait_until(lambda: "waiting for those" in cluster.logs(0), 30, "it to be said")
    cluster.dog("cluster", "recover", "force", "-f")
    cluster.wait_recovered()
    if not inode_is_lost:
        with client.open_vdi("disk", read_only=True) as vdi:
            for offset, data in content.items():
                if offset // OBJECT not in lost:
                    assert vdi.pread(offset, len(data)) == data
        client.delete_vdi("disk")
    client.create_vdi("new", 4 * MIB)
    client.delete_vdi("new")
    wait_until(lambda: not vids_on_disk(cluster), 60, "the ids to be free")
    wait_order(cluster, copies=1)
