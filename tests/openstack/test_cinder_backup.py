"""The backup driver with Cinder's objects and tables, on real sheep."""

import io

import pytest

pytest.importorskip("cinder", reason="Cinder is not installed: run make openstack")

from cinder import context, exception, objects  # noqa: E402
from cinder.db.api import main_context_manager  # noqa: E402
from os_brick.initiator import connector as brick  # noqa: E402

from cinder_driver import leftovers, names  # noqa: E402
from cinder_driver.backup import SheepdogBackupDriver  # noqa: E402
from tests.functional.harness import SheepCluster, free_port  # noqa: E402
from tests.openstack import cinder_objects  # noqa: E402
from tests.openstack.cinder_objects import CONF, GIB, snapshot, volume, write  # noqa: E402
from tests.openstack.killing import chosen, steps_of  # noqa: E402

MIB = 1 << 20
OBJECT = 4 * MIB
HOST = {"sheepdog": True}
pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def vault(tmp_path):
    """The cluster that keeps the backups."""
    cluster = SheepCluster(tmp_path / "vault", "local:%s" % (tmp_path / "coordination"))
    cluster.start(1, 1)
    CONF.set_override("backup_sheepdog_addresses", cluster.addresses)
    CONF.set_override("backup_sheepdog_timeout", 5)
    yield cluster
    cluster.close()


@pytest.fixture
def backup_driver(vault):
    return SheepdogBackupDriver(context.get_admin_context())


@pytest.fixture
def driver(backends, sheep):
    return backends.make(sheep.addresses)


@pytest.fixture
def client(sheep):
    cluster = sheep.client()
    yield cluster
    for header in list(cluster.list_vdis()):
        cluster.delete_vdi(header.name, header.tag if header.is_snapshot else None)


@pytest.fixture
def new(driver, client):
    """A volume that Cinder knows, with data in five objects."""
    volume_ = volume()
    cinder_objects.enter(volume_, display_name="precious")
    driver.create_volume(volume_)
    for index in range(5):
        write(client, volume_.name, index * OBJECT, bytes([index + 1]) * OBJECT)
    return volume_


class Attached:
    """A volume, or a snapshot of it, as cinder-backup attaches it."""

    def __init__(self, driver, of, taken=None):
        found = (driver.initialize_connection(of, HOST) if taken is None else
                 driver.initialize_connection_snapshot(taken, HOST))
        self._data = found["data"]
        self._connector = brick.InitiatorConnector.factory(found["driver_volume_type"], None)

    def __enter__(self):
        self._device = self._connector.connect_volume(self._data)
        return self._device["path"]

    def __exit__(self, *exc_info):
        self._connector.disconnect_volume(self._data, self._device)


def record_of(of, parent=None):
    """What Cinder knows of a backup before it is made."""
    backup = objects.Backup(
        context.get_admin_context(), volume_id=of.id, size=of.size, status="creating",
        parent_id=parent and parent.id, host="host", user_id="u", project_id="p",
        service="cinder_driver.backup.SheepdogBackupDriver")
    backup.create()
    return backup


def make_backup(driver, backup_driver, of, parent=None, file=None, taken=None):
    backup = record_of(of, parent)
    if file is not None:
        backup.update(backup_driver.backup(backup, file))
    else:
        with Attached(driver, of, taken) as attached:
            backup.update(backup_driver.backup(backup, attached))
    backup.save()
    return backup


def restored(driver, backup_driver, backup, client, onto=None, is_new=True):
    """What a volume holds after restoration, of the first 24 MiB."""
    target = onto or volume(size=backup.size)
    if onto is None:
        cinder_objects.enter(target)
        driver.create_volume(target)
    backup.status = "restoring"
    backup.save()
    with Attached(driver, target) as attached:
        backup_driver.restore(backup, target.id, attached, is_new)
    with client.open_vdi(target.name, read_only=True) as vdi:
        return vdi.pread(0, 6 * OBJECT)


