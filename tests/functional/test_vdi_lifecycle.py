"""VDIs, snapshots and clones from birth to the last byte that they leave."""

import random
import threading

import pytest

from sheepstack.client.errors import NoSuchVdi, SheepError, VdiExists, VdiLocked
from sheepstack.wire.hashing import vdi_name_hash
from tests.functional.harness import wait_until
from tests.functional.workload import (
    BLOCK, MIB, Writers, leader_of, vids_on_disk, wait_order)

OBJECT = 4 * MIB


def wait_empty(cluster, timeout=60):
    """Wait until no sheep has an object any more."""
    wait_until(lambda: not any(cluster.objects(sheep.index) for sheep in cluster.live), timeout,
               lambda: "objects to go; left are %s" % {
                   sheep.index: sorted(cluster.objects(sheep.index)) for sheep in cluster.live})


def in_parallel(*functions):
    """Call all at the same time; what each returned or raised."""
    found = [None] * len(functions)

    def call(position, function):
        try:
            found[position] = function()
        except SheepError as error:
            found[position] = error

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Family:
    """A tree of snapshots and clones of which each part has its own content."""

    def __init__(self, client, chance):
        self.client = client
        self.chance = chance
        #: {(name, tag or None): {index: byte}}
        self.contents = {("origin", None): {}}
        client.create_vdi("origin", 8 * OBJECT)

    def grow(self, count):
        for number in range(count):
            name = self.chance.choice([name for name, tag in self.contents if tag is None])
            self.write(name)
            tag = "t%d" % number
            self.client.snapshot(name, tag)
            self.contents[name, tag] = dict(self.contents[name, None])
            if self.chance.random() < 0.4:
                source = self.chance.choice([key for key in self.contents if key[1]])
                clone = "clone%d" % number
                self.client.clone(*source, clone)
                self.contents[clone, None] = dict(self.contents[source])
                self.write(clone)

    def write(self, name):
        content = self.contents[name, None]
        with self.client.open_vdi(name, lock=False) as vdi:
            for _ in range(2):
                index, byte = self.chance.randrange(8), self.chance.randrange(1, 256)
                content[index] = byte
                vdi.pwrite(index * OBJECT, bytes([byte]) * 512)

    def check(self, keys=None):
        for name, tag in keys or self.contents:
            with self.client.open_vdi(name, tag, read_only=True) as vdi:
                for index in range(8):
                    byte = self.contents[name, tag].get(index, 0)
                    assert vdi.pread(index * OBJECT, 512) == bytes([byte]) * 512, (name, tag)

    def delete(self, key):
        self.client.delete_vdi(*key)
        del self.contents[key]


@pytest.mark.timeout(240)
def test_a_family_is_deleted_in_random_order(make_cluster):
    """No object in use is lost, none that is not stays, whoever dies meanwhile."""
    cluster = make_cluster(4, settings={"sync": False})
    chance = random.Random(11)
    family = Family(cluster.client(timeout=60), chance)
    family.grow(45)
    assert len(family.contents) > 60
    family.check()
    keys = list(family.contents)
    chance.shuffle(keys)
    third = len(keys) // 3
    for key in keys[:third]:
        family.delete(key)
    family.check(chance.sample(list(family.contents), 8))
    victim = leader_of(cluster)
    cluster.kill(victim)
    for key in keys[third:2 * third]:
        family.delete(key)
    cluster.restart(victim)
    for key in keys[2 * third:-6]:
        family.delete(key)
    cluster.wait_recovered()
    family.check()
    wait_order(cluster, timeout=60)
    for key in keys[-6:]:
        family.delete(key)
    wait_empty(cluster)
    assert not list(family.client.list_vdis())


