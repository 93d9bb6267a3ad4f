"""Answers to other sheep."""

import inspect
import json
import logging
import threading

from sheepstack.redundancy import policy as policies
from sheepstack.sheep.connection import weight_of
from sheepstack.sheep.replica import NotHere, Unsettled, result_of
from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.vdi_table import UnknownVdi
from sheepstack.store.errors import NoObject, StoreError
from sheepstack.wire import oid as oids
from sheepstack.wire import peer
from sheepstack.wire.peer import PeerFlag, PeerOp, node_index_of
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

#: Calls that ask other sheep in turn.
_WAITING_CALLS = ("refetch", "adopt", "vdi", "mend")
#: Calls that ask those who answer the former ones.
_KEEPER_CALLS = ("make_whole", "remove_object", "check_object")
#: Calls that wait for their turn at the leader.
_LEADER_CALLS = ("inode_changed", "all_inodes", "late_entries", "make_object", "limits")
# Plain integers, as these are compared for every request.
_PING = int(PeerOp.PING)
_READ = int(PeerOp.READ)
_FORWARD = int(PeerOp.FORWARD)
_WRITES = tuple(map(int, (PeerOp.WRITE, PeerOp.CREATE, PeerOp.REMOVE, PeerOp.DISCARD)))
_UNSETTLED = int(PeerFlag.UNSETTLED)
_STALE = int(PeerFlag.STALE)
_SUMS = int(PeerFlag.SUMS)
_OWED = int(PeerFlag.OWED)
#: Types of what a VDI holds: data, vmstate and their strips.
_CONTENT = (0, oids.VMSTATE_BIT, oids.STRIP_MARK, oids.STRIP_MARK | oids.VMSTATE_BIT)
#: So many objects are looked at in the time that it takes to find those of one VDI by their ids.
_WORTH = 8192


def _policies():
    """The policy of each byte that may stand for one, None for the others."""
    for byte in range(256):
        try:
            yield policies.from_byte(byte)
        except ValueError:
            yield None


_POLICIES = tuple(_policies())


