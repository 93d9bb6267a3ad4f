"""Replication of volumes to a second cluster, with Cinder's objects, on real sheep."""

import pathlib
import re

import pytest

pytest.importorskip("cinder", reason="Cinder is not installed: run make openstack")

from cinder import exception  # noqa: E402
from cinder.volume import driver as base_driver  # noqa: E402

from cinder_driver import backend, leftovers, names, replication  # noqa: E402
from sheepstack.client import NoSuchVdi  # noqa: E402
from tests.functional.harness import SheepCluster, wait_until  # noqa: E402
from tests.openstack.cinder_objects import GIB, read, snapshot, volume, write  # noqa: E402
from tests.openstack.killing import chosen, steps_of  # noqa: E402

MIB = 1 << 20
REPLICATED = {"replication_enabled": "<is> True"}


@pytest.fixture
def second(tmp_path):
    """Another cluster, of one sheep."""
    cluster = SheepCluster(tmp_path / "second", "local:%s" % (tmp_path / "coordination"))
    cluster.start(1, 1)
    yield cluster
    cluster.close()


@pytest.fixture
def first(tmp_path):
    """The cluster that is going to die."""
    cluster = SheepCluster(tmp_path / "first", "local:%s" % (tmp_path / "coordination1"))
    cluster.start(1, 1)
    yield cluster
    cluster.close()


@pytest.fixture
def make(backends, first, second):
    def make(interval=3600, **details):
        return backends.make(
            first.addresses, sheepdog_timeout=5, sheepdog_replication_interval=interval,
            replication_device=[{"backend_id": "second", "addresses":
                                 " ".join(second.addresses)}], **details)

    return make


def tags(cluster, name):
    return sorted(header.tag for header in cluster.list_vdis()
                  if header.name == name and header.is_snapshot)


def test_only_what_changed_is_shipped(make, first, second):
    driver, ours, theirs = make(), first.client(), second.client()
    new = volume(pool="copies-1", specs=REPLICATED)
    assert driver.create_volume(new) == {"replication_status": "enabled"}
    plain = volume(pool="copies-1")
    assert driver.create_volume(plain) == {"replication_status": "not-capable"}
    for index in range(8):
        write(ours, new.name, index * 4 * MIB, b"a" * 4 * MIB)
    driver._replicate()
    assert read(theirs, new.name, 28 * MIB, 5) == b"aaaaa"
    with pytest.raises(NoSuchVdi):
        theirs.lookup(plain.name)
    before = sum(len(second.objects(0)) for _ in (0,))
    taken = snapshot(new)
    write(ours, new.name, 4 * MIB, b"before")
    driver.create_snapshot(taken)
    write(ours, new.name, 4 * MIB, b"after!")
    driver.extend_volume(new, 2)
    driver._replicate()
    assert theirs.header(new.name).vdi_size == 2 * GIB
    assert read(theirs, new.name, 4 * MIB, 6) == b"after!"
    assert read(theirs, new.name, 4 * MIB, 6, taken.name) == b"before"
    # One object for each of the two states, and the inodes of two snapshots.
    assert len(second.objects(0)) - before <= 4
    driver.delete_snapshot(taken)
    driver._replicate()
    assert [tag.startswith(names.REPLICA) for tag in tags(theirs, new.name)] == [True]
    assert tags(theirs, new.name) == tags(ours, new.name)
    driver.delete_volume(new)
    assert not [each for cluster in (ours, theirs) for each in cluster.list_vdis()
                if each.name == new.name]


def test_a_shipment_that_was_cut_off_is_undone(make, first, second):
    driver, ours, theirs = make(), first.client(), second.client()
    new = volume(pool="copies-1", specs=REPLICATED)
    driver.create_volume(new)
    write(ours, new.name, 0, b"good")
    driver._replicate()
    write(theirs, new.name, 0, b"half")
    write(theirs, new.name, 40 * MIB, b"half")
    driver._replicate()
    assert read(theirs, new.name, 0, 4) == b"good"
    assert read(theirs, new.name, 40 * MIB, 4) == bytes(4)


def _ship(driver, new):
    driver._replicate()


def _fail_over(driver, new):
    driver.failover_host(None, [new], "second")


def _fail_back(driver, new):
    driver.failover_host(None, [new], "default")


@pytest.mark.parametrize("act", [_ship, _fail_over, _fail_back],
                         ids=["shipment", "failover", "failback"])
