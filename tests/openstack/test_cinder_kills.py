"""The driver's process is killed at any step of what it does, on real sheep.

Whether what was begun is then given up, as Cinder does with most, or done again, as the driver
promises that it can be: once all is deleted that Cinder knows of, and the driver's periodic
clean-up was there, nothing is left.
"""

import uuid
from typing import Callable, NamedTuple

import pytest

pytest.importorskip("cinder", reason="Cinder is not installed: run make openstack")

from cinder import context, objects  # noqa: E402

from cinder_driver import leftovers  # noqa: E402
from sheepstack.client import NoSuchTag, NoSuchVdi  # noqa: E402
from tests.openstack.cinder_objects import (  # noqa: E402
    GIB, Backends, ImageFiles, read, snapshot, volume, write)
from tests.openstack.killing import chosen, steps_of  # noqa: E402

MIB = 1 << 20
OLD, NEW, FAR = b"old content", b"new content", b"far away"
FAR_OFFSET = 5 * MIB
PROJECT = context.RequestContext("user", "project", is_admin=True)
POOLS = {"sheepdog_pools": ["3", "2"]}
pytestmark = pytest.mark.usefixtures("tables")


# -- what it does

class Scene:
    """What operations begin with: a volume with a snapshot, volumes and snapshots that are not
    made yet, an image in Glance and one in the cluster, a group."""

    def __init__(self, driver, client, directory, group_type):
        self.source, self.copy = volume(), volume()
        for each in (self.source, self.copy):
            driver.create_volume(each)
            write(client, each.name, 0, OLD)
            write(client, each.name, FAR_OFFSET, FAR)
        self.taken = snapshot(self.source)
        driver.create_snapshot(self.taken)
        write(client, self.source.name, 0, NEW)
        self.new, self.elsewhere = volume(), volume(pool="copies-2")
        self.late, self.copy_late = snapshot(self.source), snapshot(self.copy)
        self.glance = ImageFiles(directory)
        self.directory = directory
        self.group = objects.Group(id=str(uuid.uuid4()), group_type_id=group_type)
        self.group_snapshot = objects.GroupSnapshot(
            id=str(uuid.uuid4()), group_type_id=group_type)
        self.cluster = client.uuid()

    @property
    def volumes(self):
        return self.source, self.copy, self.new, self.elsewhere

    def delete_all(self, driver):
        for each in (self.taken, self.late, self.copy_late):
            driver.delete_snapshot(each)
        for each in self.volumes:
            driver.delete_volume(each)

    def image(self):
        path = self.directory / "image.raw"
        if not path.exists():
            with path.open("wb") as file:
                for offset, data in ((0, OLD), (FAR_OFFSET, FAR)):
                    file.seek(offset)
                    file.write(data)
        return self.glance.add(path, "raw")


def holds(client, name, content, tag=None):
    """Whether a volume is whole, and has ``content`` at its beginning."""
    return (read(client, name, 0, len(content), tag) == content
            and read(client, name, FAR_OFFSET, len(FAR), tag) == FAR)


def is_gone(client, name, tag=None):
    try:
        client.lookup(name, tag)
    except (NoSuchVdi, NoSuchTag):
        return True
    return False


class Operation(NamedTuple):
    """``act(driver, scene)``; ``done(client, scene)``: whether that came to its end."""

    act: Callable
    done: Callable
    #: Whether it can be done again.
    repeatable: bool = True


def _fill(driver, scene):
    driver.create_volume(scene.new)
    driver.copy_image_to_volume(PROJECT, scene.new, scene.glance, scene.image())


def _upload(driver, scene):
    path = scene.directory / "uploaded"
    path.touch()
    meta = scene.glance.show(None, scene.glance.add(path, "raw"))
    driver.copy_volume_to_image(PROJECT, scene.source, scene.glance, meta)


def _retype(driver, scene):
    host = {"host": "host@backend#copies-2"}
    assert driver.retype(None, scene.source, {"extra_specs": {"sheepdog_copy_policy": "2"}}, {},
                         host) == (True, None)


def _clone_image(driver, scene):
    place = "sheepdog://%s/%s/%s" % (scene.cluster, "image-kills", "snap")
    assert driver.clone_image(None, scene.new, (place, None), {
        "disk_format": "raw", "container_format": "bare"}, None)[1]


def _group_from_group(driver, scene):
    driver.create_group_from_src(None, scene.group, [scene.new, scene.elsewhere],
                                 source_group=scene.group,
                                 source_vols=[scene.source, scene.copy])


