"""Clients' requests for objects: checked, then handed to the gateway."""

from sheepstack.sheep import tgt
from sheepstack.sheep.connection import weight_of
from sheepstack.sheep.vdi_table import UnknownVdi
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import oid as oids
from sheepstack.wire.inode import unpack_map
from sheepstack.wire.header import OBJ_REQUEST, OBJ_RESPONSE, RESULT_RESPONSE
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result

OPCODES = frozenset((Op.CREATE_AND_WRITE_OBJ, Op.READ_OBJ, Op.WRITE_OBJ, Op.REMOVE_OBJ,
                     Op.DISCARD_OBJ))

# Plain integers, as these are compared for every request.
_READ = int(Op.READ_OBJ)
_WRITE = int(Op.WRITE_OBJ)
_REMOVALS = (int(Op.REMOVE_OBJ), int(Op.DISCARD_OBJ))
_COW = int(Flag.COW)
_TGT = int(Flag.TGT)

#: Reads of at least so many bytes are looked through for zeros that need not be sent.
_TRIM_FROM = 1 << 16


class ObjectService:
    """``ask_leader(question)`` has the leader answer a call, however long it takes; ``limiter``
    is a :class:`~sheepstack.sheep.limiter.Limiter`."""

    def __init__(self, state, gateway, table, workers, stats, ask_leader, limiter):
        self._state = state
        self._gateway = gateway
        self._table = table
        self._workers = workers
        self._stats = stats
        self._ask_leader = ask_leader
        self._limiter = limiter

    def handle(self, fields, header, payload, connection, batch):
        """Start a request; answers on ``connection`` now or later."""
        (version, opcode, flags, _, ident, length, oid, cow_oid, copies, _, _, _, offset,
         _) = OBJ_REQUEST.unpack(header)
        view = self._state.view
        reply = _Reply(connection, view, opcode, ident, weight_of(fields))
        from_tgt = flags & _TGT and tgt.is_from_tgt(version, flags)
        if from_tgt and oids.is_data(oid):
            reply = _TgtReply(self._workers, self._explain_absence, oid, reply)
        if not oids.is_valid(oid & ~tgt.OPEN_BIT if from_tgt and opcode == _READ else oid):
            reply(Result.INVALID_PARMS, batch)
            return
        request = (version, opcode, flags, oid, cow_oid, offset, length, payload, copies, reply)
        # Of tgt every request for data names the VDI that it is for, see tgt.py.
        if not from_tgt or not oids.is_data(oid & ~tgt.OPEN_BIT) or self._limiter.admit(
                oids.vid_of(oid), opcode != _READ, length, self._begin, from_tgt, request, None):
            self._begin(from_tgt, request, batch)

    def _begin(self, from_tgt, request, batch):
        version, opcode, flags, oid, cow_oid, offset, length, payload, copies, reply = request
        if opcode == _READ:
            self._stats.gateway_read(length)
            if from_tgt and not self._is_settled(oid, offset, length):
                self._workers.submit(self._read_for_tgt, version, oid, offset, length, reply)
                return
            self._read(version, flags, oid, offset, length, reply, batch)
        else:
            self._stats.gateway_write(opcode, len(payload))
            self._write(opcode, flags, oid, cow_oid, offset, payload, copies, reply, batch)

    # -- reading ---------------------------------------------------------------------------

    def _read(self, version, flags, oid, offset, length, reply, batch):
        view = self._state.view
        policy = self._table.policy_if_known(oid)
        if policy is not None and view.open:
            data = self._gateway.read_here(view, oid, offset, length, policy.copies_of(oid))
            if data is not None:
                self._answer_read(version, oid, data, policy, reply, batch)
                return
        self._workers.submit(self._read_slowly, version, oid, offset, length, reply)

    def _read_slowly(self, version, oid, offset, length, reply):
        if self._state.wait_open() is None:
            reply(Result.SHUTDOWN, None)
            return
        policy = self._table.policy_of(oid)
        result, data = self._gateway.read(oid, offset, length, policy)
        if result == Result.SUCCESS:
            self._answer_read(version, oid, data, policy, reply, None)
        else:
            reply(result, None)

    def _is_settled(self, oid, offset, length):
        """Whether tgt may read there like anybody else."""
        if oids.is_vdi(oid):
            return offset > 0 or length <= layout.DATA_VDI_ID_OFFSET
        if oid & tgt.OPEN_BIT or not oids.is_data(oid):
            return False
        entry = self._table.find(oids.vid_of(oid))
        return entry is not None and not entry.snapshot

    def _read_for_tgt(self, version, oid, offset, length, reply):
        vid = oids.vid_of(oid)
        try:
            entry = self._table.load(vid)
        except UnknownVdi:
            reply(Result.NO_OBJ, None)
            return
        if oids.is_vdi(oid):
            result, data = self._gateway.read(oid, offset, length, entry.policy)
            if result == Result.SUCCESS:
                reply.data(tgt.map_for_tgt(data)[:length], 0, entry.policy.nr_copies, None)
                return
        elif not oids.is_data(oid):
            self._read_slowly(version, oid, offset, length, reply)
            return
        elif entry.snapshot:
            result = Result.INODE_INVALIDATED
        else:
            index = oids.index_of(oid)
            result, owner = self._owner(vid, index, entry.policy)
            if result == Result.SUCCESS and not owner:
                reply.data(bytes(length), 0, entry.policy.nr_copies, None)
                return
            if result == Result.SUCCESS:
                self._read_slowly(version, oids.data_oid(owner, index), offset, length, reply)
                return
        reply(result, None)

    def _explain_absence(self, oid, reply):
        """tgt asked for an object that is not there: was it given back, or is it lost?"""
        vid = oids.vid_of(oid)
        result, owner = self._owner(vid, oids.index_of(oid), self._table.policy_of(oid))
        if result == Result.SUCCESS:
            result = Result.NO_OBJ if owner == vid else Result.INODE_INVALIDATED
        reply(result, None)

    def _owner(self, vid, index, policy):
        """(result, map entry) of a data object."""
        result, data = self._gateway.read(
            oids.vdi_oid(vid), layout.data_vdi_id_offset(index), 4, policy)
        return result, int.from_bytes(data, "little")

    def _answer_read(self, version, oid, data, policy, reply, batch):
        start = 0
        if version >= PROTO_VER and len(data) >= _TRIM_FROM:
            start, data = trimmed(data)
        reply.data(data, start, policy.nr_copies, batch)

    # -- writing ---------------------------------------------------------------------------

    def _write(self, opcode, flags, oid, cow_oid, offset, payload, copies, reply, batch):
        vid = oids.vid_of(oid)
        if oids.is_attr(oid):
            entry = None
            policy, block_size = self._state.view.map.copies, layout.ATTR_SIZE
        else:
            entry = self._table.find(vid)
            if entry is None or not self._state.view.open or entry.frozen:
                self._workers.submit(
                    self._write_later, opcode, flags, oid, cow_oid, offset, payload, copies, reply)
                return
            policy, block_size = entry.policy, 1 << entry.block_size_shift
            refusal = _refusal(entry, oid, opcode, offset, payload)
            if refusal == Result.READONLY and flags & _TGT and oids.is_vdi(oid):
                self._workers.submit(self._hand_on, vid, offset, payload, reply)
                return
            if refusal:
                reply(refusal, batch)
                return
        size = oids.object_size(oid, block_size)
        if offset + len(payload) > size:
            reply(Result.INVALID_PARMS, batch)
            return
        if opcode in _REMOVALS:
            kind = PeerOp.REMOVE if self._state.view.complete else PeerOp.DISCARD
            payload, offset = b"", 0
        elif opcode == _WRITE:
            kind = PeerOp.WRITE
        elif flags & _TGT and oids.is_data(oid) and len(payload) < size:
            self._workers.submit(self._create_shared, policy, (
                opcode, flags, oid, cow_oid, offset, payload, copies, reply))
            return
        elif flags & _COW and cow_oid and len(payload) < size:
            self._workers.submit(self._copy_on_write, size, policy, entry, (
                opcode, flags, oid, cow_oid, offset, payload, copies, reply))
            return
        else:
            kind = PeerOp.CREATE
        finish = _ClientWrite(
            self, (opcode, flags, oid, cow_oid, offset, payload, copies, reply), reply)
        self._gateway.write(kind, oid, offset, payload, size, policy, finish, batch, None, entry)

    def ended(self, arguments, result, batch):
        """A write came to its end, or must be admitted again."""
        opcode, _, oid, _, offset, _, _, reply = arguments
        if result == Result.AGAIN:
            self._workers.submit(self._write_later, *arguments)
        elif (result == Result.SUCCESS and offset < layout.INODE_HEADER_SIZE
              and oids.is_vdi(oid) and opcode != Op.REMOVE_OBJ):
            self._workers.submit(self._tell_leader, oids.vid_of(oid), result, reply)
        else:
            reply(result, batch)

    def _write_later(self, opcode, flags, oid, cow_oid, offset, payload, copies, reply):
        """For a VDI that is not in the table, a frozen one, or a map that is not open."""
        while True:
            view = self._state.wait_open()
            if view is None or reply.is_pointless():
                reply(Result.SHUTDOWN, None)
                return
            try:
                entry = self._table.load(oids.vid_of(oid))
            except UnknownVdi:
                reply(Result.NO_VDI, None)
                return
            if not entry.frozen:
                break
            self._state.wait_view(view.revision, 0.005)
        self._write(opcode, flags, oid, cow_oid, offset, payload, copies, reply, None)

    def _create_shared(self, policy, arguments):
        """One of several who have the VDI open makes an object, as far as he knows.

        Another one may have made it meanwhile, and must not lose what he wrote to it: so the
        leader makes it, once, and then everybody writes his part.
        """
        _, flags, oid, _, offset, payload, copies, reply = arguments
        vid, index = oids.vid_of(oid), oids.index_of(oid)
        if index >= layout.DATA_INDEX:
            reply(Result.INVALID_PARMS, None)
            return
        result, owner = self._owner(vid, index, policy)
        if result == Result.SUCCESS and owner != vid:
            result = self._ask_leader({"call": "make_object", "vid": vid, "index": index})
        if result:
            reply(Result(result), None)
        elif result is None:
            reply(Result.SHUTDOWN, None)
        else:
            self._write(_WRITE, flags, oid, 0, offset, payload, copies, reply, None)

    def _copy_on_write(self, size, policy, entry, arguments):
        _, _, oid, cow_oid, offset, payload, _, reply = arguments
        source_policy = self._table.policy_of(cow_oid)
        result, data = self._gateway.read(cow_oid, 0, size, source_policy)
        if result != Result.SUCCESS:
            reply(result, None)
            return
        image = bytearray(data)
        image[offset:offset + len(payload)] = payload
        start, image = trimmed(image)
        self._gateway.write(PeerOp.CREATE, oid, start, image, size, policy,
                            _ClientWrite(self, arguments, reply), None, None, entry)

    def _hand_on(self, vid, offset, payload, reply):
        """tgt made an object just before a snapshot and writes its map entry just after.

        Told that the VDI is read-only it would read the new inode and forget the entry.  So
        the entry goes where it now belongs: into the map of the VDI that took over.
        """
        if offset % 4 or len(payload) % 4:
            reply(Result.INVALID_PARMS, None)
            return
        first = (offset - layout.DATA_VDI_ID_OFFSET) // 4
        done = self._ask_leader({"call": "late_entries", "vid": vid, "first": first,
                                 "entries": list(unpack_map(payload))})
        reply(Result.SUCCESS if done else Result.READONLY, None)

    def _tell_leader(self, vid, result, reply):
        if result == Result.SUCCESS:
            self._ask_leader({"call": "inode_changed", "vid": vid})
        reply(result, None)


