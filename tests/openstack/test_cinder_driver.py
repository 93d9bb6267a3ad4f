"""The Cinder driver in the test's own process, with Cinder's objects, on real sheep."""

import concurrent.futures
import inspect
import subprocess
import threading
import time
import uuid

import pytest

pytest.importorskip("cinder", reason="Cinder is not installed: run make openstack")

from cinder import context, exception, objects  # noqa: E402
from cinder import interface as interfaces  # noqa: E402
from cinder.interface import (  # noqa: E402
    volume_driver, volume_group_driver, volume_manageable_driver, volume_snapshot_revert,
    volume_snapshotmanagement_driver)
from cinder.db import api as db  # noqa: E402
from cinder.volume import group_types, qos_specs, volume_types  # noqa: E402

from cinder_driver import leftovers, names  # noqa: E402
from cinder_driver.driver import SheepdogDriver  # noqa: E402
from sheepstack.client import Limits, NoSuchVdi  # noqa: E402
from tests.functional.harness import SheepCluster, free_port, wait_until  # noqa: E402
from tests.openstack import cinder_objects  # noqa: E402
from tests.openstack.cinder_objects import GIB, read, snapshot, volume, write  # noqa: E402

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("cinder")
PROJECT = context.RequestContext("user", "project", is_admin=True)


@pytest.fixture
def driver(backends, sheep):
    return backends.make(sheep.addresses, sheepdog_pools=["3", "2"])


@pytest.fixture
def client(sheep):
    """A client of its own; in the end nothing but what was there before may be there."""
    cluster = sheep.client(timeout=240)
    before = listed(cluster)
    yield cluster
    for name, tag in listed(cluster) - before:
        cluster.delete_vdi(name, tag or None)


def listed(cluster):
    return {(header.name, header.tag) for header in cluster.list_vdis()}


def made(driver, **details):
    new = volume(**details)
    driver.create_volume(new)
    return new


def snapped(driver, of, **details):
    new = snapshot(of, **details)
    driver.create_snapshot(new)
    return new


# -- what Cinder expects of the class

@pytest.mark.parametrize("wanted", [
    volume_driver.VolumeDriverCore, volume_group_driver.VolumeGroupDriver,
    volume_manageable_driver.VolumeManagementDriver,
    volume_manageable_driver.VolumeListManageableDriver,
    volume_snapshot_revert.VolumeSnapshotRevertDriver,
    volume_snapshotmanagement_driver.VolumeSnapshotManagementDriver],
    ids=lambda wanted: wanted.__name__)
def test_methods_take_what_cinder_passes(wanted):
    for name, theirs in vars(wanted).items():
        if name.startswith("_") or not inspect.isfunction(theirs):
            continue
        ours = getattr(SheepdogDriver, name)
        if isinstance(ours, property):
            continue
        expected = list(inspect.signature(theirs).parameters.values())
        got = inspect.signature(ours).parameters
        takes_more = any(each.kind == each.VAR_KEYWORD for each in got.values())
        names_ = [each.name for each in expected]
        assert list(got)[:len(names_)] == names_ or (
            takes_more or len(got) >= len(names_)), "%s%s, not %s" % (
                name, inspect.signature(theirs), inspect.signature(ours))
        for extra in list(got.values())[len(names_):]:
            assert extra.default is not extra.empty or extra.kind in (
                extra.VAR_KEYWORD, extra.VAR_POSITIONAL), "%s demands %s" % (name, extra.name)


def test_class_is_registered_with_options():
    assert SheepdogDriver in interfaces._volume_register
    named = {option.name for option in SheepdogDriver.get_driver_options()}
    assert {"sheepdog_addresses", "target_ip_address", "replication_device"} <= named
    assert SheepdogDriver.SUPPORTS_ACTIVE_ACTIVE
    assert SheepdogDriver.supports_replication_feature("v2.1")
    assert SheepdogDriver.supports_replication_feature("a/a")


def test_no_thread_or_connection_before_do_setup():
    before = threading.active_count()
    SheepdogDriver(configuration=cinder_objects.settings("forked"), host="host@forked")
    assert threading.active_count() == before