OPERATIONS = {
    "create": Operation(
        lambda driver, scene: driver.create_volume(scene.new),
        lambda client, scene: client.header(scene.new.name).vdi_size == GIB),
    "clone": Operation(
        lambda driver, scene: driver.create_cloned_volume(scene.new, scene.source),
        lambda client, scene: holds(client, scene.new.name, NEW)),
    "from snapshot": Operation(
        lambda driver, scene: driver.create_volume_from_snapshot(scene.new, scene.taken),
        lambda client, scene: holds(client, scene.new.name, OLD)),
    "copy of snapshot": Operation(
        lambda driver, scene: driver.create_volume_from_snapshot(scene.elsewhere, scene.taken),
        lambda client, scene: holds(client, scene.elsewhere.name, OLD)),
    "clone of image": Operation(
        _clone_image, lambda client, scene: holds(client, scene.new.name, OLD)),
    "from image": Operation(_fill, lambda client, scene: holds(client, scene.new.name, OLD)),
    "to image": Operation(_upload, lambda client, scene: True),
    "extend": Operation(
        lambda driver, scene: driver.extend_volume(scene.source, 2),
        lambda client, scene: client.header(scene.source.name).vdi_size == 2 * GIB),
    "delete": Operation(
        lambda driver, scene: driver.delete_volume(scene.source),
        lambda client, scene: is_gone(client, scene.source.name)),
    "snapshot": Operation(
        lambda driver, scene: driver.create_snapshot(scene.late),
        lambda client, scene: holds(client, scene.source.name, NEW, scene.late.name)),
    "delete snapshot": Operation(
        lambda driver, scene: driver.delete_snapshot(scene.taken),
        lambda client, scene: is_gone(client, scene.source.name, scene.taken.name)),
    "revert": Operation(
        lambda driver, scene: driver.revert_to_snapshot(None, scene.source, scene.taken),
        lambda client, scene: holds(client, scene.source.name, OLD)),
    "retype": Operation(
        _retype, lambda client, scene: holds(client, scene.source.name, NEW)
        and client.header(scene.source.name).nr_copies == 2),
    "end of migration": Operation(
        lambda driver, scene: driver.update_migrated_volume(
            None, scene.new, scene.copy, "available"),
        lambda client, scene: holds(client, scene.new.name, OLD), repeatable=False),
    "group snapshot": Operation(
        lambda driver, scene: driver.create_group_snapshot(
            None, scene.group_snapshot, [scene.late, scene.copy_late]),
        lambda client, scene: holds(client, scene.source.name, NEW, scene.late.name)
        and holds(client, scene.copy.name, OLD, scene.copy_late.name)),
    "group from group": Operation(
        _group_from_group, lambda client, scene: holds(client, scene.new.name, NEW)
        and holds(client, scene.elsewhere.name, OLD)),
}
#: What may be killed and yet leaves the volume's content as it was.
HARMLESS = frozenset(OPERATIONS) - {"delete", "revert"}


# -- the tests

@pytest.fixture
def scene(backends, sheep, tmp_path, group_type):
    """Function that makes a scene: (driver, client, scene)."""
    driver, client = backends.make(sheep.addresses, **POOLS), sheep.client()
    client.create_vdi("image-kills", GIB)
    write(client, "image-kills", 0, OLD)
    write(client, "image-kills", FAR_OFFSET, FAR)
    client.snapshot("image-kills", "snap")
    client.delete_vdi("image-kills")
    count = 0

    def make():
        nonlocal count
        count += 1
        directory = tmp_path / str(count)
        directory.mkdir()
        return driver, client, Scene(driver, client, directory, group_type)

    yield make
    client.delete_vdi("image-kills", "snap")


def listed(client):
    return sorted((header.name, header.tag, header.is_snapshot)
                  for header in client.list_vdis())


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_any_step(scene, sheep, name):
    def begin():
        return Backends().make(sheep.addresses, **POOLS)

    operation = OPERATIONS[name]
    driver, client, first = scene()
    steps = steps_of(begin, lambda driver: operation.act(driver, first))
    assert operation.done(client, first)
    first.delete_all(driver)
    leftovers.remove(client, -1)
    before = listed(client)
    for step, repeated in chosen(steps, operation.repeatable):
        _, _, each = scene()
        steps_of(begin, lambda driver: operation.act(driver, each), step)
        at = "killed before request %d of %d, %s" % (
            step, steps, "repeated" if repeated else "given up")
        if name in HARMLESS:
            assert holds(client, each.source.name, NEW), at
        elif name == "revert":
            assert holds(client, each.source.name, NEW) or \
                holds(client, each.source.name, OLD), at
        if repeated:
            operation.act(driver, each)
            assert operation.done(client, each), at
        each.delete_all(driver)
        leftovers.remove(client, -1)
        assert listed(client) == before, at
