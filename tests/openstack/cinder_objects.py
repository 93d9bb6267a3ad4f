"""Cinder's own objects and configuration around a driver that runs in the test's process."""

import os
import uuid

from castellan import options as key_manager
from cinder import context, coordination, objects, privsep
from cinder.db import api, migration
from cinder.keymgr.conf_key_mgr import ConfKeyManager
from cinder.objects import fields
from cinder.volume import configuration
from cinder.volume import driver as base_driver
from os_brick import privileged
from oslo_config import cfg

from cinder_driver.driver import SheepdogDriver

CONF = cfg.CONF
GIB = 1 << 30

objects.register_all()


def prepare(directory):
    """Have Cinder's configuration and its locks; its state lies in ``directory``."""
    CONF([], project="cinder", default_config_files=[])
    CONF.set_override("state_path", str(directory))
    CONF.set_override("image_conversion_dir", str(directory / "conversion"))
    CONF.set_override("lock_path", str(directory / "locks"), group="oslo_concurrency")
    CONF.set_override("backend_url", "file://%s" % (directory / "coordination"),
                      group="coordination")
    key_manager.set_defaults(CONF, backend="cinder.keymgr.conf_key_mgr.ConfKeyManager")
    CONF.set_override("fixed_key", "0123456789abcdef" * 4, group="key_manager")
    os.makedirs(directory / "conversion", exist_ok=True)
    coordination.COORDINATOR.start()
    # What wants to be root is done right here.
    for context_ in (privsep.sys_admin_pctxt, privileged.default):
        context_.set_client_mode(False)


def settings(group):
    """The section of that name of Cinder's configuration."""
    return configuration.Configuration(base_driver.volume_opts, config_group=group)


class KeyManager(ConfKeyManager):
    """Has one key, for all volumes."""

    def __init__(self):
        super().__init__(CONF)


class Backends:
    """Makes drivers, as cinder-volume does: ``__init__``, ``do_setup``, and so on."""

    def __init__(self):
        self._drivers = []
        self.context = context.get_admin_context()

    def make(self, addresses, check=True, active_backend_id=None, **options):
        """A driver of its own section, with the given options; ``check``: that it works."""
        group = "backend%d-%s" % (len(self._drivers), uuid.uuid4().hex[:6])
        driver = SheepdogDriver(configuration=settings(group), host="host@%s" % group,
                                active_backend_id=active_backend_id)
        CONF.set_override("sheepdog_addresses", list(addresses), group=group)
        for name, value in options.items():
            CONF.set_override(name, value, group=group)
        self._drivers.append(driver)
        driver.do_setup(self.context)
        if check:
            driver.check_for_setup_error()
        return driver

    def close(self):
        for driver in self._drivers:
            driver._close()


def volume(size=1, pool="copies-3", specs=None, qos=None, **fields_):
    """A volume as the manager hands it to a driver; ``qos``: the id of QoS specs."""
    name = fields_.pop("id", str(uuid.uuid4()))
    kind = objects.VolumeType(id=str(uuid.uuid4()), name="kind", extra_specs=specs or {},
                              qos_specs_id=qos)
    return objects.Volume(
        context.get_admin_context(), **{
            "id": name, "size": size, "host": "host@backend#" + pool, "status": "available",
            "volume_type": kind, "volume_type_id": kind.id, "provider_location": None,
            "_name_id": None, "encryption_key_id": None, "glance_metadata": {},
            "volume_attachment": objects.VolumeAttachmentList(objects=[]), **fields_})


def snapshot(of, **fields_):
    """A snapshot as the manager hands it to a driver."""
    return objects.Snapshot(
        context.get_admin_context(), **{
            "id": str(uuid.uuid4()), "volume_id": of.id, "volume": of, "volume_size": of.size,
            "status": fields.SnapshotStatus.CREATING, "provider_location": None, **fields_})


def database(directory):
    """Cinder's tables, for what its library functions look up there."""
    CONF.set_override("connection", "sqlite:///%s" % (directory / "cinder.sqlite"),
                      group="database")
    migration.db_sync()


class ImageFiles:
    """Glance for a driver in the test's process: images are files in a directory."""

    temp_images = None

    def __init__(self, directory):
        self._directory = directory
        self._meta = {}

    def add(self, path, disk_format, **meta):
        """Have a file as an image; its id."""
        image_id = str(uuid.uuid4())
        self._meta[image_id] = {"id": image_id, "disk_format": disk_format, "size":
                                path.stat().st_size, "container_format": "bare", **meta}
        self.path(image_id).symlink_to(path)
        return image_id

    def path(self, image_id):
        return self._directory / image_id

    def show(self, context, image_id):
        return self._meta[image_id]

    def download(self, context, image_id, data=None):
        pieces = self._pieces(image_id)
        if data is None:
            return pieces
        for piece in pieces:
            data.write(piece)
        return None

    def _pieces(self, image_id):
        with self.path(image_id).open("rb") as file:
            while piece := file.read(65536):
                yield piece

    def update(self, context, image_id, image_meta, data=None, **keywords):
        with self.path(image_id).open("wb") as file:
            while piece := data.read(65536):
                file.write(piece)


def attachments(of, *connectors):
    """That a volume is attached, by each of ``connectors``."""
    return objects.VolumeAttachmentList(objects=[objects.VolumeAttachment(
        id=str(uuid.uuid4()), volume_id=of.id, attach_status="attached", connector=connector)
        for connector in connectors])


def enter(of, **details):
    """Write a volume into Cinder's tables, see :func:`database`."""
    api.volume_create(context.get_admin_context(), {
        "id": of.id, "size": of.size, "host": of.host, "status": of.status,
        "availability_zone": "nova", "volume_type_id": of.volume_type_id, **details})


def write(cluster, name, offset, data):
    """Write into a VDI as a guest would."""
    with cluster.open_vdi(name) as vdi:
        vdi.pwrite(offset, data)


def read(cluster, name, offset, length, tag=None):
    """What a VDI, or a snapshot of it, holds there."""
    with cluster.open_vdi(name, tag, read_only=True) as vdi:
        return vdi.pread(offset, length)
