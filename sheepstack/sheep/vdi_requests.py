"""Clients' requests about VDIs.  Any sheep takes them; the leader carries them out."""

import logging
import threading
import time

from sheepstack.sheep.catalogue import bitmap
from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.vdi_table import UnknownVdi, entry_of
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.errors import WireError
from sheepstack.wire.hashing import NR_VDIS
from sheepstack.wire.header import (
    HEADER_SIZE, ClusterDefaultResponse, Header, Response, VdiRequest, VdiResponse)
from sheepstack.wire.inode import VdiAttr, clock_value
from sheepstack.wire.opcodes import ClusterFlag, LockType, Op
from sheepstack.wire.peer import REQUEST as PEER_REQUEST
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result
from sheepstack.wire.text import unpad

log = logging.getLogger(__name__)

OPCODES = frozenset((
    Op.NEW_VDI, Op.LOCK_VDI, Op.RELEASE_VDI, Op.GET_VDI_INFO, Op.READ_VDIS, Op.FLUSH_VDI,
    Op.DEL_VDI, Op.GET_CLUSTER_DEFAULT, Op.GET_VDI_ATTR, Op.READ_DEL_VDIS,
    Op.SNAPSHOT_TOGETHER))

_BITMAPS = (Op.READ_VDIS, Op.READ_DEL_VDIS)
_BITMAP_SIZE = NR_VDIS // 8
_TRY_AGAIN = (Result.AGAIN, Result.NETWORK_ERROR, Result.OLD_NODE_VER, Result.NEW_NODE_VER)