# -- set-up and stats

def test_set_up_tells_what_is_wrong(backends, tmp_path):
    coordination = "local:%s" % (tmp_path / "coordination")
    cluster = SheepCluster(tmp_path / "c", coordination, auth_key=b"0123456789abcdef" * 2)
    wrong_key = tmp_path / "wrong"
    wrong_key.write_bytes(b"f" * 32)
    try:
        nobody = ["127.0.0.1:%d" % free_port()]
        with pytest.raises(exception.VolumeBackendAPIException, match="can be reached"):
            backends.make(nobody, sheepdog_timeout=1)
        cluster.add()
        with pytest.raises(exception.VolumeBackendAPIException, match="not formatted"):
            backends.make(cluster.addresses, sheepdog_timeout=2,
                          sheepdog_auth_key_file=str(cluster.auth_key_file))
        with pytest.raises(exception.VolumeBackendAPIException, match="secret"):
            backends.make(cluster.addresses, sheepdog_timeout=2,
                          sheepdog_auth_key_file=str(wrong_key))
        with pytest.raises(exception.VolumeBackendAPIException, match="secret"):
            backends.make(cluster.addresses, sheepdog_timeout=2)
        with pytest.raises(exception.InvalidConfigurationValue, match="missing"):
            backends.make(cluster.addresses, sheepdog_auth_key_file=str(tmp_path / "missing"))
        with pytest.raises(exception.InvalidConfigurationValue, match="many"):
            backends.make(cluster.addresses, sheepdog_pools=["many"],
                          sheepdog_auth_key_file=str(cluster.auth_key_file))
        cluster.format(1)
        ready = backends.make(cluster.addresses,
                              sheepdog_auth_key_file=str(cluster.auth_key_file))
        assert [pool["pool_name"] for pool in ready.get_volume_stats(True)["pools"]] == [
            "copies-1"]
    finally:
        cluster.close()


def test_stats_are_of_pools_and_net_of_copies(driver, client, sheep):
    made(driver, size=5, pool="copies-2")
    stats = driver.get_volume_stats(refresh=True)
    assert (stats["backend_state"], stats["vendor_name"]) == ("up", "sheepstack")
    three, two = stats["pools"]
    assert (three["pool_name"], two["pool_name"]) == ("copies-3", "copies-2")
    assert (three["sheepdog_copy_policy"], two["sheepdog_copy_policy"]) == ("3", "2")
    space = client.space()
    assert three["total_capacity_gb"] == pytest.approx(space.total / 3 / GIB, abs=0.1)
    assert two["total_capacity_gb"] == pytest.approx(space.total / 2 / GIB, abs=0.1)
    assert two["provisioned_capacity_gb"] == 5
    for pool in stats["pools"]:
        assert pool["thin_provisioning_support"] and pool["multiattach"]
        assert pool["max_over_subscription_ratio"]
        assert pool["free_capacity_gb"] <= pool["total_capacity_gb"]


def test_stats_of_a_cluster_that_is_away_say_so(backends, tmp_path):
    cluster = SheepCluster(tmp_path / "c", "local:%s" % (tmp_path / "coordination"))
    cluster.start(1, 1)
    try:
        driver = backends.make(cluster.addresses, sheepdog_timeout=2)
        cluster.kill(0)
        stats = driver.get_volume_stats(refresh=True)
    finally:
        cluster.close()
    assert stats["backend_state"] == "down"
    assert [pool["free_capacity_gb"] for pool in stats["pools"]] == [0]


# -- volumes and snapshots

def test_volume_lives_and_dies(driver, client):
    new = made(driver, size=2)
    header = client.header(new.name)
    assert (header.vdi_size, header.nr_copies) == (2 * GIB, 3)
    write(client, new.name, GIB, b"kept")
    driver.extend_volume(new, 3)
    assert client.header(new.name).vdi_size == 3 * GIB
    assert read(client, new.name, GIB, 4) == b"kept"
    driver.delete_volume(new)
    with pytest.raises(NoSuchVdi):
        client.lookup(new.name)
    driver.delete_volume(new)


