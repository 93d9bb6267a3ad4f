"""Reading what a sheep on the same host stores, out of the page cache, without asking it.

A client gets two things from the sheep over its Unix socket, as descriptors: once a *page*, a
little memory that the sheep writes and everybody else may only read, and for each object that
it reads often the object's file, open for reading.  Then a read is one system call in the
client, and none in the sheep.  What must not be lost on the way are the rules of an ordinary
read, all of which the sheep would look at.  So the page says whether they hold::

    offset  size  field
    0       8     magic "sheeppg1"
    8       8     service: which view of the cluster clients are served under, a number that
                  never comes back; 0 while none are
    16      8     lease: until when, nanoseconds of CLOCK_BOOTTIME, nobody can have thrown the
                  sheep out of the map without its knowing; 0 where that may be so now
    64      64    a robust mutex of the C library, held by the sheep's main thread
    4096    16    a slot, each of which many objects share (4096 of them, see slot_of())

and a slot, both counters starting at 0::

    0       8     writes: odd while a write to one of its objects is on its way
    8       8     files: changes before any of its objects gets another file, or none

All integers are native 64-bit words of a little-endian machine, read and written whole.

**The rule.**  A reader remembers ``service`` and ``files`` as they were when the sheep gave it
the file.  It reads the slot's ``writes``; where that is odd it leaves the read to the sheep.
It reads the bytes, from the page cache alone, and checks them against the checksums in the
file.  *Then* it looks whether ``writes`` and ``files`` are what they were, ``service`` too,
whether the sheep lives (below) and whether the lease still holds.  If all of that is so the
bytes count, else they are forgotten and the sheep is asked, as ever.

Because everything is looked at after the bytes were read, it does not matter how long the
reader, or the sheep, was stopped in between: the read takes effect at a moment before that
look, at which all of it was true.

Why each law stands (numbers as in the design's list of laws):

- *2, no live session, no service.*  The lease in the page is the one that the sheep itself asks
  before each request, by the same clock, which runs on while processes or machines are stopped.
  A sheep that is stopped cannot renew it, so its files end with its lease.  A sheep that *dies*
  may be noticed by others before its lease is over (the local driver sees that at once).  That
  is what the mutex is for: the kernel marks it as its owner's last deed, before any of the dead
  process's descriptors are closed, so before anybody can see that it is gone.
- *3 and 7, one epoch; nobody reads the half-recovered.*  ``service`` becomes 0 before a sheep
  acknowledges a new map, and changes with every map; all files end with it.  A file is only
  given out where an ordinary read would be served here at once: by a holder of the object,
  under a map that is open to clients.  What recovery, repair by adoption, cutting into strips,
  retiring, promoting or removing does to an object goes through one place of the store that
  changes ``files`` first; a new file's name is put in place, or the old one removed, after.
- *4 and 6, acknowledged means everywhere; once read it never goes back.*  ``writes`` is odd
  from before a write reaches the object until its coordinator told that all holders have it,
  just as long as an ordinary read would wait; also while it waits for the journal.  It is even
  again before the client that wrote through this sheep hears of it, with its bytes in the file.
- *5*: nothing is ever removed for want of a reader's consent: what it holds is a name-less file.
- *8, bytes rot; we notice.*  The reader checks each block of 4 KiB against its CRC-32C, as the
  sheep does; where they differ it asks the sheep, who finds the same and repairs the block.
- *9*: an object that was removed takes its space until the readers let go of it, which they do
  within a second or two of the change of ``files``.
- *10*: the page is sealed: it cannot shrink under a reader or be written to by one.  Files are
  opened for reading anew, not the sheep's own descriptors.

**Memory order.**  The writer needs its stores to become visible in their order (counter, bytes
of the file, counter), the reader its loads to be done in theirs.  That is what x86-64 does by
itself, and so direct reading is offered there and on no other processor.  A word of eight
bytes, aligned, is copied by one instruction.

**Getting there.**  On any connection DIRECT_HELLO asks whether the sheep offers it: the answer
is JSON with ``host`` (the machine's boot id), ``sock`` (path of the Unix socket), ``token``.  A
client on the same machine connects to that socket, proves the cluster's secret there as anybody
must, and sends DIRECT_ATTACH: a nonce and a proof that it knows the token.  So it finds the very
sheep that it asked, whatever lies at that path as it sees it, and does not trust another that
cannot prove the same.  The answer comes with the page, and with the sheep's clock: in a time
namespace of its own that may be another than the client's, which then leaves it at that.
From then on DIRECT_OPEN, one request at
a time, asks for the files of objects; it also tells how much was read, for the statistics.  A
sheep that does not know these opcodes, or a C sheep, answers with an error, and that is that.
"""

