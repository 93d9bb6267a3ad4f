"""Sheep that die, freeze or lose their session while clients write."""

import random
import threading
import time

import pytest

from sheepstack.client.errors import SheepError
from sheepstack.coordination import connect
from tests.functional.harness import wait_until
from tests.functional.workload import (
    BLOCK, MIB, Writers, leader_of, wait_order)
from tests.functional.zookeeper_server import Proxy, ZooKeeperServer

ROLES = {
    "replica": lambda cluster: next(
        sheep.index for sheep in cluster.live
        if sheep.index not in (0, leader_of(cluster))),
    "gateway": lambda cluster: 0,
    "leader": leader_of,
}


def open_twice(cluster, name="disk", size=64 * MIB):
    """Two clients of all sheep that have the same new VDI open."""
    client = cluster.client()
    client.create_vdi(name, size)
    return [client.open_vdi(name), cluster.client().open_vdi(name)]


@pytest.mark.parametrize("role", ROLES)
def test_sigkill_during_writes(make_cluster, role):
    cluster = make_cluster(4)
    vdis = open_twice(cluster)
    with Writers(vdis) as writers:
        writers.progress()
        victim = ROLES[role](cluster)
        cluster.kill(victim)
        writers.progress()
        cluster.wait_recovered()
        writers.progress()
        cluster.restart(victim)
        cluster.wait_recovered()
        writers.progress()
    for vdi in vdis:
        writers.check(vdi)
    wait_order(cluster)
    with cluster.client(victim) as client, client.open_vdi("disk", read_only=True) as vdi:
        writers.check(vdi)


def test_a_gateway_without_a_store_dies(make_cluster):
    cluster = make_cluster(4, gateways=[0])
    vdis = open_twice(cluster)
    with Writers(vdis) as writers:
        writers.progress()
        cluster.kill(0)
        writers.progress()
    writers.check(vdis[0])
    wait_order(cluster)


def test_sheep_that_freeze_for_a_moment_or_for_long(cluster):
    vdis = open_twice(cluster)
    with Writers(vdis) as writers:
        writers.progress()
        epoch = cluster.info(1).epoch
        cluster.stop(2)
        cluster.cont(2)
        writers.progress()
        assert cluster.info(1).epoch == epoch
        cluster.stop(2)
        cluster.wait_members([0, 1])
        writers.progress()
        cluster.cont(2)
        cluster.wait_recovered()
        writers.progress()
    writers.check(vdis[0])
    wait_order(cluster)


def test_a_write_that_was_stuck_in_a_frozen_gateway_does_not_come_late(cluster):
    """The gateway's client gave up, wrote through another one, and something newer since."""
    setup = cluster.client(1)
    setup.create_vdi("disk", 8 * MIB)
    newer = setup.open_vdi("disk", lock=False)
    newer.pwrite(0, b"1" * BLOCK)
    impatient = cluster.client(0, timeout=8).open_vdi("disk", lock=False)
    assert impatient.pread(0, 1) == b"1"
    failed = threading.Event()

    def write():
        try:
            impatient.pwrite(0, b"2" * BLOCK)
        except SheepError:
            failed.set()

    cluster.stop(0)
    writer = threading.Thread(target=write)
    writer.start()
    cluster.wait_members([1, 2])
    writer.join()
    assert failed.is_set()
    newer.pwrite(0, b"3" * BLOCK)
    cluster.cont(0)
    cluster.wait_recovered()
    # Whatever it had received it has handled by the time it serves again.
    cluster.client(0).create_vdi("other", MIB)
    wait_order(cluster)
    for index in range(3):
        with cluster.client(index) as client, client.open_vdi("disk", read_only=True) as vdi:
            assert vdi.pread(0, BLOCK) == b"3" * BLOCK


