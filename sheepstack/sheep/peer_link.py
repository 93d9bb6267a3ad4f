"""A connection to another sheep: pipelined requests, answers by callback."""

import itertools
import logging
import socket
import threading
import time

from sheepstack.sheep.inlet import Inlet
from sheepstack.sheep.outlet import Batch, Outlet
from sheepstack.sheep.receiver import explain
from sheepstack.sheep.socket_options import connect
from sheepstack.wire import auth, peer
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import COMMON, HEADER_SIZE, MAX_DATA_LENGTH, Header
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_RETRY_AFTER = 0.2
_CONNECT_TIMEOUT = 3.0


class Answer:
    """What came back: ``result``, ``stamp``, ``value`` and ``payload``."""

    __slots__ = ("result", "stamp", "value", "payload")

    def __init__(self, result, stamp=0, value=0, payload=b""):
        self.result = result
        self.stamp = stamp
        self.value = value
        self.payload = payload


class PeerLink:
    """All traffic from this sheep to one other.

    ``submit`` never blocks.  Its callback gets an :class:`Answer` and a batch, or an answer
    with NETWORK_ERROR when the connection is lost first.  The link connects again by itself.
    It is a channel of ``receiver``, see :mod:`sheepstack.sheep.receiver`.
    """

    def __init__(self, name, address, receiver, key=None):
        self._receiver = receiver
        self._inlet = None
        self._lost = threading.Event()
        self.name = name
        self._address = address
        self._key = key
        self._ids = itertools.count(1)
        self._waiting = {}
        self._lock = threading.Lock()
        self._outlet = None
        self._closed = threading.Event()
        self._pinging = False
        self.last_heard = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name="link-" + name)
        self._thread.start()

    @property
    def is_up(self):
        return self._outlet is not None

    def submit(self, opcode, revision, callback, oid=0, stamp=0, settled=0, offset=0,
               length=0, buffers=(), data_length=0, flags=0, batch=None):
        """Send a request; ``buffers`` make up its payload of ``data_length`` bytes."""
        ident = next(self._ids) & 0xFFFFFFFF
        header = peer.REQUEST.pack(peer.PEER_VER, opcode, flags, revision, ident, data_length,
                                   oid, stamp, settled, offset, length)
        self._waiting[ident] = callback
        outlet = self._outlet
        if outlet is None:
            self._fail(ident, batch)
        elif data_length:
            outlet.put((header, *buffers), batch)
        else:
            outlet.put_message(header, batch)
        # The link may have gone down between the two looks at the outlet.
        if outlet is not None and self._outlet is not outlet:
            self._fail(ident, batch)

    def call(self, opcode, revision, timeout, **fields):
        """Send a request and wait for its :class:`Answer`."""
        done = threading.Event()
        box = []

        def arrived(answer, batch):
            box.append(answer)
            done.set()

        self.submit(opcode, revision, arrived, **fields)
        if not done.wait(timeout):
            return Answer(Result.NETWORK_ERROR)
        return box[0]

    def ping(self, revision):
        """Make the other side show that it is there; see ``last_heard``."""
        if not self._pinging:
            self._pinging = True
            self.submit(peer.PeerOp.PING, revision, self._ponged)

    def _ponged(self, answer, batch):
        self._pinging = False

    def successor(self):
        """A new link to the same sheep; it is heard of when it says something, not before."""
        link = PeerLink(self.name, self._address, self._receiver, self._key)
        if not link.is_up:
            link.last_heard = self.last_heard
        return link

    def close(self):
        self._closed.set()
        outlet = self._outlet
        if outlet is not None:
            _shut(outlet.sock)

    def _fail(self, ident, batch=None):
        callback = self._waiting.pop(ident, None)
        if callback is not None:
            callback(Answer(Result.NETWORK_ERROR), batch)

    def _run(self):
        while not self._closed.is_set():
            try:
                sock = connect(self._address, _CONNECT_TIMEOUT)
            except OSError as error:
                log.debug("no connection to %s: %s", self.name, error)
                self._closed.wait(_RETRY_AFTER)
                continue
            try:
                if self._key is not None:
                    prove(sock, self._key)
                sock.settimeout(None)
                self._begin(sock)
                self._lost.wait()
            except (OSError, RemoteProtocolError) as error:
                log.info("cannot connect to %s: %s", self.name, error)
            finally:
                self._drop(sock)
            self._closed.wait(_RETRY_AFTER)

    def _begin(self, sock):
        self._lost.clear()
        self._inlet = Inlet(sock, _response_length)
        self._outlet = LinkOutlet(sock)
        self.last_heard = time.monotonic()
        self._receiver.serve(sock, self)

    #: All that has arrived is handled in one step.
    unfinished = False

    def step(self, batch) -> bool:
        """Pass the answers that have arrived to their callbacks."""
        messages = self._inlet.receive()
        if messages is None:
            return False
        self.last_heard = time.monotonic()
        waiting = self._waiting
        for fields, header, payload in messages:
            callback = waiting.pop(fields[4], None)
            if callback is not None:
                response = peer.RESPONSE.unpack(header)
                callback(Answer(response[6], response[7], response[8], payload), batch)
        return True

    def congested(self) -> bool:
        """Never: each answer is one that was asked for."""
        return False

    def ended(self, error):
        """The other side went away."""
        explain(error, self.name, self._closed.is_set())
        self._lost.set()

    def _drop(self, sock):
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.close()
        sock.close()
        batch = Batch()
        for ident in list(self._waiting):
            self._fail(ident, batch)
        batch.flush()


class LinkOutlet(Outlet):
    """An outlet whose socket can be shut from outside."""

    def __init__(self, sock):
        super().__init__(sock)
        self.sock = sock


def _response_length(fields):
    length = fields[5]
    if length > MAX_DATA_LENGTH:
        raise RemoteProtocolError("a response of %d bytes" % length)
    return length


def _shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def prove(sock, key):
    """The client's side of the handshake in :mod:`sheepstack.wire.auth`, blocking.

    Raises RemoteProtocolError where the other side does not know the secret.
    """
    nonce = auth.new_nonce()
    reply = _exchange(sock, Op.AUTH_HELLO, nonce)
    if len(reply) != auth.NONCE_SIZE + auth.PROOF_SIZE:
        raise RemoteProtocolError("an answer of %d bytes to our nonce" % len(reply))
    theirs, proof = reply[:auth.NONCE_SIZE], reply[auth.NONCE_SIZE:]
    if not auth.matches(proof, auth.server_proof(key, nonce, theirs)):
        raise RemoteProtocolError("the other side does not know the cluster's secret")
    _exchange(sock, Op.AUTH_PROVE, auth.client_proof(key, nonce, theirs))


def _exchange(sock, opcode, payload):
    sock.sendall(Header(PROTO_VER, opcode, Flag.WRITE, 0, 0, len(payload)).pack() + payload)
    header = _read(sock, HEADER_SIZE)
    length = COMMON.unpack_from(header)[5]
    result = int.from_bytes(header[16:20], "little")
    if result != Result.SUCCESS or length > 4096:
        raise RemoteProtocolError("the other side refused our secret (result 0x%x)" % result)
    return _read(sock, length)


def _read(sock, length):
    data = bytearray()
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise RemoteProtocolError("the connection ended in the handshake")
        data += piece
    return bytes(data)
