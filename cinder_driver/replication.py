"""Volumes on a second cluster: what changed between two snapshots is shipped there.

A VDI that is replicated has an attribute that says whether it serves or is a replica; what serves
is never shipped to, except where it is to take over again.  At each shipment a snapshot is
taken of what serves, and then everything between the last snapshot that both clusters have and
this one is made up for at the target, snapshot after snapshot, in their order.  The target's
working VDI counts only as of its latest snapshot: a shipment that did not come to its end is
undone by rolling back to that.
"""

import contextlib
import logging
import time

from cinder import coordination
from cinder import exception

from cinder_driver import names, transfer
from cinder_driver.backend import DEFAULT
from sheepstack.client import (
    ClusterUnreachable, NoSuchAttribute, NoSuchTag, NoSuchVdi, SheepError, VdiExists)

LOG = logging.getLogger(__name__)

_ROLE = "cinder-replication"
_SERVES, _REPLICA = b"serves", b"replica"


class Replication:
    """The clusters that a backend can use: ``main``, and ``targets``, as :class:`Backend`."""

    def __init__(self, main, targets, timeout):
        self.main = main
        self.targets = targets
        self._clusters = {each.name: each.open(timeout) for each in (main, *targets)}

    def close(self):
        for cluster in self._clusters.values():
            cluster.close()

    def find(self, name):
        """The backend of that name; raises InvalidReplicationTarget."""
        for each in (self.main, *self.targets):
            if each.name == name:
                return each
        raise exception.InvalidReplicationTarget(reason="there is no replication target %s" % name)

    def choose(self, active, wanted):
        """To which backend to go from ``active`` when ``wanted`` (or None) is asked for."""
        if wanted is None:
            wanted = next((each.name for each in self.targets if each.name != active), None)
        if wanted == (active or DEFAULT):
            raise exception.InvalidReplicationTarget(reason="%s serves already" % wanted)
        return self.find(wanted)

    def cluster(self, backend):
        return self._clusters[backend.name]

    # -- which volumes

    def begin(self, source, vdi):
        """Have a VDI replicated from now on."""
        self.cluster(source).setattr(vdi, _ROLE, _SERVES)

    def forget(self, source, vdi):
        """Remove what there is of a VDI that was deleted, as far as targets can be reached."""
        for backend in (self.main, *self.targets):
            try:
                _remove(self.cluster(backend), vdi, own_only=backend == source)
            except SheepError as error:
                LOG.warning("The replica of %s is left at %s: %s", vdi, backend.name, error)

    # -- shipping

    def ship(self, source):
        """Bring all targets up to date; what fails is logged and tried again next time."""
        cluster = self.cluster(source)
        vdis = {header.name for header in cluster.list_vdis() if not header.is_snapshot}
        for vdi in sorted(vdis):
            if _role(cluster, vdi) == _SERVES:
                for target in self.targets:
                    try:
                        with _locked(vdi):
                            try:
                                self._ship_one(source, target, vdi)
                            finally:
                                self._forget_deleted(source, vdi)
                    except NoSuchVdi:
                        LOG.debug("%s was deleted meanwhile", vdi)
                    except (SheepError, ValueError) as error:
                        LOG.error("%s is not replicated to %s: %s", vdi, target.name, error)

    def _forget_deleted(self, source, vdi):
        """Who deletes a VDI does not wait for its shipment, which may have made it anew."""
        try:
            self.cluster(source).lookup(vdi)
        except NoSuchVdi:
            self.forget(source, vdi)

    def _ship_one(self, source, target, vdi, hand_over=False):
        ours, theirs = self.cluster(source), self.cluster(target)
        if _role(theirs, vdi) == _SERVES and not hand_over:
            LOG.info("%s serves at %s by now", vdi, target.name)
            return
        ours.snapshot(vdi, "%s%d" % (names.REPLICA, time.time_ns()))
        snapshots = _snapshots(ours, vdi)
        there = {header.tag for header in _snapshots(theirs, vdi)}
        known = [header for header in snapshots if header.tag in there]
        last = known[-1] if known else None
        _prepare(theirs, vdi, snapshots[-1], last)
        for header in snapshots:
            if last is None or header.snap_id > last.snap_id:
                _make_up_for(ours, theirs, vdi, last, header)
                last = header
        _drop_others(ours, theirs, vdi, {header.tag for header in snapshots}, last.tag)

    # -- changing over

    def hand_over(self, source, target, vdi):
        """Have a VDI serve at ``target``, as new as can be.  Raises SheepError.

        Where ``source`` still answers, nothing is lost; else what came after the last shipment.
        """
        cluster = self.cluster(target)
        with _locked(vdi):
            try:
                self._ship_one(source, target, vdi, hand_over=True)
                self.cluster(source).setattr(vdi, _ROLE, _REPLICA)
            except ClusterUnreachable:
                if target == self.main:
                    raise
            replicas = [header for header in _snapshots(cluster, vdi)
                        if header.tag.startswith(names.REPLICA)]
            if not replicas:
                raise NoSuchTag("%s was never shipped to %s" % (vdi, target.name))
            _roll_back(cluster, vdi, replicas[-1].tag)
            cluster.setattr(vdi, _ROLE, _SERVES)


