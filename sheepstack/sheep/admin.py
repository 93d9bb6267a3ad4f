"""Administration requests, as ``dog`` sends them: see :mod:`sheepstack.wire.admin`."""

import logging
import os
import struct
import time

from sheepstack.placement.ring import DEFAULT_VNODES
from sheepstack.placement.succession import AUTO_VNODES
from sheepstack.placement.weight import MAX_VNODES
from sheepstack.redundancy import policy as policies
from sheepstack.redundancy.erasure import UnsupportedPolicy, check_supported
from sheepstack.sheep.strip_keeper import digest_of
from sheepstack.sheep.vdi_requests import lock_name
from sheepstack.sheep.vdi_service import Failure
from sheepstack.store.errors import NoObject, StoreError
from sheepstack.wire import admin
from sheepstack.wire.admin import (
    ClusterInfo, ClusterStatus, DiskInfo, EpochLog, LockState, NodeId, NodeRecord,
    RecoveryPhase, RecoveryState, RecoveryThrottling, VdiState)
from sheepstack.wire.errors import WireError
from sheepstack.wire.header import (
    ClusterRequest, HashResponse, Header, NodeResponse, ObjRequest, Response)
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.opcodes import ClusterFlag, Op
from sheepstack.wire.results import Result
from sheepstack.wire.text import unpad

log = logging.getLogger(__name__)

STORE_NAME = "plain"
#: How long a count of what objects occupy serves.
_USAGE_SECONDS = 5.0
_STORE_NAMES = ("plain", "tree")

#: Requests that a sheep answers in whatever state the cluster is.
ALWAYS = frozenset((
    Op.MAKE_FS, Op.SHUTDOWN, Op.FORCE_RECOVER, Op.CLEANUP, Op.NOTIFY_VDI_DEL, Op.GET_STORE_LIST,
    Op.GET_NODE_LIST, Op.STAT_CLUSTER, Op.KILL_NODE, Op.GET_LOGLEVEL, Op.SET_LOGLEVEL,
    Op.EXIST, Op.OIDS_EXIST, Op.CLUSTER_INFO, Op.GET_CLUSTER_DEFAULT, Op.GET_RECOVERY,
    Op.SET_RECOVERY, Op.CLUSTER_MAP, Op.GET_VDI_COPIES, Op.READ_VDIS, Op.READ_DEL_VDIS))

#: Syslog's priorities, in their order, as Python's levels.
_LEVELS = (logging.CRITICAL, logging.CRITICAL, logging.CRITICAL, logging.ERROR,
           logging.WARNING, logging.INFO, logging.INFO, logging.DEBUG)


