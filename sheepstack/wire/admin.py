"""Payloads and request headers of the administration opcodes, as a C ``dog`` speaks them.

Sizes are those of a Sheepdog built without ``HAVE_DISKVNODES`` and ``HAVE_ACCELIO``.  Gaps
in the tables are padding: zero when packed, ignored when unpacked.

Node id (``NODE_ID_SIZE`` = 40)::

    offset size field
    0      16   addr      IPv6, or twelve zeros and IPv4
    16     2    port
    18     16   io_addr   likewise; all zero where there is no separate I/O network
    34     2    io_port

Node (``NODE_SIZE`` = 80)::

    0      24   link of the C project's tree in memory; zero
    24     40   node id
    64     2    nr_vnodes
    68     4    zone
    72     8    space, bytes

Epoch log entry (``EPOCH_LOG_SIZE`` = 48, and 80 for each node that the request left room for)::

    0      8    ctime             of the cluster; seconds << 32 | nanoseconds
    8      8    time              of the epoch; seconds since 1970
    16     4    epoch
    20     4    nr_nodes
    24     1    disable_recovery
    25     1    nr_copies
    26     1    copy_policy
    30     2    flags
    32     16   store             name of the store driver
    48     80*n nodes

Cluster info (``CLUSTER_INFO_SIZE`` = 48, and 80 for each of at most 6,144 nodes)::

    0      1    proto_ver         of the internal protocol
    1      1    disable_recovery
    2      2    nr_nodes          signed
    4      4    epoch
    8      8    ctime             0: not formatted
    16     2    flags
    18     1    nr_copies
    19     1    copy_policy
    20     1    status
    21     1    block_size_shift
    25     16   store
    48     80*n nodes

VDI state (``VDI_STATE_SIZE`` = 1,428)::

    0      4    vid
    4      1    nr_copies
    5      1    snapshot
    6      1    deleted
    7      1    copy_policy
    8      1    block_size_shift
    12     4    parent_vid
    16     4    lock_state
    20     40   lock_owner        node id
    60     4    nr_participants
    64     124  states of 31 participants, 4 bytes each
    188    1240 node ids of 31 participants

Recovery state (24): in_recovery u8 at 0, phase u32 at 4, nr_finished u64 at 8, nr_total u64
at 16.  Recovery throttling (24): max_exec_count u32 at 0, queue_work_interval u64
(milliseconds) at 8, throttling u8 at 16.

Statistics (120): fifteen u64, in the order of :class:`SheepStat`.

Disks (``DISKS_SIZE`` = 263,688): 64 records of 4,120 bytes, then the number of them in use,
i32 at 263,680.  A record: index i32 at 0, free u64 at 8, used u64 at 16, path (4,096 bytes)
at 24.
"""

import enum
import ipaddress
from struct import Struct, error as StructError
from typing import NamedTuple

from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError
from sheepstack.wire.opcodes import SHEEP_PROTO_VER
from sheepstack.wire.text import pad, unpad

STORE_NAME_LEN = 16
PATH_LEN = 4096
MAX_NODES = 6144
MAX_PARTICIPANTS = 31
MAX_DISKS = 64

_NODE_ID = Struct("<16sH16sH4x")
_NODE = Struct("<24x40sH2xIQ")
_EPOCH_LOG = Struct("<QQIIBBB3xH16s")
_CLUSTER_INFO = Struct("<BBhIQHBBBB3x16s7x")
_RECOVERY_STATE = Struct("<B3xIQQ")
_THROTTLING = Struct("<I4xQB7x")
_STAT = Struct("<15Q")
_VDI_STATE = Struct("<IBBBBB3xII40sI124s1240s")
_PARTICIPANT_STATES = Struct("<31I")
_DISK = Struct("<i4xQQ4096s")
_DISK_COUNT = Struct("<i4x")

NODE_ID_SIZE = _NODE_ID.size
NODE_SIZE = _NODE.size
EPOCH_LOG_SIZE = _EPOCH_LOG.size
CLUSTER_INFO_SIZE = _CLUSTER_INFO.size
#: What a C ``dog`` makes room for; a shorter answer is as good.
MAX_CLUSTER_INFO_SIZE = CLUSTER_INFO_SIZE + MAX_NODES * NODE_SIZE
RECOVERY_STATE_SIZE = _RECOVERY_STATE.size
THROTTLING_SIZE = _THROTTLING.size
STAT_SIZE = _STAT.size
VDI_STATE_SIZE = _VDI_STATE.size
DISK_SIZE = _DISK.size
DISKS_SIZE = MAX_DISKS * DISK_SIZE + _DISK_COUNT.size

#: Bytes of the answers to READ_VDIS and READ_DEL_VDIS: bit ``vid % 8`` of byte ``vid // 8``.
VDI_BITMAP_SIZE = (1 << 24) // 8