import hashlib
import hmac
import os
import platform
import sys
from struct import Struct
from typing import NamedTuple

from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import HEADER_SIZE

MAGIC = int.from_bytes(b"sheeppg1", "little")
SLOTS = 1 << 12
SLOTS_AT = 4096
PAGE_SIZE = SLOTS_AT + 16 * SLOTS

#: Numbers of 64-bit words.
SERVICE = 1
LEASE = 2
_FIRST_SLOT = SLOTS_AT // 8

#: Where the mutex lies, bytes.
MUTEX_AT = 64
MUTEX_SIZE = 64

TOKEN_SIZE = 32
NONCE_SIZE = 32
_PROOF_SIZE = 32

_ATTACHED = Struct("<32sIIQ")
_OPENED = Struct("<BBHIIII4xQQQ")


def is_possible() -> bool:
    """True on machines whose order of memory accesses is strong enough."""
    return sys.byteorder == "little" and platform.machine() in ("x86_64", "AMD64")


def slot_of(oid: int) -> int:
    """Number of the word with ``writes`` of an object; ``files`` is the next one."""
    # By the golden ratio, which puts objects of consecutive numbers far from each other.
    return _FIRST_SLOT + ((oid * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 52) * 2


def attach_request(token: bytes) -> bytes:
    """Payload of DIRECT_ATTACH."""
    nonce = os.urandom(NONCE_SIZE)
    return nonce + _proof(token, b"sheepstack reader", nonce)


def is_attach_request(payload: bytes, token: bytes) -> bool:
    """True where whoever sent it knows the token."""
    nonce, proof = payload[:NONCE_SIZE], payload[NONCE_SIZE:]
    return hmac.compare_digest(proof, _proof(token, b"sheepstack reader", nonce))


class Attached(NamedTuple):
    """The sheep lives while the 32-bit word number ``life_at`` of its page is ``life``.

    ``clock``: its CLOCK_BOOTTIME when it answered, nanoseconds; processes of one machine may
    have different ones.
    """

    life_at: int
    life: int
    clock: int

    def pack(self, token: bytes, request: bytes) -> bytes:
        """The answer to ``request``."""
        return _ATTACHED.pack(
            _proof(token, b"sheepstack page", request[:NONCE_SIZE]), *self)

    @classmethod
    def unpack(cls, payload: bytes, token: bytes, request: bytes) -> "Attached":
        """Raises RemoteProtocolError where it is not from the sheep that gave the token."""
        if len(payload) != _ATTACHED.size:
            raise RemoteProtocolError("an answer of %d bytes" % len(payload))
        proof, *fields = _ATTACHED.unpack(payload)
        if not hmac.compare_digest(
                proof, _proof(token, b"sheepstack page", request[:NONCE_SIZE])):
            raise RemoteProtocolError("another sheep than the one that was meant")
        attached = cls(*fields)
        if not MUTEX_AT <= 4 * attached.life_at < MUTEX_AT + MUTEX_SIZE:
            raise RemoteProtocolError("a sign of life outside of its place")
        return attached


def _proof(token, label, nonce):
    return hmac.digest(token, label + nonce, hashlib.sha256)


class Opened(NamedTuple):
    """Header of the answer to DIRECT_OPEN.

    The file has ``size`` bytes of data and behind them, for each block of 4,096, a checksum of
    32 bits as :func:`sheepstack.wire.checksum.block_checksums` makes it, little-endian.
    """

    version: int
    opcode: int
    flags: int
    epoch: int
    id: int
    data_length: int
    result: int
    service: int
    files: int
    size: int

    def pack(self) -> bytes:
        return _OPENED.pack(*self)

    @classmethod
    def unpack(cls, header: bytes) -> "Opened":
        if len(header) != HEADER_SIZE:
            raise RemoteProtocolError("a header has 48 bytes, got %d" % len(header))
        return cls(*_OPENED.unpack(header))