def test_pool_and_type_say_how_a_volume_is_kept(driver, client):
    new = made(driver, pool="copies-2", specs={"sheepdog:block_size": "1"})
    header = client.header(new.name)
    assert (header.nr_copies, header.block_size) == (2, MIB)
    assert driver.get_pool(new) == "copies-2"
    for wrong in ("3", "0", "2048", "big"):
        with pytest.raises(exception.InvalidInput):
            made(driver, specs={"sheepdog:block_size": wrong})
    with pytest.raises(exception.InvalidVolume):
        made(driver, pool="elsewhere")


def test_too_big_a_volume_is_refused_with_a_reason(driver):
    with pytest.raises(exception.VolumeBackendAPIException, match="at most"):
        made(driver, size=5 * 1024)


def test_clones_and_snapshots_in_every_order_of_deletion(driver, client):
    source = made(driver)
    write(client, source.name, 0, b"first")
    first = snapped(driver, source)
    write(client, source.name, 0, b"later")
    from_snapshot = volume(size=2)
    driver.create_volume_from_snapshot(from_snapshot, first)
    clone = volume(size=1)
    driver.create_cloned_volume(clone, source)
    of_clone = volume(size=1)
    driver.create_cloned_volume(of_clone, clone)
    assert client.header(from_snapshot.name).vdi_size == 2 * GIB
    for name, content in ((from_snapshot.name, b"first"), (clone.name, b"later"),
                          (of_clone.name, b"later")):
        assert read(client, name, 0, 5) == content
    driver.delete_volume(source)
    driver.delete_volume(clone)
    driver.delete_snapshot(first)
    driver.delete_snapshot(first)
    assert read(client, from_snapshot.name, 0, 5) == b"first"
    assert read(client, of_clone.name, 0, 5) == b"later"
    assert not [tag for name, tag in listed(client) if names.is_ours(tag)]


def test_clones_of_clones_without_end(driver, client):
    last = made(driver)
    write(client, last.name, 0, b"deep")
    for _ in range(40):
        following = volume()
        driver.create_cloned_volume(following, last)
        driver.delete_volume(last)
        last = following
    assert read(client, last.name, 0, 4) == b"deep"


def test_what_an_earlier_attempt_left_is_replaced(driver, client):
    source = made(driver)
    write(client, source.name, 0, b"right")
    again = volume(size=1)
    client.create_vdi(again.name, 5 * MIB)
    write(client, again.name, 0, b"wrong")
    client.snapshot(source.name, names.TEMPORARY + again.id)
    driver.create_cloned_volume(again, source)
    assert read(client, again.name, 0, 5) == b"right"
    assert client.header(again.name).vdi_size == GIB
    late = snapshot(source)
    client.snapshot(source.name, late.name)
    write(client, source.name, 0, b"newer")
    driver.create_snapshot(late)
    assert read(client, source.name, 0, 5, late.name) == b"newer"
    assert not [tag for name, tag in listed(client) if names.is_ours(tag)]


def test_leftovers_of_the_dead_go_when_they_are_old(driver, client):
    source = made(driver)
    client.snapshot(source.name, names.TEMPORARY + "clone")
    client.create_vdi(names.TEMPORARY + "copy", GIB)
    client.create_vdi("gone", GIB)
    client.snapshot("gone", names.BACKUP + "x")
    client.delete_vdi("gone")
    kept = snapped(driver, source)
    assert leftovers.remove(client, 3600) == 0
    removed = []
    wait_until(lambda: removed.append(leftovers.remove(client, 0)) or sum(removed) == 3, 10,
               "leftovers to be old enough")
    assert listed(client) == {(source.name, ""), (source.name, kept.name)}


def test_revert_gives_back_content_and_keeps_the_size(driver, client):
    new = made(driver)
    write(client, new.name, 0, b"before")
    taken = snapped(driver, new)
    write(client, new.name, 0, b"after!")
    driver.extend_volume(new, 2)
    new.size = 2
    driver.revert_to_snapshot(None, new, taken)
    assert read(client, new.name, 0, 6) == b"before"
    assert client.header(new.name).vdi_size == 2 * GIB
    assert not driver.snapshot_revert_use_temp_snapshot()
    driver.delete_snapshot(taken)
    assert read(client, new.name, 0, 6) == b"before"


