"""One client's or peer's connection: messages in, answers out, nothing else."""

import logging
import threading

from sheepstack.sheep.inlet import Inlet
from sheepstack.sheep.outlet import Batch, Outlet
from sheepstack.wire import auth
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import MAX_DATA_LENGTH, Response
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.peer import FIRST_PEER_OPCODE, PEER_VER
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

# Plain integers: arithmetic on enumerations costs more than the rest of the hot path's checks.
_WRITE = int(Flag.WRITE)
_AUTH_OPCODES = (int(Op.AUTH_HELLO), int(Op.AUTH_PROVE))
_FIRST_PEER_OPCODE = int(FIRST_PEER_OPCODE)

_MAX_IN_FLIGHT = 1024
_MAX_BYTES = 128 << 20
#: Nobody sends more before having proved to know the secret.
_MAX_UNPROVEN = 4096


def weight_of(fields) -> int:
    """Bytes of memory that a request may come to occupy: what it brings or asks for."""
    return min(fields[5], MAX_DATA_LENGTH)


class Admission:
    """Who may speak: ``key`` is the cluster's secret or None, ``allowed(source)`` tells whether
    an address (None: the Unix socket) is let in without it."""

    def __init__(self, key, allowed):
        self.key = key
        self.allowed = allowed


class Connection:
    """``dispatch(fields, header, payload, connection, batch)`` handles a request and calls
    :meth:`answer` once for it, from any thread."""

    def __init__(self, sock, source, dispatch, admission):
        self._sock = sock
        self.source = source
        self._dispatch = dispatch
        self._admission = admission
        self._trusted = admission.allowed(source)
        self._nonces = None
        self._outlet = Outlet(sock)
        self._room = threading.Condition()
        self._in_flight = 0
        self._bytes = 0
        self._waiting = False

    def run(self):
        """Serve until the other side goes away or says what no correct program says."""
        try:
            self._serve()
        except RemoteProtocolError as error:
            log.warning("%s: %s: closed", self.source or "local", error)
        except OSError as error:
            log.debug("%s: %s", self.source or "local", error)
        except Exception:
            log.exception("%s: closed", self.source or "local")
        finally:
            self._outlet.close()
            self._sock.close()

    def _serve(self):
        inlet = Inlet(self._sock, self._payload_length)
        batch = Batch()
        dispatch = self._dispatch
        while True:
            messages = inlet.receive()
            if not messages:
                return
            with self._room:
                self._in_flight += len(messages)
                for fields, _, _ in messages:
                    self._bytes += weight_of(fields)
            for fields, header, payload in messages:
                if not self._trusted or fields[1] in _AUTH_OPCODES:
                    self._introduce(fields, payload, batch)
                else:
                    dispatch(fields, header, payload, self, batch)
            batch.flush()
            if self._in_flight > _MAX_IN_FLIGHT or self._bytes > _MAX_BYTES:
                self._wait_for_room()
            self._outlet.wait_below(_MAX_BYTES)

    def _payload_length(self, fields):
        version, opcode, flags, _, _, length = fields
        if opcode >= _FIRST_PEER_OPCODE:
            if version != PEER_VER:
                raise RemoteProtocolError("opcode 0x%x in version %d" % (opcode, version))
        elif not flags & _WRITE:
            return 0
        if length > (MAX_DATA_LENGTH if self._trusted else _MAX_UNPROVEN):
            raise RemoteProtocolError("a payload of %d bytes" % length)
        return length

    def answer(self, buffers, batch=None, weight=0):
        """Send one answer; ``weight`` is that of the request, see :func:`weight_of`."""
        self._outlet.put(buffers, batch)
        with self._room:
            self._in_flight -= 1
            self._bytes -= weight
            if self._waiting:
                self._room.notify()

    def _wait_for_room(self):
        """Take no more requests before some of those at work are answered."""
        with self._room:
            self._waiting = True
            while self._in_flight > _MAX_IN_FLIGHT // 2 or self._bytes > _MAX_BYTES // 2:
                self._room.wait(1.0)
            self._waiting = False

    # -- proof of the secret ---------------------------------------------------------------

    def _introduce(self, fields, payload, batch):
        _, opcode, _, _, ident, _ = fields
        key = self._admission.key
        data = b""
        if opcode == Op.AUTH_HELLO and key is None:
            result = Result.NO_SUPPORT
        elif opcode == Op.AUTH_HELLO and len(payload) == auth.NONCE_SIZE:
            result = Result.SUCCESS
            theirs, ours = bytes(payload), auth.new_nonce()
            self._nonces = (theirs, ours)
            data = ours + auth.server_proof(key, theirs, ours)
        elif (opcode == Op.AUTH_PROVE and key is not None and self._nonces is not None
              and auth.matches(bytes(payload), auth.client_proof(key, *self._nonces))):
            result = Result.SUCCESS
            self._trusted = True
        else:
            log.warning("%s: refused: it did not prove to know the secret",
                        self.source or "local")
            header = Response(Result.NOT_AUTHENTICATED, opcode=opcode, id=ident).pack()
            self.answer((header,), batch)
            batch.flush()
            raise RemoteProtocolError("not authenticated")
        header = Response(result, opcode=opcode, id=ident, data_length=len(data)).pack()
        self.answer((header, data) if data else (header,), batch, weight_of(fields))