def _locked(vdi):
    """One shipment of a VDI at a time, by whichever host."""
    return coordination.COORDINATOR.get_lock("sheepdog-replication-" + vdi)


def _role(cluster, vdi):
    try:
        return cluster.getattr(vdi, _ROLE)
    except (NoSuchAttribute, NoSuchVdi):
        return None


def _prepare(cluster, vdi, header, last):
    """Have a VDI at the target that is equal to the snapshot ``last``, or empty."""
    with contextlib.suppress(VdiExists):
        cluster.create_vdi(vdi, header.vdi_size, block_size_shift=header.block_size_shift)
    cluster.setattr(vdi, _ROLE, _REPLICA)
    _drop_former(cluster, vdi)
    if last is not None:
        _roll_back(cluster, vdi, last.tag)


def _snapshots(cluster, vdi):
    """Headers of a VDI's snapshots that are replicated, the oldest first."""
    found = [header for header in cluster.list_vdis()
             if header.name == vdi and header.is_snapshot and header.tag
             and not header.tag.startswith((names.TEMPORARY, names.BACKUP))]
    return sorted(found, key=lambda header: header.snap_id)


def _roll_back(cluster, vdi, tag):
    with cluster.open_vdi(vdi, read_only=True) as present, cluster.open_vdi(vdi, tag) as wanted:
        same = present.size == wanted.size and not present.differences(wanted)
    if not same:
        cluster.rollback(vdi, tag, former=names.FORMER)


def _make_up_for(ours, theirs, vdi, last, header):
    """Make the target's VDI, equal to the snapshot ``last``, equal to ``header``'s, and take a
    snapshot of it."""
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(ours.open_vdi(vdi, header.tag))
        ranges = None
        if last is not None:
            old = stack.enter_context(ours.open_vdi(vdi, last.tag))
            ranges = new.differences(old)
        target = stack.enter_context(theirs.open_vdi(vdi, lock=False))
        if target.size != new.size:
            target.resize(new.size)
        transfer.copy(new, target, ranges)
        target.snapshot(header.tag)


def _drop_others(ours, theirs, vdi, tags, latest):
    """Delete what the source has no more, and snapshots of former shipments."""
    for cluster in (ours, theirs):
        for header in _snapshots(cluster, vdi):
            if header.tag not in tags or (
                    header.tag.startswith(names.REPLICA) and header.tag != latest):
                with contextlib.suppress(NoSuchVdi, NoSuchTag):
                    cluster.delete_vdi(vdi, header.tag)


def _remove(cluster, vdi, own_only):
    """Delete a VDI with its snapshots, or only the snapshots of shipments."""
    for header in _snapshots(cluster, vdi):
        if not own_only or header.tag.startswith(names.REPLICA):
            with contextlib.suppress(NoSuchVdi, NoSuchTag):
                cluster.delete_vdi(vdi, header.tag)
    if not own_only:
        _drop_former(cluster, vdi)
        with contextlib.suppress(NoSuchVdi):
            cluster.delete_vdi(vdi)


def _drop_former(cluster, vdi):
    """Delete what somebody left of a replica who was killed while he rolled it back."""
    with contextlib.suppress(NoSuchVdi, NoSuchTag):
        while True:
            cluster.delete_vdi(vdi, names.FORMER)