def _pack(struct, *values):
    try:
        return struct.pack(*values)
    except StructError as error:
        raise LocalProtocolError("cannot encode %r: %s" % (values, error)) from None


def _unpack(struct, what, buffer, offset=0):
    if offset < 0 or len(buffer) - offset < struct.size:
        raise RemoteProtocolError(
            "%s has %d bytes, got %d" % (what, struct.size, len(buffer) - offset))
    return struct.unpack_from(buffer, offset)


def pack_address(address: str) -> bytes:
    """Sixteen bytes of an IPv4 or IPv6 address; of an empty string, zeros.

    Raises :class:`LocalProtocolError` for what is no numeric address.
    """
    if not address:
        return bytes(16)
    try:
        return ipaddress.ip_address(address.partition("%")[0]).packed.rjust(16, b"\0")
    except ValueError:
        raise LocalProtocolError("'%s' is not an IP address" % address) from None


def unpack_address(raw) -> str:
    """The address in sixteen bytes; empty for zeros."""
    raw = bytes(raw)
    if not any(raw):
        return ""
    if raw[12] and not any(raw[:12]):
        return str(ipaddress.IPv4Address(raw[12:]))
    return str(ipaddress.IPv6Address(raw))


class NodeId(NamedTuple):
    """Where a sheep listens.  ``io_addr`` is empty where it has no separate I/O network."""

    addr: str
    port: int
    io_addr: str = ""
    io_port: int = 0

    def pack(self) -> bytes:
        return _pack(_NODE_ID, pack_address(self.addr), self.port,
                     pack_address(self.io_addr), self.io_port)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "NodeId":
        addr, port, io_addr, io_port = _unpack(_NODE_ID, "a node id", buffer, offset)
        return cls(unpack_address(addr), port, unpack_address(io_addr), io_port)

    @property
    def sort_key(self):
        """Orders nodes as Sheepdog numbers them: by the bytes of the address, then the port."""
        return pack_address(self.addr), self.port

    def __str__(self):
        return "%s:%d" % (self.addr, self.port)


class NodeRecord(NamedTuple):
    """A member of the cluster as listings carry it.

    ``zone`` is 32 bits: an IPv4 address read little-endian where nobody chose one.  A
    gateway has 0 v-nodes.
    """

    nid: NodeId
    nr_vnodes: int = 0
    zone: int = 0
    space: int = 0

    def pack(self) -> bytes:
        return _pack(_NODE, self.nid.pack(), self.nr_vnodes, self.zone, self.space)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "NodeRecord":
        nid, nr_vnodes, zone, space = _unpack(_NODE, "a node", buffer, offset)
        return cls(NodeId.unpack(nid), nr_vnodes, zone, space)


def pack_nodes(nodes) -> bytes:
    """Payload of GET_NODE_LIST and FORCE_RECOVER: node records end to end."""
    return b"".join([node.pack() for node in nodes])


def unpack_nodes(buffer, offset=0, count=None) -> list:
    """``count`` node records from ``offset``; without it, as many as the buffer holds."""
    if count is None:
        count, rest = divmod(len(buffer) - offset, NODE_SIZE)
        if rest:
            raise RemoteProtocolError("a list of nodes ends within a node")
    return [NodeRecord.unpack(buffer, offset + i * NODE_SIZE) for i in range(count)]


class EpochLog(NamedTuple):
    """What the cluster was at one epoch.

    In the answer to STAT_CLUSTER only the first entry (the latest epoch) carries ``ctime``,
    ``disable_recovery``, ``nr_copies``, ``copy_policy``, ``flags`` and ``store``.
    """

    epoch: int
    time: int = 0
    nodes: tuple = ()
    ctime: int = 0
    disable_recovery: bool = False
    nr_copies: int = 0
    copy_policy: int = 0
    flags: int = 0
    store: str = ""

    @staticmethod
    def size(nodes_nr: int) -> int:
        """Bytes of an entry with room for ``nodes_nr`` nodes."""
        return EPOCH_LOG_SIZE + nodes_nr * NODE_SIZE

    def pack(self, nodes_nr: int) -> bytes:
        """The entry with room for ``nodes_nr`` nodes (``ClusterRequest.nodes_nr``).

        Raises :class:`LocalProtocolError` where there are more nodes: STAT_CLUSTER then
        answers BUFFER_SMALL, except that for 0 the nodes are left out.
        """
        nodes = self.nodes if nodes_nr else ()
        if len(nodes) > nodes_nr:
            raise LocalProtocolError("%d nodes where %d fit" % (len(nodes), nodes_nr))
        head = _pack(_EPOCH_LOG, self.ctime, self.time, self.epoch, len(nodes),
                     self.disable_recovery, self.nr_copies, self.copy_policy, self.flags,
                     pad(self.store, STORE_NAME_LEN))
        return (head + pack_nodes(nodes)).ljust(self.size(nodes_nr), b"\0")

    @classmethod
    def unpack(cls, buffer, nodes_nr: int, offset=0) -> "EpochLog":
        (ctime, time, epoch, nr_nodes, disabled, copies, policy, flags, store) = _unpack(
            _EPOCH_LOG, "an epoch log entry", buffer, offset)
        if nr_nodes > nodes_nr:
            raise RemoteProtocolError("%d nodes where %d fit" % (nr_nodes, nodes_nr))
        nodes = unpack_nodes(buffer, offset + EPOCH_LOG_SIZE, nr_nodes)
        return cls(epoch, time, tuple(nodes), ctime, bool(disabled), copies, policy, flags,
                   unpad(store))


