"""A cluster as its clients see it."""

import json
from typing import NamedTuple

from sheepstack.client import address, attributes, inventory, vdi_requests
from sheepstack.client.call import ControlCall, object_call
from sheepstack.client.caller import TRANSIENT, Caller
from sheepstack.client.errors import (
    ClusterUnreachable, NoSuchAttribute, NoSuchVdi, NotSupported, OutcomeUnknown, TagExists,
    VdiExists, error_for)
from sheepstack.client.direct import Direct
from sheepstack.client.live_inode import Channel, read_inode
from sheepstack.client.lock import VdiLock
from sheepstack.client.patience import Patience
from sheepstack.client.pool import Pool
from sheepstack.client.snapshot import (
    becomes_snapshot, check_tag_is_free, set_tag, take_snapshot)
from sheepstack.client.splitting import runs
from sheepstack.client.vdi import Vdi
from sheepstack.client.workers import Workers
from sheepstack.redundancy import policy as policies
from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.wire import auth
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import limits
from sheepstack.wire.admin import (
    MAX_CLUSTER_INFO_SIZE, MAX_NODES, NODE_SIZE, ClusterInfo, unpack_nodes)
from sheepstack.wire.header import ClusterDefaultResponse, Header, NodeResponse, version_of
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.limits import Limits
from sheepstack.wire.oid import vdi_oid
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op
from sheepstack.wire.results import Result

_WRITE_OBJ = int(Op.WRITE_OBJ)
_TGT = int(Flag.TGT)
_WORKERS = 8
_CLEAR_RUN = 4096
_MAX_MAP_SIZE = 4 << 20
_NODE_TIMEOUT = 5.0

#: Requests that do no harm when they are executed twice.
_REPEATABLE = frozenset((
    Op.CREATE_AND_WRITE_OBJ, Op.READ_OBJ, Op.WRITE_OBJ, Op.REMOVE_OBJ, Op.DISCARD_OBJ,
    Op.GET_VDI_INFO, Op.READ_VDIS, Op.FLUSH_VDI, Op.GET_CLUSTER_DEFAULT, Op.GET_NODE_LIST,
    Op.STAT_SHEEP, Op.STAT_CLUSTER, Op.GET_STORE_LIST, Op.STAT_RECOVERY, Op.GET_OBJ_LIST,
    Op.GET_EPOCH, Op.READ_PEER, Op.GET_VDI_COPIES, Op.MD_INFO, Op.GET_HASH, Op.STAT,
    Op.GET_LOGLEVEL, Op.EXIST, Op.CLUSTER_INFO, Op.OIDS_EXIST, Op.READ_DEL_VDIS,
    Op.GET_RECOVERY, Op.GET_VNODES, Op.CLUSTER_MAP))


class VdiInfo(NamedTuple):
    """Where a VDI or snapshot is found: its id, and how its objects are kept."""

    vdi_id: int
    copies: int
    block_size_shift: int


class ClusterDefaults(NamedTuple):
    """What a VDI gets where nobody chooses.  ``copy_policy``: as on the wire."""

    copies: int
    copy_policy: int
    block_size_shift: int


class Space(NamedTuple):
    """Bytes on disks."""

    total: int
    free: int


