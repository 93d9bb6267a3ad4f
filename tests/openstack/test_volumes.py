"""Volumes in sheep, by way of the real Cinder."""

import itertools
import pathlib
import random
import subprocess

import pytest

from sheepstack.client import Limits
from tests.functional.harness import wait_until
from tests.openstack.cinder import GREEN, REPLICATED, SECOND, SHARED, THREADS, TWO_COPIES
from tests.openstack.flow import Flow

MIB = 1 << 20
GIB = 1 << 30


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def flow(cloud):
    """Nothing is left in sheep when a test has deleted what it made."""
    flow = Flow(cloud)
    before = flow.vdis()
    yield flow
    assert flow.vdis() == before


@pytest.fixture(scope="module")
def raw_file(tmp_path_factory):
    """64 MiB, of which 9 are data."""
    path = tmp_path_factory.mktemp("images") / "disk.raw"
    with path.open("wb") as file:
        file.write(noise(5 * MIB))
        file.seek(60 * MIB)
        file.write(noise(4 * MIB, 1))
    return path


@pytest.fixture(scope="module")
def qcow2_file(raw_file):
    path = raw_file.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw_file, path], check=True)
    return path


@pytest.mark.parametrize("volume_type", [GREEN, THREADS])
def test_volume_and_snapshots(flow, volume_type):
    first, second = noise(5 * MIB, 2), noise(3 * MIB, 3)
    volume = flow.volume("--type", volume_type)
    assert flow.size(volume) == GIB
    flow.write(volume, 3 * MIB, first)
    snapshot = flow.snapshot(volume)
    flow.write(volume, 4 * MIB, second)
    flow.openstack("volume", "set", "--size", 2, volume)
    flow.wait_volume(volume)
    assert flow.size(volume) == 2 * GIB
    flow.write(volume, 2 * GIB - MIB, second[:MIB])

    from_snapshot = flow.volume("--snapshot", snapshot, size=3)
    assert flow.size(from_snapshot) == 3 * GIB
    assert flow.read(from_snapshot, 3 * MIB, len(first)) == first
    from_volume = flow.volume("--source", volume, size=2)
    assert flow.read(from_volume, 4 * MIB, len(second)) == second
    assert flow.read(from_volume, 2 * GIB - MIB, MIB) == second[:MIB]
    # They are apart from one another now.
    flow.write(from_volume, 4 * MIB, first[:MIB])
    flow.write(from_snapshot, 3 * MIB, second[:MIB])
    assert flow.read(volume, 4 * MIB, len(second)) == second

    last = flow.snapshot(volume)
    flow.write(volume, 4 * MIB, first)
    flow.openstack("volume", "revert", last)
    flow.wait_volume(volume)
    assert flow.read(volume, 4 * MIB, len(second)) == second
    assert flow.size(volume) == 2 * GIB

    flow.delete_snapshot(last, snapshot)
    flow.delete_volume(volume)
    assert flow.read(from_snapshot, 3 * MIB + MIB, len(first) - MIB) == first[MIB:]
    assert flow.read(from_volume, 5 * MIB, len(second) - MIB) == second[MIB:]
    flow.delete_volume(from_volume, from_snapshot)


@pytest.mark.parametrize("volume_type, upload_format", [(GREEN, "raw"), (THREADS, "qcow2")])
def test_image_to_volume_to_image(flow, raw_file, tmp_path, volume_type, upload_format):
    data = raw_file.read_bytes()
    image = flow.image(raw_file)
    volume = flow.volume("--image", image, "--type", volume_type)
    with flow.open(volume) as vdi:
        header = vdi.header
    assert header.parent_vdi_id == flow.client.lookup("image-" + image, "snap").vdi_id
    assert flow.size(volume) == GIB
    assert flow.read(volume, 0, len(data)) == data
    assert flow.read(volume, len(data), MIB) == bytes(MIB)
    assert flow.storage.get_volume(volume).is_bootable

    flow.write(volume, MIB, noise(MIB, 5))
    expected = data[:MIB] + noise(MIB, 5) + data[2 * MIB:]
    answer = flow.openstack("image", "create", "--volume", volume, "--disk-format",
                            upload_format, flow.name("image"))
    uploaded = answer.get("image_id") or answer["id"]
    flow.wait(flow.images.get_image, uploaded, "active")
    flow.wait_volume(volume)
    saved, raw = tmp_path / "saved", tmp_path / "raw"
    flow.openstack("image", "save", "--file", saved, uploaded)
    subprocess.run(["qemu-img", "convert", "-f", upload_format, "-O", "raw", saved, raw],
                   check=True)
    assert raw.stat().st_size == GIB
    with raw.open("rb") as file:
        assert file.read(len(data)) == expected
        while rest := file.read(64 * MIB):
            assert rest == bytes(len(rest))
    flow.delete_volume(volume)
    flow.openstack("image", "delete", image, uploaded)