def data_objects(vault):
    """How many objects with data there are; inodes and attributes begin with other digits."""
    return len([name for name in vault.objects(0) if name.startswith("00")])


def test_incremental_backups_store_what_changed_and_stand_alone(
        driver, backup_driver, client, new, vault):
    full = make_backup(driver, backup_driver, new)
    first = b"".join(bytes([index + 1]) * OBJECT for index in range(5)) + bytes(OBJECT)
    stored = data_objects(vault)
    assert stored == 5
    write(client, new.name, OBJECT, b"changed")
    with client.open_vdi(new.name) as vdi:
        vdi.discard(3 * OBJECT, OBJECT)
    second = bytearray(first)
    second[OBJECT:OBJECT + 7] = b"changed"
    second[3 * OBJECT:4 * OBJECT] = bytes(OBJECT)
    increment = make_backup(driver, backup_driver, new, full)
    assert data_objects(vault) == stored + 1
    unchanged = make_backup(driver, backup_driver, new, increment)
    assert restored(driver, backup_driver, full, client) == first
    assert restored(driver, backup_driver, increment, client) == bytes(second)
    backup_driver.delete_backup(full)
    backup_driver.delete_backup(full)
    assert restored(driver, backup_driver, unchanged, client) == bytes(second)
    # Only the snapshot that the next one is compared with is kept.
    assert [header.tag for header in client.list_vdis() if header.name == new.name
            and header.is_snapshot] == [names.BACKUP + unchanged.id]
    assert restored(driver, backup_driver, unchanged, client, new, False) == bytes(second)
    for backup in (increment, unchanged):
        backup_driver.delete_backup(backup)
    assert not list(vault.client().list_vdis())


def test_contents_are_compared_where_the_former_snapshot_is_gone(
        driver, backup_driver, client, new, vault):
    full = make_backup(driver, backup_driver, new)
    client.delete_vdi(new.name, names.BACKUP + full.id)
    stored = data_objects(vault)
    write(client, new.name, 0, b"changed")
    increment = make_backup(driver, backup_driver, new, full)
    assert data_objects(vault) == stored + 1
    assert restored(driver, backup_driver, increment, client)[:7] == b"changed"


def test_backup_of_a_snapshot(driver, backup_driver, client, new):
    taken = snapshot(new)
    driver.create_snapshot(taken)
    write(client, new.name, 0, b"later")
    backup = make_backup(driver, backup_driver, new, taken=taken)
    assert restored(driver, backup_driver, backup, client)[:5] == b"\1" * 5
    assert [header.tag for header in client.list_vdis() if header.name == new.name
            and header.is_snapshot] == [taken.name]


def test_grown_volume_and_metadata(driver, backup_driver, client, new):
    full = make_backup(driver, backup_driver, new)
    driver.extend_volume(new, 2)
    new.size = 2
    write(client, new.name, 2 * GIB - 5, b"atend")
    increment = make_backup(driver, backup_driver, new, full)
    target = volume(size=2)
    cinder_objects.enter(target)
    driver.create_volume(target)
    restored(driver, backup_driver, increment, client, target)
    with client.open_vdi(target.name, read_only=True) as vdi:
        assert vdi.pread(2 * GIB - 5, 5) == b"atend"
    known = objects.Volume.get_by_id(context.get_admin_context(), target.id)
    assert known.display_name == "precious"


def test_volumes_of_other_drivers(driver, backup_driver, client, new, vault):
    content = b"other" * (2 * MIB) + bytes(OBJECT)
    full = make_backup(driver, backup_driver, new, file=io.BytesIO(content))
    stored = data_objects(vault)
    changed = content[:OBJECT] + b"x" + content[OBJECT + 1:]
    increment = make_backup(driver, backup_driver, new, full, io.BytesIO(changed))
    assert data_objects(vault) == stored + 1
    target = io.BytesIO()
    increment.status = "restoring"
    increment.save()
    backup_driver.restore(increment, new.id, target, True)
    assert target.getvalue()[:len(changed)] == changed
    assert len(target.getvalue()) == GIB


