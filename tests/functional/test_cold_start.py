"""A cluster that was down as a whole, or comes up with a piece missing."""

import random
import shutil

import pytest

from sheepstack.client.errors import SheepError, WaitingForNodes
from sheepstack.wire import admin
from tests.functional.harness import wait_until
from tests.functional.test_recovery import check, fill
from tests.functional.workload import Writers, wait_order
from tests.functional.zookeeper_server import ZooKeeperServer


def start_in_turn(cluster, order):
    for index in order:
        cluster.restart(index)


def test_clean_shutdown_and_restart_keep_the_epoch(cluster):
    content = fill(cluster.client(), "disk", 6)
    cluster.kill(1)
    cluster.wait_recovered()
    cluster.restart(1)
    cluster.wait_recovered()
    epoch = cluster.info(0).epoch
    cluster.dog("cluster", "shutdown")
    cluster.wait_ended()
    assert [sheep.process.returncode for sheep in cluster.sheep] == [0, 0, 0]
    start_in_turn(cluster, (2, 0, 1))
    cluster.wait_recovered()
    assert cluster.info(0).epoch == epoch
    check(cluster.client(), "disk", content)
    wait_order(cluster)


def test_all_are_killed_at_once_while_clients_write(cluster):
    """In whatever order they come back: what was acknowledged is there, and copies are equal."""
    content = fill(cluster.client(), "disk", 6)
    client = cluster.client(timeout=60)
    client.create_vdi("busy", 16 << 20)
    vdi = client.open_vdi("busy", lock=False)
    chance = random.Random(3)
    with Writers([vdi]) as writers:
        for _ in range(2):
            writers.progress()
            cluster.kill_all()
            start_in_turn(cluster, chance.sample(range(3), 3))
        writers.progress()
    writers.check(vdi)
    check(client, "disk", content)
    wait_order(cluster)


def test_waits_for_the_nodes_of_the_last_epoch(make_cluster):
    cluster = make_cluster(4)
    content = fill(cluster.client(), "disk", 8)
    epoch = cluster.info(0).epoch
    cluster.dog("cluster", "shutdown")
    cluster.wait_ended()
    start_in_turn(cluster, (3, 1, 0))
    cluster.wait_status(admin.ClusterStatus.WAIT)
    with pytest.raises(WaitingForNodes):
        cluster.client(0, timeout=2).lookup("disk")
    assert "Waiting" in cluster.dog("cluster", "info", check=False).text
    assert [cluster.info(index).epoch for index in (0, 1, 3)] == [epoch] * 3
    cluster.restart(2)
    cluster.wait_recovered()
    assert cluster.info(0).epoch == epoch
    check(cluster.client(), "disk", content)
    wait_order(cluster)


@pytest.mark.deployment("eventlet+zookeeper", "threading+zookeeper")
def test_the_sheep_are_up_before_zookeeper(make_cluster):
    """They wait for it, say so to those who ask, and can be told not to."""
    with ZooKeeperServer() as server:
        cluster = make_cluster(
            settings={"coordination": server.spec("late") + ",timeout=2000"})
        content = fill(cluster.client(), "disk", 4)
        cluster.kill_all()
        server.kill()
        cluster.restart_all()
        for index in range(3):
            cluster.wait_log(index, "cannot join yet")
        with pytest.raises(SheepError):
            cluster.client(0, timeout=2).lookup("disk")
        assert cluster.terminate(2) == 1
        server.start()
        cluster.restart(2)
        cluster.wait_recovered()
        check(cluster.client(), "disk", content)
        wait_order(cluster)


def test_forced_to_go_on_without_a_node(make_cluster):
    cluster = make_cluster(4)
    content = fill(cluster.client(), "disk", 8)
    cluster.dog("cluster", "shutdown")
    cluster.wait_ended()
    start_in_turn(cluster, (3, 1, 0))
    cluster.wait_status(admin.ClusterStatus.WAIT)
    # Only when all know that it is gone: until its session expires it may be running.
    wait_until(lambda: not cluster.dog("cluster", "recover", "force", "-f", check=False).status,
               30, "the force to be accepted")
    cluster.wait_recovered()
    check(cluster.client(), "disk", content)
    with cluster.client().open_vdi("disk", lock=False) as vdi:
        offset = min(content)
        content[offset] = content[offset][::-1]
        vdi.pwrite(offset, content[offset])
    wait_order(cluster)
    assert cluster.dog("cluster", "recover", "force", "-f", check=False).status
    cluster.restart(2)
    wait_order(cluster)
    check(cluster.client(2), "disk", content)


def test_the_last_to_go_knows_best(make_cluster):
    """Those who left earlier are not enough: they have missed what was written since."""
    cluster = make_cluster(3)
    content = fill(cluster.client(), "disk", 4)
    for victim in (0, 1):
        cluster.kill(victim)
        cluster.wait_recovered()
        with cluster.client(2).open_vdi("disk", lock=False) as vdi:
            for offset in content:
                content[offset] = random.Random(victim + offset).randbytes(len(content[offset]))
                vdi.pwrite(offset, content[offset])
    cluster.kill(2)
    start_in_turn(cluster, (0, 1))
    cluster.wait_status(admin.ClusterStatus.WAIT)
    with pytest.raises(SheepError):
        cluster.client(0, timeout=2).lookup("disk")
    cluster.restart(2)
    wait_order(cluster)
    for index in range(3):
        check(cluster.client(index), "disk", content)


def test_coordination_data_is_lost(make_cluster, deployment):
    """ZooKeeper was set up anew, or /tmp was emptied: the sheep know who they are."""
    if deployment.driver != "local":
        pytest.skip("the tests share one ZooKeeper")
    cluster = make_cluster(3)
    content = fill(cluster.client(), "disk", 4)
    epoch = cluster.info(0).epoch
    cluster.kill_all()
    shutil.rmtree(cluster.coordination.partition(":")[2])
    start_in_turn(cluster, (1, 2))
    cluster.wait_status(admin.ClusterStatus.WAIT)
    cluster.restart(0)
    cluster.wait_recovered()
    assert cluster.info(0).epoch == epoch
    check(cluster.client(), "disk", content)
    wait_order(cluster)


def test_a_node_lost_its_disk(make_cluster):
    """It comes back at its address with an empty store and is filled again."""
    cluster = make_cluster(3)
    content = fill(cluster.client(), "disk", 6)
    cluster.kill(1)
    shutil.rmtree(cluster.sheep[1].directory)
    cluster.restart(1)
    wait_order(cluster)
    check(cluster.client(1), "disk", content)
    cluster.kill_all()
    shutil.rmtree(cluster.sheep[2].directory)
    cluster.restart_all()
    wait_until(lambda: cluster.info(0).status == admin.ClusterStatus.OK, 30, "service")
    wait_order(cluster)
    check(cluster.client(2), "disk", content)
