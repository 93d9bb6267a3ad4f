"""Attaching a volume to a process through the client library: no kernel, no root.

os-brick has no way to add a kind of connection from outside, so importing this module puts
:class:`SheepdogConnector` into its tables.  Who has done so tells in the properties of its host,
and so cinder-volume gives it such a connection.  What is attached is a file-like object, which
Cinder's data paths (backup and restore, host-assisted migration) take in place of a path.
"""

from os_brick.initiator import connector
from os_brick.initiator.connectors import base

from sheepstack.client import Cluster, VdiFile

#: ``driver_volume_type`` of a connection, and the property of hosts that can use it.
PROTOCOL = "sheepdog"


class VolumeFile(VdiFile):
    """The bytes of a volume, or of a snapshot, which is read-only.

    ``cluster``, ``vdi`` (open) and ``snapshot`` (a tag, or None) are for a backup driver, which
    need not read it all.  Who writes is to be the only one: Cinder sees to that.
    """

    def __init__(self, data):
        key = data["auth_password"]
        self.cluster = Cluster(data["addresses"], key and bytes.fromhex(key),
                               timeout=data["timeout"])
        self.snapshot = data["snapshot"]
        try:
            self.vdi = self.cluster.open_vdi(data["vdi"], self.snapshot, lock=False)
        except BaseException:
            self.cluster.close()
            raise
        super().__init__(self.vdi)

    def write(self, data):
        """Zeros are not stored where nothing is: Cinder copies volumes with their holes."""
        position = self.tell()
        if self.writable() and self._is_hole(position, len(data)) and data == bytes(len(data)):
            self.seek(position + len(data))
            return len(data)
        return super().write(data)

    def _is_hole(self, position, length):
        return position + length <= self.vdi.size and not any(
            is_data for _, _, is_data in self.vdi.extents(position, length))

    def fileno(self):
        raise OSError("a VDI has no file descriptor")

    def close(self):
        if not self.closed:
            try:
                super().close()
            finally:
                self.vdi.close()
                self.cluster.close()


class SheepdogConnector(base.BaseLinuxConnector):
    """Connections as :class:`cinder_driver.attach.ClientConnections` describes them."""

    @staticmethod
    def get_connector_properties(root_helper, *args, **kwargs):
        return {PROTOCOL: True}

    def get_volume_paths(self, connection_properties):
        return []

    def get_search_path(self):
        return None

    def get_all_available_volumes(self, connection_properties=None):
        return []

    def connect_volume(self, connection_properties):
        return {"type": PROTOCOL, "path": VolumeFile(connection_properties)}

    def disconnect_volume(self, connection_properties, device_info, force=False,
                          ignore_errors=False):
        if device_info:
            device_info["path"].close()

    def extend_volume(self, connection_properties):
        """The size of the volume; whoever has it open sees it when he opens it again."""
        with VolumeFile(connection_properties) as volume:
            return volume.seek(0, 2)

    def check_valid_device(self, path, run_as_root=True):
        return path is not None


_CLASS = "%s.%s" % (__name__, SheepdogConnector.__name__)
#: Those whose properties a host has.
connector.unix_connector_list.append(_CLASS)
for _mapping in (connector._connector_mapping_linux, connector._connector_mapping_linux_ppc64,
                 connector._connector_mapping_linux_s390x):
    _mapping[PROTOCOL.upper()] = _CLASS