def test_a_chain_of_a_hundred_is_deleted_from_the_oldest(make_cluster):
    cluster = make_cluster(2, copies=2, settings={"sync": False})
    client = cluster.client()
    client.create_vdi("disk", 2 * OBJECT)
    with client.open_vdi("disk", lock=False) as vdi:
        for number in range(100):
            vdi.pwrite(number % 2 * OBJECT, b"%04d" % number)
            vdi.snapshot("s%d" % number)
        for number in range(100):
            client.delete_vdi("disk", "s%d" % number)
        assert vdi.pread(0, 4) == b"0098" and vdi.pread(OBJECT, 4) == b"0099"
        wait_until(lambda: len(vids_on_disk(cluster)) <= 3, 60, "the snapshots to go")
        assert vdi.pread(0, 4) == b"0098" and vdi.pread(OBJECT, 4) == b"0099"
        vdi.pwrite(0, b"new")
        assert vdi.pread(0, 4) == b"new8"
    client.delete_vdi("disk")
    wait_empty(cluster)


def test_ids_are_used_again_and_nothing_shines_through(cluster):
    client = cluster.client()
    first = client.create_vdi("disk", 4 * OBJECT).vdi_id
    assert first == vdi_name_hash(b"disk")
    handle = client.open_vdi("disk", lock=False)
    for round_number in range(3):
        with client.open_vdi("disk", lock=False) as vdi:
            vdi.pwrite(0, b"%d" % round_number * 1000)
        client.snapshot("disk", "s")
        client.delete_vdi("disk")
        client.delete_vdi("disk", "s")
        wait_empty(cluster)
        assert client.create_vdi("disk", 4 * OBJECT).vdi_id == first
        with client.open_vdi("disk", lock=False) as vdi:
            assert vdi.pread(0, 4 * OBJECT) == bytes(4 * OBJECT)
    handle.reload()
    assert handle.pread(0, 100) == bytes(100)


def test_an_id_in_use_by_clones_is_not_given_out_again(cluster):
    client = cluster.client()
    client.create_vdi("base", 2 * OBJECT)
    with client.open_vdi("base", lock=False) as vdi:
        vdi.pwrite(0, b"kept")
        base = vdi.vdi_id
    client.snapshot("base", "s")
    client.clone("base", "s", "clone")
    client.delete_vdi("base")
    client.delete_vdi("base", "s")
    with pytest.raises(NoSuchVdi):
        client.lookup("base")
    again = client.create_vdi("base", 2 * OBJECT)
    assert again.vdi_id != base
    with client.open_vdi("base", lock=False) as vdi:
        vdi.pwrite(0, b"else")
    with client.open_vdi("clone", lock=False) as vdi:
        assert vdi.pread(0, 4) == b"kept"
    client.delete_vdi("clone")
    wait_until(lambda: vids_on_disk(cluster) == {again.vdi_id}, 60, "the old id to be free")
    with client.open_vdi("base", lock=False) as vdi:
        assert vdi.pread(0, 4) == b"else"


def test_snapshots_do_not_change_while_others_write(cluster):
    client = cluster.client(2)
    client.create_vdi("disk", 16 * MIB)
    vdis = [cluster.client(index).open_vdi("disk", lock=False) for index in range(2)]
    taken = {}
    with Writers(vdis) as writers:
        for number in range(8):
            writers.progress(3)
            tag = "s%d" % number
            client.snapshot("disk", tag)
            with client.open_vdi("disk", tag) as vdi:
                taken[tag] = vdi.pread(0, 8 * MIB)
        writers.progress()
    writers.check(vdis[0])
    assert len(set(taken.values())) == len(taken)
    for tag, content in taken.items():
        for index in range(3):
            with cluster.client(index) as other, other.open_vdi("disk", tag) as vdi:
                assert vdi.pread(0, 8 * MIB) == content, tag
    wait_order(cluster)


def test_of_many_who_make_the_same_vdi_one_wins(cluster):
    for number in range(4):
        name = "disk%d" % number
        found = in_parallel(*[
            lambda index=index, name=name: cluster.client(index).create_vdi(name, MIB)
            for index in range(3) for _ in range(2)])
        won = [result for result in found if not isinstance(result, SheepError)]
        assert len(won) == 1, found
        assert all(isinstance(result, VdiExists) for result in found if result is not won[0])
        assert cluster.client().lookup(name) == won[0]
    assert len(list(cluster.client().list_vdis())) == 4