# -- moving

def test_retype_and_migration_to_another_pool_copy_what_there_is(driver, client, sheep):
    new = made(driver)
    write(client, new.name, 5 * MIB, b"moved")
    taken = snapped(driver, new)
    host = {"host": "host@backend#copies-2",
            "capabilities": {"location_info": driver._location_info()}}
    kind = {"extra_specs": {"sheepdog_copy_policy": "2"}}
    assert driver.retype(None, new, kind, {}, host) == (True, None)
    assert client.header(new.name).nr_copies == 2
    assert read(client, new.name, 5 * MIB, 5) == b"moved"
    assert read(client, new.name, 5 * MIB, 5, taken.name) == b"moved"
    host["host"] = "host@backend#copies-3"
    assert driver.migrate_volume(None, new, host) == (True, None)
    assert client.header(new.name).nr_copies == 3
    assert read(client, new.name, 5 * MIB, 5) == b"moved"
    assert listed(client) == {(new.name, ""), (new.name, taken.name)}
    host["capabilities"]["location_info"] = "sheepdog:another"
    assert driver.migrate_volume(None, new, host) == (False, None)


# -- how fast

@pytest.fixture
def qos(tables):
    """Function that makes QoS specs; their id."""
    def qos(consumer="back-end", **specs):
        return qos_specs.create(
            context.get_admin_context(), "qos-%s" % uuid.uuid4(),
            {**specs, "consumer": consumer})["id"]
    return qos


def test_qos_of_the_back_end(driver, client, qos):
    new = made(driver, qos=qos(total_iops_sec="500", write_bytes_sec_per_gb="1000",
                               write_bytes_sec_per_gb_min="1500"))
    assert client.limits(new.name) == Limits(total_iops_sec=500, write_bytes_sec=1500)
    driver.extend_volume(new, 2)
    assert client.limits(new.name) == Limits(total_iops_sec=500, write_bytes_sec=2000)
    plain = volume()
    driver.create_cloned_volume(plain, new)
    assert client.limits(plain.name) == Limits()
    both = volume(qos=qos("both", read_iops_sec="7", total_iops_sec_max="8"))
    driver.create_volume_from_snapshot(both, snapped(driver, new))
    assert client.limits(both.name) == Limits(read_iops_sec=7)
    kind = {"extra_specs": {}, "qos_specs_id": qos(read_bytes_sec="9")}
    host = {"host": "host@backend#copies-3"}
    assert driver.retype(None, both, kind, {"qos_specs": {"a": (1, 2)}}, host) == (True, None)
    assert client.limits(both.name) == Limits(read_bytes_sec=9)


def test_qos_of_the_front_end_is_not_ours(driver, client, qos):
    new = made(driver, qos=qos("front-end", total_iops_sec="500"))
    assert client.limits(new.name) == Limits()


def test_specs_that_changed_count_when_a_volume_is_attached(driver, client, qos):
    specs = qos(read_iops_sec="5")
    new = made(driver, qos=specs)
    qos_specs.update(context.get_admin_context(), specs, {"read_iops_sec": "6"})
    driver.initialize_connection(new, {"sheepdog": True})
    assert client.limits(new.name) == Limits(read_iops_sec=6)


@pytest.mark.parametrize("specs", [{"iops": "5"}, {"read_iops_sec": "many"},
                                   {"read_iops_sec": "-1"}])
def test_qos_that_we_cannot_keep_is_refused(driver, client, qos, specs):
    new = volume(qos=qos(**specs))
    with pytest.raises(exception.InvalidInput, match="QoS specs"):
        driver.create_volume(new)
    assert not listed(client)


def test_a_migrated_volume_gets_its_name_back(driver, client):
    old, new = volume(), made(driver)
    write(client, new.name, 0, b"data")
    assert driver.update_migrated_volume(None, old, new, "available") == {
        "_name_id": None, "provider_location": None}
    assert read(client, old.name, 0, 4) == b"data"
    still_there, other = made(driver), made(driver)
    assert driver.update_migrated_volume(None, still_there, other, "available") == {
        "_name_id": other.id, "provider_location": None}