class PeerService:
    """Dispatches requests that :mod:`sheepstack.wire.peer` describes.

    ``workers`` run what may wait for other sheep, ``callers`` what never does,
    ``keepers`` what waits for workers, ``leaders`` what waits for the leader, who waits for
    workers: so those who wait always get their answers.
    ``forward(header, payload, reply)`` carries out a client's request that another sheep passed
    on.
    """

    def __init__(self, state, store, replica, gateway, recovery, table, workers, callers, keepers,
                 leaders, service):
        self._state = state
        self._store = store
        self._replica = replica
        self._gateway = gateway
        self._recovery = recovery
        self._table = table
        self._workers = workers
        self._callers = callers
        self._keepers = keepers
        self._leaders = leaders
        self._service = service
        self.forward = None
        self.break_lock = None
        self.strip_reader = None
        self.strip_keeper = None
        self.space = None
        self.limiter = None
        state.answer_call = self.answer

    def handle(self, fields, header, payload, connection, batch):
        (_, opcode, flags, revision, ident, _, oid, stamp, settled, offset,
         length) = peer.REQUEST.unpack(header)
        reply = _Reply(connection, opcode, ident, weight_of(fields))
        if opcode == _PING:
            reply(Result.SUCCESS, batch=batch)
            return
        if not self._state.lease_valid():
            reply(Result.NETWORK_ERROR, batch=batch)
            return
        if opcode == _FORWARD:
            self._leaders.submit(self.forward, header, payload, reply)
            return
        mismatch = self._replica.mismatch(revision)
        if mismatch:
            if mismatch == Result.NEW_NODE_VER:
                self._state.behind()
            reply(mismatch, batch=batch)
            return
        if settled:
            self._replica.note_settled(node_index_of(stamp), settled, revision)
        if opcode in _WRITES:
            if not self._learn_policy(oid, flags):
                reply(Result.INVALID_PARMS, batch=batch)
                return
            self._write(opcode, oid, revision, stamp, offset, length, payload, reply, batch)
        elif opcode == _READ:
            self._read(flags, oid, revision, offset, length, reply, batch)
        elif opcode == PeerOp.SETTLE:
            reply(Result.SUCCESS, batch=batch)
        elif opcode == PeerOp.CALL:
            self._call(payload, reply, batch)
        elif opcode == PeerOp.FETCH:
            self._callers.submit(self._fetch, oid, stamp if flags & _STALE else None, flags, reply)
        elif opcode == PeerOp.READ_STRIP and oids.is_strip(oid):
            self.strip_reader.answer(oid, revision, offset, length, reply)
        elif opcode == PeerOp.PUT and self._learn_policy(oid, flags):
            self._callers.submit(self._put, oid, revision, payload, reply)
        elif opcode == PeerOp.LIST:
            self._callers.submit(self._list, payload, reply)
        else:
            reply(Result.INVALID_PARMS, batch=batch)

    def _learn_policy(self, oid, flags):
        policy = _POLICIES[flags >> peer.POLICY_SHIFT]
        if policy is None:
            return False
        if not oids.is_attr(oid):
            self._table.remember(oids.vid_of(oid), policy)
        return True

    def _put(self, oid, revision, payload, reply):
        try:
            size, stamp, extents = peer.unpack_extents(payload)
            result = self._replica.put(oid, revision, size, stamp, extents)
        except ValueError:
            result = Result.INVALID_PARMS
        reply(result)

    def _write(self, opcode, oid, revision, stamp, offset, size, payload, reply, batch):
        def done(result, last):
            # A thread of the store may be so fast that we are still here; the batch is ours.
            mine = inline and threading.get_ident() == home
            reply(result, last, batch=batch if mine else None)

        inline, home = True, threading.get_ident()
        try:
            self._gateway.apply(opcode, oid, revision, stamp, offset, size, payload, done)
        except NotHere:
            self._workers.submit(self._gateway.apply_slowly, opcode, oid, revision, stamp,
                                 offset, size, payload, done)
        except ValueError:
            reply(Result.INVALID_PARMS, batch=batch)
        inline = False

    def _read(self, flags, oid, revision, offset, length, reply, batch):
        try:
            if flags & _UNSETTLED:
                data = self._store.read(oid, offset, length)
            else:
                data = self._replica.read(oid, offset, length)
        except (Unsettled, NotHere):
            self._workers.submit(self._read_patiently, oid, revision, offset, length, reply)
        except NoObject:
            reply(Result.NO_OBJ, batch=batch)
        except ValueError:
            reply(Result.INVALID_PARMS, batch=batch)
        except StoreError as error:
            if flags & _UNSETTLED:
                reply(result_of(error), batch=batch)
            else:
                self._workers.submit(self._read_patiently, oid, revision, offset, length, reply)
        else:
            reply(Result.SUCCESS, 0, (data,), len(data), batch)

    def _read_patiently(self, oid, revision, offset, length, reply):
        result, data = self._gateway.read_patiently(oid, revision, offset, length)
        if result == Result.SUCCESS:
            reply(result, 0, (data,), len(data))
        else:
            reply(result)

    def _fetch(self, oid, stale_revision, flags, reply):
        sums = b""
        try:
            found = self._recovery.unchecked_content(oid) if flags & _SUMS else None
            if found is not None:
                buffers, sums = found
            else:
                buffers = self._recovery.content(oid, stale_revision)
        except StoreError as error:
            if not isinstance(error, NoObject):
                log.warning("object %016x cannot be handed on: %s", oid, error)
                # A strip can do without: whoever asks has others to ask, too.
                if stale_revision is None and not oids.is_strip(oid):
                    self._recovery.repair(oid, self._state.view.revision)
                reply(result_of(error))
            elif stale_revision is None and self._may_come(oid, flags):
                reply(Result.AGAIN)
            else:
                reply(Result.NO_OBJ)
            return
        reply(Result.SUCCESS, self._recovery.activity(), (*buffers, sums),
              sum(map(len, buffers)) + len(sums), value=len(sums))

    def _may_come(self, oid, flags):
        if flags & _OWED:
            return self._recovery.is_owed(oid)
        return not self._recovery.known_absent(oid)

    def _list(self, payload, reply):
        try:
            arcs = [(int(start), int(end)) for start, end in json.loads(payload)]
        except (ValueError, TypeError, RecursionError):
            reply(Result.INVALID_PARMS)
            return
        data = self._recovery.listing(arcs)
        reply(Result.SUCCESS, 0, (data,), len(data))

    def _call(self, payload, reply, batch):
        try:
            question = json.loads(payload)
            name = question["call"]
            _check_call(question)
        except (ValueError, TypeError, KeyError, RecursionError):
            reply(Result.INVALID_PARMS, batch=batch)
            return
        workers = self._callers
        if name in _WAITING_CALLS:
            workers = self._workers
        elif name in _KEEPER_CALLS:
            workers = self._keepers
        elif name in _LEADER_CALLS:
            workers = self._leaders
        workers.submit(self._answer_call, question, reply)

    def _answer_call(self, question, reply):
        try:
            data = json.dumps({"answer": self.answer(question)}).encode()
        except Failure as failure:
            reply(failure.result)
            return
        except StoreError as error:
            log.error("call %r: %s", question, error)
            reply(result_of(error))
            return
        except Exception:
            log.exception("call %r", question)
            reply(Result.SYSTEM_ERROR)
            return
        reply(Result.SUCCESS, 0, (data,), len(data))

    # -- calls -----------------------------------------------------------------------------

    def answer(self, question):
        """Answer a call, also one of our own; None: not now."""
        return getattr(self, "_on_" + question["call"])(**{
            key: value for key, value in question.items() if key != "call"})

    def _on_lacks_only_room(self, revision):
        return self._recovery.lacks_only_room(revision)

    def _on_holding(self, oids, revision):
        return self._recovery.holding(oids)

    def _on_refetch(self, oid, revision):
        return self._recovery.refetch(oid) or None

    def _on_adopt(self, oid, sources, stamps, revision):
        view = self._state.view
        if view.revision != revision:
            return None
        return self._recovery.adopt(view, oid, sources, stamps) or None

    def _on_unsettled(self, oid):
        return self._replica.unsettled(oid)

    def _on_inherit(self, oid, stamps, revision):
        view = self._state.view
        if view.revision != revision:
            return None
        return self._gateway.inherit(view, oid, stamps)

    def _all_oids(self, ranges):
        """Ids of current objects and of those set aside: after a power failure all may be."""
        yield from self._store.oids_between(ranges)
        for epoch in self._store.stale_epochs():
            for oid in self._store.stale_oids(epoch):
                if any(first <= oid < end for first, end in ranges):
                    yield oid

    def _on_mark(self, oid, revision, token):
        return self._replica.mark(oid, revision, token)

    def _on_retire(self, oid, revision, token):
        return int(self._replica.retire(oid, revision, token))

    def _on_drop_strips(self, oid, revision, width):
        return int(self._replica.drop_strips(oid, revision, min(width, policies.MAX_COPIES)))

    def _on_make_whole(self, oid, revision):
        return self.strip_keeper.make_whole(oid, revision)

    def _on_remove_object(self, oid, revision):
        return self.strip_keeper.remove_object(oid, revision)

    def _on_check_object(self, oid, revision):
        return self.strip_keeper.check_object(oid, revision)

    def _on_examine(self, oid, revision):
        return self.strip_keeper.examine(oid)

    def _on_mend(self, oid, revision):
        return self.strip_keeper.mend(oid, revision)

    def _on_inodes(self):
        return [oids.vid_of(oid) for oid in self._all_oids([(oids.VDI_BIT, 1 << 64)])]

    def _on_objects(self, vids):
        if len(vids) * _WORTH < self._store.count():
            found = self._store.oids_between(
                [each for vid in vids for each in oids.ids_of(vid, *_CONTENT)])
        else:
            wanted = set(vids)
            found = (oid for oid in self._store.oids()
                     if oids.vid_of(oid) in wanted and oid & oids.TYPE_MASK in _CONTENT)
        return list({oids.whole_oid(oid) for oid in found})

    def _on_attributes(self, vid):
        return list(self._all_oids(oids.ids_of(vid, oids.ATTR_BIT)))

    def _on_vdi(self, vid, fields):
        """The leader changes what is allowed: from our answer on, no older write is under way."""
        view = self._state.view
        if self._table.find(vid) is None:
            try:
                self._table.load(vid)
            except UnknownVdi:
                return True
        self._table.change(vid, **fields)
        if fields.get("frozen") or fields.get("deleted"):
            while self._gateway.busy_with(vid):
                if self._state.view.revision != view.revision:
                    return None
                self._replica.wait_change(0.02)
        return True

    def _on_forget_vdi(self, vid):
        self._table.forget(vid)
        self.limiter.change(vid, "")
        return True

    def _on_all_inodes(self):
        return [list(inode) for inode in self._service.inodes()]

    def _on_inode_changed(self, vid):
        if not self._leads():
            return None
        self._service.inode_changed(vid)
        return True

    def _on_late_entries(self, vid, first, entries):
        if not self._leads():
            return None
        return self._service.late_entries(vid, first, entries)

    def _on_make_object(self, vid, index):
        if not self._leads():
            return None
        try:
            return int(self._service.make_object(vid, index))
        except Failure as failure:
            if failure.result == Result.AGAIN:
                return None
            return int(failure.result)

    def _on_limits(self, vid):
        if not self._leads():
            return None
        try:
            return self._service.limits(vid)
        except Failure:
            return None

    def _on_limit(self, vid, text):
        self.limiter.change(vid, text)
        return True

    def _leads(self):
        view = self._state.view
        return view.open and view.leader == view.index >= 0

    def _on_space(self):
        return self.space()

    def _on_unlock(self, vid, token):
        return self.break_lock(vid, token)