def test_a_frozen_gateway_whose_client_hung_up_forgets_it_though_its_session_lives(
        make_cluster, coordination):
    """The client is less patient than sessions are, so no map keeps the two writes apart."""
    spec = coordination().partition(",")[0] + ",timeout=60000"
    cluster = make_cluster(4, gateways=[0], settings={"coordination": spec})
    setup = cluster.client(1)
    setup.create_vdi("disk", 8 * MIB)
    newer = setup.open_vdi("disk", lock=False)
    newer.pwrite(0, b"1" * BLOCK)
    impatient = cluster.client(0, timeout=2).open_vdi("disk", lock=False)
    impatient.pwrite(0, b"2" * BLOCK)
    epoch = cluster.info(1).epoch
    cluster.stop(0)
    with pytest.raises(SheepError):
        impatient.pwrite(0, b"3" * BLOCK)
    newer.pwrite(0, b"4" * BLOCK)
    cluster.cont(0)
    # What it took of the former connection is done, or never will be, once it serves a new one.
    with cluster.client(0).open_vdi("disk", lock=False) as vdi:
        vdi.pwrite(BLOCK, b"5")
        assert vdi.pread(0, BLOCK) == b"4" * BLOCK
    assert cluster.info(1).epoch == epoch
    wait_order(cluster)
    assert newer.pread(0, BLOCK) == b"4" * BLOCK


def test_gateways_that_write_the_same_blocks_at_once_leave_equal_copies(cluster):
    cluster.client().create_vdi("disk", 8 * MIB)
    vdis = [cluster.client(index).open_vdi("disk", lock=False) for index in range(3)]
    vdis[0].pwrite(0, bytes(8 * MIB))
    for vdi in vdis:
        vdi.reload()
    errors = []

    def hammer(number, vdi):
        chance = random.Random(number)
        try:
            for _ in range(150):
                offset = chance.randrange(8) * 512 + chance.choice((0, 4 * MIB))
                vdi.pwrite(offset, bytes([65 + number]) * chance.choice((512, 1536, 9000)))
        except SheepError as error:
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=pair) for pair in enumerate(vdis)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    wait_order(cluster)
    assert len({vdi.pread(0, 8 * MIB) for vdi in vdis}) == 1


@pytest.mark.deployment("eventlet+zookeeper", "threading+zookeeper")
def test_zookeeper_session_expires(make_cluster, zookeeper):
    """A sheep that was expired leaves and comes back by itself, in the same process."""
    cluster = make_cluster(3)
    vdis = open_twice(cluster)
    with Writers(vdis) as writers:
        writers.progress()
        for victim in (0, 1, 2):
            pid = cluster.pids[victim]
            expire_session(zookeeper, cluster, victim)
            cluster.wait_log(victim, "the session was lost")
            cluster.wait_recovered()
            writers.progress()
            assert cluster.pids[victim] == pid and cluster.sheep[victim].running
    for vdi in vdis:
        writers.check(vdi)
    wait_order(cluster)


def test_an_idle_cluster_keeps_its_sessions(make_cluster, coordination):
    """Nobody asks anything for several session timeouts; all is as it was."""
    spec = coordination().partition(",")[0] + ",timeout=1000"
    cluster = make_cluster(settings={"coordination": spec})
    client = cluster.client()
    client.create_vdi("disk", 8 * MIB)
    vdi = client.open_vdi("disk")
    vdi.pwrite(0, b"kept")
    epoch = cluster.info(0).epoch
    time.sleep(4)
    assert vdi.pread(0, 4) == b"kept"
    assert [cluster.info(index).epoch for index in range(3)] == [epoch] * 3
    assert not any("session was lost" in cluster.logs(index) for index in range(3))


@pytest.mark.deployment("eventlet+zookeeper", "threading+zookeeper")
def test_an_idle_sheep_whose_session_expired_comes_back(cluster, zookeeper):
    """Without a client that would make it notice."""
    for victim in range(3):
        before = cluster.info(victim).epoch
        expire_session(zookeeper, cluster, victim)
        cluster.wait_log(victim, "the session was lost")
        cluster.wait_recovered()
        assert cluster.info(victim).epoch > before
    wait_order(cluster)