def _refusal(entry, oid, opcode, offset, payload):
    """Why a write to a VDI is refused; None: it is not."""
    if entry.deleted:
        return Result.NO_VDI
    if entry.snapshot:
        if oids.is_data(oid) and opcode not in _REMOVALS:
            return Result.READONLY
        if (oids.is_vdi(oid) and layout.DATA_VDI_ID_OFFSET <= offset < layout.GREF_OFFSET
                and any(payload)):
            # Emptying its map is how Sheepdog's dog begins to delete a snapshot.
            return Result.READONLY
    return None


def trimmed(data):
    """(zeros cut off in front, rest without zeros at its end), cut at 512-byte sectors."""
    view = memoryview(data)
    length = len(view)
    end = len(bytes(view[-4096:]).rstrip(b"\0"))
    if end:
        stop = length - min(4096, length) + end
    else:
        stop = len(bytes(view).rstrip(b"\0"))
    stop = min(length, -(-stop // 512) * 512)
    if stop == 0:
        return 0, view[:0]
    head = bytes(view[:4096])
    start = len(head) - len(head.lstrip(b"\0"))
    if start == len(head):
        whole = bytes(view[:stop])
        start = stop - len(whole.lstrip(b"\0"))
    start = start // 512 * 512
    return start, view[start:stop]


class _ClientWrite:
    """``finish`` of a client's write."""

    __slots__ = ("_service", "_arguments", "_reply")

    def __init__(self, service, arguments, reply):
        self._service = service
        self._arguments = arguments
        self._reply = reply

    def is_pointless(self) -> bool:
        """True where nobody waits for the answer any more."""
        return self._reply.is_pointless()

    def __call__(self, result, batch):
        if result == Result.SUCCESS and self._arguments[4] >= layout.INODE_HEADER_SIZE:
            self._reply(result, batch)
        else:
            self._service.ended(self._arguments, result, batch)


class _Reply:
    """Sends the one answer to a request; also serves as ``finish`` of a write."""

    __slots__ = ("_connection", "_view", "_opcode", "_ident", "_weight")

    def __init__(self, connection, view, opcode, ident, weight):
        self._connection = connection
        self._view = view
        self._opcode = opcode
        self._ident = ident
        self._weight = weight

    def __call__(self, result, batch):
        header = RESULT_RESPONSE.pack(PROTO_VER, self._opcode, 0, self._view.epoch, self._ident,
                                      0, result)
        self._connection.answer((header,), batch, self._weight)

    def is_pointless(self) -> bool:
        """True where nobody waits for the answer any more."""
        return self._connection.gone

    def data(self, data, offset, copies, batch):
        header = OBJ_RESPONSE.pack(PROTO_VER, self._opcode, 0, self._view.epoch, self._ident,
                                   len(data), Result.SUCCESS, copies, offset)
        self._connection.answer((header, data), batch, self._weight)


class _TgtReply:
    """A :class:`_Reply` to tgt that has ``explain(oid, reply)`` answer instead where an object
    is not there."""

    __slots__ = ("_workers", "_explain", "_oid", "_reply", "is_pointless", "data")

    def __init__(self, workers, explain, oid, reply):
        self._workers = workers
        self._explain = explain
        self._oid = oid
        self._reply = reply
        self.is_pointless = reply.is_pointless
        self.data = reply.data

    def __call__(self, result, batch):
        if result == Result.NO_OBJ:
            self._workers.submit(self._explain, self._oid, self._reply)
        else:
            self._reply(result, batch)