class Admin:
    """``handle`` answers one request; it may wait and so runs in a worker."""

    def __init__(self, state, store, membership, recovery, keeper, service, stats, options):
        self._state = state
        self._store = store
        self._membership = membership
        self._recovery = recovery
        self._keeper = keeper
        self._service = service
        self._stats = stats
        self._options = options
        self.on_killed = None
        self._used = None

    def handle(self, header, payload) -> tuple:
        """(response header, response payload)."""
        common = Header.unpack(header)
        try:
            method = getattr(self, "_on_" + Op(common.opcode).name.lower(), None)
            if method is None:
                return self._plain(common, Result.NO_SUPPORT)
            return method(common, header, payload)
        except (Failure, WireError, ValueError) as error:
            return self._plain(common, getattr(error, "result", Result.INVALID_PARMS))
        except Exception:
            log.exception("opcode 0x%x", common.opcode)
            return self._plain(common, Result.SYSTEM_ERROR)

    # -- answers ---------------------------------------------------------------------------

    def _plain(self, common, result, data=b""):
        if len(data) > common.data_length:
            return self._plain(common, Result.BUFFER_SMALL)
        return Response(result, opcode=common.opcode, epoch=self._state.view.epoch,
                        id=common.id, data_length=len(data)).pack(), data

    def _node(self, common, data=b"", **fields):
        if len(data) > common.data_length:
            return self._plain(common, Result.BUFFER_SMALL)
        return NodeResponse(Result.SUCCESS, opcode=common.opcode, epoch=self._state.view.epoch,
                            id=common.id, data_length=len(data), **fields).pack(), data

    # -- the cluster -----------------------------------------------------------------------

    def _records(self):
        cluster = self._state.view.map
        if cluster is None or self._state.view.index < 0:
            nodes = self._membership.members()
            if cluster is not None:
                known = {node.key: node for node in cluster.nodes}
                nodes = [known.get(node.key, node) for node in nodes]
        else:
            nodes = cluster.nodes
        return sorted((record_of(node) for node in nodes), key=lambda record: record.nid.sort_key)

    def _on_get_node_list(self, common, header, payload):
        records = self._records()
        return self._node(common, admin.pack_nodes(records), nr_nodes=len(records))

    def _on_make_fs(self, common, header, payload):
        request = ClusterRequest.unpack(header)
        name = unpad(payload)
        if name and name not in _STORE_NAMES:
            return self._plain(common, Result.NO_STORE)
        copies = policies.from_wire(request.copies or 3, request.copy_policy)
        try:
            check_supported(copies)
        except UnsupportedPolicy:
            return self._plain(common, Result.NO_SUPPORT)
        result = self._membership.format(
            request.ctime, copies=copies, block_size_shift=request.block_size_shift or 22,
            flags=request.cluster_flags)
        if result == Result.SUCCESS:
            self._state.wait_open()
        return self._plain(common, result)

    def _on_shutdown(self, common, header, payload):
        return self._plain(common, self._membership.shut_down())

    def shutdown_answered(self):
        """The answer to SHUTDOWN is on its way: nothing keeps this sheep any longer."""
        self._membership.told.set()

    def _on_force_recover(self, common, header, payload):
        result = self._membership.force()
        if result != Result.SUCCESS:
            return self._plain(common, result)
        self._state.wait_serving()
        return self._plain(common, result, admin.pack_nodes(self._records()))

    def _status(self):
        view = self._state.view
        if self._state.stopping.is_set():
            return Result.SHUTDOWN
        if view.map is None:
            return Result.WAIT_FOR_FORMAT
        if view.index < 0:
            return Result.WAIT_FOR_JOIN
        return Result.SUCCESS

    def _on_stat_cluster(self, common, header, payload):
        room = ClusterRequest.unpack(header).nodes_nr
        status = self._status()
        cluster = self._state.view.map
        if cluster is None:
            return self._plain(common, status)
        maps = [cluster] + self._state.maps_after(0)
        entries, size = [], EpochLog.size(room)
        for position, past in enumerate(maps[:common.data_length // size]):
            if room and len(past.nodes) > room:
                return self._plain(common, Result.BUFFER_SMALL)
            entry = EpochLog(past.epoch, past.changed, tuple(sorted(
                (record_of(node) for node in past.nodes), key=lambda r: r.nid.sort_key)))
            if position == 0:
                entry = entry._replace(
                    ctime=past.ctime, disable_recovery=not past.recovery_enabled,
                    nr_copies=past.copies.nr_copies, copy_policy=past.copies.copy_policy,
                    flags=past.flags, store=STORE_NAME)
            entries.append(entry.pack(room))
        return self._plain(common, status, b"".join(entries))

    def _on_cluster_info(self, common, header, payload):
        cluster = self._state.view.map
        records = tuple(self._records())
        if cluster is None:
            automatic = self._options.vnodes in (0, AUTO_VNODES)
            info = ClusterInfo(flags=ClusterFlag.AUTO_VNODES if automatic else 0, nodes=records)
        else:
            info = ClusterInfo(
                cluster.epoch, cluster.ctime, cluster.flags, cluster.copies.nr_copies,
                cluster.copies.copy_policy,
                ClusterStatus.OK if self._status() == Result.SUCCESS else ClusterStatus.WAIT,
                cluster.block_size_shift, STORE_NAME, records, not cluster.recovery_enabled)
        return self._plain(common, Result.SUCCESS, info.pack())

    def _on_cluster_map(self, common, header, payload):
        cluster = self._state.view.map
        if cluster is None:
            return self._plain(common, self._status())
        return self._plain(common, self._status(), cluster.to_bytes())

    def _on_enable_recover(self, common, header, payload):
        return self._plain(common, self._membership.set_recovery(True))

    def _on_disable_recover(self, common, header, payload):
        return self._plain(common, self._membership.set_recovery(False))

    def _on_alter_cluster_copy(self, common, header, payload):
        request = ClusterRequest.unpack(header)
        if request.copy_policy:
            return self._plain(common, Result.INVALID_PARMS)
        return self._plain(common, self._membership.set_copies(
            policies.from_wire(request.copies, 0)))

    def _on_get_store_list(self, common, header, payload):
        text = " ".join(_STORE_NAMES) + " "
        return self._plain(common, Result.SUCCESS, text.encode()[:common.data_length])

    def _on_cleanup(self, common, header, payload):
        return self._plain(common, Result.NODE_IN_RECOVERY if self._recovery.running
                           else Result.SUCCESS)

    def _on_flush_nodes(self, common, header, payload):
        return self._plain(common, Result.SUCCESS)

    def _on_flush_del_cache(self, common, header, payload):
        return self._plain(common, Result.SUCCESS)

    def _on_notify_vdi_del(self, common, header, payload):
        return self._plain(common, Result.SUCCESS)

    # -- this node -------------------------------------------------------------------------

    def _on_stat_sheep(self, common, header, payload):
        if self._is_gateway():
            return self._node(common, store_size=0, store_free=0)
        used, free = self._usage()
        return self._node(common, store_size=used + free, store_free=free)

    def _usage(self):
        """Bytes that objects occupy on this node's disk, and bytes that are free.

        What else lies on the disk counts for neither.
        """
        now = time.monotonic()
        if self._used is None or now - self._used[0] > _USAGE_SECONDS:
            self._used = now, occupied(os.path.join(self._options.store_dir, "obj"))
        return self._used[1], self._store.space()[1]

    def _is_gateway(self):
        return self._options.vnodes == 0

    def _on_stat_recovery(self, common, header, payload):
        recovery = self._recovery
        state = RecoveryState()
        view = self._state.view
        if view.index >= 0 and view.map.recovery_enabled and not recovery.is_complete:
            phase = RecoveryPhase.RECOVER_OBJ if recovery.total else RecoveryPhase.PREPARE_LIST
            state = RecoveryState(True, phase, min(recovery.finished, recovery.total),
                                  recovery.total)
        return self._plain(common, Result.SUCCESS, state.pack())

    def _on_get_recovery(self, common, header, payload):
        throttle = self._recovery.throttle
        return self._plain(common, Result.SUCCESS, RecoveryThrottling(
            throttle.lanes, round(throttle.interval * 1000), bool(throttle.interval)).pack())

    def _on_set_recovery(self, common, header, payload):
        wanted = RecoveryThrottling.unpack(payload)
        self._recovery.throttle.lanes = wanted.max_exec_count
        self._recovery.throttle.interval = wanted.queue_work_interval / 1000
        return self._plain(common, Result.SUCCESS)

    def _on_kill_node(self, common, header, payload):
        self.on_killed()
        return self._plain(common, Result.SUCCESS)

    def _on_stat(self, common, header, payload):
        return self._plain(common, Result.SUCCESS, self._stats.pack())

    def _on_md_info(self, common, header, payload):
        if self._is_gateway():
            return self._plain(common, Result.UNKNOWN)
        used, free = self._usage()
        disk = DiskInfo(os.path.join(self._options.store_dir, "obj"), free, used)
        return self._plain(common, Result.SUCCESS, admin.pack_disks([disk]))

    def _on_reweight(self, common, header, payload):
        return self._plain(common, self._membership.reweight())

    def _on_set_vnodes(self, common, header, payload):
        if len(payload) != 4:
            return self._plain(common, Result.INVALID_PARMS)
        (vnodes,) = struct.unpack("<i", payload)
        if not 1 <= vnodes <= MAX_VNODES:
            return self._plain(common, Result.INVALID_PARMS)
        return self._plain(common, self._membership.set_vnodes(vnodes))

    def _on_get_vnodes(self, common, header, payload):
        if self._is_gateway():
            return self._plain(common, Result.GATEWAY_MODE)
        view = self._state.view
        vnodes = view.map.nodes[view.index].vnodes if view.index >= 0 else self._options.vnodes
        return self._plain(common, Result.SUCCESS, struct.pack("<i", vnodes))

    def _on_get_loglevel(self, common, header, payload):
        present = logging.getLogger("sheepstack").getEffectiveLevel()
        level = max(index for index, value in enumerate(_LEVELS) if value >= present)
        return self._plain(common, Result.SUCCESS, struct.pack("<i", level))

    def _on_set_loglevel(self, common, header, payload):
        if len(payload) != 4:
            return self._plain(common, Result.INVALID_PARMS)
        (level,) = struct.unpack("<i", payload)
        if not 0 <= level < len(_LEVELS):
            return self._plain(common, Result.INVALID_PARMS)
        logging.getLogger("sheepstack").setLevel(_LEVELS[level])
        return self._plain(common, Result.SUCCESS)

    # -- objects on this node --------------------------------------------------------------

    def _on_exist(self, common, header, payload):
        found = self._keeper.has_part(ObjRequest.unpack(header).oid)
        return self._plain(common, Result.SUCCESS if found else Result.NO_OBJ)

    def _on_oids_exist(self, common, header, payload):
        if len(payload) % 8:
            return self._plain(common, Result.INVALID_PARMS)
        wanted = [oid for (oid,) in struct.iter_unpack("<Q", payload)]
        missing = [oid for oid in wanted if not self._keeper.has_part(oid)]
        return self._plain(common, Result.NO_OBJ if missing else Result.SUCCESS,
                           struct.pack("<%dQ" % len(missing), *missing))

    def _on_get_obj_list(self, common, header, payload):
        present = list(self._store.oids())
        return self._plain(common, Result.SUCCESS, struct.pack("<%dQ" % len(present), *present))

    def _on_read_peer(self, common, header, payload):
        request = ObjRequest.unpack(header)
        try:
            data = self._store.read(request.oid, request.offset, request.data_length)
        except NoObject:
            return self._plain(common, Result.NO_OBJ)
        except StoreError as error:
            log.error("%016x: %s", request.oid, error)
            return self._plain(common, Result.EIO)
        return self._plain(common, Result.SUCCESS, bytes(data))

    def _on_get_hash(self, common, header, payload):
        oid = ObjRequest.unpack(header).oid
        try:
            digest = digest_of(self._store, oid)
        except NoObject:
            return self._plain(common, Result.NO_OBJ)
        except StoreError as error:
            log.error("%016x: %s", oid, error)
            return self._plain(common, Result.EIO)
        return HashResponse(Result.SUCCESS, opcode=common.opcode, epoch=self._state.view.epoch,
                            id=common.id, digest=digest).pack(), b""

    def _on_repair_replica(self, common, header, payload):
        oid = ObjRequest.unpack(header).oid
        if self._keeper.has_strips(oid):
            mended = self._keeper.check_from_here(oid)
            if mended is None or mended < 0:
                return self._plain(common, Result.EIO if mended else Result.AGAIN)
            return self._plain(common, Result.SUCCESS, struct.pack("<I", mended))
        if not self._store.exists(oid):
            done = self._recovery.refetch(oid) and self._store.exists(oid)
        else:
            done = self._recovery.repair(oid, self._state.view.revision)
        return self._plain(common, Result.SUCCESS if done else Result.EIO)

    # -- VDIs ------------------------------------------------------------------------------

    def _on_get_vdi_copies(self, common, header, payload):
        if self._status() != Result.SUCCESS:
            return self._plain(common, Result.SUCCESS)
        states = [self._vdi_state(inode) for inode in self._all_inodes()]
        states.sort(key=lambda state: state.lock_state == LockState.UNLOCKED)
        room = common.data_length // admin.VDI_STATE_SIZE
        return self._plain(common, Result.SUCCESS,
                           b"".join(state.pack() for state in states[:room]))

    def _all_inodes(self):
        view = self._state.view
        if view.leader == view.index:
            return self._service.inodes()
        answer = self._state.call_node(view.leader, {"call": "all_inodes"})
        if answer is None:
            raise Failure(Result.AGAIN)
        return [InodeHeader(*fields) for fields in answer]

    def _vdi_state(self, inode):
        holders = self._membership.lock_service().holders(lock_name(inode.vdi_id))
        state = VdiState(
            inode.vdi_id, inode.nr_copies, inode.is_snapshot, inode.is_deleted,
            inode.copy_policy, inode.block_size_shift, inode.parent_vdi_id)
        if not holders:
            return state
        owners = [_node_id(owner.decode()) for _, owner, _ in holders]
        if holders[0][2]:
            return state._replace(
                lock_state=LockState.SHARED,
                participants=tuple((admin.SharedLockState.SHARED, owner) for owner in owners))
        return state._replace(lock_state=LockState.LOCKED, lock_owner=owners[0])


def record_of(node) -> NodeRecord:
    """A node of the map as listings carry it."""
    return NodeRecord(
        NodeId(node.host, node.port, node.io_host, node.io_port if node.io_host else 0),
        DEFAULT_VNODES if node.vnodes == AUTO_VNODES else node.vnodes,
        node.zone & 0xFFFFFFFF, node.space)


def occupied(directory) -> int:
    """Bytes of disk that the files in ``directory`` take."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                total += entry.stat().st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def _node_id(name):
    host, _, port = name.rpartition(":")
    return NodeId(host.strip("[]"), int(port))
