"""VDIs as the driver makes and changes them: one cluster, and no word of Cinder's in it."""

import contextlib
import logging

from cinder_driver import names, transfer
from cinder_driver.policy import of_vdi
from sheepstack.client import NoSuchTag, NoSuchVdi, VdiExists

LOG = logging.getLogger(__name__)


class Volumes:
    """``cluster``: an open :class:`~sheepstack.client.Cluster`.

    Every method may be repeated when its first attempt did not come to its end.  Methods raise
    SheepError.
    """

    def __init__(self, cluster):
        self.cluster = cluster

    # -- making

    def create(self, name, size, policy=None, block_size_shift=None):
        """Make an empty VDI of ``size`` bytes."""
        self._anew(name, lambda: self.cluster.create_vdi(
            name, size, policy=policy, block_size_shift=block_size_shift))

    def derive(self, source, tag, name, size, policy=None, block_size_shift=None):
        """Make a VDI of at least ``size`` bytes that begins as a snapshot of ``source``.

        It shares the snapshot's objects where it is to be kept as that is, and is a copy where
        not (policy or size of objects None: as that is).
        """
        header = self.cluster.header(source, tag)
        size = max(size, header.vdi_size)
        if policy in (None, of_vdi(header)) and \
                block_size_shift in (None, header.block_size_shift):
            self._anew(name, lambda: self.cluster.clone(source, tag, name))
        else:
            self._copy(source, tag, name, size, policy or of_vdi(header), block_size_shift)
        if header.vdi_size < size:
            self.cluster.resize(name, size)

    def _copy(self, source, tag, name, size, policy, block_size_shift):
        self.create(name, size, policy, block_size_shift)
        with self.cluster.open_vdi(source, tag) as old, \
                self.cluster.open_vdi(name, lock=False) as new:
            transfer.copy(old, new)

    def _anew(self, name, make):
        """``make()`` a VDI; what there is of that name is what an earlier attempt left."""
        try:
            make()
        except VdiExists:
            LOG.warning("VDI %s is left from an attempt that did not come to its end", name)
            self.delete(name)
            make()

    @contextlib.contextmanager
    def held(self, name, key):
        """Hold the present content of a VDI: the tag of a snapshot that goes in the end.

        ``key``: tells this use from others, and is the same when it is repeated.
        """
        with self.held_together([name], key) as tag:
            yield tag

    @contextlib.contextmanager
    def held_together(self, vdis, key):
        """Likewise for several VDIs, at one instant."""
        tag = names.TEMPORARY + key
        for name in vdis:
            self.delete_snapshot(name, tag)
        try:
            if len(vdis) == 1:
                self.cluster.snapshot(vdis[0], tag)
            else:
                self.cluster.snapshot_together([(name, tag) for name in vdis])
            yield tag
        finally:
            for name in vdis:
                self.delete_snapshot(name, tag)

    # -- changing

    def snapshot(self, name, tag):
        """What there is of that tag is what an earlier attempt left."""
        self.delete_snapshot(name, tag)
        self.cluster.snapshot(name, tag)

    def snapshot_together(self, pairs):
        for name, tag in pairs:
            self.delete_snapshot(name, tag)
        try:
            self.cluster.snapshot_together(pairs)
        except BaseException:
            for name, tag in pairs:
                self.delete_snapshot(name, tag)
            raise

    def revert(self, name, tag, size):
        """Make a snapshot's content the present one; the size stays ``size`` at least."""
        self.cluster.rollback(name, tag, former=names.FORMER)
        if self.cluster.header(name).vdi_size < size:
            self.cluster.resize(name, size)

    def convert(self, name, policy, block_size_shift=None):
        """Have a VDI kept in another way; its snapshots stay as they are.

        Nobody may write to it meanwhile.  Until the last step, which takes no time, nothing of
        it is changed.
        """
        header = self.cluster.header(name)
        copy = names.TEMPORARY + name
        with self.held(name, "convert") as tag:
            self._copy(name, tag, copy, header.vdi_size, policy, block_size_shift)
        try:
            self.snapshot(copy, names.TEMPORARY + "whole")
            self.cluster.rollback(name, names.TEMPORARY + "whole", source=copy,
                                  former=names.FORMER)
        finally:
            self.delete_snapshot(copy, names.TEMPORARY + "whole")
            self.delete(copy)

    def rename(self, name, new_name):
        """Give a VDI another name, for its present content; its snapshots stay behind."""
        with self.held(name, "rename") as tag:
            self._anew(new_name, lambda: self.cluster.clone(name, tag, new_name))
            self.delete(name)

    # -- deleting

    def delete(self, name):
        """Delete a VDI, its snapshots excepted; no error where there is none."""
        try:
            self.cluster.delete_vdi(name)
        except NoSuchVdi:
            LOG.info("VDI %s was gone before it was deleted", name)

    def delete_snapshot(self, name, tag):
        """Likewise for a snapshot; what was cloned from it lives on."""
        with contextlib.suppress(NoSuchVdi, NoSuchTag):
            self.cluster.delete_vdi(name, tag)