# -- taking over

def test_manage_and_unmanage(driver, client):
    page = (None, 1000, 0, ["size"], ["asc"])
    client.create_vdi("foreign", GIB + 1)
    write(client, "foreign", 0, b"mine")
    client.snapshot("foreign", "old")
    new, reference = volume(size=2), {"source-name": "foreign"}
    found, = [each for each in driver.get_manageable_volumes([], *page)
              if each["reference"] == reference]
    assert (found["size"], found["safe_to_manage"]) == (2, True)
    assert driver.manage_existing_get_size(new, reference) == 2
    new.update(driver.manage_existing(new, reference))
    found, = [each for each in driver.get_manageable_volumes([new], *page)
              if each["reference"] == reference]
    assert (found["cinder_id"], found["safe_to_manage"]) == (new.id, False)

    taken, tag = snapshot(new), {"source-name": "old"}
    found, = driver.get_manageable_snapshots([], *page)
    assert (found["reference"], found["source_reference"]) == (tag, reference)
    assert driver.manage_existing_snapshot_get_size(taken, tag) == 2
    taken.update(driver.manage_existing_snapshot(taken, tag))
    derived = volume(size=2)
    driver.create_volume_from_snapshot(derived, taken)
    assert read(client, derived.name, 0, 4) == b"mine"
    driver.unmanage_snapshot(taken)
    driver.unmanage(new)
    assert read(client, "foreign", 0, 4) == b"mine"
    driver.delete_snapshot(taken)
    driver.delete_volume(new)
    assert not [each for each in listed(client) if each[0] == "foreign"]


def test_what_cannot_be_managed(driver, client):
    client.create_vdi("pair", GIB, copies=2)
    new = volume()
    for reference in ({"source-name": "nothing"}, {"source-id": "pair"}, {}, None):
        with pytest.raises(exception.ManageExistingInvalidReference):
            driver.manage_existing_get_size(new, reference)
        with pytest.raises(exception.ManageExistingInvalidReference):
            driver.manage_existing(new, reference)
    with pytest.raises(exception.ManageExistingVolumeTypeMismatch):
        driver.manage_existing(new, {"source-name": "pair"})


# -- images


@pytest.fixture
def glance(tmp_path):
    directory = tmp_path / "images"
    directory.mkdir()
    return cinder_objects.ImageFiles(directory)


@pytest.fixture
def disk(tmp_path):
    """A sparse disk of 200 MiB with data at its beginning, in its middle and at its end."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        for offset in (0, 77 * MIB + 5, 200 * MIB - 7000):
            file.seek(offset)
            file.write(bytes(range(1, 251)) * 28)
    return path


def as_format(path, disk_format):
    """A copy of a raw disk in another format."""
    target = path.with_suffix("." + disk_format)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", disk_format, path, target],
                   check=True)
    return target


def same(client, name, path):
    """Whether a VDI begins with a file's content and has nothing but zeros behind it."""
    with client.open_vdi(name, read_only=True) as vdi, path.open("rb") as file:
        for offset in range(0, vdi.size, 4 * MIB):
            expected = file.read(4 * MIB)
            if vdi.pread(offset, 4 * MIB) != expected.ljust(4 * MIB, b"\0"):
                return False
    return True


