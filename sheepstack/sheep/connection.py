"""One client's or peer's connection: messages in, answers out, nothing else."""

import logging
import socket
import threading

from sheepstack import runtime
from sheepstack.sheep.inlet import Inlet
from sheepstack.sheep.outlet import Outlet
from sheepstack.sheep.receiver import explain
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
#: So much is handled before other connections have their turn.
_TURN_BYTES = 8 << 20
#: Nobody sends more before having proved to know the secret.
_MAX_UNPROVEN = 4096


def weight_of(fields) -> int:
    """Bytes of memory that a request may come to occupy: what it brings or asks for."""
    return min(fields[5], MAX_DATA_LENGTH)


def _first_of(messages):
    """(those for one turn, the rest)."""
    total = 0
    for position, (fields, _, _) in enumerate(messages, 1):
        total += weight_of(fields)
        if total > _TURN_BYTES:
            return messages[:position], messages[position:]
    return messages, ()


class Admission:
    """Who may speak: ``key`` is the cluster's secret or None, ``allowed(source)`` tells whether
    an address (None: the Unix socket) is let in without it."""

    def __init__(self, key, allowed):
        self.key = key
        self.allowed = allowed


class Connection:
    """A channel, see :mod:`sheepstack.sheep.receiver`.

    ``dispatch(fields, header, payload, connection, batch)`` handles a request and calls
    :meth:`answer` once for it, from any thread.  ``closed()`` is called at the end.  ``gone``
    is true once nobody waits for answers here any more; what was not begun need not be.
    """

    def __init__(self, sock, source, dispatch, admission, closed):
        self._sock = sock
        self._bare = runtime.bare_socket(sock)
        self.source = source
        self.gone = False
        #: Set by whoever answers DIRECT_ATTACH here.
        self.reads_directly = False
        self.unfinished = ()
        self._dispatch = dispatch
        self._admission = admission
        self._trusted = admission.allowed(source)
        self._nonces = None
        self._outlet = Outlet(sock)
        self._outlet.on_progress = self._look_for_room
        self._inlet = Inlet(sock, self._payload_length)
        self._closed = closed
        self._counting = threading.Lock()
        self._in_flight = 0
        self._bytes = 0
        self._full = False
        self._clear = None

    def step(self, batch) -> bool:
        """Handle the requests that have arrived."""
        if self.unfinished and not self.gone:
            messages, self.unfinished = self.unfinished, ()
            total = _TURN_BYTES + 1
        else:
            messages = self._inlet.receive()
            if messages is None or self.gone:
                return False
            flags = 0
            with self._counting:
                self._in_flight += len(messages)
                before = self._bytes
                for fields, _, _ in messages:
                    flags |= fields[2]
                    self._bytes += weight_of(fields)
                total = self._bytes - before
                self._full = self._in_flight > _MAX_IN_FLIGHT or self._bytes > _MAX_BYTES
            if flags & _WRITE and self._has_hung_up():
                # We, or the network, were away.  It may long have gone to another gateway and
                # have written there what this would undo.
                return False
        if total > _TURN_BYTES:
            messages, self.unfinished = _first_of(messages)
        dispatch = self._dispatch
        for fields, header, payload in messages:
            if not self._trusted or fields[1] in _AUTH_OPCODES:
                self._introduce(fields, payload, batch)
            else:
                dispatch(fields, header, payload, self, batch)
        return True

    def _has_hung_up(self):
        """True where the other side has said already that it waits for no answer."""
        try:
            return not self._bare.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def congested(self) -> bool:
        """True while the other side asks for more than it takes, or than we get done."""
        return self._full or self._outlet.backlog > _MAX_BYTES

    def when_clear(self, callback):
        """Call ``callback`` once there is room again."""
        self._clear = callback
        self._look_for_room()

    def _look_for_room(self):
        if self._clear is not None and not self.congested():
            callback, self._clear = self._clear, None
            if callback is not None:
                callback()

    def ended(self, error):
        """The other side went away, or said what no correct program says."""
        self.gone = True
        explain(error, self.source or "local")
        self._outlet.close()
        self._sock.close()
        self._closed()

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
        self._answered(weight)

    def answer_with_descriptor(self, message, descriptor, weight=0):
        """As :meth:`answer`, of one buffer, with a descriptor for the other process.

        Raises RemoteProtocolError where something else is still to be sent, or the other side
        takes nothing.
        """
        if not self._outlet.send_with_descriptor(message, descriptor):
            raise RemoteProtocolError("answers with descriptors are not taken one by one")
        self._answered(weight)

    def _answered(self, weight):
        with self._counting:
            self._in_flight -= 1
            self._bytes -= weight
            if not self._full:
                return
            self._full = self._in_flight > _MAX_IN_FLIGHT // 2 or self._bytes > _MAX_BYTES // 2
        self._look_for_room()

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