def test_image_to_a_volume_with_fewer_copies(flow, raw_file):
    """It cannot be a clone: the driver copies inside the cluster, and of holes nothing."""
    image = flow.image(raw_file)
    volume = flow.volume("--image", image, "--type", TWO_COPIES)
    with flow.open(volume) as vdi:
        assert vdi.header.nr_copies == 2
        assert not vdi.header.parent_vdi_id
    assert flow.allocated(volume) == 12 * MIB
    data = raw_file.read_bytes()
    assert flow.read(volume, 0, len(data)) == data
    flow.openstack("image", "delete", image)
    assert flow.read(volume, 0, len(data)) == data
    flow.delete_volume(volume)


def test_qcow2_to_volume(flow, raw_file, qcow2_file):
    image = flow.image(qcow2_file, "qcow2")
    volume = flow.volume("--image", image)
    assert flow.read(volume, 0, 64 * MIB) == raw_file.read_bytes()
    # Cinder keeps the converted image, and clones it the next time.
    again = flow.volume("--image", image)
    assert flow.read(again, 0, 64 * MIB) == raw_file.read_bytes()
    flow.delete_volume(volume, again)
    flow.openstack("image", "delete", image)
    flow.drop_all()


def test_retype(flow):
    data = noise(6 * MIB, 4)
    volume = flow.volume("--type", GREEN)
    flow.write(volume, 2 * MIB, data)
    for volume_type, copies, host in ((TWO_COPIES, 2, "loopback@green#copies-2"),
                                      (THREADS, 3, "loopback@threads#copies-3"),
                                      (GREEN, 3, "loopback@green#copies-3")):
        flow.openstack("volume", "set", "--type", volume_type, "--retype-policy", "on-demand",
                       volume)
        assert flow.wait_moved(volume, host).volume_type == volume_type
        with flow.open(volume) as vdi:
            assert vdi.header.nr_copies == copies
        assert flow.read(volume, 2 * MIB, len(data)) == data
    flow.delete_volume(volume)


@pytest.mark.parametrize("options", [[], ["--force-host-copy"]], ids=["driver", "host"])
def test_migrate(flow, options):
    """By the driver, which copies nothing inside a cluster, and by Cinder, which copies all."""
    volume_type = flow.name("anywhere")
    flow.openstack("volume", "type", "create", "--property", "sheepdog_copy_policy=3",
                   volume_type)
    volume = flow.volume("--type", volume_type)
    data = noise(6 * MIB, 4)
    flow.write(volume, 2 * MIB, data)
    green, threads = "loopback@green#copies-3", "loopback@threads#copies-3"
    target = threads if flow.storage.get_volume(volume).host == green else green
    flow.openstack("volume", "migrate", *options, "--host", target, volume)
    assert flow.wait_moved(volume, target).host == target
    assert flow.read(volume, 2 * MIB, len(data)) == data
    # Holes stay holes, whoever copies.
    assert flow.allocated(volume) == 8 * MIB
    flow.delete_volume(volume)
    flow.openstack("volume", "type", "delete", volume_type)


def test_manage_and_unmanage(flow):
    data = noise(MIB, 6)
    flow.client.create_vdi("foreign", GIB)
    with flow.client.open_vdi("foreign") as vdi:
        vdi.pwrite(5 * MIB, data)
        vdi.snapshot("old")
    assert "foreign" in flow.manageable("volumes")
    volume = flow.openstack(
        "volume", "create", "--host", "loopback@green#copies-3", "--type", GREEN,
        "--non-bootable", "--remote-source", "source-name=foreign", flow.name("managed"))["id"]
    assert flow.wait_volume(volume).size == 1
    assert "foreign" not in flow.manageable("volumes")
    assert "old" in flow.manageable("snapshots")
    snapshot = flow.openstack(
        "volume", "snapshot", "create", "--volume", volume, "--remote-source",
        "source-name=old", flow.name("snapshot"))["id"]
    flow.wait(flow.storage.get_snapshot, snapshot)
    copy = flow.volume("--snapshot", snapshot)
    assert flow.read(copy, 5 * MIB, len(data)) == data
    flow.delete_volume(copy)
    flow.openstack("volume", "snapshot", "delete", "--remote", snapshot)
    flow.wait_gone(flow.storage.find_snapshot, snapshot)
    flow.openstack("volume", "delete", "--remote", volume)
    flow.wait_gone(flow.storage.find_volume, volume)
    with flow.client.open_vdi("foreign", "old") as vdi:
        assert vdi.pread(5 * MIB, len(data)) == data
    flow.client.delete_vdi("foreign", "old")
    flow.client.delete_vdi("foreign")


