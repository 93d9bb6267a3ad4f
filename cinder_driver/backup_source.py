"""What is backed up: the content of a volume at one instant."""

import contextlib

from cinder_driver import names, transfer
from sheepstack.client import NoSuchTag, NoSuchVdi


def source_of(volume_file, tag):
    """The source behind what Cinder hands to a backup driver.

    ``tag``: for a snapshot of a volume that lies in sheep.
    """
    if getattr(volume_file, "vdi", None) is None:
        return AnyFile(volume_file)
    return SheepVolume(volume_file.cluster, volume_file.vdi.name, volume_file.snapshot, tag)


class AnyFile:
    """A volume of another driver, to be read from its beginning to its end."""

    block_size_shift = None

    def __init__(self, file):
        self._file = file
        file.seek(0, 2)
        self.size = file.tell()
        file.seek(0)

    def copy_to(self, vdi, base):
        """Make an open VDI equal to it; how many bytes were written."""
        with transfer.Writer(vdi, compare=True) as writer:
            for position in range(0, self.size, vdi.block_size):
                writer.put(position, self._file.read(min(vdi.block_size, self.size - position)))
        return writer.written

    def describe(self):
        return {}

    def forget(self):
        """Nothing is kept of it."""

    def keep_only(self):
        """Likewise."""


class SheepVolume:
    """A volume in sheep: a snapshot of it is taken with ``tag`` unless it is one already."""

    def __init__(self, cluster, vdi, snapshot, tag):
        self._cluster = cluster
        self._vdi = vdi
        self._own = snapshot is None
        self._tag = tag if self._own else snapshot
        self.forget()
        if self._own:
            cluster.snapshot(vdi, tag)
        header = cluster.header(vdi, self._tag)
        self.size = header.vdi_size
        self.block_size_shift = header.block_size_shift

    def copy_to(self, vdi, base):
        """Make an open VDI equal to it; how many bytes were written.

        ``base``: what :meth:`describe` said of the source that the VDI is equal to, or None.
        """
        with contextlib.ExitStack() as stack:
            new = stack.enter_context(self._cluster.open_vdi(self._vdi, self._tag))
            ranges = None
            if base and base.get("cluster") == self._cluster.uuid():
                with contextlib.suppress(NoSuchVdi, NoSuchTag):
                    old = stack.enter_context(
                        self._cluster.open_vdi(base["vdi"], base["snapshot"]))
                    if old.block_size == new.block_size:
                        ranges = new.differences(old)
            return transfer.copy(new, vdi, ranges, compare=ranges is None)

    def describe(self):
        """Values for JSON that tell, at the next backup, what this one was of."""
        return {"cluster": self._cluster.uuid(), "vdi": self._vdi, "snapshot": self._tag}

    def forget(self):
        """Delete the snapshot, where it is ours."""
        if self._own:
            with contextlib.suppress(NoSuchVdi, NoSuchTag):
                self._cluster.delete_vdi(self._vdi, self._tag)

    def keep_only(self):
        """Delete the snapshots of former backups: the next one is compared with this one."""
        for header in self._cluster.list_vdis():
            if header.name == self._vdi and header.is_snapshot and header.tag != self._tag and \
                    header.tag.startswith(names.BACKUP):
                with contextlib.suppress(NoSuchVdi, NoSuchTag):
                    self._cluster.delete_vdi(self._vdi, header.tag)
