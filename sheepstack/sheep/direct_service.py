"""Gives clients on this host what they need to read objects by themselves.

The rules are in :mod:`sheepstack.wire.direct`.  All three requests are answered by the thread
that received them; none of them waits for anything but the disk.
"""

import json
import logging
import os
import time

from sheepstack.sheep.connection import weight_of
from sheepstack.store.errors import NoObject, StoreError
from sheepstack.wire import direct
from sheepstack.wire import oid as oids
from sheepstack.wire.header import OBJ_REQUEST, Response
from sheepstack.wire.opcodes import Op, PROTO_VER
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

OPCODES = frozenset((Op.DIRECT_HELLO, Op.DIRECT_ATTACH, Op.DIRECT_OPEN))


class DirectService:
    """``page``: a :class:`~sheepstack.sheep.direct_page.NoPage`; ``options`` have ``host_id``
    and ``sock``."""

    def __init__(self, page, state, store, table, stats, options):
        self._page = page
        self._state = state
        self._store = store
        self._table = table
        self._stats = stats
        self._options = options
        self._token = os.urandom(direct.TOKEN_SIZE)

    def handle(self, fields, header, payload, connection, batch):
        """Raises RemoteProtocolError where the answer cannot be sent as it must be."""
        opcode = fields[1]
        if not self._page.usable:
            self._answer(Result.NO_SUPPORT, fields, connection, batch)
        elif opcode == Op.DIRECT_HELLO:
            self._hello(fields, connection, batch)
        elif connection.source is not None:
            self._answer(Result.INVALID_PARMS, fields, connection, batch)
        elif opcode == Op.DIRECT_ATTACH:
            self._attach(fields, payload, connection, batch)
        else:
            self._open(fields, header, connection, batch)

    def _answer(self, result, fields, connection, batch):
        response = Response(result, opcode=fields[1], epoch=self._state.view.epoch,
                            id=fields[4])
        connection.answer((response.pack(),), batch, weight_of(fields))

    def _hello(self, fields, connection, batch):
        data = json.dumps({
            "host": self._options.host_id, "sock": self._options.sock,
            "token": self._token.hex()}).encode()
        if len(data) > fields[5]:
            self._answer(Result.BUFFER_SMALL, fields, connection, batch)
            return
        response = Response(Result.SUCCESS, opcode=fields[1], epoch=self._state.view.epoch,
                            id=fields[4], data_length=len(data))
        connection.answer((response.pack(), data), batch, weight_of(fields))

    def _attach(self, fields, payload, connection, batch):
        if not direct.is_attach_request(payload, self._token):
            # Meant for another sheep, perhaps one that ran here before.
            self._answer(Result.NOT_AUTHENTICATED, fields, connection, batch)
            return
        clock = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        data = direct.Attached(*self._page.life, clock).pack(self._token, payload)
        response = Response(Result.SUCCESS, opcode=fields[1], epoch=self._state.view.epoch,
                            id=fields[4], data_length=len(data))
        connection.answer_with_descriptor(
            response.pack() + data, self._page.descriptor, weight_of(fields))
        connection.reads_directly = True

    def _open(self, fields, header, connection, batch):
        (_, opcode, _, _, ident, _, oid, told_bytes, _, _, _, _, told_reads,
         _) = OBJ_REQUEST.unpack(header)
        if not connection.reads_directly or (oid and not oids.is_data(oid)):
            self._answer(Result.INVALID_PARMS, fields, connection, batch)
            return
        self._stats.direct_reads(told_reads, told_bytes)
        if not oid:
            self._answer(Result.SUCCESS, fields, connection, batch)
            return
        # Before the view is looked at: what has changed since then ends with this number.
        service = self._page.service
        found = self._share(oid) if service else Result.AGAIN
        if isinstance(found, Result):
            self._answer(found, fields, connection, batch)
            return
        descriptor, size, files = found
        try:
            connection.answer_with_descriptor(direct.Opened(
                PROTO_VER, opcode, 0, self._state.view.epoch, ident, 0, Result.SUCCESS,
                service, files, size).pack(), descriptor, weight_of(fields))
        finally:
            os.close(descriptor)

    def _share(self, oid):
        """(descriptor, size, changes of files), or the result that refuses it."""
        view = self._state.view
        policy = self._table.policy_if_known(oid)
        if policy is None or not view.open or not view.serving:
            return Result.AGAIN
        if view.index not in view.ring.holders(oid, policy.copies_of(oid)):
            return Result.NO_OBJ
        try:
            return self._store.share(oid, self._page.files) or Result.AGAIN
        except NoObject:
            return Result.NO_OBJ
        except StoreError as error:
            # An ordinary read says so too, and does what can be done about it.
            log.debug("object %016x is not shared: %s", oid, error)
            return Result.EIO