def test_group_snapshot(flow):
    group_type = flow.group_type()
    volumes = [flow.volume("--type", GREEN) for _ in range(2)]
    group = flow.group(group_type, GREEN, volumes)
    for number, volume in enumerate(volumes):
        flow.write(volume, MIB, noise(MIB, number))
    snapshot = flow.group_snapshot(group)
    for volume in volumes:
        flow.write(volume, MIB, bytes(MIB))
    copies = {}
    for part in flow.storage.snapshots(details=True):
        if part.group_snapshot_id == snapshot:
            copies[part.volume_id] = flow.volume("--snapshot", part.id)
    assert [flow.read(copies[volume], MIB, MIB) for volume in volumes] == \
        [noise(MIB, number) for number in range(2)]
    flow.delete_volume(*copies.values())
    for source, contents in (({"group_snapshot_id": snapshot},
                              [noise(MIB, number) for number in range(2)]),
                             ({"source_group_id": group}, [bytes(MIB)] * 2)):
        # The openstack command names the other source as well, as null, which Cinder refuses.
        made = flow.post("/groups/action", {"create-from-src": {
            "name": flow.name("group"), **source}}).json()["group"]["id"]
        flow.wait(flow.storage.get_group, made)
        members = [each.id for each in flow.storage.volumes(details=True)
                   if each.group_id == made]
        assert sorted(flow.read(each, MIB, MIB) for each in members) == sorted(contents)
        _delete_group(flow, made, members)
    flow.openstack("volume", "group", "snapshot", "delete", snapshot)
    flow.wait_gone(flow.storage.find_group_snapshot, snapshot)
    _delete_group(flow, group, volumes)
    flow.openstack("volume", "group", "type", "delete", group_type)


def _delete_group(flow, group, volumes):
    flow.openstack("volume", "group", "delete", "--force", group)
    for volume in volumes:
        flow.wait_gone(flow.storage.find_volume, volume)


def test_failover_and_failback(flow, cloud):
    """And a host that is frozen meanwhile.  What is written on either side is not lost."""
    host = "loopback@" + REPLICATED
    second = cloud.second.client()
    first_data, second_data = noise(5 * MIB, 1), noise(3 * MIB, 2)
    volume = flow.volume("--type", REPLICATED)
    assert flow.storage.get_volume(volume).replication_status == "enabled"
    flow.write(volume, 3 * MIB, first_data)
    snapshot = flow.snapshot(volume)

    def fail_over(target, status):
        flow.put("/os-services/failover_host", {"host": host, "backend_id": target})
        wait_until(lambda: flow.storage.get_volume(volume).replication_status == status, 120,
                   "volume %s to be %s" % (volume, status))
        wait_until(lambda: cloud.cinder.service(flow.storage, REPLICATED)["replication_status"]
                   == status, 120, "the service to be " + status)

    fail_over(SECOND, "failed-over")
    assert cloud.cinder.service(flow.storage, REPLICATED)["active_backend_id"] == SECOND
    with second.open_vdi("volume-" + volume, lock=False) as vdi:
        assert vdi.pread(3 * MIB, len(first_data)) == first_data
        vdi.pwrite(4 * MIB, second_data)
    fail_over("default", "enabled")
    assert flow.read(volume, 3 * MIB, len(first_data)) == \
        first_data[:MIB] + second_data + first_data[4 * MIB:]
    flow.openstack("volume", "service", "set", "--enable", host, "cinder-volume")

    for word, is_frozen in (("freeze", True), ("thaw", False)):
        flow.put("/os-services/" + word, {"host": host})
        wait_until(lambda: cloud.cinder.service(flow.storage, REPLICATED)["frozen"] == is_frozen,
                   60, "the host to be frozen, or not")
    copy = flow.volume("--snapshot", snapshot, "--type", REPLICATED)
    assert flow.read(copy, 3 * MIB, len(first_data)) == first_data
    flow.delete_volume(copy)
    flow.delete_snapshot(snapshot)
    flow.delete_volume(volume)
    assert not list(second.list_vdis())


