"""The client's side of the proof in :mod:`sheepstack.wire.auth`."""

from sheepstack.client.errors import AuthenticationFailed
from sheepstack.wire import auth
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import COMMON, HEADER_SIZE, RESULT_RESPONSE, Header
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op
from sheepstack.wire.results import Result, describe


def prove(sock, key, name):
    """Show on a fresh connection that both ends know ``key``.

    ``name`` of the gateway is for the messages.  Raises AuthenticationFailed, OSError and
    RemoteProtocolError.
    """
    ours = auth.new_nonce()
    result, reply = _exchange(sock, Op.AUTH_HELLO, ours, auth.NONCE_SIZE + auth.PROOF_SIZE)
    if result != Result.SUCCESS:
        raise AuthenticationFailed(
            "%s does not ask for a secret (%s); connect without one, or give the sheep the "
            "cluster's" % (name, describe(result)), result)
    if len(reply) != auth.NONCE_SIZE + auth.PROOF_SIZE:
        raise RemoteProtocolError("a proof of %d bytes" % len(reply))
    theirs, proof = reply[:auth.NONCE_SIZE], reply[auth.NONCE_SIZE:]
    if not auth.matches(proof, auth.server_proof(key, ours, theirs)):
        raise AuthenticationFailed("%s does not know the secret that was given to us" % name)
    result, _ = _exchange(sock, Op.AUTH_PROVE, auth.client_proof(key, ours, theirs), 0)
    if result != Result.SUCCESS:
        raise AuthenticationFailed(
            "%s refuses our secret: %s" % (name, describe(result)), result)


def _exchange(sock, opcode, payload, limit):
    header = Header(PROTO_VER, opcode, Flag.WRITE, 0, 0, len(payload)).pack()
    sock.sendall(header + payload)
    response = _read(sock, HEADER_SIZE)
    length = COMMON.unpack_from(response)[5]
    if length > limit:
        raise RemoteProtocolError("an answer of %d bytes" % length)
    return RESULT_RESPONSE.unpack_from(response)[6], _read(sock, length)


def _read(sock, length):
    data = bytearray()
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise OSError("the connection ended in the proof of our secret")
        data += piece
    return bytes(data)