def unpack_epoch_logs(buffer, nodes_nr: int) -> list:
    """All entries in the answer to a STAT_CLUSTER that left room for ``nodes_nr`` nodes."""
    size = EpochLog.size(nodes_nr)
    if len(buffer) % size:
        raise RemoteProtocolError("an epoch log ends within an entry")
    return [EpochLog.unpack(buffer, nodes_nr, at) for at in range(0, len(buffer), size)]


class ClusterStatus(enum.IntEnum):
    """``ClusterInfo.status``."""

    OK = 1
    WAIT = 2
    SHUTDOWN = 3
    KILLED = 4


class ClusterInfo(NamedTuple):
    """Answer to CLUSTER_INFO.  Packed without room for more nodes than there are."""

    epoch: int = 0
    ctime: int = 0
    flags: int = 0
    nr_copies: int = 0
    copy_policy: int = 0
    status: int = ClusterStatus.WAIT
    block_size_shift: int = 0
    store: str = ""
    nodes: tuple = ()
    disable_recovery: bool = False
    proto_ver: int = SHEEP_PROTO_VER

    def pack(self) -> bytes:
        if len(self.nodes) > MAX_NODES:
            raise LocalProtocolError("%d nodes where %d fit" % (len(self.nodes), MAX_NODES))
        return _pack(
            _CLUSTER_INFO, self.proto_ver, self.disable_recovery, len(self.nodes), self.epoch,
            self.ctime, self.flags, self.nr_copies, self.copy_policy, self.status,
            self.block_size_shift, pad(self.store, STORE_NAME_LEN)) + pack_nodes(self.nodes)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "ClusterInfo":
        (ver, disabled, nr_nodes, epoch, ctime, flags, copies, policy, status, shift,
         store) = _unpack(_CLUSTER_INFO, "the cluster's info", buffer, offset)
        if not 0 <= nr_nodes <= MAX_NODES:
            raise RemoteProtocolError("a cluster of %d nodes" % nr_nodes)
        nodes = unpack_nodes(buffer, offset + CLUSTER_INFO_SIZE, nr_nodes)
        return cls(epoch, ctime, flags, copies, policy, status, shift, unpad(store),
                   tuple(nodes), bool(disabled), ver)


class RecoveryPhase(enum.IntEnum):
    """``RecoveryState.phase``."""

    PREPARE_LIST = 0
    RECOVER_OBJ = 1
    NOTIFY_COMPLETION = 2


