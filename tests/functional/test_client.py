"""The client library against our own sheep, and what it does when they fail."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sheepstack.client import (
    AuthenticationFailed, Cluster, ClusterUnreachable, NoSuchVdi, NotFormatted, VdiLocked)
from tests.functional.client_behaviour import BEHAVIOURS, MIB, OBJECT, Model, noise
from tests.functional.harness import wait_until
from tests.functional.zookeeper_server import Proxy


def test_behaviours(cluster):
    client = cluster.client()
    for behaviour in BEHAVIOURS:
        behaviour(client, behaviour.__name__)


@pytest.mark.deployment("eventlet+local")
def test_behaviours_under_eventlet(cluster):
    done = subprocess.run(
        [sys.executable, "-m", "tests.functional.client_under_eventlet", *cluster.addresses],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "all behaved" in done.stdout, done.stderr


@pytest.mark.deployment("eventlet+local")
def test_unix_socket_info_and_listing(cluster):
    client = Cluster("unix:%s" % cluster.sheep[1].socket)
    with client:
        assert sorted(str(node.nid) for node in client.nodes()) == sorted(cluster.addresses)
        assert (client.info().nr_copies, client.defaults()) == (3, (3, 0, 22))
        uuid = client.uuid()
        assert uuid and uuid == cluster.client(2).uuid()
        names = {"vdi%03d" % number for number in range(60)}
        for name in names:
            client.create_vdi(name, MIB)
        client.snapshot("vdi007", "tag")
        client.delete_vdi("vdi008")
        listed = [(header.name, header.tag) for header in client.list_vdis()]
        assert sorted(listed) == sorted(
            [(name, "") for name in names - {"vdi008"}] + [("vdi007", "tag")])


def test_nobody_notices_that_the_gateway_is_killed(cluster):
    client = cluster.client()
    client.create_vdi("disk", 64 * MIB)
    with client.open_vdi("disk") as vdi:
        with Model(vdi, threads=6, blocks=8192) as model:
            for index in (0, 1):
                before = model.writes
                wait_until(lambda: model.writes > before + 200, 30, "writes")
                cluster.kill(index)
                before = model.writes
                wait_until(lambda: model.writes > before + 200, 60, "writes")
                cluster.restart(index)
                cluster.wait_recovered()
        model.check(vdi)
    with cluster.client(2).open_vdi("disk") as vdi:
        model.check(vdi)


def test_futures_survive_the_gateway(cluster):
    client = cluster.client()
    client.create_vdi("disk", 64 * MIB)
    with client.open_vdi("disk") as vdi:
        vdi.preallocate()
        blocks = [bytes([number % 255 + 1]) * 4096 for number in range(3000)]
        killer = threading.Timer(0.05, cluster.kill, (0,))
        killer.start()
        writes = [vdi.submit_pwrite(number * 4096, block)
                  for number, block in enumerate(blocks)]
        for write in writes:
            assert write.result() is None
        killer.join()
        reads = [vdi.submit_pread(number * 4096, 4096) for number in range(len(blocks))]
        for read, block in zip(reads, blocks):
            assert read.result() == block


@pytest.mark.deployment("threading+local")
def test_a_frozen_gateway_is_left(cluster):
    client = cluster.client(timeout=30)
    client.create_vdi("disk", 64 * MIB)
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"before")
        cluster.stop(0)
        started = time.monotonic()
        vdi.pwrite(OBJECT, b"after")
        assert vdi.pread(0, 6) == b"before"
        assert 5 < time.monotonic() - started < 25
        cluster.cont(0)
        assert vdi.pread(OBJECT, 5) == b"after"
    cluster.wait_members()


@pytest.mark.deployment("eventlet+local")
def test_snapshot_and_creation_while_the_gateway_is_killed(cluster):
    client = cluster.client()
    client.create_vdi("disk", 16 * MIB)
    with client.open_vdi("disk", lock=False) as vdi:
        vdi.pwrite(0, b"one")
        killer = threading.Timer(0.01, cluster.kill, (0,))
        killer.start()
        for number in range(5):
            vdi.snapshot("tag%d" % number)
            client.create_vdi("new%d" % number, MIB)
        killer.join()
        vdi.pwrite(0, b"two")
        for number in range(5):
            with client.open_vdi("disk", "tag%d" % number) as snapshot:
                assert snapshot.pread(0, 3) == b"one"
    names = [header.name for header in client.list_vdis()]
    assert sorted(names) == sorted(["disk"] * 6 + ["new%d" % number for number in range(5)])


def test_idle_connections_outlive_a_restart(cluster):
    client = cluster.client()
    client.create_vdi("disk", 16 * MIB)
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"before")
        cluster.kill_all(signal.SIGTERM)
        cluster.restart_all()
        vdi.pwrite(3, b"after")
        assert vdi.pread(0, 8) == b"befafter"
        client.create_vdi("other", MIB)


@pytest.mark.deployment("eventlet+local")
def test_a_lock_goes_with_us_to_another_gateway(make_cluster):
    cluster = make_cluster(format_options=["-l"])
    client, other = cluster.client(), cluster.client(2)
    client.create_vdi("disk", 16 * MIB)
    with client.open_vdi("disk") as vdi:
        with pytest.raises(VdiLocked):
            other.open_vdi("disk")
        vdi.pwrite(0, b"one")
        vdi.snapshot("tag")
        with pytest.raises(VdiLocked):
            other.open_vdi("disk")
        other.snapshot("disk", "theirs")
        vdi.pwrite(0, b"two")
        cluster.kill(0)
        vdi.pwrite(0, b"three")
        cluster.wait_members()
        with pytest.raises(VdiLocked):
            other.open_vdi("disk")
        assert vdi.pread(0, 5) == b"three"
        with other.open_vdi("disk", read_only=True) as reader:
            assert reader.pread(0, 5) == b"three"
    with other.open_vdi("disk") as vdi:
        assert vdi.pread(0, 5) == b"three"
        with pytest.raises(VdiLocked):
            client.open_vdi("disk")


@pytest.mark.deployment("eventlet+local")
def test_who_lost_the_lock_writes_no_more(make_cluster):
    cluster = make_cluster(format_options=["-l"])
    client, other = cluster.client(timeout=3), cluster.client(2)
    client.create_vdi("disk", 16 * MIB)
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"ours")
        cluster.kill(0)
        taken = wait_until(lambda: open_or_none(other, "disk"), 30, "the lock to expire")
        taken.pwrite(0, b"theirs")
        with pytest.raises(VdiLocked):
            vdi.pwrite(0, b"ours!!")
        assert taken.pread(0, 6) == b"theirs"
        taken.pwrite(OBJECT, b"a new object")
        taken.close()
        # With the lock back, what we knew of the map counts no more.
        vdi.pwrite(OBJECT + 2, b"NEW")
        assert vdi.pread(OBJECT, 12) == b"a NEW object"
        assert vdi.pread(0, 6) == b"theirs"


@pytest.mark.deployment("eventlet+local", "threading+zookeeper")
def test_a_lock_comes_along_though_its_gateway_lives(make_cluster):
    cluster = make_cluster(format_options=["-l"])
    other = cluster.client(2)
    other.create_vdi("disk", 16 * MIB)
    with Proxy(cluster.addresses[0]) as proxy, Cluster(
            [proxy.address, cluster.addresses[1]], timeout=10) as client:
        with client.open_vdi("disk") as vdi:
            vdi.pwrite(0, b"one")
            vdi.snapshot("tag")
            proxy.close()
            vdi.pwrite(0, b"two")
            with pytest.raises(VdiLocked):
                other.open_vdi("disk")
            assert vdi.pread(0, 3) == b"two"
        with other.open_vdi("disk") as vdi:
            assert vdi.pread(0, 3) == b"two"
            with pytest.raises(VdiLocked):
                client.open_vdi("disk")


@pytest.mark.deployment("eventlet+local")
def test_a_lock_that_cannot_be_given_back_is_so_later(make_cluster):
    cluster = make_cluster(format_options=["-l"])
    other = cluster.client(2)
    other.create_vdi("disk", 16 * MIB)
    with Proxy(cluster.addresses[0]) as proxy, Cluster([proxy.address], timeout=1) as client:
        vdi = client.open_vdi("disk")
        proxy.cut()
        vdi.close()
        assert open_or_none(other, "disk") is None
        proxy.heal()
        wait_until(lambda: open_or_none(other, "disk"), 30, "the lock to be released").close()


@pytest.mark.deployment("eventlet+local")
def test_a_lock_of_which_we_did_not_hear_is_given_back(make_cluster):
    cluster = make_cluster(format_options=["-l"])
    other = cluster.client(2)
    other.create_vdi("disk", 16 * MIB)
    with Proxy(cluster.addresses[0]) as proxy, Cluster([proxy.address], timeout=1) as client:
        client.lookup("disk")
        proxy.mute()
        with pytest.raises(ClusterUnreachable):
            client.open_vdi("disk")
        assert open_or_none(other, "disk") is None
        proxy.heal()
        wait_until(lambda: open_or_none(other, "disk"), 30, "the lock to be released").close()


def open_or_none(client, name):
    try:
        return client.open_vdi(name)
    except VdiLocked:
        return None


@pytest.mark.deployment("eventlet+local", "threading+local")
def test_the_secret(make_cluster):
    key = b"correct horse battery staple"
    cluster = make_cluster(settings={"auth_key": key})
    client = cluster.client()
    client.create_vdi("disk", 16 * MIB)
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"secret")
        assert [future.result() for future in
                [vdi.submit_pread(0, 6) for _ in range(10)]] == [b"secret"] * 10
    with pytest.raises(AuthenticationFailed, match="does not know the secret"):
        cluster.client(auth_key=b"wrong horse battery staple").lookup("disk")
    with pytest.raises(AuthenticationFailed, match="secret is required"):
        Cluster(cluster.addresses).lookup("disk")
    with pytest.raises(AuthenticationFailed, match="secret is required"):
        Cluster(cluster.addresses).create_vdi("other", MIB)
    with pytest.raises(ValueError):
        cluster.client(auth_key=b"short")
    with pytest.raises(NoSuchVdi):
        client.lookup("other")


@pytest.mark.deployment("eventlet+local")
def test_a_secret_where_none_is_asked_for(make_cluster):
    cluster = make_cluster(nodes=1, copies=None)
    with pytest.raises(AuthenticationFailed, match="does not ask for a secret"):
        cluster.client(auth_key=b"correct horse battery staple").info()
    with pytest.raises(NotFormatted):
        cluster.client().create_vdi("disk", MIB)
    assert cluster.client().info().ctime == 0


@pytest.mark.deployment("eventlet+local")
@pytest.mark.deployment("eventlet+local")
def test_the_uuid_comes_with_the_format(make_cluster):
    cluster = make_cluster(1, copies=None)
    with pytest.raises(NotFormatted):
        cluster.client().uuid()
    cluster.format(1)
    first = cluster.client().uuid()
    cluster.format(1)
    assert first != cluster.client().uuid()


def test_nobody_there(cluster):
    cluster.kill_all()
    started = time.monotonic()
    with pytest.raises(ClusterUnreachable, match="Connection refused"):
        cluster.client().lookup("disk")
    with pytest.raises(ClusterUnreachable, match="No such file"):
        Cluster("unix:%s/none" % cluster.root).lookup("disk")
    assert time.monotonic() - started < 5


@pytest.mark.deployment("eventlet+local")
def test_patience_ends(cluster):
    client = cluster.client(timeout=2)
    client.create_vdi("disk", MIB)
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, b"x")
        cluster.kill_all()
        started = time.monotonic()
        with pytest.raises(ClusterUnreachable):
            vdi.pread(0, 1)
        with pytest.raises(ClusterUnreachable):
            vdi.submit_pwrite(0, b"y").result()
        assert 3 < time.monotonic() - started < 8


@pytest.mark.deployment("eventlet+local")
def test_a_forked_child_has_its_own_connections(cluster):
    client = cluster.client()
    client.create_vdi("disk", 16 * MIB)
    data = noise(100, 1)
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(0, data)
        child = os.fork()
        if not child:
            status = 1
            try:
                with client.open_vdi("disk", read_only=True) as same:
                    status = 0 if same.pread(0, 100) == data else 2
            finally:
                os._exit(status)
        for _ in range(200):
            assert vdi.pread(0, 100) == data
        assert os.waitpid(child, 0)[1] == 0