def test_clone_of_an_encrypted_volume(flow, cloud, raw_file):
    """Cinder attaches it for that."""
    if cloud.mount_point is None:
        pytest.skip("sheepfs cannot be mounted here")
    volume_type = flow.name("encrypted")
    flow.openstack("volume", "type", "create", "--property", "volume_backend_name=" + THREADS,
                   "--encryption-provider", "luks", "--encryption-cipher", "aes-xts-plain64",
                   "--encryption-key-size", 256, "--encryption-control-location", "front-end",
                   volume_type)
    image = flow.image(raw_file)
    volume = flow.volume("--image", image, "--type", volume_type)
    data = flow.read(volume, 0, 64 * MIB)
    assert data.startswith(b"LUKS\xba\xbe") and raw_file.read_bytes()[:MIB] not in data
    clone = flow.volume("--source", volume, "--type", volume_type)
    assert flow.read(clone, 0, 64 * MIB) == data
    flow.delete_volume(volume, clone)
    flow.openstack("image", "delete", image)
    flow.openstack("volume", "type", "delete", volume_type)


def test_multiattach(flow, cloud):
    """Two attachments to one host share a file, which stays until the last of them goes."""
    if cloud.mount_point is None:
        pytest.skip("sheepfs cannot be mounted here")
    volume_type = flow.name("multiattach")
    flow.openstack("volume", "type", "create", "--property", "volume_backend_name=" + THREADS,
                   "--multiattach", volume_type)
    volume = flow.volume("--type", volume_type)
    attachments = []
    for _ in range(2):
        attachments.append(flow.attach(volume))
        flow.complete(attachments[-1])
        flow.wait_volume(volume, "in-use")
    paths = {each["connection_info"]["device_path"] for each in attachments}
    assert len(paths) == 1
    path = pathlib.Path(paths.pop())
    with path.open("r+b") as file:
        file.write(b"both")
    for attachment in attachments:
        with path.open("rb") as file:
            assert file.read(4) == b"both"
        flow.detach(attachment)
    flow.wait_volume(volume)
    assert not path.exists()
    flow.delete_volume(volume)
    flow.openstack("volume", "type", "delete", volume_type)


def test_qos(flow):
    """Of the back end and of the front end, and retyping from the one to the other."""
    types = {}
    for consumer, rate in (("back-end", 500), ("front-end", 700)):
        name = flow.name(consumer)
        specs = flow.openstack("volume", "qos", "create", "--consumer", consumer, "--property",
                               "total_iops_sec=%d" % rate, name)["id"]
        types[consumer] = flow.name("type"), specs
        flow.openstack("volume", "type", "create", "--property", "volume_backend_name=" + GREEN,
                       "--property", "sheepdog_copy_policy=3", types[consumer][0])
        flow.openstack("volume", "qos", "associate", specs, types[consumer][0])
    volume = flow.volume("--type", types["back-end"][0])
    assert flow.client.limits("volume-" + volume) == Limits(total_iops_sec=500)

    def handed_on():
        attachment = flow.attach(volume, sheepdog=True)
        flow.detach(attachment)
        flow.wait_volume(volume)
        return attachment["connection_info"]["qos_specs"]

    assert handed_on() is None
    flow.openstack("volume", "set", "--type", types["front-end"][0], "--retype-policy",
                   "on-demand", volume)
    assert flow.wait_moved(volume, "loopback@green#copies-3").volume_type == \
        types["front-end"][0]
    assert flow.client.limits("volume-" + volume) == Limits()
    assert handed_on() == {"total_iops_sec": "700"}
    flow.delete_volume(volume)
    for name, specs in types.values():
        flow.openstack("volume", "type", "delete", name)
        flow.openstack("volume", "qos", "delete", "--force", specs)


@pytest.mark.parametrize("order", itertools.permutations(("image", "volume", "clone")),
                         ids=" ".join)
def test_deleting_in_every_order(flow, raw_file, order):
    """An image, a volume from it with a snapshot, and a volume from that snapshot."""
    data = raw_file.read_bytes()
    image = flow.images.create_image(
        flow.name("image"), filename=str(raw_file), disk_format="raw", container_format="bare",
        allow_duplicates=True).id
    volume = flow.create(image_id=image)
    clone = flow.create(snapshot_id=flow.create_snapshot(volume))
    deletions = {
        "image": lambda: flow.images.delete_image(image),
        "volume": lambda: flow.drop_volume(volume, cascade=True),
        "clone": lambda: flow.drop_volume(clone),
    }
    alive = {"volume": volume, "clone": clone}
    for victim in order:
        deletions[victim]()
        alive.pop(victim, None)
        for volume_id in alive.values():
            assert flow.read(volume_id, 0, len(data)) == data


