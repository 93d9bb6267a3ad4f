"""The volume driver: what Cinder asks for, in terms of VDIs."""

import binascii

from castellan import key_manager
from cinder import exception
from cinder import interface
from cinder.image import image_utils
from cinder.objects import fields
from cinder.volume import configuration
from cinder.volume import driver
from cinder.volume import volume_utils
from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import units

from cinder_driver import attach, backend, exports, images, leftovers, listing, location, stats
from cinder_driver import policy as policies
from cinder_driver.conversion import Nbd
from cinder_driver.errors import translated
from cinder_driver.names import tag_of, vdi_of
from cinder_driver.options import OPTIONS
from cinder_driver.periodic import Periodic
from cinder_driver.qos import limits_of, limits_of_specs
from cinder_driver.replication import Replication
from cinder_driver.volumes import Volumes
from sheepstack.client import (
    AuthenticationFailed, ClusterUnreachable, NoSuchTag, NoSuchVdi, NotFormatted, SheepError,
    WaitingForNodes)

LOG = logging.getLogger(__name__)
CONF = cfg.CONF
CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)

_LEFTOVERS_INTERVAL = 600
_BACKUP_DRIVER = "cinder_driver.backup"


@interface.volumedriver
class SheepdogDriver(driver.CloneableImageVD, driver.MigrateVD, driver.ManageableVD,
                     driver.ManageableSnapshotsVD, driver.BaseVD):
    """Volumes as VDIs of a sheep cluster.

    Version history::

        1.0.0  the first one
    """

    VERSION = "1.0.0"
    CI_WIKI_NAME = "sheepstack"
    SUPPORTED = True
    SUPPORTS_ACTIVE_ACTIVE = True

    def __init__(self, active_backend_id=None, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self._active_backend_id = active_backend_id or None
        self._volumes = None
        self._backend = None
        self._replication = None
        self._tasks = []

    @classmethod
    def get_driver_options(cls):
        return OPTIONS + cls._get_oslo_driver_opts(
            "target_prefix", "target_ip_address", "target_secondary_ip_addresses",
            "target_port", "replication_device", "max_over_subscription_ratio",
            "reserved_percentage")

    # -- set-up

    def do_setup(self, context):
        """Connect, in the process and at the time at which sockets and threads may start."""
        self._close()
        options = self.configuration
        self._main = backend.configured(options)
        self._replication = Replication(
            self._main, backend.replication_targets(options.safe_get("replication_device")),
            options.sheepdog_timeout)
        self._use(self._replication.find(self._active_backend_id or backend.DEFAULT))
        self._pools = None
        try:
            self._policies = [policies.parse(text) for text in options.sheepdog_pools]
        except ValueError as error:
            raise exception.InvalidConfigurationValue(
                option="sheepdog_pools", value=error) from error
        self._tasks = [Periodic("sheep-leftovers", _LEFTOVERS_INTERVAL, self._remove_leftovers)]
        if self._replication.targets:
            self._tasks.append(Periodic(
                "sheep-replication", options.sheepdog_replication_interval, self._replicate))

    def _use(self, chosen):
        """Have ``chosen``, a :class:`Backend`, serve all requests from now on."""
        cluster = self._replication.cluster(chosen)
        self._backend = chosen
        self._volumes = Volumes(cluster)
        options = self.configuration
        self._nbd = Nbd(chosen.addresses, chosen.auth_key_file, options.sheepdog_timeout)
        self._for_clients = attach.ClientConnections(chosen, options.sheepdog_timeout)
        self._for_hosts = (
            attach.IscsiConnections(exports.made_by(options, cluster, chosen.auth_key),
                                    options.target_prefix)
            if options.sheepdog_protocol == attach.IscsiConnections.protocol else
            attach.LocalConnections(options.sheepdog_mount_point))

    def _close(self):
        for task in self._tasks:
            task.stop()
        self._tasks = []
        if self._replication is not None:
            self._replication.close()

    @property
    def _cluster(self):
        return self._volumes.cluster

    def check_for_setup_error(self):
        """Raises VolumeBackendAPIException, which says what is wrong."""
        place = ", ".join(self._backend.addresses)
        try:
            self._cluster.uuid()
            self._known_policies()
        except AuthenticationFailed as error:
            raise _unusable("The sheep at %s do not accept the secret in %s: %s" % (
                place, self._backend.auth_key_file or "sheepdog_auth_key_file, which is not set",
                error)) from error
        except NotFormatted as error:
            raise _unusable("The cluster at %s is not formatted; run dog cluster format: %s"
                            % (place, error)) from error
        except WaitingForNodes as error:
            raise _unusable("The cluster at %s waits for nodes: %s" % (place, error)) from error
        except ClusterUnreachable as error:
            raise _unusable("No sheep can be reached at %s: %s" % (place, error)) from error
        except SheepError as error:
            raise _unusable("The cluster at %s cannot be used: %s" % (place, error)) from error

    def _known_policies(self):
        """The copy policies of our pools."""
        if not self._policies:
            defaults = self._cluster.defaults()
            self._policies = [policies.of_vdi(_Kept(defaults.copies, defaults.copy_policy))]
        return self._policies

    def _init_vendor_properties(self):
        properties = {}
        self._set_property(
            properties, "sheepdog:block_size", "Object size",
            "MiB of the objects that a volume is cut into, a power of two.", "integer")
        return properties, "sheepdog"

    def _update_volume_stats(self):
        options = self.configuration
        common = {
            "location_info": "", "thin_provisioning_support": True,
            "thick_provisioning_support": False, "multiattach": True,
            "sparse_copy_volume": True, "online_extend_support": True,
            "reserved_percentage": options.safe_get("reserved_percentage") or 0,
            "max_over_subscription_ratio": options.safe_get("max_over_subscription_ratio"),
            "QoS_support": True,
            "consistent_group_snapshot_enabled": True,
            "filter_function": self.get_filter_function(),
            "goodness_function": self.get_goodness_function(),
            "replication_enabled": bool(self._replication.targets),
        }
        if self._replication.targets:
            common["replication_targets"] = [each.name for each in self._replication.targets]
        found = {
            "volume_backend_name": options.safe_get("volume_backend_name") or "sheepdog",
            "vendor_name": "sheepstack", "driver_version": self.VERSION,
            "storage_protocol": "iSCSI" if options.sheepdog_protocol == "iscsi" else "local",
            "active_backend_id": self._active_backend_id, "backend_state": "up",
        }
        try:
            common["location_info"] = self._location_info()
            found["pools"] = stats.pool_stats(self._cluster, self._known_policies(), common)
        except SheepError as error:
            LOG.warning("The sheep cluster does not tell its state: %s", error)
            found["backend_state"] = "down"
            found["pools"] = stats.empty_pool_stats(self._policies, common)
        self._stats = dict(common, **found)

    def _location_info(self):
        return "sheepdog:" + self._cluster.uuid()

    def get_pool(self, volume):
        """The pool that a volume is in, by how its VDI is kept."""
        return policies.pool_name(policies.of_vdi(self._cluster.header(vdi_of(volume))))

    def _remove_leftovers(self):
        leftovers.remove(self._cluster, self.configuration.sheepdog_leftovers_age)

    # -- what a volume is to be like

    def _policy(self, volume):
        """The copy policy of the pool that a volume was put in, or None for the cluster's."""
        pool = volume_utils.extract_host(volume.host, "pool") if volume.host else None
        if pool:
            try:
                return policies.policy_of_pool(pool)
            except ValueError as error:
                raise exception.InvalidVolume(reason=str(error)) from error
        return policies.wanted(_specs(volume))

    def _kept(self, volume):
        """The last arguments of :class:`Volumes`' methods."""
        return self._policy(volume), policies.block_size_shift(_specs(volume))

    # -- volumes

    @translated
    def create_volume(self, volume):
        limits = limits_of(volume)
        self._volumes.create(vdi_of(volume), _bytes(volume.size), *self._kept(volume))
        return self._finish(volume, limits)

    def _derive(self, volume, source, tag):
        """Make a volume that begins as a snapshot of the VDI ``source``; its update."""
        limits = limits_of(volume)
        self._volumes.derive(source, tag, vdi_of(volume), _bytes(volume.size),
                             *self._kept(volume))
        return self._finish(volume, limits)

    def _finish(self, volume, limits):
        if any(limits):
            self._cluster.set_limits(vdi_of(volume), limits)
        return self._set_up_replication(volume)

    @translated
    def delete_volume(self, volume):
        self._volumes.delete(vdi_of(volume))
        if _is_replicated(volume):
            self._replication.forget(self._backend, vdi_of(volume))

    @translated
    def extend_volume(self, volume, new_size):
        limits = limits_of(volume, new_size)
        self._cluster.resize(vdi_of(volume), _bytes(new_size))
        if limits != limits_of(volume):
            self._cluster.set_limits(vdi_of(volume), limits)
        if volume.volume_attachment:
            self._for_hosts.resized(vdi_of(volume))

    @translated
    def create_cloned_volume(self, volume, src_vref):
        source = vdi_of(src_vref)
        with self._volumes.held(source, volume.id) as tag:
            return self._derive(volume, source, tag)

    @translated
    def create_volume_from_snapshot(self, volume, snapshot):
        return self._derive(volume, vdi_of(snapshot.volume), tag_of(snapshot))

    # -- snapshots

    @translated
    def create_snapshot(self, snapshot):
        self._volumes.snapshot(vdi_of(snapshot.volume), tag_of(snapshot))

    @translated
    def delete_snapshot(self, snapshot):
        self._volumes.delete_snapshot(vdi_of(snapshot.volume), tag_of(snapshot))

    def snapshot_revert_use_temp_snapshot(self):
        return False

    @translated
    def revert_to_snapshot(self, context, volume, snapshot):
        self._volumes.revert(vdi_of(volume), tag_of(snapshot), _bytes(volume.size))

    # -- images

    @translated
    def clone_image(self, context, volume, image_location, image_meta, image_service):
        if image_meta.get("disk_format") != "raw" or \
                image_meta.get("container_format") == "compressed" or \
                not _is_as_encrypted(volume, image_meta):
            return None, False
        for url in location.urls_of(image_location):
            place = location.parse(url)
            if place is not None and self._is_image_here(place, volume):
                return self._derive(volume, place.image, place.snapshot), True
        return None, False

    def _is_image_here(self, place, volume):
        """Whether an image lies in our cluster, and fits into the volume."""
        if place.cluster != self._cluster.uuid() or \
                place.image.startswith(CONF.volume_name_template.partition("%")[0] or "volume-"):
            # A volume is nobody's image: it may be another project's.
            return False
        try:
            header = self._cluster.header(place.image, place.snapshot)
        except (NoSuchVdi, NoSuchTag):
            return False
        return header.vdi_size <= _bytes(volume.size)

    @translated
    def copy_image_to_volume(self, context, volume, image_service, image_id,
                             disable_sparse=False):
        with self._cluster.open_vdi(vdi_of(volume), lock=False) as vdi:
            images.fetch(context, image_service, image_id, volume, vdi, self._nbd)

    @translated
    def copy_image_to_encrypted_volume(self, context, volume, image_service, image_id,
                                       disable_sparse=False):
        encryption = volume_utils.check_encryption_provider(volume, context)
        key = key_manager.API(CONF).get(context, encryption["encryption_key_id"])
        passphrase = binascii.hexlify(key.get_encoded()).decode()
        cipher = image_utils.decode_cipher(encryption["cipher"], encryption["key_size"])
        with self._cluster.open_vdi(vdi_of(volume), lock=False) as vdi:
            images.fetch(context, image_service, image_id, volume, vdi, self._nbd, passphrase,
                         cipher)

    @translated
    def copy_volume_to_image(self, context, volume, image_service, image_meta):
        name = vdi_of(volume)
        with self._volumes.held(name, image_meta["id"]) as tag, \
                self._cluster.open_vdi(name, tag) as vdi:
            images.store(context, image_service, image_meta, volume, vdi, self._nbd)

    # -- attaching

    def _connections(self, volume, connector):
        """What attaches a volume to the host that ``connector`` describes."""
        if connector and connector.get(attach.PROTOCOL) and not volume.encryption_key_id:
            return self._for_clients
        return self._for_hosts

    @translated
    def initialize_connection(self, volume, connector, initiator_data=None):
        # The specs may have been changed since.
        limits = limits_of(volume)
        if any(limits) and limits != self._cluster.limits(vdi_of(volume)):
            self._cluster.set_limits(vdi_of(volume), limits)
        return self._connect(volume, vdi_of(volume), None, connector)

    @translated
    def terminate_connection(self, volume, connector, **kwargs):
        """Whether the connection stays, as another attachment to the same host needs it."""
        connections = self._connections(volume, connector)
        if connector and _is_needed_twice(volume, connector, connections.one_for):
            return True
        connections.disconnect(vdi_of(volume), None, connector)
        return False

    @translated
    def initialize_connection_snapshot(self, snapshot, connector, **kwargs):
        return self._connect(snapshot.volume, vdi_of(snapshot.volume), tag_of(snapshot),
                             connector)

    @translated
    def terminate_connection_snapshot(self, snapshot, connector, **kwargs):
        self._connections(snapshot.volume, connector).disconnect(
            vdi_of(snapshot.volume), tag_of(snapshot), connector)

    def _connect(self, volume, vdi, tag, connector):
        connections = self._connections(volume, connector)
        data = connections.connect(vdi, tag, connector)
        return {"driver_volume_type": connections.protocol,
                "data": dict(data, volume_id=volume.id)}

    def ensure_export(self, context, volume):
        """Nothing is exported before somebody wants it; targets outlive this process."""

    def create_export(self, context, volume, connector):
        """Likewise."""

    def remove_export(self, context, volume):
        """terminate_connection has done it."""

    def create_export_snapshot(self, context, snapshot, connector):
        """As for volumes."""

    def remove_export_snapshot(self, context, snapshot):
        """As for volumes."""

    # -- moving and changing

    @translated
    def retype(self, context, volume, new_type, diff, host):
        specs = new_type.get("extra_specs") or {}
        if diff.get("encryption") or volume_utils.is_replicated_spec(specs) != \
                _is_replicated(volume):
            return False, None
        pool = volume_utils.extract_host(host["host"], "pool")
        policy = policies.policy_of_pool(pool) if pool else policies.wanted(specs)
        limits = limits_of_specs(new_type.get("qos_specs_id"), volume.size)
        if not self._convert(volume, policy, policies.block_size_shift(specs)):
            return False, None
        if diff.get("qos_specs"):
            self._cluster.set_limits(vdi_of(volume), limits)
        return True, None

    @translated
    def migrate_volume(self, context, volume, host):
        if host.get("capabilities", {}).get("location_info") != self._location_info():
            return False, None
        pool = volume_utils.extract_host(host["host"], "pool")
        return self._convert(volume, policies.policy_of_pool(pool) if pool else None), None

    def _convert(self, volume, policy, block_size_shift=None):
        """Have a volume kept in another way; whether that could be."""
        header = self._cluster.header(vdi_of(volume))
        if policy in (None, policies.of_vdi(header)) and \
                block_size_shift in (None, header.block_size_shift):
            return True
        if volume.volume_attachment or block_size_shift not in (None, header.block_size_shift):
            # Nobody may write to it meanwhile, and a VDI keeps the size of its objects.
            return False
        self._volumes.convert(vdi_of(volume), policy)
        return True

    @translated
    def update_migrated_volume(self, ctxt, volume, new_volume, original_volume_status):
        """Give the copy the name of the volume, unless that name or the copy is in use."""
        name, new_name = vdi_of(volume), vdi_of(new_volume)
        if original_volume_status == "available" and name == volume.name:
            try:
                self._cluster.lookup(name)
            except NoSuchVdi:
                limits = self._cluster.limits(new_name)
                self._volumes.rename(new_name, name)
                self._cluster.set_limits(name, limits)
                return {"_name_id": None, "provider_location": None}
        return {"_name_id": new_volume._name_id or new_volume.id,
                "provider_location": new_volume.provider_location}

    # -- taking over what is there

    def _existing(self, reference, name, tag=None):
        try:
            return self._cluster.header(name, tag)
        except (NoSuchVdi, NoSuchTag, ValueError) as error:
            raise exception.ManageExistingInvalidReference(
                existing_ref=reference, reason=str(error)) from error

    @translated
    def manage_existing_get_size(self, volume, existing_ref):
        return listing.gib(
            self._existing(existing_ref, listing.source_name(existing_ref)).vdi_size)

    @translated
    def manage_existing(self, volume, existing_ref):
        name = listing.source_name(existing_ref)
        header = self._existing(existing_ref, name)
        policy, block_size_shift = self._kept(volume)
        if policy not in (None, policies.of_vdi(header)) or \
                block_size_shift not in (None, header.block_size_shift):
            raise exception.ManageExistingVolumeTypeMismatch(
                reason="VDI %s is kept as %s in objects of %d MiB" % (
                    name, policies.of_vdi(header), header.block_size // units.Mi))
        self._cluster.set_limits(name, limits_of(volume))
        return {"provider_location": name}

    def unmanage(self, volume):
        """The VDI stays as it is."""

    @translated
    def get_manageable_volumes(self, cinder_volumes, marker, limit, offset, sort_keys,
                               sort_dirs):
        return listing.volumes(self._cluster, cinder_volumes, marker, limit, offset, sort_keys,
                               sort_dirs)

    @translated
    def manage_existing_snapshot_get_size(self, snapshot, existing_ref):
        return listing.gib(self._existing(
            existing_ref, vdi_of(snapshot.volume), listing.source_name(existing_ref)).vdi_size)

    @translated
    def manage_existing_snapshot(self, snapshot, existing_ref):
        tag = listing.source_name(existing_ref)
        self._existing(existing_ref, vdi_of(snapshot.volume), tag)
        return {"provider_location": tag}

    def unmanage_snapshot(self, snapshot):
        """The snapshot stays as it is."""

    @translated
    def get_manageable_snapshots(self, cinder_snapshots, marker, limit, offset, sort_keys,
                                 sort_dirs):
        return listing.snapshots(self._cluster, cinder_snapshots, marker, limit, offset,
                                 sort_keys, sort_dirs)

    # -- groups: only those whose snapshots are to be of one instant; Cinder does the others

    @staticmethod
    def _check_consistent(group):
        if not volume_utils.is_group_a_cg_snapshot_type(group):
            raise NotImplementedError

    def create_group(self, context, group):
        self._check_consistent(group)
        return {"status": fields.GroupStatus.AVAILABLE}

    def update_group(self, context, group, add_volumes=None, remove_volumes=None):
        self._check_consistent(group)
        return None, None, None

    def delete_group(self, context, group, volumes):
        self._check_consistent(group)
        return _each(volumes, self.delete_volume, "deleted", "error_deleting",
                     fields.GroupStatus.DELETED, fields.GroupStatus.ERROR_DELETING)

    @translated
    def create_group_snapshot(self, context, group_snapshot, snapshots):
        self._check_consistent(group_snapshot)
        self._volumes.snapshot_together(
            [(vdi_of(snapshot.volume), tag_of(snapshot)) for snapshot in snapshots])
        return ({"status": fields.GroupSnapshotStatus.AVAILABLE},
                [{"id": snapshot.id, "status": fields.SnapshotStatus.AVAILABLE}
                 for snapshot in snapshots])

    def delete_group_snapshot(self, context, group_snapshot, snapshots):
        self._check_consistent(group_snapshot)
        return _each(snapshots, self.delete_snapshot, fields.SnapshotStatus.DELETED,
                     fields.SnapshotStatus.ERROR_DELETING, fields.GroupSnapshotStatus.DELETED,
                     fields.GroupSnapshotStatus.ERROR_DELETING)

    @translated
    def create_group_from_src(self, context, group, volumes, group_snapshot=None,
                              snapshots=None, source_group=None, source_vols=None):
        self._check_consistent(group)
        updates = []
        if group_snapshot is not None:
            for volume, snapshot in zip(volumes, snapshots):
                updates.append(dict(
                    self.create_volume_from_snapshot(volume, snapshot) or {}, id=volume.id))
        else:
            sources = [vdi_of(source) for source in source_vols]
            with self._volumes.held_together(sources, group.id) as tag:
                for volume, source in zip(volumes, sources):
                    updates.append(dict(self._derive(volume, source, tag) or {}, id=volume.id))
        return {"status": fields.GroupStatus.AVAILABLE}, updates

    # -- backup

    def backup_use_temp_snapshot(self):
        return True

    def get_backup_device(self, context, backup):
        """Our own backup driver takes a snapshot itself, of volumes in use too."""
        if _BACKUP_DRIVER not in (backup.service or "") or backup.snapshot_id:
            return super().get_backup_device(context, backup)
        from cinder import objects

        return objects.Volume.get_by_id(context, backup.volume_id), False

    # -- replication

    def _set_up_replication(self, volume):
        if not _is_replicated(volume):
            return {"replication_status": fields.ReplicationStatus.NOT_CAPABLE} \
                if self._replication.targets else None
        if self._active_backend_id:
            return {"replication_status": fields.ReplicationStatus.ENABLED}
        self._replication.begin(self._backend, vdi_of(volume))
        return {"replication_status": fields.ReplicationStatus.ENABLED}

    def _replicate(self):
        if not self._active_backend_id:
            self._replication.ship(self._backend)

    @translated
    def failover(self, context, volumes, secondary_id=None, groups=None):
        """Let another cluster serve, or, where ``secondary_id`` is default, the first again."""
        target = self._replication.choose(self._active_backend_id, secondary_id)
        updates = []
        for volume in volumes:
            update = {"replication_status":
                      fields.ReplicationStatus.ENABLED if target.name == backend.DEFAULT
                      else fields.ReplicationStatus.FAILED_OVER}
            try:
                self._replication.hand_over(self._backend, target, vdi_of(volume))
                self._replication.cluster(target).set_limits(vdi_of(volume), limits_of(volume))
            except SheepError as error:
                LOG.error("Volume %s cannot be served by %s: %s", volume.id, target.name, error)
                update = {"status": "error", "replication_status":
                          fields.ReplicationStatus.FAILOVER_ERROR}
            updates.append({"volume_id": volume.id, "updates": update})
        return target.name, updates, []

    def failover_completed(self, context, active_backend_id=None):
        """Serve from the cluster that :meth:`failover` chose, on each host of ours."""
        if active_backend_id in ("", backend.DEFAULT):
            active_backend_id = None
        self._active_backend_id = active_backend_id
        self._use(self._replication.find(active_backend_id or backend.DEFAULT))

    def failover_host(self, context, volumes, secondary_id=None, groups=None):
        found = self.failover(context, volumes, secondary_id, groups)
        self.failover_completed(context, found[0])
        return found


class _Kept:
    """As much of an inode's header as a copy policy is made from."""

    def __init__(self, nr_copies, copy_policy):
        self.nr_copies = nr_copies
        self.copy_policy = copy_policy


def _unusable(text):
    return exception.VolumeBackendAPIException(data=text)


def _bytes(gib):
    return int(gib) * units.Gi


def _specs(volume):
    return (volume.volume_type.extra_specs or {}) if volume.volume_type else {}


def _is_replicated(volume):
    return volume_utils.is_replicated_spec(_specs(volume))


def _is_needed_twice(volume, connector, key):
    """Whether more attachments than one are to where ``connector`` is; it has one itself."""
    return key is not None and sum(
        bool(each.connector) and each.connector.get(key) == connector.get(key)
        for each in volume.volume_attachment) > 1


def _is_as_encrypted(volume, image_meta):
    """Whether an image is encrypted where the volume is to be, and only there."""
    image_key = (image_meta.get("properties") or image_meta).get("cinder_encryption_key_id")
    return bool(volume.encryption_key_id) == bool(image_key)


def _each(things, delete, deleted, failed, all_deleted, some_failed):
    """Delete all of a group: (update of the group, updates of what is in it)."""
    updates = []
    for thing in things:
        try:
            delete(thing)
            status = deleted
        except exception.CinderException as error:
            LOG.error("%s cannot be deleted: %s", thing.id, error)
            status = failed
        updates.append({"id": thing.id, "status": status})
    whole = all(update["status"] == deleted for update in updates)
    return {"status": all_deleted if whole else some_failed}, updates
