"""A backup driver: backups in a sheep cluster, best another one than the volumes'.

A backup is the snapshot ``whole`` of a VDI of its own.  An incremental one begins as a clone of
its parent, so that it takes room only for the objects that changed, and yet each can be restored
and deleted without the others.

What changed is known without reading a volume that lies in sheep: a snapshot of it is kept from
backup to backup, and the maps of two snapshots tell.  Where the former one is gone, and for
volumes of other drivers, all is read and compared.
"""

import contextlib
import json
import logging
import time

from cinder import exception, objects
from cinder.backup import driver
from cinder.objects import fields
from oslo_config import cfg
from oslo_utils import units

import cinder_driver.connector  # noqa: F401 - so that volumes are attached without a kernel
from cinder_driver import backend, names, transfer
from cinder_driver.backup_source import source_of
from sheepstack.client import NoSuchAttribute, NoSuchTag, NoSuchVdi, SheepError

LOG = logging.getLogger(__name__)

OPTIONS = [
    cfg.ListOpt(
        "backup_sheepdog_addresses", default=["127.0.0.1:7000"],
        help="Addresses of sheep of the cluster that keeps the backups, in order of preference: "
             "host:port, [IPv6 address]:port or unix:/path/of/its/directory/sock."),
    cfg.StrOpt(
        "backup_sheepdog_auth_key_file",
        help="File with the secret of that cluster, where it has one."),
    cfg.FloatOpt(
        "backup_sheepdog_timeout", default=30, min=1,
        help="Seconds that one request to the sheep may take, with all attempts."),
    cfg.StrOpt(
        "backup_sheepdog_copy_policy",
        help="How backups are kept: a number of copies like 3, or data and parity strips like "
             "4:2.  Unset: as the cluster was formatted."),
]
CONF = cfg.CONF
CONF.register_opts(OPTIONS)

#: The tag of the snapshot that is a backup.
_WHOLE = "whole"
_METADATA = "cinder-metadata"
_CANCEL_INTERVAL = 5.0


class SheepdogBackupDriver(driver.BackupDriver):
    """Methods raise BackupDriverException where a cluster fails."""

    def __init__(self, context):
        super().__init__(context)
        self.support_force_delete = True

    @staticmethod
    def get_driver_options():
        return OPTIONS

    @contextlib.contextmanager
    def _store(self, what):
        """The cluster of the backups, open."""
        chosen = backend.with_key("backups", CONF.backup_sheepdog_addresses,
                                  CONF.backup_sheepdog_auth_key_file)
        with chosen.open(CONF.backup_sheepdog_timeout) as cluster:
            try:
                yield cluster
            except (SheepError, ValueError) as error:
                raise exception.BackupDriverException(
                    "Cannot %s: %s" % (what, error)) from error

    def check_for_setup_error(self):
        with self._store("use the cluster for backups") as store:
            store.uuid()

    # -- making

    def backup(self, backup, volume_file, backup_metadata=True):
        """Returns what is to be known of the backup later."""
        parent = (objects.Backup.get_by_id(self.context, backup.parent_id)
                  if backup.parent_id else None)
        name = _name(backup)
        with self._store("make backup %s" % backup.id) as store:
            source = source_of(volume_file, names.BACKUP + backup.id)
            try:
                _remove(store, name)
                self._begin(store, name, parent, backup.size * units.Gi, source)
                with store.open_vdi(name, lock=False) as vdi:
                    written = source.copy_to(vdi, _base(parent))
                store.snapshot(name, _WHOLE)
                store.delete_vdi(name)
                if backup_metadata:
                    store.setattr(name, _METADATA, self._metadata(backup), _WHOLE)
            except BaseException:
                source.forget()
                with contextlib.suppress(SheepError):
                    _remove(store, name)
                raise
            LOG.info("Backup %s stored %d MiB", backup.id, written // units.Mi)
            source.keep_only()
        return {"service_metadata": json.dumps(source.describe()), "object_count": 1}

    @staticmethod
    def _begin(store, name, parent, size, source):
        """Make the VDI: empty, or as the parent is."""
        size = max(size, source.size)
        if parent is None:
            store.create_vdi(name, size, policy=CONF.backup_sheepdog_copy_policy or None,
                             block_size_shift=source.block_size_shift)
            return
        store.clone(_name(parent), _WHOLE, name)
        if store.header(name).vdi_size != size:
            store.resize(name, size)

    def _metadata(self, backup):
        text = self.get_metadata(backup.volume_id)
        return text if isinstance(text, bytes) else text.encode()

    # -- using

    def restore(self, backup, volume_id, volume_file, volume_is_new):
        """Raises BackupRestoreCancel where somebody changed the backup's state meanwhile."""
        name = _name(backup)
        with self._store("restore backup %s" % backup.id) as store:
            with store.open_vdi(name, _WHOLE) as vdi:
                progress = _Watch(backup).look
                target = getattr(volume_file, "vdi", None)
                if target is not None:
                    transfer.copy(vdi, target, progress=progress)
                else:
                    vdi.copy_out(volume_file, progress=lambda done: progress(), sparse=False)
            try:
                metadata = store.getattr(name, _METADATA, _WHOLE)
            except NoSuchAttribute:
                return
        try:
            self.put_metadata(volume_id, metadata.decode())
        except exception.BackupMetadataUnsupportedVersion as error:
            raise exception.BackupOperationError(
                "The metadata of backup %s cannot be used: %s" % (backup.id, error)) from error

    def delete_backup(self, backup):
        with self._store("delete backup %s" % backup.id) as store:
            _remove(store, _name(backup))


class _Watch:
    """Looks now and then whether a restoration is still wanted."""

    def __init__(self, backup):
        self._backup = backup
        self._looked = time.monotonic()

    def look(self):
        if time.monotonic() - self._looked < _CANCEL_INTERVAL:
            return
        self._looked = time.monotonic()
        with self._backup.as_read_deleted():
            self._backup.refresh()
        if self._backup.status != fields.BackupStatus.RESTORING:
            raise exception.BackupRestoreCancel(
                back_id=self._backup.id, vol_id=self._backup.restore_volume_id)


def _name(backup):
    return names.BACKUP + backup.id


def _base(parent):
    """How the source of a parent described itself, or None."""
    try:
        return json.loads(parent.service_metadata) if parent is not None else None
    except (TypeError, ValueError):
        return None


def _remove(store, name):
    """Delete a backup, whole or half."""
    for tag in (_WHOLE, None):
        with contextlib.suppress(NoSuchVdi, NoSuchTag):
            store.delete_vdi(name, tag)