class RecoveryState(NamedTuple):
    """Answer to STAT_RECOVERY.  ``nr_finished`` and ``nr_total`` count objects."""

    in_recovery: bool = False
    phase: int = RecoveryPhase.PREPARE_LIST
    nr_finished: int = 0
    nr_total: int = 0

    def pack(self) -> bytes:
        return _pack(_RECOVERY_STATE, *self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "RecoveryState":
        busy, *rest = _unpack(_RECOVERY_STATE, "a recovery state", buffer, offset)
        return cls(bool(busy), *rest)


class RecoveryThrottling(NamedTuple):
    """Payload of GET_RECOVERY and SET_RECOVERY.

    At most ``max_exec_count`` objects are recovered every ``queue_work_interval``
    milliseconds; both are 0 where nothing limits recovery.
    """

    max_exec_count: int = 0
    queue_work_interval: int = 0
    throttling: bool = False

    def pack(self) -> bytes:
        return _pack(_THROTTLING, *self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "RecoveryThrottling":
        count, interval, on = _unpack(_THROTTLING, "a throttling", buffer, offset)
        return cls(count, interval, bool(on))


class SheepStat(NamedTuple):
    """Answer to STAT: counts of requests and bytes since the sheep started.

    ``gway`` counts what clients asked of it as their gateway, ``peer`` what other sheep
    asked; ``rx`` is what was written to it, ``tx`` what was read from it.
    """

    gway_active_nr: int = 0
    peer_active_nr: int = 0
    gway_total_nr: int = 0
    peer_total_nr: int = 0
    gway_total_rx: int = 0
    gway_total_tx: int = 0
    peer_total_rx: int = 0
    peer_total_tx: int = 0
    gway_total_remove_nr: int = 0
    gway_total_read_nr: int = 0
    gway_total_write_nr: int = 0
    gway_total_flush_nr: int = 0
    peer_total_remove_nr: int = 0
    peer_total_read_nr: int = 0
    peer_total_write_nr: int = 0

    def pack(self) -> bytes:
        return _pack(_STAT, *self)

    @classmethod
    def unpack(cls, buffer, offset=0) -> "SheepStat":
        return cls(*_unpack(_STAT, "a statistic", buffer, offset))


class LockState(enum.IntEnum):
    """``VdiState.lock_state``."""

    UNLOCKED = 1
    LOCKED = 2
    SHARED = 3


class SharedLockState(enum.IntEnum):
    """What a participant of a shared lock may assume about its copy of the inode."""

    MODIFIED = 1
    SHARED = 2
    INVALIDATED = 3


class VdiState(NamedTuple):
    """An entry of the answer to GET_VDI_COPIES.

    ``lock_owner`` is the node that holds an exclusive lock, or None; ``participants`` are
    the holders of a shared one, as pairs of :class:`SharedLockState` and :class:`NodeId`.
    """

    vid: int
    nr_copies: int = 0
    snapshot: bool = False
    deleted: bool = False
    copy_policy: int = 0
    block_size_shift: int = 0
    parent_vid: int = 0
    lock_state: int = LockState.UNLOCKED
    lock_owner: NodeId | None = None
    participants: tuple = ()

    def pack(self) -> bytes:
        if len(self.participants) > MAX_PARTICIPANTS:
            raise LocalProtocolError("%d participants where %d fit"
                                     % (len(self.participants), MAX_PARTICIPANTS))
        spare = MAX_PARTICIPANTS - len(self.participants)
        states = [state for state, _ in self.participants] + [0] * spare
        owner = self.lock_owner.pack() if self.lock_owner else bytes(NODE_ID_SIZE)
        return _pack(
            _VDI_STATE, self.vid, self.nr_copies, self.snapshot, self.deleted,
            self.copy_policy, self.block_size_shift, self.parent_vid, self.lock_state, owner,
            len(self.participants), _pack(_PARTICIPANT_STATES, *states),
            b"".join([nid.pack() for _, nid in self.participants]))

    @classmethod
    def unpack(cls, buffer, offset=0) -> "VdiState":
        (vid, copies, snapshot, deleted, policy, shift, parent, lock_state, owner, count,
         states, nids) = _unpack(_VDI_STATE, "a VDI's state", buffer, offset)
        if count > MAX_PARTICIPANTS:
            raise RemoteProtocolError("a lock shared by %d" % count)
        participants = tuple(
            (state, NodeId.unpack(nids, i * NODE_ID_SIZE))
            for i, state in enumerate(_PARTICIPANT_STATES.unpack(states)[:count]))
        return cls(vid, copies, bool(snapshot), bool(deleted), policy, shift, parent,
                   lock_state, NodeId.unpack(owner) if any(owner) else None, participants)


def unpack_vdi_states(buffer) -> list:
    """All entries of the answer to GET_VDI_COPIES."""
    if len(buffer) % VDI_STATE_SIZE:
        raise RemoteProtocolError("a list of VDI states ends within a state")
    return [VdiState.unpack(buffer, at) for at in range(0, len(buffer), VDI_STATE_SIZE)]


class DiskInfo(NamedTuple):
    """One of a sheep's store directories; ``free`` and ``used`` are bytes."""

    path: str
    free: int = 0
    used: int = 0


def pack_disks(disks) -> bytes:
    """Answer to MD_INFO: whole ``DISKS_SIZE`` bytes, as the count stands at the end."""
    if len(disks) > MAX_DISKS:
        raise LocalProtocolError("%d disks where %d fit" % (len(disks), MAX_DISKS))
    records = [_pack(_DISK, i, disk.free, disk.used, pad(disk.path, PATH_LEN))
               for i, disk in enumerate(disks)]
    table = b"".join(records).ljust(MAX_DISKS * DISK_SIZE, b"\0")
    return table + _pack(_DISK_COUNT, len(disks))


def unpack_disks(buffer) -> list:
    """The :class:`DiskInfo` of every disk in an answer to MD_INFO."""
    (count,) = _unpack(_DISK_COUNT, "the number of disks", buffer, MAX_DISKS * DISK_SIZE)
    if not 0 <= count <= MAX_DISKS:
        raise RemoteProtocolError("a sheep with %d disks" % count)
    disks = []
    for i in range(count):
        _, free, used, path = _DISK.unpack_from(buffer, i * DISK_SIZE)
        disks.append(DiskInfo(unpad(path), free, used))
    return disks