def test_backup_and_restore(flow):
    data = noise(9 * MIB, 7)
    volume = flow.volume()
    flow.write(volume, 6 * MIB, data)
    backups = [flow.backup(volume)]
    flow.write(volume, 10 * MIB, data[:MIB])
    backups.append(flow.backup(volume, "--incremental"))
    assert [flow.storage.get_backup(each).is_incremental for each in backups] == [False, True]
    for backup, expected in zip(backups, (data, data[:4 * MIB] + data[:MIB] + data[5 * MIB:])):
        target = flow.volume()
        flow.write(target, 100 * MIB, b"in the way")
        flow.openstack("volume", "backup", "restore", "--force", backup, target)
        flow.wait(flow.storage.get_backup, backup)
        flow.wait_volume(target)
        assert flow.read(target, 6 * MIB, len(data)) == expected
        assert flow.read(target, 100 * MIB, 10) == bytes(10)
        flow.delete_volume(target)
    for backup in reversed(backups):
        flow.openstack("volume", "backup", "delete", backup)
        flow.wait_gone(flow.storage.find_backup, backup)
    flow.delete_volume(volume)
    flow.clear_leftovers()


def test_backups_outlive_what_cinder_knows_of_them(flow, cloud):
    """Their records are exported, lost with the database, and imported."""
    volume = flow.create()
    flow.write(volume, 2 * MIB, noise(MIB, 1))
    backups = [flow.backup(volume)]
    flow.write(volume, 2 * MIB, noise(MIB, 2))
    backups.append(flow.backup(volume, "--incremental"))
    flow.drop_volume(volume)
    records = [flow.openstack("volume", "backup", "record", "export", each) for each in backups]
    cloud.database.execute("DELETE FROM cinder.backups WHERE id IN ('%s', '%s')" % (*backups,))
    assert not list(flow.storage.backups())
    for backup, record in zip(backups, records):
        # The openstack command asks for a path that Cinder does not have.
        flow.post("/backups/import_record", {"backup-record": record})
        flow.wait(flow.storage.get_backup, backup)
    for number, backup in enumerate(backups, 1):
        restored = flow.post("/backups/%s/restore" % backup, {"restore": {}}
                             ).json()["restore"]["volume_id"]
        flow.wait_volume(restored)
        assert flow.read(restored, 2 * MIB, MIB) == noise(MIB, number)
        flow.drop_volume(restored)
    for backup in reversed(backups):
        flow.storage.delete_backup(backup)
        flow.wait_gone(flow.storage.find_backup, backup)
    flow.clear_leftovers()


# -- faults


@pytest.fixture
def dense_file(tmp_path):
    """96 MiB of data, which take a while."""
    path = tmp_path / "dense.raw"
    path.write_bytes(noise(96 * MIB, 8))
    return path


def test_a_sheep_dies_while_a_volume_is_created(flow, sheep, dense_file, tmp_path):
    """An image in a format that has to be converted, and the sheep that Cinder talks to."""
    qcow2 = tmp_path / "dense.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", dense_file, qcow2], check=True)
    image = flow.image(qcow2, "qcow2")
    volume = flow.volume("--image", image, wait=False)
    wait_until(lambda: ("volume-" + volume, "") in flow.vdis(), 60, "the VDI to be there")
    sheep.kill(0)
    flow.wait_volume(volume)
    assert flow.read(volume, 0, 96 * MIB) == dense_file.read_bytes()
    flow.drop_all()
    flow.openstack("image", "delete", image)


