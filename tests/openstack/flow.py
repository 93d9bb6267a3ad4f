"""What a user does with volumes, and what then lies in sheep."""

import itertools
import time

from cinder_driver import leftovers
from tests.functional.harness import wait_until
from tests.openstack.keystone import VOLUME_API

_numbers = itertools.count(1)
_TIMEOUT = 300


class Flow:
    """Drives a :class:`~tests.openstack.cloud.Cloud` and looks at the VDIs behind it."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.openstack = cloud.openstack
        self.storage = cloud.connection.block_storage
        self.images = cloud.connection.image
        self.client = cloud.sheep.client()

    @staticmethod
    def name(kind) -> str:
        return "%s-%d" % (kind, next(_numbers))

    def post(self, path, body):
        """Ask Cinder for what neither the command nor the library can; the answer."""
        return self._ask(self.storage.post, path, body)

    def put(self, path, body):
        """Likewise."""
        return self._ask(self.storage.put, path, body)

    @staticmethod
    def _ask(method, path, body):
        answer = method(path, json=body, microversion=VOLUME_API)
        answer.raise_for_status()
        return answer

    # -- making

    def volume(self, *options, size=1, wait=True) -> str:
        """The id of a new volume, once it can be used."""
        made = self.openstack("volume", "create", "--size", size, *options, self.name("volume"))
        if wait:
            self.wait_volume(made["id"])
        return made["id"]

    def snapshot(self, volume_id) -> str:
        made = self.openstack("volume", "snapshot", "create", "--volume", volume_id,
                              self.name("snapshot"))
        self.wait(self.storage.get_snapshot, made["id"])
        return made["id"]

    def image(self, path, disk_format="raw") -> str:
        return self.openstack(
            "image", "create", "--disk-format", disk_format, "--container-format", "bare",
            "--file", path, self.name("image"))["id"]

    def backup(self, volume_id, *options) -> str:
        made = self.openstack("volume", "backup", "create", *options, "--name",
                              self.name("backup"), volume_id)
        self.wait(self.storage.get_backup, made["id"])
        self.wait_volume(volume_id)
        return made["id"]

    def group_type(self) -> str:
        """The name of a new type of groups of which snapshots are taken at one instant."""
        name = self.name("group-type")
        self.openstack("volume", "group", "type", "create", name)
        self.openstack("volume", "group", "type", "set", "--property",
                       "consistent_group_snapshot_enabled=<is> True", name)
        return name

    def group(self, group_type, volume_type, volumes) -> str:
        """A new group of volumes that are there."""
        group = self.openstack(
            "volume", "group", "create", "--volume-group-type", group_type, "--volume-type",
            volume_type, "--name", self.name("group"))["id"]
        self.wait(self.storage.get_group, group)
        self.put("/groups/" + group, {"group": {"add_volumes": ",".join(volumes)}})
        self.wait(self.storage.get_group, group)
        return group

    def group_snapshot(self, group) -> str:
        snapshot = self.openstack("volume", "group", "snapshot", "create", group)["id"]
        self.wait(self.storage.get_group_snapshot, snapshot)
        return snapshot

    # -- the same without the command, which takes its time to start

    def create(self, **options) -> str:
        made = self.storage.create_volume(name=self.name("volume"), size=1, **options)
        self.wait_volume(made.id)
        return made.id

    def create_snapshot(self, volume_id) -> str:
        made = self.storage.create_snapshot(name=self.name("snapshot"), volume_id=volume_id)
        self.wait(self.storage.get_snapshot, made.id)
        return made.id

    def drop_volume(self, volume_id, cascade=False):
        self.storage.delete("/volumes/" + volume_id, params={"cascade": cascade}
                            ).raise_for_status()
        self.wait_gone(self.storage.find_volume, volume_id)

    def manageable(self, kind) -> set:
        """What Cinder could take over of ``volumes`` or ``snapshots`` in the pool of GREEN."""
        answer = self.storage.get("/manageable_%s/detail" % kind, microversion=VOLUME_API,
                                  params={"host": "loopback@green#copies-3"})
        answer.raise_for_status()
        return {each["reference"]["source-name"] for each in answer.json()["manageable-" + kind]
                if each["safe_to_manage"]}

    # -- attaching

    def attach(self, volume_id, **connector) -> dict:
        """A new attachment of a volume to a host ``h``, as Cinder describes it."""
        return self.post("/attachments", {"attachment": {
            "volume_uuid": volume_id, "connector": {
                "host": "h", "initiator": "iqn.2000-01.org.example:h", **connector}}}
        ).json()["attachment"]

    def complete(self, attachment):
        """Say that the host has got it."""
        self.post("/attachments/%s/action" % attachment["id"], {"os-complete": {}})

    def detach(self, attachment):
        self.storage.delete("/attachments/" + attachment["id"],
                            microversion=VOLUME_API).raise_for_status()

    # -- waiting

    def wait(self, get, item_id, status="available"):
        """Wait until ``get(item_id)`` is in a status; raises AssertionError where it fails."""
        seen = []

        def is_so():
            item = get(item_id)
            seen[:] = [item]
            assert not item.status.startswith("error"), "%s is in status %s" % (
                item_id, item.status)
            return item.status == status

        wait_until(is_so, _TIMEOUT, lambda: "%s to be %s; it is %s" % (
            item_id, status, seen[0].status))
        return seen[0]

    def wait_volume(self, volume_id, status="available"):
        return self.wait(self.storage.get_volume, volume_id, status)

    def wait_moved(self, volume_id, host):
        """Wait until a migration or retyping to ``host`` has ended; the volume."""
        def is_over():
            volume = self.storage.get_volume(volume_id)
            assert not volume.status.startswith("error"), volume.status
            assert volume.migration_status != "error", "the migration failed"
            return volume.status == "available" and \
                volume.migration_status in (None, "success") and \
                volume.host == host and volume

        return wait_until(is_over, _TIMEOUT, "volume %s to be moved" % volume_id)

    def wait_settled(self, quiet=10):
        """Wait until nothing is in progress; what a service that was killed had begun may be
        for ever, so until nothing has changed for ``quiet`` seconds."""
        seen, since = None, time.monotonic()

        def is_settled():
            nonlocal seen, since
            now = self._statuses()
            if now != seen:
                seen, since = now, time.monotonic()
            return _all_ended(now) or time.monotonic() - since > quiet

        wait_until(is_settled, _TIMEOUT, lambda: "all to settle; it is %s" % seen)

    def is_at_rest(self) -> bool:
        """Whether nothing is in progress."""
        return _all_ended(self._statuses())

    def _statuses(self):
        return {item.id: item.status for items in (
            self.storage.volumes(all_projects=True),
            self.storage.snapshots(all_projects=True)) for item in items}

    def wait_gone(self, find, item_id):
        def is_gone():
            item = find(item_id, ignore_missing=True)
            assert item is None or not item.status.startswith("error"), item.status
            return item is None

        wait_until(is_gone, _TIMEOUT, "%s to be gone" % item_id)

    # -- deleting

    def delete_volume(self, *ids):
        self.openstack("volume", "delete", *ids)
        for volume_id in ids:
            self.wait_gone(self.storage.find_volume, volume_id)

    def delete_snapshot(self, *ids):
        self.openstack("volume", "snapshot", "delete", *ids)
        for snapshot_id in ids:
            self.wait_gone(self.storage.find_snapshot, snapshot_id)

    def drop_all(self):
        """Delete all volumes, also those that Cinder keeps for itself, in whatever state."""
        for snapshot in self.storage.snapshots(details=True, all_projects=True):
            self._force("/snapshots/" + snapshot.id, "available")
            self.storage.delete_snapshot(snapshot)
            self.wait_gone(self.storage.find_snapshot, snapshot.id)
        for volume in list(self.storage.volumes(details=True, all_projects=True)):
            self._force("/volumes/" + volume.id, "error")
            self.storage.delete_volume(volume)
            self._wait_path_gone("/volumes/" + volume.id)

    def drop_groups(self):
        """Delete all groups with their volumes and snapshots, in whatever state."""
        for volume in self.storage.volumes(all_projects=True):
            self._force("/volumes/" + volume.id, "available")
        for path in self._broken("group_snapshots"):
            self.storage.delete(path, microversion=VOLUME_API).raise_for_status()
            self._wait_path_gone(path)
        for path in self._broken("groups"):
            self.post(path + "/action", {"delete": {"delete-volumes": True}})
            self._wait_path_gone(path)

    def _broken(self, kind):
        """Paths of all there are of that kind; Cinder is told that each has failed."""
        found = self.storage.get("/%s?all_tenants=1" % kind, microversion=VOLUME_API)
        for item in found.json()[kind]:
            path = "/%s/%s" % (kind, item["id"])
            self.post(path + "/action", {"reset_status": {"status": "error"}})
            yield path

    def drop_backups(self):
        """Delete all backups, in whatever state."""
        for backup in list(self.storage.backups(details=True)):
            self._force("/backups/" + backup.id, "error")
            self.storage.delete_backup(backup)
            self.wait_gone(self.storage.find_backup, backup.id)

    def wait_ended(self, get, item_id):
        """Wait until something has come to an end, good or bad."""
        wait_until(lambda: not get(item_id).status.endswith("ing"), _TIMEOUT,
                   "%s to come to an end" % item_id)

    def _force(self, path, status):
        body = {"status": status}
        if path.startswith("/volumes/"):
            body["migration_status"] = "none"
        self.storage.post(path + "/action", json={"os-reset_status": body})

    def _wait_path_gone(self, path):
        wait_until(lambda: self.storage.get(path, microversion=VOLUME_API).status_code == 404,
                   _TIMEOUT, path + " to be gone")

    def clear_leftovers(self):
        """Have the driver's periodic clean-up done now, and not when its time comes."""
        leftovers.remove(self.client, 0)

    # -- the bytes

    def vdis(self) -> set:
        """(name, tag) of all VDIs and snapshots."""
        return {(header.name, header.tag) for header in self.client.list_vdis()}

    def open(self, volume_id):
        """A volume as a virtual machine sees it, to be used as a context manager."""
        volume = self.storage.get_volume(volume_id)
        return self.client.open_vdi("volume-" + (volume.migration_id or volume_id), lock=False)

    def write(self, volume_id, offset, data):
        with self.open(volume_id) as vdi:
            vdi.pwrite(offset, data)

    def read(self, volume_id, offset=0, length=None) -> bytes:
        with self.open(volume_id) as vdi:
            return vdi.pread(offset, vdi.size if length is None else length)

    def allocated(self, volume_id) -> int:
        """How many of its bytes are no hole."""
        with self.open(volume_id) as vdi:
            return sum(size for _, size, is_data in vdi.extents(0, vdi.size) if is_data)

    def size(self, volume_id) -> int:
        with self.open(volume_id) as vdi:
            return vdi.size


def _all_ended(statuses):
    return not any(status.endswith("ing") for status in statuses.values())
