"""Requests on their way: what is sent, what came back.

A call knows no socket.  The connection sends ``header`` and ``payload``, and hands what
arrives to :meth:`Call.accept` or, where it is large, receives it straight into
:meth:`Call.open_sink`.
"""

import io
import itertools

from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import MAX_DATA_LENGTH, OBJ_REQUEST
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op

_ZEROS = bytes(1 << 20)
_READ_OBJ = int(Op.READ_OBJ)
_WRITE = int(Flag.WRITE)

_numbers = itertools.count(1)


def new_ident() -> int:
    """A request id that no other request of this process has for the next four billion."""
    return next(_numbers) & 0xFFFFFFFF


def clear(view):
    """Fill a writable memoryview with zeros."""
    for start in range(0, len(view), len(_ZEROS)):
        piece = view[start:start + len(_ZEROS)]
        piece[:] = _ZEROS[:len(piece)]


class ByteBuffer:
    """``length`` bytes to be received into, that turn into ``bytes`` without a copy."""

    def __init__(self, length):
        self._file = io.BytesIO()
        if length:
            self._file.seek(length - 1)
            self._file.write(b"\0")
        self.view = self._file.getbuffer()

    def take(self) -> bytes:
        """The bytes; the view is gone then."""
        self.view.release()
        return self._file.getvalue()


class Call:
    """A request whose answer is a result code alone: a write, a removal.

    ``answered`` turns true last, when either ``status`` (the result code) or ``error`` (the
    connection ended) is there.  ``resendable``: it does no harm when it is executed twice.
    """

    __slots__ = ("ident", "header", "payload", "resendable", "deadline", "connection", "sent",
                 "answered", "status", "error", "waiter")

    #: Most bytes that may follow the response's header.
    limit = 0
    #: Whether the whole header of the response is wanted, in ``response``.
    keeps_header = False
    #: Called without arguments, by whoever received the answer, once ``answered`` is true.
    on_answer = None

    def __init__(self, ident, header, payload=None, resendable=True):
        self.ident = ident
        self.header = header
        self.payload = payload
        self.resendable = resendable
        self.deadline = None
        self.sent = False
        self.reset()

    def reset(self):
        """Forget the answer, to be sent once more."""
        self.connection = None
        self.answered = False
        self.status = None
        self.error = None
        self.waiter = None

    def accept(self, result, skipped, view):
        """The answer: ``view`` is its payload, in front of which ``skipped`` zeros are left
        out.  The view is only good during this call."""
        self.status = result

    def open_sink(self, result, skipped, length):
        """Where the payload of ``length`` bytes shall be received: a writable memoryview."""
        self.status = result
        return memoryview(bytearray(length))

    def close_sink(self):
        """The sink is full."""


class ReadCall(Call):
    """Read of a part of an object, into ``sink`` (a writable memoryview of ``length`` bytes)
    or else into new bytes, found in ``data``."""

    __slots__ = ("limit", "sink", "data", "_buffer")

    def __init__(self, oid, offset, length, sink=None, flags=0):
        ident = new_ident()
        Call.__init__(self, ident, OBJ_REQUEST.pack(
            PROTO_VER, _READ_OBJ, flags, 0, ident, length, oid, 0, 0, 0, 0, 0, offset, 0))
        self.limit = length
        self.sink = sink
        self.data = None
        self._buffer = None

    def accept(self, result, skipped, view):
        self.status = result
        if result:
            return
        length = len(view)
        if skipped + length > self.limit:
            raise RemoteProtocolError("more bytes than were asked for")
        sink = self.sink
        if sink is not None:
            sink[skipped:skipped + length] = view
            self._clear_around(sink, skipped, length)
        elif length == self.limit:
            self.data = bytes(view)
        else:
            self.data = b"".join(
                (bytes(skipped), view, bytes(self.limit - skipped - length)))

    def open_sink(self, result, skipped, length):
        if result:
            return Call.open_sink(self, result, skipped, length)
        if skipped + length > self.limit:
            raise RemoteProtocolError("more bytes than were asked for")
        self.status = result
        sink = self.sink
        if sink is None:
            self._buffer = ByteBuffer(self.limit)
            sink = self._buffer.view
        self._clear_around(sink, skipped, length)
        return sink[skipped:skipped + length]

    def close_sink(self):
        if self._buffer is not None:
            self.data = self._buffer.take()
            self._buffer = None

    def _clear_around(self, sink, skipped, length):
        if skipped:
            clear(sink[:skipped])
        if skipped + length < self.limit:
            clear(sink[skipped + length:])


class ControlCall(Call):
    """Any other request.  ``response`` is the header of the answer, ``data`` its payload.

    ``header``: 48 bytes as packed by :mod:`sheepstack.wire.header`; the id in it is replaced.
    """

    __slots__ = ("limit", "response", "data", "_sink")

    keeps_header = True

    def __init__(self, header, payload=None, limit=MAX_DATA_LENGTH, resendable=True):
        ident = new_ident()
        header = b"".join((header[:8], ident.to_bytes(4, "little"), header[12:]))
        Call.__init__(self, ident, header, payload, resendable)
        self.limit = limit
        self.response = None
        self.data = b""
        self._sink = None

    def accept(self, result, skipped, view):
        self.status = result
        self.data = bytes(view)

    def open_sink(self, result, skipped, length):
        self.status = result
        self._sink = ByteBuffer(length)
        return self._sink.view[:]

    def close_sink(self):
        self.data = self._sink.take()
        self._sink = None


def object_call(opcode, oid, offset=0, data=None, flags=0, cow_oid=0, copies=0, copy_policy=0,
                cls=Call) -> Call:
    """A write, creation, removal or discard of an object; ``data`` is bytes-like."""
    ident = new_ident()
    length = 0
    if data is not None:
        length = len(data)
        flags |= _WRITE
    return cls(ident, OBJ_REQUEST.pack(
        PROTO_VER, opcode, flags, 0, ident, length, oid, cow_oid, copies, copy_policy, 0, 0,
        offset, 0), data if length else None)