@pytest.mark.parametrize("backend", [GREEN, THREADS])
def test_cinder_volume_is_killed(flow, dense_file, tmp_path, backend):
    """In the middle of several operations at a time, sooner or later: what they were for can be
    deleted, and then nothing of it is left."""
    qcow2 = tmp_path / "dense.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", dense_file, qcow2], check=True)
    image = flow.images.create_image(
        flow.name("image"), filename=str(qcow2), disk_format="qcow2", container_format="bare",
        allow_duplicates=True)
    parents = [flow.create(volume_type=backend) for _ in range(7)]
    snapshot, last = (flow.create_snapshot(parent) for parent in (parents[0], parents[5]))
    for parent in parents:
        flow.write(parent, 0, noise(32 * MIB))
    storage = flow.storage
    new = {"volume_type": backend, "size": 1}
    storage.create_volume(image_id=image.id, **new)
    storage.create_volume(source_volume_id=parents[0], **new)
    storage.create_volume(snapshot_id=snapshot, **new)
    storage.create_volume(**new)
    storage.extend_volume(parents[1], 2)
    storage.create_snapshot(volume_id=parents[2])
    storage.upload_volume_to_image(parents[3], flow.name("upload"), disk_format="raw",
                                   container_format="bare")
    storage.delete_volume(parents[4])
    storage.revert_volume_to_snapshot(parents[5], last)
    storage.retype_volume(parents[6], TWO_COPIES if backend == GREEN else GREEN, "on-demand")
    _let_go_on(flow)
    daemon = flow.cloud.cinder.volume[backend]
    daemon.kill()
    daemon.start()
    flow.cloud.cinder.wait_reported(storage, backend)
    # Requests that it had not taken up yet are served in their order, before this one.
    flow.create(volume_type=backend)
    flow.wait_settled()
    flow.drop_all()
    for image in list(flow.images.images()):
        flow.images.delete_image(image)
    flow.clear_leftovers()


def test_two_cinder_volumes_share_their_volumes(flow, cloud):
    """As a cluster of Cinder's, active both: each serves what the other made, and one that is
    killed is not missed."""
    data = noise(MIB, 9)
    with cloud.cinder.cluster(flow.storage) as daemons:
        volumes = []
        while not all("Created volume successfully" in each.log_text() for each in daemons):
            assert len(volumes) < 20, "one of them does nothing"
            volumes.append(flow.create(volume_type=SHARED))
        for volume in volumes:
            flow.write(volume, MIB, data)
        snapshots = [flow.create_snapshot(volume) for volume in volumes]
        daemons[0].kill()
        clones = [flow.create(snapshot_id=snapshot) for snapshot in snapshots]
        for volume in (*volumes, *clones):
            assert flow.read(volume, MIB, MIB) == data
        for volume in volumes:
            flow.drop_volume(volume, cascade=True)
        for clone in clones:
            flow.drop_volume(clone)


def _let_go_on(flow):
    """Wait until some VDIs or snapshots, no matter which, have come or gone."""
    last, left = flow.vdis(), random.randrange(8)
    print("killed after %d changes" % left)

    def has_gone_on():
        nonlocal last, left
        now = flow.vdis()
        left -= len(now ^ last)
        last = now
        return left <= 0 or flow.is_at_rest()

    wait_until(has_gone_on, 120, lambda: "%d more changes in sheep" % left)


def test_cinder_volume_is_killed_over_groups_and_moves(flow):
    """The same of what concerns several volumes, or several services."""
    storage = flow.storage
    group_type = flow.group_type()
    members = [flow.create(volume_type=GREEN) for _ in range(2)]
    group = flow.group(group_type, GREEN, members)
    earlier = flow.group_snapshot(group)
    moved, copied, saved = (flow.create(volume_type=GREEN) for _ in range(3))
    for volume in (*members, moved, copied, saved):
        flow.write(volume, 0, noise(32 * MIB))
    flow.client.create_vdi("foreign", GIB)
    flow.post("/group_snapshots", {"group_snapshot": {"group_id": group, "name": "late"}})
    flow.post("/groups/action", {"create-from-src": {
        "name": "copy", "group_snapshot_id": earlier}})
    for volume, by_cinder in ((moved, False), (copied, True)):
        flow.post("/volumes/%s/action" % volume, {"os-migrate_volume": {
            "host": "loopback@threads#copies-3", "force_host_copy": by_cinder}})
    flow.post("/os-volume-manage", {"volume": {
        "host": "loopback@green#copies-3", "ref": {"source-name": "foreign"}, "name": "managed",
        "volume_type": GREEN}})
    backup = storage.create_backup(volume_id=saved, name=flow.name("backup"))
    _let_go_on(flow)
    daemon = flow.cloud.cinder.volume[GREEN]
    daemon.kill()
    daemon.start()
    flow.cloud.cinder.wait_reported(storage, GREEN)
    flow.create(volume_type=GREEN)
    flow.wait_settled()
    flow.wait_ended(storage.get_backup, backup.id)
    flow.drop_groups()
    flow.drop_all()
    flow.drop_backups()
    flow.openstack("volume", "group", "type", "delete", group_type)
    flow.clear_leftovers()
    if ("foreign", "") in flow.vdis():
        flow.client.delete_vdi("foreign")
