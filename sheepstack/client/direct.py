"""Files of objects that a sheep on this host lets its client read: see
:mod:`sheepstack.wire.direct`.

A file is asked for when an object is read for the second time, or much of it at once.  All is
optional: where anything is in the way the answer is None, and the read goes to the sheep.
"""

import fcntl
import json
import logging
import mmap
import os
import resource
import socket
import threading
import time
import weakref
from collections import OrderedDict
from struct import Struct

from sheepstack.client.address import GatewayAddress
from sheepstack.client.call import ControlCall, new_ident
from sheepstack.client.caller import RETRIED
from sheepstack.client.errors import AuthenticationFailed, ConnectionLost
from sheepstack.client.handshake import prove
from sheepstack.client.shared_file import SharedFile
from sheepstack.wire import direct
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import (
    COMMON, HEADER_SIZE, OBJ_REQUEST, RESULT_RESPONSE, Header, version_of)
from sheepstack.wire.opcodes import PROTO_VER, Flag, Op
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

#: Files that are open at most, and the share of the process's descriptors that they may be.
_MOST_FILES = 512
_SHARE_OF_FILES = 4
#: A read of so many bytes is worth asking for the file at once.
_LARGE = 256 << 10
#: Objects of which it is known that they were read once, or refused.
_MOST_SEEN = 4096
#: Seconds in which a sheep answers that is worth asking; and for how long one is left alone
#: that did not, and an object that it refused.
_ASK_SECONDS = 0.2
_PAUSE_AFTER_FAILURE = 5.0
_PAUSE_AFTER_REFUSAL = 0.25
#: Seconds between two looks for files that are over.
_SWEEP_SECONDS = 1.0
#: Others have their turn after so many bytes, where each read counts for some more.
_TURN = 4 << 20
_COST = 8192
_HELLO_ROOM = 4096
_DESCRIPTOR = Struct("=i")
_F_GET_SEALS, _F_SEAL_SHRINK = 1034, 2

#: The path of the socket means nothing here, or another sheep.
_FOR_GOOD = (FileNotFoundError, NotADirectoryError, PermissionError, RemoteProtocolError,
             AuthenticationFailed)

_monotonic = time.monotonic
_HELLO = Header(version_of(Op.DIRECT_HELLO), Op.DIRECT_HELLO, 0, 0, 0, _HELLO_ROOM).pack()


