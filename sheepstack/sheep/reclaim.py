"""Reclaiming what deleted VDIs leave behind.

A data object is named after the VDI that made it and is in use while the map of some VDI
that is not deleted has that VDI's id at its index.  Maps only ever come to name others by
being copied from a parent, so whoever may use objects of a deleted VDI descends from it.
A deleted VDI keeps its inode, and so its id, until none of its objects is in use: an id is
never given out again while objects carry it.

Objects are removed once every node holds all it should, or else a copy that some node has yet
to give up would bring them back.  One thing is worse than that: nodes whose disks are too full
for what they should hold are waited for, and wait for the space of what was deleted.  Where
nothing but room is lacking the objects of deleted VDIs go before; their inodes stay until the
cluster is complete, and by then whatever came back goes again.
"""

import logging
import threading

from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.vdi_table import UnknownVdi, entry_of
from sheepstack.sheep.workers import in_lanes
from sheepstack.wire import oid as oids
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.2
_PERIOD_SECONDS = 30.0
#: So often all are asked whether they lack anything but room.
_CRAMPED_SECONDS = 1.0
_LANES = 4


class Reclaim:
    """A background thread on every sheep; only the leader's has work."""

    def __init__(self, state, service, gateway):
        self._state = state
        self._service = service
        self._gateway = gateway
        self._wanted = threading.Event()

    def start(self):
        threading.Thread(target=self._run, daemon=True, name="reclaim").start()

    def kick(self):
        """Something may have become reclaimable."""
        self._wanted.set()

    def _run(self):
        while not self._state.stopping.is_set():
            # Now and then without a call, too: a client's own write may have been the last
            # to need an object of a VDI that was deleted before.
            self._wanted.wait(_PERIOD_SECONDS)
            # Deletions come in crowds; one pass serves them all.
            self._state.stopping.wait(
                _GATHER_SECONDS if self._state.view.complete else _CRAMPED_SECONDS)
            if not self._state.may_reclaim():
                continue
            self._wanted.clear()
            try:
                if not self.go_through():
                    self._wanted.set()
            except Failure as failure:
                log.info("reclaiming goes on later: result %s", failure.result)
                self._wanted.set()
            except Exception:
                log.exception("reclaiming failed")

    def go_through(self):
        """Reclaim what there is; False where it is not the time to, and nothing was done.

        Raises Failure where it must go on later.  All at one map, at which every node is
        complete or lacks nothing but room: a removal waits for that, and a node may be waiting
        for us who hold the lock of the service.
        """
        view = self._state.view
        early = not view.complete
        if early and not all(self._state.call_all(
                {"call": "lacks_only_room", "revision": view.revision})):
            return False
        revision = view.revision
        with self._service.at(revision):
            catalogue = self._service.catalogue()
            self._service.leading()
            deleted = {inode.vdi_id: inode for inode in catalogue.deleted()}
            if not deleted:
                return True
            used = self._used(catalogue, set(deleted))
        existing = {vid: set() for vid in deleted}
        for answer in self._state.call_all({"call": "objects", "vids": sorted(deleted)}):
            for oid in answer:
                existing[oids.vid_of(oid)].add(oid)
        for vid, inode in deleted.items():
            garbage = [oid for oid in existing[vid]
                       if not (oids.is_data(oid) and oids.index_of(oid) in used[vid])]
            self._remove_all(inode, garbage, revision, early)
            if not early and not used[vid] and len(garbage) == len(existing[vid]):
                self._free(vid, revision)
        return True

    def _used(self, catalogue, deleted):
        """{vid: indexes of its objects that some VDI uses}, for all ``deleted`` ones."""
        used = {vid: set() for vid in deleted}
        for inode in catalogue.live():
            shared = deleted.intersection(catalogue.ancestors(inode))
            if not shared:
                continue
            for index, vid in self._service.named_in(inode, shared):
                used[vid].add(index)
        return used

    def _remove_all(self, inode, garbage, revision, early):
        try:
            policy = entry_of(inode).policy
        except UnknownVdi:
            policy = self._state.view.map.copies

        def remove(oid):
            if early and policy.has_strips(oid):
                # Their keepers wait for all to be complete.
                return
            result = self._gateway.write_wait(
                PeerOp.REMOVE, oid, 0, b"", 0, policy, revision, early)
            if result not in (Result.SUCCESS, Result.NO_OBJ):
                raise Failure(result)

        in_lanes(remove, garbage, _LANES)

    def _free(self, vid, revision):
        """No object of ``vid`` is left: its children move up, its inode goes."""
        with self._service.at(revision):
            catalogue = self._service.catalogue()
            inode = catalogue.get(vid)
            if inode is None:
                return
            for child in catalogue.children(vid):
                self._service.set_parent(child, inode.parent_vdi_id)
            self._service.remove(inode)