@pytest.mark.parametrize("disk_format", ["raw", "qcow2", "vmdk"])
def test_image_to_volume_is_sparse(driver, client, glance, disk, disk_format):
    source = disk if disk_format == "raw" else as_format(disk, disk_format)
    image = glance.add(source, disk_format)
    new = made(driver)
    # What a volume had before it is imaged anew does not shine through.
    write(client, new.name, 40 * MIB, b"old")
    write(client, new.name, 500 * MIB, b"old")
    driver.copy_image_to_volume(PROJECT, new, glance, image)
    assert same(client, new.name, disk)
    with client.open_vdi(new.name, read_only=True) as vdi:
        assert sum(size for _, size, is_data in vdi.extents(0, GIB) if is_data) <= 16 * MIB


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_volume_to_image(driver, client, glance, disk, tmp_path, disk_format):
    new = made(driver)
    driver.copy_image_to_volume(PROJECT, new, glance, glance.add(disk, "raw"))
    empty = tmp_path / "empty"
    empty.touch()
    image = glance.add(empty, disk_format)
    driver.copy_volume_to_image(None, new, glance, glance.show(None, image))
    if disk_format == "qcow2":
        assert empty.stat().st_size < 4 * MIB
        subprocess.run(["qemu-img", "convert", "-O", "raw", empty, tmp_path / "raw"], check=True)
        empty = tmp_path / "raw"
    assert empty.stat().st_size == GIB
    assert same(client, new.name, empty)
    assert listed(client) == {(new.name, "")}