@pytest.mark.timeout(240)
def test_the_leader_dies_while_it_takes_a_snapshot(cluster):
    """The VDI stays usable, nothing half-made is left, and what was promised is there."""
    client = cluster.client(timeout=60)
    client.create_vdi("disk", 8 * MIB)
    vdi = client.open_vdi("disk", lock=False)
    chance = random.Random(2)
    contents = {}
    for number in range(5):
        content = b"%04d" % number * 1024
        vdi.pwrite(0, content)
        victim = leader_of(cluster)
        tag = "s%d" % number
        found = []
        taker = threading.Thread(target=lambda: found.extend(in_parallel(
            lambda: cluster.client(timeout=60).snapshot("disk", tag))))
        taker.start()
        threading.Event().wait(chance.random() * 0.03)
        cluster.kill(victim)
        taker.join()
        if not isinstance(found[0], SheepError):
            contents[tag] = content
        vdi.pwrite(BLOCK, b"%d" % number * 10)
        assert vdi.pread(0, BLOCK) == content[:BLOCK]
        working = [header for header in client.list_vdis() if not header.is_snapshot]
        assert [header.name for header in working] == ["disk"]
        cluster.restart(victim)
        cluster.wait_recovered()
    for tag, content in contents.items():
        with client.open_vdi("disk", tag) as snapshot:
            assert snapshot.pread(0, len(content)) == content
    assert len(contents) >= 3
    headers = list(client.list_vdis())
    wait_until(lambda: vids_on_disk(cluster) == {header.vdi_id for header in headers}, 60,
               "what was half made to go")
    wait_order(cluster)
    for header in headers:
        client.delete_vdi("disk", header.snap_id if header.is_snapshot else None)
    wait_empty(cluster)


def test_locks(make_cluster):
    """One at a time, or several who share; they go with their sheep, or when told to."""
    cluster = make_cluster(3, format_options=["-l"])
    clients = [cluster.client(index) for index in range(3)]
    clients[0].create_vdi("disk", 8 * MIB)
    held = clients[0].open_vdi("disk")
    for other in clients:
        with pytest.raises(VdiLocked):
            other.open_vdi("disk")
    with pytest.raises(VdiLocked):
        clients[1].open_vdi("disk", lock="shared")
    held.pwrite(0, b"one")
    with clients[1].open_vdi("disk", read_only=True) as reader:
        assert reader.pread(0, 3) == b"one"
    held.close()

    sharers = [client.open_vdi("disk", lock="shared") for client in clients[:2]]
    with pytest.raises(VdiLocked):
        clients[2].open_vdi("disk")
    sharers[0].close()
    with pytest.raises(VdiLocked):
        clients[2].open_vdi("disk")
    sharers[1].close()

    clients[2].open_vdi("disk")
    cluster.kill(2)
    cluster.wait_recovered()
    taken = clients[1].open_vdi("disk")
    taken.pwrite(0, b"two")
    assert "disk" in cluster.dog("vdi", "lock", "list").text
    with pytest.raises(VdiLocked):
        clients[0].open_vdi("disk")
    cluster.dog("vdi", "lock", "unlock", "disk")
    with clients[0].open_vdi("disk") as vdi:
        assert vdi.pread(0, 3) == b"two"


def test_the_session_of_a_lock_holder_is_lost(make_cluster):
    """While it is frozen somebody else takes over; what it writes later does not count."""
    cluster = make_cluster(3, format_options=["-l"])
    clients = [cluster.client(index, timeout=20) for index in range(3)]
    clients[0].create_vdi("disk", 8 * MIB)
    first = clients[0].open_vdi("disk")
    first.pwrite(0, b"first")
    cluster.stop(0)
    wait_until(lambda: len(cluster.info(1).nodes) == 2, 30, "the others to go on alone")
    second = clients[1].open_vdi("disk")
    second.pwrite(0, b"second")
    cluster.cont(0)
    cluster.wait_recovered()
    with pytest.raises(SheepError):
        first.pwrite(0, b"FIRST ")
    assert second.pread(0, 6) == b"second"
    second.close()