class Cluster:
    """A cluster that is reached through any of its gateways.

    ``addresses``: of gateways (``host:port``, ``[v6]:port``, ``unix:/path``), in order of
    preference.  All requests go to one of them, the next one takes over when it fails.
    ``auth_key``: the cluster's secret as bytes, where it has one.  ``timeout``: seconds that
    a request may take, with all attempts.  ``connections``: to one gateway, at most.
    ``direct``: whether objects that a sheep on this host stores may be read without asking it
    each time, see :mod:`sheepstack.wire.direct`; that changes nothing but the speed.

    Nothing is connected before the first request.  All methods may be called by many threads
    at a time, native or green.  Methods raise subclasses of
    :class:`~sheepstack.client.errors.SheepError`, and ValueError for names and numbers that
    cannot be.  In what follows ``snapshot`` is None for the working VDI, the id (int) of a
    snapshot or its tag (str).
    """

    def __init__(self, addresses, auth_key=None, timeout=30.0, connections=4,
                 direct=True):
        if isinstance(addresses, str):
            addresses = [addresses]
        gateways = [address.parse(text) for text in addresses]
        if not gateways:
            raise ValueError("no gateway was given")
        if timeout <= 0 or connections < 1:
            raise ValueError("timeout and connections must be above zero")
        self._auth_key = auth.check_key(auth_key) if auth_key is not None else None
        self._pool = Pool(gateways, self._auth_key, timeout, connections)
        self._caller = Caller(self._pool, timeout)
        self._workers = Workers(_WORKERS)
        self._direct = Direct(self._pool, self._auth_key, self._workers, timeout, direct)

    def close(self) -> None:
        """End all connections; locks of VDIs that are open stay with the gateway."""
        self._direct.close()
        self._pool.close()
        self._workers.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    # -- the cluster

    def execute(self, request, payload=b""):
        """Carry out any request: (48 bytes of the answer's header, its payload).

        ``request``: one of :mod:`sheepstack.wire.header`; its id is replaced, all else is sent
        as it is.  ``payload``: its ``data_length`` bytes where it has the WRITE flag.  The
        error of a result other than SUCCESS has the answer in ``header`` and ``payload``.
        Raises OutcomeUnknown where the connection is lost and the request cannot be repeated.
        """
        if len(payload) != (request.data_length if request.flags & Flag.WRITE else 0):
            raise ValueError("a payload of %d bytes does not fit to the request's header"
                             % len(payload))
        call = ControlCall(
            request.pack(), payload if len(payload) else None,
            resendable=request.opcode in _REPEATABLE)
        self._caller.perform((call,), retried=TRANSIENT)
        if call.status:
            error = error_for(call.status, _name_of(request.opcode))
            error.header, error.payload = call.response, call.data
            raise error
        return call.response, call.data

    def _ask(self, opcode, limit):
        return self.execute(Header(version_of(opcode), opcode, 0, 0, 0, limit))

    def info(self) -> ClusterInfo:
        """State, epoch, defaults and nodes of the cluster; also when it does not work."""
        return ClusterInfo.unpack(self._ask(Op.CLUSTER_INFO, MAX_CLUSTER_INFO_SIZE)[1])

    def uuid(self) -> str:
        """What names this cluster, wherever its sheep are; one that is formatted anew gets
        another.

        Raises NotFormatted.  A cluster of C Sheepdog has none, and does not answer.
        """
        _, payload = self._ask(Op.CLUSTER_MAP, _MAX_MAP_SIZE)
        return json.loads(payload)["uuid"]

    def nodes(self) -> list:
        """The members, as :class:`~sheepstack.wire.admin.NodeRecord`, in their order."""
        _, payload = self._ask(Op.GET_NODE_LIST, MAX_NODES * NODE_SIZE)
        return sorted(unpack_nodes(payload), key=lambda node: node.nid.sort_key)

    def defaults(self) -> ClusterDefaults:
        call = self._caller.control(
            Header(PROTO_VER, Op.GET_CLUSTER_DEFAULT, 0, 0, 0, 0).pack(),
            what="cannot read the cluster's defaults")
        response = ClusterDefaultResponse.unpack(call.response)
        return ClusterDefaults(
            response.nr_copies, response.copy_policy, response.block_size_shift)

    def space(self) -> Space:
        """Bytes on the disks of all sheep that answer, before copies are counted."""
        total = free = 0
        for node in self.nodes():
            if not node.nr_vnodes:
                continue
            place = str(address.GatewayAddress(node.nid.addr, node.nid.port))
            with Cluster([place], self._auth_key, _NODE_TIMEOUT) as sheep:
                try:
                    answer = NodeResponse.unpack(sheep._ask(Op.STAT_SHEEP, 0)[0])
                except ClusterUnreachable:
                    continue
            total += answer.store_size
            free += answer.store_free
        return Space(total, free)

    # -- finding VDIs

    def lookup(self, name: str, snapshot=None) -> VdiInfo:
        """Raises NoSuchVdi and NoSuchTag."""
        return _info_of(self._look_up(name, snapshot))

    def _look_up(self, name, snapshot=None):
        call = vdi_requests.look_up(name, snapshot)
        self._caller.perform((call,))
        if call.status:
            raise error_for(call.status, _what(name, snapshot))
        return call

    def header(self, name: str, snapshot=None) -> InodeHeader:
        """The inode's header: size, times, parent..."""
        return self._inode(self.lookup(name, snapshot).vdi_id).header

    def _inode(self, vid):
        return read_inode(Channel(self._caller), vid)

    def list_vdis(self):
        """Iterate over the :class:`InodeHeader` of all VDIs and snapshots, by id."""
        return inventory.read_headers(self._caller)

    # -- using them

    def open_vdi(self, name: str, snapshot=None, read_only=False, lock=True) -> Vdi:
        """Open a VDI for reading and writing, or a snapshot for reading.

        ``lock``: True to be the only one that has it open for writing, ``"shared"`` to be one
        of several, who then see each other's writes, False to take no lock.  None is taken for
        reading.  (A C sheep has locks only if its cluster was formatted so.)

        Raises NoSuchVdi, NoSuchTag, VdiLocked and NotSupported (a hyper volume).
        """
        if lock not in (True, False, "shared"):
            raise ValueError("lock is True, False or 'shared', not %r" % (lock,))
        read_only = read_only or snapshot is not None
        if read_only or not lock:
            channel = Channel(self._caller)
            inode = read_inode(channel, self.lookup(name, snapshot).vdi_id)
            return Vdi(self._caller, self._workers, self._direct, name, channel, inode, None,
                       read_only)
        shared = lock == "shared"
        vdi_lock = VdiLock(self._caller, name, shared)
        vid = vdi_lock.acquire()
        try:
            channel = Channel(self._caller, _TGT if shared else 0, vdi_lock)
            inode = read_inode(channel, vid, whole=shared)
            return Vdi(self._caller, self._workers, self._direct, name, channel, inode, vdi_lock,
                       False, shared)
        except BaseException:
            vdi_lock.release()
            raise

    # -- making and changing them

    def create_vdi(self, name: str, size: int, copies=None, policy=None, block_size_shift=None,
                   prealloc=False, hyper=False) -> VdiInfo:
        """Make a VDI of ``size`` bytes that reads as zeros.

        ``copies``: how many of each object.  ``policy``: an erasure code instead, like
        ``"4:2"``, or a :class:`~sheepstack.redundancy.policy.CopyPolicy`.
        ``block_size_shift``: 22 for objects of 4 MiB.  Where they are None the cluster's
        defaults count.  ``prealloc``: make all objects now.  ``hyper``: raises NotSupported.

        Raises VdiExists, NoFreeVdiId, and OutcomeUnknown where the connection is lost and the
        outcome cannot be found out.
        """
        if hyper:
            raise NotSupported("hyper volumes are not supported")
        if policy is None:
            kept = CopyPolicy(copies or 0)
        else:
            kept = policies.parse(policy) if isinstance(policy, str) else policy
        shift = block_size_shift or self.defaults().block_size_shift
        if not 0 <= size <= layout.DATA_INDEX << shift:
            raise ValueError("a VDI of %d byte objects has at most %d bytes, not %d"
                             % (1 << shift, layout.DATA_INDEX << shift, size))
        info = self._make(name, lambda: vdi_requests.new(
            name, size, copies=kept.nr_copies, copy_policy=kept.copy_policy,
            block_size_shift=block_size_shift or 0))
        if prealloc:
            with self.open_vdi(name) as vdi:
                vdi.preallocate()
        return info

    def clone(self, source: str, snapshot, name: str) -> VdiInfo:
        """Make a VDI that begins as a copy of a snapshot and shares its objects.

        Raises NoSuchVdi, NoSuchTag, VdiExists and OutcomeUnknown.
        """
        if snapshot is None:
            raise ValueError("only a snapshot can be cloned")
        base = self.header(source, snapshot)
        return self._make(name, lambda: vdi_requests.new(
            name, base.vdi_size, base.vdi_id, False, base.nr_copies, base.copy_policy,
            base.block_size_shift))

    def _make(self, name, request):
        """Make the working VDI ``name``, which must not be there."""
        try:
            self._look_up(name)
        except NoSuchVdi:
            pass
        else:
            raise VdiExists("there is a VDI '%s' already" % name, Result.VDI_EXIST)
        lost = False
        patience = Patience(self._caller)
        while True:
            call = request()
            try:
                self._caller.perform((call,))
            except OutcomeUnknown as error:
                # It was not there before: if it is there now, or later, we made it.
                lost = True
                try:
                    return self.lookup(name)
                except NoSuchVdi:
                    patience.lose(error)
                    continue
            if lost and call.status == Result.VDI_EXIST:
                return self.lookup(name)
            if call.status:
                raise error_for(call.status, "cannot make VDI '%s'" % name)
            return _info_of(call)

    def snapshot(self, name: str, tag: str) -> VdiInfo:
        """Make a snapshot of the present content of a VDI.

        Whoever has it open goes on with it; what he is just writing may be in the snapshot or
        not.  Raises NoSuchVdi, TagExists and OutcomeUnknown.
        """
        vdi_requests.checked_tag(tag)
        if check_tag_is_free(self._caller, name, tag):
            return self._snapshot_by_leader(name, tag)
        info = self.lookup(name)
        inode = self._inode(info.vdi_id)
        take_snapshot(self._caller, Channel(self._caller), name, tag, inode)
        return info

    def _snapshot_by_leader(self, name, tag):
        """In one request: others may take snapshots of the same VDI at the same time."""
        lost = False
        patience = Patience(self._caller)
        while True:
            try:
                self.snapshot_together([(name, tag)])
                break
            except TagExists:
                if not lost:
                    raise
                # It was not there before: we made it.
                break
            except OutcomeUnknown as error:
                lost = True
                patience.lose(error)
        return self.lookup(name, tag)

    def snapshot_together(self, pairs) -> None:
        """Make snapshots of several VDIs at one instant.

        ``pairs``: of name and tag.  Writes to all of them are held until the last snapshot is
        taken, so that none is in one snapshot whose predecessor is missing in another.  All are
        taken or, as far as the caller is told, none; where it raises, some may be there.

        Raises NoSuchVdi, TagExists, OutcomeUnknown, and InvalidParameters where a VDI comes
        twice.  (A C sheep cannot do that.)
        """
        pairs = list(pairs)
        call = vdi_requests.snapshot_together(pairs)
        self._caller.perform((call,))
        if call.status:
            raise error_for(
                call.status, "cannot make snapshots of VDIs %s" % ", ".join(
                    "'%s'" % name for name, _ in pairs),
                TagExists if call.status == Result.VDI_EXIST else None)

    def rollback(self, name: str, snapshot, source=None, former="") -> VdiInfo:
        """Make a snapshot's content the present one; what was written since is lost.

        ``source``: the VDI that the snapshot is of, where that is another one.  Then ``name``
        also gets its copy policy and size.  ``former``: the tag that what was written since has
        until the last step, which deletes it; by it others know what it is where that step is
        not reached.

        Nobody should have the VDI open.  Raises NoSuchVdi, NoSuchTag and OutcomeUnknown.
        """
        if snapshot is None:
            raise ValueError("no snapshot was given")
        base = self.header(source or name, snapshot)
        try:
            old = self._inode(self.lookup(name).vdi_id)
        except NoSuchVdi:
            old = None
        if old is not None and former:
            set_tag(old, former)
        patience = Patience(self._caller)
        while True:
            call = vdi_requests.new(
                name, base.vdi_size, base.vdi_id, old is not None, base.nr_copies,
                base.copy_policy, base.block_size_shift)
            try:
                self._caller.perform((call,))
            except OutcomeUnknown as error:
                if old is None or not becomes_snapshot(self._caller, old):
                    # Done twice it leaves one more snapshot, but does no harm.
                    patience.lose(error)
                    continue
                call = self._look_up(name)
            break
        if call.status:
            if old is not None and former:
                set_tag(old, "")
            raise error_for(call.status, "cannot roll VDI '%s' back" % name)
        if old is not None:
            # The sheep keep the former content as a snapshot.
            self.delete_vdi(name, old.header.snap_id)
        return _info_of(call)

    def resize(self, name: str, size: int) -> None:
        """Change the size of a VDI; see :meth:`Vdi.resize`."""
        with self.open_vdi(name, lock=False) as vdi:
            vdi.resize(size)

    def delete_vdi(self, name: str, snapshot=None) -> None:
        """Delete the working VDI or one snapshot; the other ones of that name stay.

        The space comes back in the background.  Raises NoSuchVdi and NoSuchTag.
        """
        found = self._look_up(name, snapshot)
        if not vdi_requests.is_ours(found):
            # A C sheep gives back what the map gives up, and nothing else.
            self._clear_map(vdi_requests.answer_of(found).vdi_id)
        call = vdi_requests.delete(name, snapshot)
        lost = False
        patience = Patience(self._caller)
        while True:
            try:
                self._caller.perform((call,))
            except OutcomeUnknown as error:
                lost = True
                patience.lose(error)
                call = vdi_requests.delete(name, snapshot)
                continue
            break
        if call.status and not (lost and call.status in (Result.NO_VDI, Result.NO_TAG)):
            raise error_for(call.status, "cannot delete " + _what(name, snapshot))

    def _clear_map(self, vid):
        inode = self._inode(vid)
        last = layout.DATA_INDEX - 1
        inode.load(0, min(last, max(0, inode.header.object_count - 1)))
        for first, count in runs(inode.map.used(0, last), _CLEAR_RUN):
            call = object_call(
                _WRITE_OBJ, vdi_oid(vid), layout.data_vdi_id_offset(first), bytes(4 * count),
                copies=inode.header.nr_copies, copy_policy=inode.header.copy_policy)
            self._caller.perform((call,))
            if call.status:
                raise error_for(call.status, "cannot clear the map of VDI %06x" % vid)

    # -- attributes

    def getattr(self, name: str, key: str, snapshot=None) -> bytes:
        """The value of an attribute; raises NoSuchVdi, NoSuchTag and NoSuchAttribute."""
        return attributes.get(self._caller, name, key, snapshot)

    def setattr(self, name: str, key: str, value: bytes, snapshot=None, exclusive=False) -> None:
        """Set an attribute to at most 64 KiB.

        ``exclusive``: raise AttributeExists where it is there already.
        """
        attributes.set(self._caller, name, key, value, snapshot, exclusive)

    def delattr(self, name: str, key: str, snapshot=None) -> None:
        """Remove an attribute; raises NoSuchAttribute."""
        attributes.delete(self._caller, name, key, snapshot)

    # -- limits

    def limits(self, name: str) -> Limits:
        """How fast iSCSI may use a VDI."""
        try:
            return limits.parse(self.getattr(name, limits.KEY).decode())
        except NoSuchAttribute:
            return Limits()

    def set_limits(self, name: str, wanted: Limits) -> None:
        """Limit how fast iSCSI may use a VDI, from now on; ``Limits()``: no limits any more."""
        if any(wanted):
            self.setattr(name, limits.KEY, str(wanted).encode())
            return
        try:
            self.delattr(name, limits.KEY)
        except NoSuchAttribute:
            self.lookup(name)


def _info_of(call) -> VdiInfo:
    answer = vdi_requests.answer_of(call)
    return VdiInfo(answer.vdi_id, answer.copies, answer.block_size_shift)


def _what(name, snapshot):
    if snapshot is None:
        return "VDI '%s'" % name
    return "snapshot '%s' of VDI '%s'" % (snapshot, name)


def _name_of(opcode):
    try:
        return Op(opcode).name
    except ValueError:
        return "opcode 0x%02x" % opcode