def test_images_that_do_not_fit_or_lie_about_their_format_are_refused(
        driver, client, glance, disk, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(GIB + 1)
    new = made(driver)
    with pytest.raises(exception.ImageUnacceptable):
        driver.copy_image_to_volume(PROJECT, new, glance, glance.add(big, "raw"))
    with pytest.raises(exception.ImageUnacceptable):
        driver.copy_image_to_volume(
            PROJECT, new, glance, glance.add(as_format(big, "qcow2"), "qcow2"))
    with pytest.raises(exception.ImageUnacceptable):
        driver.copy_image_to_volume(PROJECT, new, glance, glance.add(disk, "qcow2"))


def test_image_to_encrypted_volume(driver, client, glance, disk, tmp_path, group_type):
    with disk.open("r+b") as file:
        file.truncate(10 * MIB)
    keys = cinder_objects.KeyManager()
    key = keys.create_key(context.get_admin_context(), algorithm="AES", length=256)
    kind = volume_types.create(context.get_admin_context(), "luks")
    db.volume_type_encryption_create(context.get_admin_context(), kind.id, {
        "provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256,
        "control_location": "front-end"})
    new = made(driver, encryption_key_id=key, volume_type_id=kind.id)
    cinder_objects.enter(new, encryption_key_id=key)
    driver.copy_image_to_encrypted_volume(
        PROJECT, new, glance, glance.add(as_format(disk, "qcow2"), "qcow2"))
    whole, secret, plain = tmp_path / "luks", tmp_path / "key", tmp_path / "plain"
    with whole.open("wb") as file, client.open_vdi(new.name, read_only=True) as vdi:
        vdi.copy_out(file)
    assert whole.read_bytes()[:4] == b"LUKS"
    passphrase = keys.get(context.get_admin_context(), key).get_encoded().hex()
    secret.write_text(passphrase)
    subprocess.run(
        ["qemu-img", "convert", "--object", "secret,id=s,file=%s" % secret, "--image-opts",
         "driver=luks,key-secret=s,file.filename=%s" % whole, "-O", "raw", plain], check=True)
    with plain.open("rb") as opened, disk.open("rb") as expected:
        assert opened.read(10 * MIB) == expected.read()


def image_of(client, **details):
    """Meta data and location of an image as our store of Glance keeps it."""
    client.create_vdi("image-1", 100 * MIB, **details)
    write(client, "image-1", 0, b"image")
    client.snapshot("image-1", "snap")
    client.delete_vdi("image-1")
    url = "sheepdog://%s/image-1/snap" % client.uuid()
    return {"id": "1", "disk_format": "raw", "container_format": "bare"}, (url, None)


def test_clone_of_an_image_of_the_same_cluster(driver, client):
    meta, place = image_of(client)
    new, other_pool = volume(), volume(pool="copies-2")
    assert driver.clone_image(None, new, place, meta, None) == (None, True)
    assert driver.clone_image(None, other_pool, (None, [{"url": place[0]}]), meta, None)[1]
    for each, copies in ((new, 3), (other_pool, 2)):
        assert read(client, each.name, 0, 5) == b"image"
        assert client.header(each.name).vdi_size == GIB
        assert client.header(each.name).nr_copies == copies
    client.delete_vdi("image-1", "snap")
    assert read(client, new.name, 0, 5) == b"image"


def test_what_is_no_image_of_ours_is_not_cloned(driver, client):
    meta, (url, _) = image_of(client)
    somebodys = made(driver)
    snapped_volume = snapped(driver, somebodys)
    theirs = "sheepdog://%s/%s/%s" % (client.uuid(), somebodys.name, snapped_volume.name)
    for wrong in (None, "", "http://images/1", url.replace(client.uuid(), "f" * 32), url + "/x",
                  url.replace("snap", "none"), url.replace("image-1", "image-2"), theirs):
        assert driver.clone_image(None, volume(), (wrong, None), meta, None) == (None, False)
    for field in ({"disk_format": "qcow2"}, {"container_format": "compressed"},
                  {"properties": {"cinder_encryption_key_id": "1"}}):
        assert not driver.clone_image(None, volume(), (url, None), dict(meta, **field), None)[1]
    assert not driver.clone_image(
        None, volume(encryption_key_id="1"), (url, None), meta, None)[1]


# -- groups

def test_groups(driver, client, group_type):
    group = objects.Group(id="g", group_type_id=group_type)
    assert driver.create_group(None, group) == {"status": "available"}
    members = [made(driver) for _ in range(3)]
    assert driver.update_group(None, group, members, []) == (None, None, None)
    for each in members:
        write(client, each.name, 0, b"then")
    taken = objects.GroupSnapshot(id="s", group_type_id=group_type)
    snapshots = [snapshot(each) for each in members]
    update, updates = driver.create_group_snapshot(None, taken, snapshots)
    assert update == {"status": "available"}
    assert {each["status"] for each in updates} == {"available"}
    assert len({client.header(each.name, tag.name).snap_ctime
                for each, tag in zip(members, snapshots)}) == 1
    for each in members:
        write(client, each.name, 0, b"now!")
    for source, content in (({"group_snapshot": taken, "snapshots": snapshots}, b"then"),
                            ({"source_group": group, "source_vols": members}, b"now!")):
        copies = [volume() for _ in members]
        made_group = objects.Group(id="h", group_type_id=group_type)
        update, updates = driver.create_group_from_src(None, made_group, copies, **source)
        assert update == {"status": "available"}
        assert [each["id"] for each in updates] == [each.id for each in copies]
        assert {read(client, each.name, 0, 4) for each in copies} == {content}
    update, updates = driver.delete_group_snapshot(None, taken, snapshots)
    assert update == {"status": "deleted"}
    update, updates = driver.delete_group(None, group, members)
    assert (update, {each["status"] for each in updates}) == ({"status": "deleted"}, {"deleted"})
    assert len(listed(client)) == 6


def test_other_groups_are_left_to_cinder(driver, group_type):
    plain = group_types.create(context.get_admin_context(), "plain", {}).id
    # So Cinder is told that it is to see to the group itself.
    with pytest.raises(RuntimeError):
        driver.create_group(None, objects.Group(id="g", group_type_id=plain))


# -- under fault

def test_a_sheep_that_dies_changes_nothing(backends, client, sheep):
    driver = backends.make(sheep.addresses, sheepdog_timeout=240)
    source = made(driver)
    write(client, source.name, 0, b"safe")
    created = []

    def create():
        for _ in range(8):
            new = volume()
            driver.create_cloned_volume(new, source)
            created.append(new)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        work = pool.submit(create)
        wait_until(lambda: len(created) > 2 or work.done(), 240, "clones")
        sheep.kill(0)
        work.result()
    assert len(created) == 8
    assert {read(client, new.name, 0, 4) for new in created} == {b"safe"}


def test_clone_takes_the_same_time_whatever_the_size(driver, client):
    big, small = made(driver, size=10), made(driver, size=1)
    with client.open_vdi(big.name) as vdi:
        for index in range(0, 2560, 64):
            vdi.pwrite(index * 4 * MIB, b"x")
    took = {}
    for source in (small, big):
        began = time.monotonic()
        for _ in range(5):
            driver.create_cloned_volume(volume(size=source.size), source)
        took[source.size] = (time.monotonic() - began) / 5
    assert took[10] < 5 * took[1] + 0.5