def _check_call(question):
    """Raises TypeError where no sheep would ask this."""
    handler = getattr(PeerService, "_on_%s" % question["call"], None)
    if handler is None:
        raise TypeError("an unknown call")
    arguments = {key: value for key, value in question.items() if key != "call"}
    inspect.signature(handler).bind(None, **arguments)
    for key, value in arguments.items():
        kind = _KINDS.get(key, int)
        if not isinstance(value, kind) or kind is list and not all(
                isinstance(item, int) for item in value):
            raise TypeError("%s is of the wrong kind" % key)


#: Arguments of calls that are not numbers.
_KINDS = {"oids": list, "sources": list, "stamps": list, "vids": list, "entries": list,
          "fields": dict, "text": str}


class _Reply:
    """Sends one answer."""

    __slots__ = ("_connection", "_opcode", "_ident", "_weight")

    def __init__(self, connection, opcode, ident, weight):
        self._connection = connection
        self._opcode = opcode
        self._ident = ident
        self._weight = weight

    def __call__(self, result, stamp=0, buffers=(), length=0, batch=None, value=0):
        header = peer.RESPONSE.pack(peer.PEER_VER, self._opcode, 0, 0, self._ident, length,
                                    result, stamp, value)
        self._connection.answer((header, *buffers), batch, self._weight)