class VdiRequests:
    """``membership`` has the coordinator whose locks VDIs use."""

    def __init__(self, state, service, membership):
        self._state = state
        self._service = service
        self._membership = membership
        # {(session, vid): the client's token} of locks that are not shared.
        self._held = {}
        self._held_lock = threading.Lock()

    def handle(self, header, payload, asker) -> tuple:
        """(response header, response payload) of a client's request; may wait.

        Once ``asker``, its connection, is ``gone`` nothing is begun any more: the client may
        have gone to another gateway, and what it has done there must not be undone.
        """
        common = Header.unpack(header)
        try:
            opcode = common.opcode
            if opcode == Op.FLUSH_VDI:
                # What was acknowledged is as durable as it will be.
                return self._plain(common, Result.SUCCESS)
            if opcode in _BITMAPS and self._state.view.index < 0:
                return self._bitmap(common, ())
            if opcode == Op.GET_CLUSTER_DEFAULT:
                return self._cluster_default(common)
            if opcode == Op.LOCK_VDI:
                return self._lock(common, header, payload, asker)
            if opcode == Op.RELEASE_VDI:
                return self._release(common, header)
            return self._by_leader(header, payload, _now(), asker)
        except (Failure, WireError) as error:
            result = getattr(error, "result", Result.INVALID_PARMS)
            return self._plain(common, result)

    def forwarded(self, peer_header, payload, reply):
        """Another sheep passes on a client's request because we lead."""
        fields = PEER_REQUEST.unpack(peer_header)
        revision, ctime = fields[3], fields[7]
        if len(payload) < HEADER_SIZE:
            reply(Result.INVALID_PARMS)
            return
        if not self._leads():
            reply(Result.AGAIN)
            return
        header, body = bytes(payload[:HEADER_SIZE]), payload[HEADER_SIZE:]
        response, data = self._execute(header, body, ctime, revision)
        reply(Result.SUCCESS, 0, (response, data) if data else (response,),
              len(response) + len(data))

    # -- finding the leader ----------------------------------------------------------------

    def _leads(self):
        view = self._state.view
        return view.open and view.leader == view.index >= 0 and self._state.lease_valid()

    def _by_leader(self, header, payload, ctime, asker):
        """Carry out here or at the leader; tried again until one of them has done it."""
        perhaps_done = False
        while True:
            view = self._state.wait_open()
            if view is None or asker.gone:
                return self._plain(Header.unpack(header), Result.SHUTDOWN)
            if self._leads():
                response, data = self._execute(header, payload, ctime, view.revision)
            elif view.leader >= 0 and view.leader != view.index:
                response, data = self._ask(view, header, payload, ctime)
            else:
                response = None
            if response is not None:
                common = Header.unpack(header)
                result = Response.unpack(response).result
                if (perhaps_done and common.opcode == Op.DEL_VDI
                        and result in (Result.NO_VDI, Result.NO_TAG)):
                    # It is we who have deleted it.
                    return self._plain(common, Result.SUCCESS)
                if result not in _TRY_AGAIN:
                    return response, data
                perhaps_done = True
            self._state.wait_view(view.revision, 0.05)

    def _ask(self, view, header, payload, ctime):
        answer = view.links[view.leader].call(
            PeerOp.FORWARD, view.revision, self._state.patience, stamp=ctime,
            buffers=(header, payload) if payload else (header,),
            data_length=len(header) + len(payload))
        if answer.result == Result.NETWORK_ERROR:
            return self._plain(Header.unpack(header), Result.NETWORK_ERROR)
        if answer.result != Result.SUCCESS or len(answer.payload) < HEADER_SIZE:
            return None, b""
        return bytes(answer.payload[:HEADER_SIZE]), answer.payload[HEADER_SIZE:]

    # -- at the leader ---------------------------------------------------------------------

    def _execute(self, header, payload, ctime, revision):
        """Carry out a request that was sent to us at a revision of the map, or answer AGAIN."""
        with self._service.at(revision):
            return self._execute_now(header, payload, ctime)

    def _execute_now(self, header, payload, ctime):
        common = Header.unpack(header)
        try:
            self._service.leading()
            opcode = common.opcode
            if opcode == Op.READ_VDIS:
                return self._bitmap(common, self._service.vids())
            if opcode == Op.READ_DEL_VDIS:
                return self._bitmap(common, self._service.deleted_vids())
            if opcode == Op.GET_VDI_ATTR:
                return self._attribute(common, header, payload)
            if opcode == Op.SNAPSHOT_TOGETHER:
                self._service.snapshot_together(_names_and_tags(payload), ctime)
                return self._plain(common, Result.SUCCESS)
            request = VdiRequest.unpack(header)
            if opcode == Op.NEW_VDI:
                inode = self._new(request, payload, ctime)
            else:
                name, tag = _name_and_tag(payload)
                if opcode == Op.DEL_VDI:
                    inode = self._service.delete(name, tag, request.snapid)
                else:
                    inode = self._service.look_up(name, tag, request.snapid)
            return self._vdi(common, inode)
        except (Failure, WireError) as error:
            return self._plain(common, getattr(error, "result", Result.INVALID_PARMS))
        except Exception:
            log.exception("opcode 0x%x", common.opcode)
            return self._plain(common, Result.SYSTEM_ERROR)

    def _new(self, request, payload, ctime):
        if len(payload) != layout.VDI_NAME_LEN:
            raise Failure(Result.INVALID_PARMS)
        make = self._service.snapshot if request.snapid else self._service.create
        return make(unpad(payload), request.vdi_size, request.base_vdi_id,
                    (request.copies, request.copy_policy), request.block_size_shift,
                    request.store_policy, ctime)

    def _attribute(self, common, header, payload):
        if len(payload) != layout.ATTR_SIZE:
            raise Failure(Result.INVALID_PARMS)
        vid, attr_id, copies = self._service.attribute(VdiAttr.unpack(payload), common.flags)
        return VdiResponse(Result.SUCCESS, opcode=common.opcode, epoch=self._state.view.epoch,
                           id=common.id, vdi_id=vid, attr_id=attr_id, copies=copies).pack(), b""

    # -- at the gateway --------------------------------------------------------------------

    def _lock(self, common, header, payload, asker):
        response, data = self._by_leader(
            Header(common.proto_ver, Op.GET_VDI_INFO, *common[2:]).pack(), payload, 0, asker)
        found = VdiResponse.unpack(response)
        if asker.gone:
            # Nobody would ever give it back.
            return self._plain(common, Result.SHUTDOWN)
        if found.result == Result.SUCCESS and self._uses_locks():
            request = VdiRequest.unpack(header)
            wanted = found.vdi_id, request.type, request.token
            if not self._take(*wanted) and not (
                    self._is_given_up(found.vdi_id, request.token) and self._take(*wanted)):
                return self._plain(common, Result.VDI_LOCKED)
        return found._replace(opcode=Op.LOCK_VDI).pack(), data

    def _take(self, vid, kind, token):
        service = self._membership.lock_service()
        with self._held_lock:
            # The lock is our session's: of our own clients only one may have it.
            holder = self._held.get((service.session_id, vid))
            if kind != LockType.SHARED and holder is not None and not token == holder != 0:
                return False
            if not service.acquire(lock_name(vid), self._state.name.encode(),
                                   shared=kind == LockType.SHARED):
                return False
            if kind != LockType.SHARED:
                self._held[service.session_id, vid] = token
            return True

    def _is_given_up(self, vid, token):
        """Whether another sheep held the lock for the same client, and holds it no more."""
        if not token:
            return False
        view = self._state.view
        names = [node.name.encode() for node in view.map.nodes]
        return any(
            owner in names and self._state.call_node(
                names.index(owner), {"call": "unlock", "vid": vid, "token": token})
            for _, owner, shared in self._membership.lock_service().holders(lock_name(vid))
            if not shared)

    def _release(self, common, header):
        if self._uses_locks():
            request = VdiRequest.unpack(header)
            vid, token = request.base_vdi_id, request.token
            if not self._give_up(vid, token):
                # It is another sheep's: of the client, or of somebody whose lock is broken.
                self._state.call_all({"call": "unlock", "vid": vid, "token": token})
        return self._plain(common, Result.SUCCESS)

    def _give_up(self, vid, token):
        service = self._membership.lock_service()
        with self._held_lock:
            key = service.session_id, vid
            if token and self._held.get(key) != token:
                return False
            self._held.pop(key, None)
            return service.release(lock_name(vid))

    def break_lock(self, vid, token) -> bool:
        """Give up a lock that this sheep holds for a client; ``token``: for that one alone,
        and whether it had it."""
        return self._give_up(vid, token) or not token

    def _uses_locks(self):
        return bool(self._state.view.map.flags & ClusterFlag.USE_LOCK)

    # -- answers ---------------------------------------------------------------------------

    def _plain(self, common, result):
        return Response(result, opcode=common.opcode, epoch=self._state.view.epoch,
                        id=common.id).pack(), b""

    def _vdi(self, common, inode):
        try:
            copies = entry_of(inode).policy.nr_copies
        except UnknownVdi:
            copies = inode.nr_copies
        return VdiResponse(
            Result.SUCCESS, opcode=common.opcode, epoch=self._state.view.epoch, id=common.id,
            vdi_id=inode.vdi_id, copies=copies, block_size_shift=inode.block_size_shift,
        ).pack(), b""

    def _bitmap(self, common, vids):
        if common.data_length != _BITMAP_SIZE:
            raise Failure(Result.INVALID_PARMS)
        return Response(Result.SUCCESS, opcode=common.opcode, epoch=self._state.view.epoch,
                        id=common.id, data_length=_BITMAP_SIZE).pack(), bytes(bitmap(vids))

    def _cluster_default(self, common):
        cluster = self._state.view.map
        if cluster is None:
            return self._plain(common, Result.WAIT_FOR_FORMAT)
        return ClusterDefaultResponse(
            Result.SUCCESS, opcode=common.opcode, epoch=cluster.epoch, id=common.id,
            nr_copies=cluster.copies.nr_copies, copy_policy=cluster.copies.copy_policy,
            block_size_shift=cluster.block_size_shift).pack(), b""


def lock_name(vid) -> str:
    """Name of the coordination lock that guards a VDI."""
    return "vdi-%06x" % vid


def _name_and_tag(payload):
    if len(payload) not in (layout.VDI_NAME_LEN, layout.VDI_NAME_LEN + layout.VDI_TAG_LEN):
        raise Failure(Result.INVALID_PARMS)
    return unpad(payload[:layout.VDI_NAME_LEN]), unpad(payload[layout.VDI_NAME_LEN:])


def _names_and_tags(payload):
    size = layout.VDI_NAME_LEN + layout.VDI_TAG_LEN
    if not payload or len(payload) % size:
        raise Failure(Result.INVALID_PARMS)
    return [_name_and_tag(payload[start:start + size])
            for start in range(0, len(payload), size)]


def _now():
    return clock_value(*divmod(time.time_ns(), 10 ** 9))
