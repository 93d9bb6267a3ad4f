"""Which part of the daemon answers which request."""

import functools
import logging

from sheepstack.sheep import admin, direct_service, object_service, vdi_requests
from sheepstack.sheep.connection import weight_of
from sheepstack.wire.header import Response
from sheepstack.wire.opcodes import FIRST_INTERNAL_OPCODE, PROTO_VER, SHEEP_PROTO_VER, Op
from sheepstack.wire.peer import FIRST_PEER_OPCODE
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_KNOWN = frozenset(op.value for op in Op)
_SHUTDOWN = int(Op.SHUTDOWN)


class Dispatcher:
    """Called by connections for every request; never waits.

    Clients are refused until ``ready`` is set.
    """

    def __init__(self, state, objects, direct, vdis, administration, peers, workers):
        self._state = state
        self._objects = objects
        self._direct = direct
        self._vdis = vdis
        self._admin = administration
        self._peers = peers
        self._workers = workers
        self.ready = False

    def __call__(self, fields, header, payload, connection, batch):
        opcode = fields[1]
        if opcode >= FIRST_PEER_OPCODE:
            self._peers.handle(fields, header, payload, connection, batch)
            return
        refusal = self._refusal(fields)
        if refusal is not None:
            response = Response(refusal, opcode=opcode, epoch=self._state.view.epoch,
                                id=fields[4])
            connection.answer((response.pack(),), batch, weight_of(fields))
        elif opcode in object_service.OPCODES:
            self._objects.handle(fields, header, payload, connection, batch)
        elif opcode in direct_service.OPCODES:
            self._direct.handle(fields, header, payload, connection, batch)
        elif opcode in vdi_requests.OPCODES:
            handle = functools.partial(self._vdis.handle, asker=connection)
            self._workers.submit(self._answer, handle, fields, header, payload, connection)
        else:
            self._workers.submit(
                self._answer, self._admin.handle, fields, header, payload, connection)

    def _refusal(self, fields):
        version, opcode = fields[0], fields[1]
        if opcode not in _KNOWN:
            return Result.INVALID_PARMS
        if version > PROTO_VER and not (
                opcode >= FIRST_INTERNAL_OPCODE and version == SHEEP_PROTO_VER):
            return Result.VER_MISMATCH
        if not self.ready:
            return Result.WAIT_FOR_JOIN
        view = self._state.view
        if view.index >= 0 or opcode in admin.ALWAYS:
            return None
        if self._state.stopping.is_set():
            return Result.SHUTDOWN
        if view.map is None:
            return Result.WAIT_FOR_FORMAT
        # While we join a cluster that runs, clients wait a moment: a guest that was with us
        # before a restart takes an error for a broken disk.
        return None if self._state.is_joining() else Result.WAIT_FOR_JOIN

    def _answer(self, handle, fields, header, payload, connection):
        response, data = handle(header, payload)
        connection.answer((response, data) if data else (response,), None, weight_of(fields))
        if fields[1] == _SHUTDOWN:
            self._admin.shutdown_answered()
