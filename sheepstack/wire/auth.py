"""Proof that both ends of a connection know the cluster's secret.

The client sends AUTH_HELLO with a nonce of its own; the server answers with its nonce and
a proof over both; the client checks it and sends its own proof in AUTH_PROVE.  Each proof
is HMAC-SHA256 (RFC 2104) over a label and both nonces, so neither can be reflected or
replayed.  What follows on the connection is neither encrypted nor signed.
"""

import hashlib
import hmac
import os

from sheepstack.wire.errors import LocalProtocolError

NONCE_SIZE = 32
PROOF_SIZE = 32
MIN_KEY_SIZE = 16


def new_nonce() -> bytes:
    return os.urandom(NONCE_SIZE)


def server_proof(key: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    return hmac.digest(key, b"sheepstack server" + client_nonce + server_nonce, hashlib.sha256)


def client_proof(key: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    return hmac.digest(key, b"sheepstack client" + client_nonce + server_nonce, hashlib.sha256)


def matches(proof: bytes, expected: bytes) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(proof, expected)


def check_key(key: bytes) -> bytes:
    """``key`` without surrounding white space.

    Raises :class:`LocalProtocolError` where it is too short to be a secret.
    """
    key = key.strip()
    if len(key) < MIN_KEY_SIZE:
        raise LocalProtocolError(
            "the cluster's secret has %d bytes, at least %d are needed" % (len(key), MIN_KEY_SIZE))
    return key