class Page:
    """What a sheep tells, and the connection on which it gives files.

    ``generation``: of the pool's connections that lead to the same sheep.
    """

    def __init__(self, sock, descriptor, attached, generation):
        self._sock = sock
        self.attached = attached
        self.generation = generation
        if not fcntl.fcntl(descriptor, _F_GET_SEALS) & _F_SEAL_SHRINK:
            raise RemoteProtocolError("a page that could go away")
        self._map = mmap.mmap(descriptor, direct.PAGE_SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self.words = memoryview(self._map).cast("Q")
        self.halves = memoryview(self._map).cast("I")
        if self.words[0] != direct.MAGIC:
            raise RemoteProtocolError("a page of another kind")

    def sheep_lives(self) -> bool:
        return self.halves[self.attached.life_at] == self.attached.life

    def is_of_use(self) -> bool:
        """False where the sheep would refuse any file, or not answer at all."""
        return (self.words[direct.SERVICE] != 0 and self.sheep_lives()
                and _clock() < self.words[direct.LEASE])

    def open(self, oid, reads, read_bytes):
        """The :class:`SharedFile` of an object, or the result that refuses it.

        ``oid`` 0: only tell that so much was ``read``.  Raises OSError and
        RemoteProtocolError; the page gives no files any more then.
        """
        ident = new_ident()
        response, _, descriptor = exchange(self._sock, OBJ_REQUEST.pack(
            PROTO_VER, Op.DIRECT_OPEN, 0, 0, ident, 0, oid, read_bytes, 0, 0, 0, 0,
            min(reads, 0xFFFFFFFF), 0), 0)
        result = RESULT_RESPONSE.unpack_from(response)[6]
        if result or not oid:
            if descriptor is not None:
                os.close(descriptor)
            return result
        if descriptor is None:
            raise RemoteProtocolError("a file without a descriptor")
        return SharedFile(self, descriptor, direct.slot_of(oid), direct.Opened.unpack(response))

    def close(self):
        """Ask for no more files; those that are open are good as long as they are."""
        self._sock.close()


class Direct:
    """``pool``: of connections to gateways.  ``wanted`` False: there are never any files."""

    def __init__(self, pool, key, workers, timeout, wanted=True):
        self._pool = pool
        self._key = key
        self._workers = workers
        self._timeout = timeout
        self._wanted = wanted and direct.is_possible()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY:
            limit = _SHARE_OF_FILES * _MOST_FILES
        self._limit = max(1, min(_MOST_FILES, limit // _SHARE_OF_FILES))
        self._reset()
        _all.add(self)

    def _reset(self):
        self._files = {}
        #: Find a file that is open: the fast way.
        self.get = self._files.get
        self._seen = OrderedDict()
        self._page = None
        self._tried = None
        self._not_before = 0.0
        self._asking = threading.Lock()
        self._sweeping = False
        self._closed = threading.Event()
        self._attaching = False
        self._turn = 0
        self.reads = self.read_bytes = 0
        #: How many there were before those that are counted in ``reads``.
        self.told = 0

    def find(self, oid, length, may_wait=True):
        """The file of an object of which ``length`` bytes shall be read, or None.

        ``may_wait``: whether something may be asked on the pool's own connections.
        """
        if not self._wanted:
            return None
        file = self.get(oid)
        if file is not None:
            if file.generation == self._pool.generation and not file.is_over():
                return file
            self._files.pop(oid, None)
            self._note(oid, 0.0)
            if length < _LARGE:
                # Whoever changed it may be about to change it again.
                return None
        elif not self._is_due(oid, length):
            return None
        if not self._asking.acquire(blocking=False):
            return None
        try:
            page = self._attached(may_wait)
            return None if page is None or not page.is_of_use() else self._open(page, oid)
        finally:
            self._asking.release()

    def count(self, length):
        """So many bytes were read at once."""
        self.reads += 1
        self.read_bytes += length
        self._turn += length + _COST
        if self._turn > _TURN:
            self._turn = 0
            # Under green threads nobody else has had a turn; to native ones it is nothing.
            time.sleep(0)

    def _is_due(self, oid, length):
        due = self._seen.get(oid)
        if due is not None:
            return due <= _monotonic()
        if length >= _LARGE:
            return True
        self._note(oid, 0.0)
        return False

    def _note(self, oid, due):
        seen = self._seen
        seen[oid] = due
        if len(seen) > _MOST_SEEN:
            try:
                seen.popitem(last=False)
            except KeyError:
                # Another thread was faster.
                pass

    def _open(self, page, oid):
        try:
            found = page.open(oid, *self._take_counts())
        except (OSError, RemoteProtocolError) as error:
            self._fail(error)
            return None
        if not isinstance(found, SharedFile):
            self._note(oid, _monotonic() + _PAUSE_AFTER_REFUSAL)
            return None
        self._keep(oid, found)
        return found

    def _take_counts(self):
        reads, self.reads = self.reads, 0
        read_bytes, self.read_bytes = self.read_bytes, 0
        self.told += reads
        return reads, read_bytes

    def _keep(self, oid, file):
        self._seen.pop(oid, None)
        files = self._files
        while len(files) >= self._limit:
            try:
                oldest = next(iter(files))
            except (RuntimeError, StopIteration):
                # Another thread has just let go of one.
                continue
            candidate = files.pop(oldest, None)
            if candidate is not None and candidate.recent:
                candidate.recent = False
                files[oldest] = candidate
        files[oid] = file
        if not self._sweeping:
            self._sweeping = True
            threading.Thread(target=_sweep, args=(weakref.ref(self), self._closed), daemon=True,
                             name="sheep-files").start()

    def _fail(self, error):
        log.info("objects are not read directly: %s", error)
        page, self._page = self._page, None
        self._tried = None
        self._not_before = _monotonic() + _PAUSE_AFTER_FAILURE
        if page is not None:
            page.close()

    # -- coming to a sheep; all of it while ``_asking`` is held

    def _attached(self, may_wait):
        """The page of the sheep to which the pool leads now, or None."""
        generation = self._pool.generation
        page = self._page
        if page is not None and page.generation == generation:
            return page
        if self._tried == generation or _monotonic() < self._not_before:
            return None
        connection = self._pool.lead()
        if connection is None:
            return None
        if not may_wait:
            if not self._attaching:
                self._attaching = True
                self._workers.put(_Attachment(self))
            return None
        self._page = None
        if page is not None:
            page.close()
        try:
            self._page = self._attach(connection)
        except (OSError, RemoteProtocolError, ConnectionLost, AuthenticationFailed) as error:
            self._fail(error)
            if not isinstance(error, _FOR_GOOD):
                return None
        # One that offers nothing, or is out of reach, will not be asked again.
        self._tried = connection.generation
        return self._page

    def _attach(self, connection):
        greeting = self._greet(connection)
        if greeting is None or greeting["host"] != _machine():
            return None
        token = bytes.fromhex(greeting["token"])
        sock = GatewayAddress(path=greeting["sock"]).connect(_ASK_SECONDS)
        try:
            if self._key is not None:
                prove(sock, self._key, greeting["sock"])
            request, asked = direct.attach_request(token), _clock()
            header = Header(version_of(Op.DIRECT_ATTACH), Op.DIRECT_ATTACH, Flag.WRITE, 0,
                            new_ident(), len(request)).pack()
            response, payload, descriptor = exchange(sock, header + request, 256)
            try:
                result = RESULT_RESPONSE.unpack_from(response)[6]
                if result or descriptor is None:
                    raise RemoteProtocolError("refused with result %d" % result)
                attached = direct.Attached.unpack(payload, token, request)
                if not asked <= attached.clock <= _clock():
                    raise RemoteProtocolError("another clock")
                return Page(sock, descriptor, attached, connection.generation)
            finally:
                if descriptor is not None:
                    os.close(descriptor)
        except BaseException:
            sock.close()
            raise

    def _greet(self, connection):
        """What the sheep says of itself; None where it offers nothing."""
        call = ControlCall(_HELLO, limit=_HELLO_ROOM)
        call.deadline = _monotonic() + self._timeout
        connection.submit(call)
        connection.wait(call, call.deadline)
        if call.error is not None:
            raise call.error
        if call.status in RETRIED:
            raise OSError("the sheep does not serve now: result %d" % call.status)
        if call.status != Result.SUCCESS:
            return None
        try:
            greeting = json.loads(call.data)
            if not all(isinstance(greeting[key], str) for key in ("host", "sock", "token")):
                raise ValueError("not all of it is text")
            return greeting
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteProtocolError("a greeting that makes no sense: %s" % error) from error

    def attach_now(self):
        """A worker's job: what a caller had no time for."""
        with self._asking:
            self._attaching = False
            if self._wanted:
                self._attached(True)

    # -- letting go

    def sweep(self) -> bool:
        """Close what is over: it may be all that keeps a removed object's space.

        Also tell of what was read.  False where there is no more to do.
        """
        for oid, file in list(self._files.items()):
            if file.is_over() or file.generation != self._pool.generation:
                self._files.pop(oid, None)
        with self._asking:
            if self.reads:
                self._tell()
            self._sweeping = bool(self._files)
            return self._sweeping

    def _tell(self):
        counts = self._take_counts()
        page = self._page
        if page is not None and page.is_of_use():
            try:
                page.open(0, *counts)
            except (OSError, RemoteProtocolError) as error:
                self._fail(error)

    def close(self):
        """There are no files any more."""
        self._wanted = False
        self._closed.set()
        with self._asking:
            page, self._page = self._page, None
            self._files.clear()
        if page is not None:
            page.close()


def _sweep(reference, closed):
    """In a thread, while there are files, and whoever has them."""
    while not closed.wait(_SWEEP_SECONDS):
        owner = reference()
        if owner is None or not owner.sweep():
            return
        owner = None


class _Attachment:
    def __init__(self, owner):
        self._owner = owner

    def work(self):
        self._owner.attach_now()


def exchange(sock, message, limit):
    """Send a request; (header, payload of at most ``limit`` bytes, descriptor or None).

    Raises OSError and RemoteProtocolError.
    """
    sock.sendall(message)
    descriptor = None
    try:
        data = bytearray()
        wanted = HEADER_SIZE
        while len(data) < wanted:
            # Green sockets wait in recv(), and know nothing of recvmsg().
            if not sock.recv(1, socket.MSG_PEEK):
                raise OSError("the sheep closed the connection")
            piece, rights, _, _ = sock.recvmsg(
                wanted - len(data), socket.CMSG_LEN(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC)
            for level, kind, raw in rights:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    for number, in _DESCRIPTOR.iter_unpack(raw):
                        if descriptor is not None:
                            os.close(descriptor)
                        descriptor = number
            data += piece
            if wanted == HEADER_SIZE == len(data):
                length = COMMON.unpack_from(data)[5]
                if length > limit:
                    raise RemoteProtocolError("an answer of %d bytes" % length)
                wanted += length
        return bytes(data[:HEADER_SIZE]), bytes(data[HEADER_SIZE:]), descriptor
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise


def _clock():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _machine():
    """What a sheep on this machine says that it is."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return None


_all = weakref.WeakSet()


def _after_fork():
    # The page and the files would do, but not the connection that the parent goes on using.
    for one in list(_all):
        one._reset()


os.register_at_fork(after_in_child=_after_fork)