def test_killed_at_any_step(make, first, second, act):
    """It is done again, then, and nothing is lost; and nothing is left once all is deleted."""
    ours, theirs = first.client(), second.client()
    active = "second" if act is _fail_back else None

    def begin():
        return make(active_backend_id=active)

    def volume_with_half_a_shipment():
        driver = make()
        new, taken = volume(pool="copies-1", specs=REPLICATED), None
        driver.create_volume(new)
        write(ours, new.name, 0, b"first")
        driver._replicate()
        taken = snapshot(new)
        driver.create_snapshot(taken)
        write(ours, new.name, 5 * MIB, b"second")
        # As a shipment leaves it that was cut off: it has to be rolled back.
        write(theirs, new.name, 0, b"wrong")
        if active:
            driver.failover_host(None, [new], active)
            write(theirs, new.name, 5 * MIB, b"newest")
        return new, taken

    def check_and_delete(driver, new, taken):
        where = ours if act is _fail_back else theirs
        assert read(where, new.name, 0, 5) == read(where, new.name, 0, 5, taken.name) == b"first"
        assert read(where, new.name, 5 * MIB, 6) == (b"newest" if active else b"second")
        driver.delete_snapshot(taken)
        driver.delete_volume(new)
        for cluster in (ours, theirs):
            leftovers.remove(cluster, -1)
            assert not list(cluster.list_vdis())

    new, taken = volume_with_half_a_shipment()
    steps = steps_of(begin, lambda driver: act(driver, new))
    driver = make(active_backend_id={_fail_over: "second"}.get(act))
    check_and_delete(driver, new, taken)
    for step, _ in chosen(steps, repeatable=False):
        print("killed before request %d of %d" % (step, steps))
        new, taken = volume_with_half_a_shipment()
        steps_of(begin, lambda driver: act(driver, new), step)
        driver = begin()
        act(driver, new)
        check_and_delete(driver, new, taken)


def test_deleted_in_the_middle_of_a_shipment(make, first, second, monkeypatch):
    driver, ours, theirs = make(), first.client(), second.client()
    new = volume(pool="copies-1", specs=REPLICATED)
    driver.create_volume(new)
    write(ours, new.name, 0, b"data")
    prepare = replication._prepare

    def delete_first(*args):
        driver.delete_volume(new)
        prepare(*args)

    monkeypatch.setattr(replication, "_prepare", delete_first)
    driver._replicate()
    assert not [*ours.list_vdis(), *theirs.list_vdis()]


def test_background_failover_and_failback(make, first, second):
    driver, ours, theirs = make(interval=1), first.client(), second.client()
    new = volume(pool="copies-1", specs=REPLICATED)
    driver.create_volume(new)
    write(ours, new.name, 0, b"shipped")

    def shipped():
        try:
            return read(theirs, new.name, 0, 7) == b"shipped" and tags(theirs, new.name)
        except NoSuchVdi:
            return False

    wait_until(shipped, 60, "a shipment")
    assert driver.get_volume_stats(True)["pools"][0]["replication_targets"] == ["second"]
    with pytest.raises(exception.InvalidReplicationTarget):
        driver.failover_host(None, [new], "third")
    with pytest.raises(exception.InvalidReplicationTarget):
        driver.failover_host(None, [new], "default")
    first.kill(0)
    lost = volume(pool="copies-1", specs=REPLICATED)
    active, updates, groups = driver.failover_host(None, [new, lost])
    assert (active, groups) == ("second", [])
    assert updates[0] == {"volume_id": new.id,
                          "updates": {"replication_status": "failed-over"}}
    assert updates[1]["updates"]["status"] == "error"
    assert driver.get_volume_stats(True)["backend_state"] == "up"
    clone = volume(pool="copies-1")
    driver.create_cloned_volume(clone, new)
    assert read(theirs, clone.name, 0, 7) == b"shipped"
    write(theirs, new.name, 0, b"changed")

    # As after a restart of cinder-volume.
    driver = make(active_backend_id="second")
    first.restart(0)
    first.wait_members(status=1)
    active, updates, _ = driver.failover_host(None, [new], "default")
    assert active == "default"
    assert updates == [{"volume_id": new.id, "updates": {"replication_status": "enabled"}}]
    assert read(first.client(), new.name, 0, 7) == b"changed"
    assert driver.get_volume_stats(True)["active_backend_id"] is None
    write(first.client(), new.name, 0, b"further")
    driver._replicate()
    assert read(theirs, new.name, 0, 7) == b"further"


def test_planned_failover_loses_nothing(make, first, second):
    """Even where another cinder-volume of the cluster has not heard of it yet."""
    driver, late = make(), make()
    new = volume(pool="copies-1", specs=REPLICATED)
    driver.create_volume(new)
    write(first.client(), new.name, 0, b"latest")
    assert driver.failover(None, [new], "second")[0] == "second"
    assert read(second.client(), new.name, 0, 6) == b"latest"
    driver.failover_completed(None, "second")
    write(second.client(), new.name, 0, b"served")
    late._replicate()
    driver._replicate()
    assert read(second.client(), new.name, 0, 6) == b"served"
    assert driver.failover(None, [new], "default")[0] == "default"
    driver.failover_completed(None, "")
    late._replicate()
    assert read(first.client(), new.name, 0, 6) == b"served"


def test_the_line_of_the_documentation_is_understood():
    """As Cinder reads it from its file."""
    page = pathlib.Path(__file__).parents[2] / "doc" / "source" / "cinder.rst"
    line, = re.findall(r"replication_device = (.*)", page.read_text())
    option, = [option for option in base_driver.volume_opts if option.name == "replication_device"]
    device = option.type(line)
    device.pop("auth_key_file")
    target, = backend.replication_targets([device])
    assert (target.name, target.addresses) == (
        "second", ("203.0.113.11:7000", "203.0.113.12:7000"))
    for wrong in ({"backend_id": "x"}, {**device, "colour": "red"}):
        with pytest.raises(exception.InvalidConfigurationValue):
            backend.replication_targets([wrong])