class Unreadable(io.BytesIO):
    """A volume that breaks in the middle."""

    def read(self, size=-1):
        if self.tell() >= OBJECT:
            raise OSError("the disk is gone")
        return super().read(size)


def test_what_fails_leaves_nothing(driver, backup_driver, client, new, vault):
    with pytest.raises(OSError):
        make_backup(driver, backup_driver, new, file=Unreadable(b"x" * 3 * OBJECT))
    assert not list(vault.client().list_vdis())
    vault.kill(0)
    with pytest.raises(exception.BackupDriverException):
        make_backup(driver, backup_driver, new)
    assert not [header for header in client.list_vdis() if header.is_snapshot]
    CONF.set_override("backup_sheepdog_addresses", ["127.0.0.1:%d" % free_port()])
    CONF.set_override("backup_sheepdog_timeout", 1)
    with pytest.raises(exception.BackupDriverException, match="cluster for backups"):
        backup_driver.check_for_setup_error()


def test_restoration_that_is_not_wanted_any_more_ends(
        driver, backup_driver, client, new, monkeypatch):
    backup = make_backup(driver, backup_driver, new)
    monkeypatch.setattr("cinder_driver.backup._CANCEL_INTERVAL", 0)
    target = volume()
    driver.create_volume(target)
    backup.status = "error"
    backup.save()
    with Attached(driver, target) as attached, pytest.raises(exception.BackupRestoreCancel):
        backup_driver.restore(backup, target.id, attached, True)


def _back_up(drivers, of, full, late, target):
    driver, backup_driver = drivers
    with Attached(driver, of) as attached:
        backup_driver.backup(late, attached)


def _restore(drivers, of, full, late, target):
    driver, backup_driver = drivers
    with Attached(driver, target) as attached:
        backup_driver.restore(full, target.id, attached, True)


def _delete(drivers, of, full, late, target):
    drivers[1].delete_backup(full)


@pytest.mark.parametrize("act", [_back_up, _restore, _delete], ids=["make", "restore", "delete"])
def test_killed_at_any_step(driver, backup_driver, client, vault, sheep, act):
    """An incremental backup, or what is done with the one before: nothing is left, once all is
    deleted that Cinder knows of."""
    def begin():
        # The parent's connections to the database are not ours.
        main_context_manager.writer.get_engine().dispose(close=False)
        return (cinder_objects.Backends().make(sheep.addresses),
                SheepdogBackupDriver(context.get_admin_context()))

    def with_a_backup():
        of, target = volume(), volume()
        for each in (of, target):
            cinder_objects.enter(each)
            driver.create_volume(each)
        write(client, of.name, 0, b"first")
        write(client, of.name, OBJECT, b"second")
        full = make_backup(driver, backup_driver, of)
        write(client, of.name, OBJECT, b"change")
        full.status = "restoring"
        full.save()
        return of, full, record_of(of, full), target

    def check_and_delete(of, full, late, target):
        if act is not _delete:
            got = restored(driver, backup_driver, full, client, target)
            assert (got[:5], got[OBJECT:OBJECT + 6]) == (b"first", b"second")
        for each in (late, full):
            backup_driver.delete_backup(each)
        for each in (of, target):
            driver.delete_volume(each)
        leftovers.remove(client, -1)
        assert not [*client.list_vdis(), *vault.client().list_vdis()]

    things = with_a_backup()
    steps = steps_of(begin, lambda drivers: act(drivers, *things))
    check_and_delete(*things)
    for step, _ in chosen(steps, repeatable=False):
        print("killed before request %d of %d" % (step, steps))
        things = with_a_backup()
        steps_of(begin, lambda drivers: act(drivers, *things), step)
        check_and_delete(*things)