@pytest.mark.deployment("eventlet+zookeeper", "threading+zookeeper")
def test_a_sheep_starts_again_before_its_old_session_is_gone(make_cluster, coordination):
    spec = coordination().partition(",")[0] + ",timeout=60000"
    cluster = make_cluster(settings={"coordination": spec})
    vdis = open_twice(cluster)
    with Writers(vdis) as writers:
        writers.progress()
        # Whoever leads is missed until its session is over, so another one.
        leader = leader_of(cluster)
        for victim in {0, 1, 2} - {leader}:
            cluster.kill(victim)
            cluster.restart(victim)
            cluster.wait_recovered()
            writers.progress()
    watcher = connect(spec)
    watcher.open(lambda event: None)
    try:
        # Three that live, and two of the dead.
        assert len(watcher.members()) == 5
    finally:
        watcher.close()
    for vdi in vdis:
        writers.check(vdi)
    wait_order(cluster)


def expire_session(server, cluster, index):
    """End the session of a sheep as ZooKeeper does when it has not heard of it for long."""
    cluster_id = cluster.coordination.rpartition("/")[2].partition(",")[0]
    root = "/sheepstack/%s/members" % cluster_id
    port = b'"port": %d' % cluster.sheep[index].port
    with server.client() as client:
        for name in client.get_children(root):
            entry, _ = client.get(root + "/" + name)
            if port in entry:
                break
        else:
            raise AssertionError("sheep %d has no entry" % index)
    server.expire(name.partition("-")[0])


@pytest.mark.deployment("eventlet+zookeeper", "threading+zookeeper")
def test_zookeeper_restarts(make_cluster):
    """Shorter than the session timeout: nothing happens.  Longer: all wait, none dies."""
    with ZooKeeperServer() as server:
        cluster = make_cluster(
            3, settings={"coordination": server.spec("one") + ",timeout=6000"})
        vdis = open_twice(cluster)
        with Writers(vdis) as writers:
            writers.progress()
            epoch, pids = cluster.info(0).epoch, cluster.pids
            server.restart()
            writers.progress()
            assert cluster.info(0).epoch == epoch
            server.kill()
            wait_until(lambda: all("session" in cluster.logs(index) and
                                   "lost" in cluster.logs(index) for index in range(3)),
                       30, "the sheep to lose their sessions")
            server.start()
            cluster.wait_recovered()
            writers.progress()
        assert cluster.pids == pids
        for vdi in vdis:
            writers.check(vdi)
        wait_order(cluster)


@pytest.mark.deployment("eventlet+zookeeper", "threading+zookeeper")
def test_a_sheep_cut_off_from_zookeeper_answers_nothing(make_cluster, zookeeper):
    """Its clients read elsewhere: what it holds may be old."""
    with Proxy(zookeeper.address) as proxy:
        cluster = make_cluster(2, copies=None)
        spec = cluster.coordination.replace(zookeeper.address, proxy.address)
        lonely = cluster.add(options=("-c", spec))
        cluster.format(3)
        cluster.client(0).create_vdi("disk", 8 * MIB)
        there = cluster.client(0).open_vdi("disk", lock=False)
        there.pwrite(0, b"old")
        here = cluster.client(lonely, timeout=4).open_vdi("disk", lock=False)
        assert here.pread(0, 3) == b"old"
        proxy.freeze()
        wait_until(lambda: len(cluster.info(0).nodes) == 2, 30, "the others to go on alone")
        there.pwrite(0, b"new")
        with pytest.raises(SheepError):
            print(here.pread(0, 3))
        proxy.heal()
        cluster.wait_recovered()
        patient = cluster.client(lonely).open_vdi("disk", lock=False)
        assert patient.pread(0, 3) == b"new"
        wait_order(cluster)
