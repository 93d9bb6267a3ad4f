"""An open VDI: reading and writing its bytes.

The client owns the inode (see :mod:`sheepstack.client.live_inode`): it knows from the map
whose object holds what, creates objects of the VDI's own where there are none, and writes
their map entries back.  A write returns when its data and its entries are written.
"""

import logging
import time

from sheepstack.client import vdi_requests
from sheepstack.client.call import ByteBuffer, ReadCall, clear, object_call
from sheepstack.client.errors import Closed, NoSuchObject, NoSuchVdi, ReadOnly, error_for
from sheepstack.client.file import VdiFile
from sheepstack.client.future import DoneFuture, ReadFuture, TaskFuture, WriteFuture
from sheepstack.client.live_inode import read_inode
from sheepstack.client.patience import Patience
from sheepstack.client.rights import Rights
from sheepstack.client.snapshot import take_snapshot
from sheepstack.client.sparse_copy import copy_in, copy_out
from sheepstack.client.splitting import Part, runs, split
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.oid import VDI_SPACE_SHIFT, vdi_oid
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_CREATE = int(Op.CREATE_AND_WRITE_OBJ)
_WRITE_OBJ = int(Op.WRITE_OBJ)
_REMOVE_OBJ = int(Op.REMOVE_OBJ)
_COW = int(Flag.COW)

#: Objects that one read or write has in flight at most.
_WINDOW = 16
_DISCARD_WINDOW = 4096
_REMOVE_WINDOW = 64

#: What we know of the map is not so any more.
_STALE = frozenset((Result.READONLY, Result.NO_OBJ, Result.INODE_INVALIDATED))

#: Seconds in which the inode that a snapshot makes should be there.
_APPEARANCE = 3.0

#: Seconds in which an object that is missing should be there, or the map not name it any more.
_ABSENCE = 0.3


class Vdi:
    """Made by :meth:`Cluster.open_vdi`.  Offsets and lengths are in bytes.

    All methods may be called by many threads at a time.  Overlapping writes that are under way
    together end in either order.  Every method raises :class:`SheepError` where the cluster
    fails, and :class:`Closed` after :meth:`close`.
    """

    def __init__(self, caller, workers, files, name, channel, inode, lock=None,
                 read_only=False, shared=False):
        self.name = name
        self.read_only = read_only
        self._caller = caller
        self._pool = caller.pool
        self._workers = workers
        self._files = files
        self._channel = channel
        self._inode = inode
        self._lock = lock
        self._shared = shared
        self._is_snapshot = inode.header.is_snapshot
        self._rights = Rights()
        self._unfinished = set()
        self._flush_wanted = True
        self._closed = False
        self._shift = inode.header.block_size_shift
        self._mask = (1 << self._shift) - 1
        # Plain requests to one object need nothing that stands in their way here.
        self._direct = not shared

    # -- what it is

    @property
    def size(self) -> int:
        """Bytes that the VDI has room for."""
        return self._inode.header.vdi_size

    @property
    def block_size(self) -> int:
        """Bytes of a data object."""
        return 1 << self._shift

    @property
    def vdi_id(self) -> int:
        """The id of the VDI; a snapshot that is taken keeps it, and the VDI gets a new one."""
        return self._inode.vid

    @property
    def header(self) -> InodeHeader:
        """The inode's header as last seen."""
        return self._inode.header

    @property
    def is_snapshot(self) -> bool:
        return self._is_snapshot

    @property
    def closed(self) -> bool:
        return self._closed

    # -- reading

    def pread(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer where the VDI ends."""
        length = self._clip(offset, length)
        if not length:
            return b""
        index = offset >> self._shift
        if (offset + length - 1) >> self._shift == index and self._direct:
            inode = self._inode
            vid = inode.entry(index)
            if not vid:
                return bytes(length)
            oid = (vid << VDI_SPACE_SHIFT) | index
            data = self._read_here(inode, oid, offset & self._mask, length)
            if data is not None:
                return data
            call = ReadCall(oid, offset & self._mask, length)
            inode.perform((call,))
            if not call.status:
                return call.data
        buffer = ByteBuffer(length)
        self._read(offset, buffer.view)
        return buffer.take()

    def preadinto(self, offset: int, buffer) -> int:
        """Read into a writable bytes-like object; how many bytes there were."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            length = self._clip(offset, len(view))
            if length:
                with view[:length] as part:
                    self._read(offset, part)
        return length

    def _clip(self, offset, length):
        if self._closed:
            raise Closed("VDI '%s' was closed" % self.name)
        if offset < 0 or length < 0:
            raise ValueError("negative offset or length")
        size = self._inode.header.vdi_size
        if offset + length > size:
            return max(0, size - offset)
        return length

    def _read_here(self, inode, oid, within, length, may_wait=True):
        """Bytes of an object without asking the sheep, or None: see
        :mod:`sheepstack.wire.direct`."""
        files = self._files
        file = files.get(oid)
        if file is None or file.generation != self._pool.generation:
            file = files.find(oid, length, may_wait)
            if file is None:
                return None
        if not self._is_ours(file, inode):
            return None
        data = file.read(within, length)
        if data is None:
            again = files.find(oid, length, may_wait)
            data = again.read(within, length) if again not in (None, file) else None
        if data is not None:
            files.count(length)
        return data

    def _read_here_into(self, inode, oid, within, sink) -> bool:
        files = self._files
        file = files.find(oid, len(sink))
        if file is None or not self._is_ours(file, inode) or not file.read_into(within, sink):
            return False
        files.count(len(sink))
        return True

    def _is_ours(self, file, inode):
        """False where our lock may have been lost between the inode and the file."""
        lock = self._lock
        return lock is None or (
            lock.generation == file.generation and lock.takes == inode.takes)

    def _read(self, offset, view):
        for parts in _windows(split(offset, len(view), self._shift), _WINDOW):
            self._read_parts(parts, view)

    def _read_parts(self, parts, view):
        patience = _StalePatience(self._caller)
        while parts:
            inode = self._inode
            inode.load(parts[0].index, parts[-1].index)
            stale, again = self._look_again(inode, parts), parts
            if not stale:
                stale, again = self._read_round(inode, parts, view)
            if stale:
                patience.lose(self._error(stale, "read a part"))
                self._refresh(inode)
            parts = again

    def _look_again(self, inode, parts):
        """Where there are sharers: what is not the VDI's own may be by now.

        Returns the result that tells that the inode is out of date, or 0.
        """
        if self._shared and any(inode.entry(part.index) != inode.vid for part in parts):
            return inode.refetch(parts[0].index, parts[-1].index)
        return 0

    def _read_round(self, inode, parts, view):
        """Read each of ``parts`` once.

        Returns the result that tells that the inode is out of date, or 0, and the parts that
        are still to be read.
        """
        calls, asked = [], []
        for part in parts:
            sink = view[part.start:part.start + part.length]
            vid = inode.entry(part.index)
            if vid and self._direct and self._read_here_into(
                    inode, (vid << VDI_SPACE_SHIFT) | part.index, part.within, sink):
                continue
            if vid:
                asked.append(part)
                calls.append(ReadCall((vid << VDI_SPACE_SHIFT) | part.index, part.within,
                                      part.length, sink, self._channel.flags))
            else:
                clear(sink)
        if calls:
            inode.perform(calls)
        stale, again = 0, []
        for part, call in zip(asked, calls):
            if call.status in _STALE:
                stale = call.status
                again.append(part)
            elif call.status:
                raise self._error(call.status, "read a part")
        return stale, again

    # -- writing

    def pwrite(self, offset: int, data) -> int:
        """Write a bytes-like object; its length.

        Raises ValueError where it would reach beyond the end, and ReadOnly.
        """
        with memoryview(data) as whole, whole.cast("B") as view:
            length = len(view)
            self._check_write(offset, length)
            index = offset >> self._shift
            inode = self._inode
            if (length and self._direct and (offset + length - 1) >> self._shift == index
                    and inode.entry(index) == inode.vid):
                header = inode.header
                call = object_call(
                    _WRITE_OBJ, (inode.vid << VDI_SPACE_SHIFT) | index, offset & self._mask,
                    view, 0, 0, header.nr_copies, header.copy_policy)
                inode.perform((call,))
                if not call.status:
                    return length
            self._write(offset, view)
        return length

    def _check_write(self, offset, length):
        if self._closed:
            raise Closed("VDI '%s' was closed" % self.name)
        if self.read_only:
            raise ReadOnly("VDI '%s' is open for reading only" % self.name)
        if offset < 0 or length < 0:
            raise ValueError("negative offset or length")
        if offset + length > self._inode.header.vdi_size:
            raise ValueError("%d bytes at %d reach beyond the end of VDI '%s' (%d bytes)"
                             % (length, offset, self.name, self._inode.header.vdi_size))

    def _write(self, offset, view):
        for parts in _windows(split(offset, len(view), self._shift), _WINDOW):
            self._write_parts(parts, view)

    def _write_parts(self, parts, view):
        patience = _StalePatience(self._caller)
        while parts:
            inode = self._inode
            inode.load(parts[0].index, parts[-1].index)
            new = {part.index for part in parts if inode.entry(part.index) != inode.vid}
            if new:
                self._rights.take(new)
            try:
                result, failure = 0, None
                if new:
                    inode = self._inode
                    inode.load(parts[0].index, parts[-1].index)
                    result = self._look_again(inode, parts)
                if not result:
                    parts, result, failure = self._write_round(inode, parts, new, view)
            finally:
                if new:
                    self._rights.give_back(new)
            if failure is not None:
                raise failure
            if result:
                patience.lose(self._error(result, "write a part"))
                self._refresh(inode)

    def _write_round(self, inode, parts, new, view):
        """Write each of ``parts`` once; objects of the set ``new`` may be created.

        Returns the parts that are still to be written, the result that tells that the inode
        is out of date or 0, and the error that ends it all or None.
        """
        header = inode.header
        calls, sent, later = [], [], []
        for part in parts:
            entry = inode.entry(part.index)
            opcode, flags, cow_oid = _WRITE_OBJ, self._channel.flags, 0
            if entry != inode.vid:
                if part.index not in new:
                    later.append(part)
                    continue
                opcode = _CREATE
                if entry and part.length < self.block_size:
                    flags |= _COW
                    cow_oid = (entry << VDI_SPACE_SHIFT) | part.index
            calls.append(object_call(
                opcode, (inode.vid << VDI_SPACE_SHIFT) | part.index, part.within,
                view[part.start:part.start + part.length], flags, cow_oid, header.nr_copies,
                header.copy_policy))
            sent.append(part)
        inode.perform(calls)
        stale, failure, created = 0, None, []
        for part, call in zip(sent, calls):
            if call.status in _STALE:
                stale = call.status
                later.append(part)
            elif call.status:
                failure = self._error(call.status, "write a part")
            elif inode.entry(part.index) != inode.vid:
                created.append(part)
        if created:
            result = inode.write_entries({part.index: inode.vid for part in created})
            if result in _STALE:
                stale = result
                later.extend(created)
            elif result:
                failure = self._error(result, "write the map")
            else:
                for part in created:
                    inode.map.set(part.index, inode.vid)
        return sorted(later), stale, failure

    def _error(self, result, what):
        return error_for(result, "cannot %s of VDI '%s'" % (what, self.name))

    # -- the inode changed under us

    def _refresh(self, stale):
        """Learn the inode anew unless somebody did that since ``stale`` was it."""
        self._rights.take_all()
        try:
            if self._inode is stale:
                self._inode = self._learn(stale)
        finally:
            self._rights.give_back_all()

    def _learn(self, old):
        patience = Patience(self._caller, _APPEARANCE)
        while True:
            vid = old.vid
            try:
                if not self._is_snapshot:
                    call = vdi_requests.look_up(self.name)
                    self._caller.perform((call,))
                    if call.status:
                        raise error_for(call.status, "cannot find VDI '%s'" % self.name)
                    vid = vdi_requests.answer_of(call).vdi_id
                    if self._lock is not None:
                        self._lock.follow(vid)
                inode = read_inode(self._channel, vid, self._shared)
            except (NoSuchObject, NoSuchVdi) as error:
                # While a snapshot is taken, the new inode may not be there yet.
                patience.lose(error)
                continue
            if inode.header.is_snapshot and not self._is_snapshot:
                patience.lose(ReadOnly("VDI '%s' was deleted" % self.name))
                continue
            break
        if inode.vid != old.vid:
            log.info("VDI '%s' is %06x now, %06x became a snapshot", self.name, inode.vid,
                     old.vid)
            if (inode.header.parent_vdi_id == old.vid and not self.read_only
                    and not self._shared and not vdi_requests.is_ours(call)):
                self._rescue(old, inode)
        return inode

    def _rescue(self, old, inode):
        """Give ``inode`` what we wrote to ``old`` after its map had been copied.

        A C sheep copies the map a good while before it refuses writes to the old VDI, and takes
        writes to its inode even then.
        """
        ours = list(old.map.owned_by(old.vid))
        if not ours:
            return
        inode.load(ours[0], ours[-1])
        lost = [index for index in ours if inode.entry(index) not in (old.vid, inode.vid)]
        for first in range(0, len(lost), _WINDOW):
            calls = [object_call(
                _CREATE, (inode.vid << VDI_SPACE_SHIFT) | index, 0, b"",
                self._channel.flags | _COW, (old.vid << VDI_SPACE_SHIFT) | index,
                inode.header.nr_copies, inode.header.copy_policy)
                for index in lost[first:first + _WINDOW]]
            inode.perform(calls)
            for call in calls:
                if call.status:
                    raise self._error(call.status, "keep a part")
            entries = dict.fromkeys(lost[first:first + _WINDOW], inode.vid)
            result = inode.write_entries(entries)
            if result:
                raise self._error(result, "write the map")
            for index in entries:
                inode.map.set(index, inode.vid)

    # -- submitted reads and writes

    def submit_pread(self, offset: int, length: int):
        """Start a read; its :class:`~sheepstack.client.future.Future`."""
        length = self._clip(offset, length)
        index = offset >> self._shift
        if length and self._direct and (offset + length - 1) >> self._shift == index:
            inode = self._inode
            vid = inode.map.peek(index)
            oid = (vid << VDI_SPACE_SHIFT) | index if vid else 0
            data = self._read_here(inode, oid, offset & self._mask, length, False) if vid else None
            if data is not None:
                return DoneFuture(data)
            connection = self._ready(inode) if vid else None
            if connection is not None:
                future = ReadFuture(
                    self._workers, lambda: self.pread(offset, length),
                    oid, offset & self._mask, length)
                future.deadline = time.monotonic() + self._caller.timeout
                future.start(connection)
                return future
        return TaskFuture(self._workers, lambda: self.pread(offset, length)).start()

    def submit_pwrite(self, offset: int, data):
        """Start a write; its :class:`~sheepstack.client.future.Future`.

        ``data`` must not be changed before that is done.
        """
        view = memoryview(data).cast("B")
        length = len(view)
        self._check_write(offset, length)
        index = offset >> self._shift
        inode = self._inode
        if (length and self._direct and (offset + length - 1) >> self._shift == index
                and inode.map.peek(index) == inode.vid):
            connection = self._ready(inode)
            if connection is not None:
                header = inode.header
                future = object_call(
                    _WRITE_OBJ, (inode.vid << VDI_SPACE_SHIFT) | index, offset & self._mask,
                    view, 0, 0, header.nr_copies, header.copy_policy, WriteFuture)
                future.begin(self._workers, lambda: self._rewrite(offset, view))
                future.deadline = time.monotonic() + self._caller.timeout
                self._keep(future)
                future.start(connection)
                return future
        future = TaskFuture(self._workers, lambda: self._rewrite(offset, view))
        self._keep(future)
        return future.start()

    def _keep(self, future):
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)

    def _rewrite(self, offset, view):
        self.pwrite(offset, view)

    def _ready(self, inode):
        """A connection that a plain request may be sent on right now, or None."""
        connection = self._pool.lead()
        lock = self._lock
        if connection is None or lock is not None and (
                lock.generation != connection.generation or lock.takes != inode.takes):
            return None
        return connection

    # -- making room

    def discard(self, offset: int, length: int, thorough=False) -> None:
        """Give back the objects that lie wholly in the range; they then read as zeros.

        What is left of the range at its ends keeps its content.  ``thorough``: also objects that
        the map does not name, as one leaves behind who dies between making an object and
        entering it; nobody may be writing there.
        """
        self._check_write(offset, length)
        end = offset + length
        first = -(-offset >> self._shift)
        last = (-(-end >> self._shift) if end == self.size else end >> self._shift) - 1
        for start in range(first, last + 1, _DISCARD_WINDOW):
            self._discard_objects(start, min(last, start + _DISCARD_WINDOW - 1), thorough)

    def _discard_objects(self, first, last, thorough):
        patience = Patience(self._caller)
        while True:
            inode = self._inode
            inode.load(first, last)
            meant = set(range(first, last + 1) if thorough else inode.map.used(first, last))
            if not meant:
                return
            self._rights.take(meant)
            try:
                inode = self._inode
                entries = {index: inode.entry(index) for index in meant}
                used = {index: 0 for index, vid in entries.items() if vid}
                result = Result.SUCCESS
                if inode.became_snapshot():
                    result = Result.READONLY
                elif used:
                    result = inode.write_entries(used)
                if not result:
                    for index in used:
                        inode.map.set(index, 0)
                    self._remove_objects(inode, sorted(
                        index for index, vid in entries.items() if thorough or vid == inode.vid))
                    return
            finally:
                self._rights.give_back(meant)
            if result not in _STALE:
                raise self._error(result, "discard a part")
            patience.lose(self._error(result, "discard a part"))
            self._refresh(inode)

    def _remove_objects(self, inode, indexes):
        for first in range(0, len(indexes), _REMOVE_WINDOW):
            calls = [object_call(_REMOVE_OBJ, (inode.vid << VDI_SPACE_SHIFT) | index,
                                 flags=self._channel.flags)
                     for index in indexes[first:first + _REMOVE_WINDOW]]
            inode.perform(calls)
            for index, call in zip(indexes[first:], calls):
                # A C sheep may be faster: it removes what no map names any more.
                if call.status not in (Result.SUCCESS, Result.NO_OBJ):
                    log.warning("object %x of VDI '%s' is left over: result 0x%x", index,
                                self.name, call.status)

    def unnamed(self, offset: int, length: int) -> list:
        """Offsets of the objects in the range that are there and that the map does not name: what
        a thorough :meth:`discard` gives back beyond a plain one.

        Each part of the range that the map does not name is asked for.
        """
        length = self._clip(offset, length)
        if not length:
            return []
        first, last = offset >> self._shift, (offset + length - 1) >> self._shift
        inode = self._inode
        inode.load(first, last)
        holes = [index for index in range(first, last + 1) if not inode.entry(index)]
        found = []
        for start in range(0, len(holes), _REMOVE_WINDOW):
            asked = holes[start:start + _REMOVE_WINDOW]
            calls = [ReadCall((inode.vid << VDI_SPACE_SHIFT) | index, 0, 1,
                              flags=self._channel.flags) for index in asked]
            inode.perform(calls)
            for index, call in zip(asked, calls):
                if not call.status:
                    found.append(index << self._shift)
                elif call.status != Result.NO_OBJ:
                    raise self._error(call.status, "look for a part")
        return found

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeros, and give back whole objects."""
        self._check_write(offset, length)
        size = self.size
        whole_first = whole_end = None
        for part in split(offset, length, self._shift):
            position = offset + part.start
            if part.within == 0 and (
                    part.length == self.block_size or position + part.length == size):
                if whole_first is None:
                    whole_first = position
                whole_end = position + part.length
            elif self._inode.entry(part.index) or self._shared:
                self._write(position, memoryview(bytes(part.length)))
        if whole_first is not None:
            self.discard(whole_first, whole_end - whole_first)

    def preallocate(self) -> None:
        """Make an object of the VDI's own for every part of it."""
        self._check_write(0, 0)
        count = self._inode.header.object_count
        for first in range(0, count, _WINDOW):
            self._write_parts([Part(index, 0, 0, 0) for index
                               in range(first, min(count, first + _WINDOW))], memoryview(b""))

    def resize(self, size: int) -> None:
        """Change the VDI's size; what is cut off is lost, what is added reads as zeros.

        Raises ValueError where the VDI's map has no room for so much.
        """
        old_size = self.size
        self._check_write(0, 0)
        if not 0 <= size <= layout.DATA_INDEX << self._shift:
            raise ValueError("a VDI of %d byte objects has at most %d bytes"
                             % (self.block_size, layout.DATA_INDEX << self._shift))
        if size < old_size:
            # Nothing may come to light again when it grows later.
            self.write_zeroes(size, old_size - size)
        patience = Patience(self._caller)
        while True:
            inode = self._inode
            result = inode.write_header(layout.VDI_SIZE_OFFSET, size.to_bytes(8, "little"))
            if not result:
                break
            if result not in _STALE:
                raise self._error(result, "change the size")
            patience.lose(self._error(result, "change the size"))
            self._refresh(inode)
        self._rights.take_all()
        try:
            self._inode.header = self._inode.header._replace(vdi_size=size)
        finally:
            self._rights.give_back_all()

    # -- the rest

    def extents(self, offset: int, length: int) -> list:
        """What is data and what is hole: [(offset, length, is_data)...], in order.

        Holes read as zeros.  Data may hold zeros, too: only whole objects count.
        """
        length = self._clip(offset, length)
        found = []
        inode = self._inode
        if length:
            inode.load(offset >> self._shift, (offset + length - 1) >> self._shift)
        for part in split(offset, length, self._shift):
            is_data = inode.entry(part.index) != 0
            if found and found[-1][2] == is_data:
                found[-1][1] += part.length
            else:
                found.append([offset + part.start, part.length, is_data])
        return [tuple(extent) for extent in found]

    def differences(self, other) -> list:
        """Where this VDI may differ from ``other``: [(offset, length)...], in order.

        ``other``: an open VDI or snapshot of the same cluster.  They share what is not named,
        however they are related; the ranges are whole objects, cut at the end of this VDI.
        Raises ValueError where their objects are of different sizes.
        """
        if other.block_size != self.block_size:
            raise ValueError("VDI '%s' has objects of %d bytes, and '%s' of %d" % (
                self.name, self.block_size, other.name, other.block_size))
        size = self.size
        last = (size - 1) >> self._shift
        if last < 0:
            return []
        ours, theirs = self._inode, other._inode
        ours.load(0, last)
        theirs.load(0, last)
        found = []
        for first, count in runs(ours.map.differing(theirs.map, 0, last), _DISCARD_WINDOW):
            offset = first << self._shift
            found.append((offset, min(size, (first + count) << self._shift) - offset))
        return found

    def flush(self) -> None:
        """Return when all writes submitted before are done and safe."""
        if self._closed:
            raise Closed("VDI '%s' was closed" % self.name)
        for future in list(self._unfinished):
            future.result()
        if self._flush_wanted and not self.read_only:
            call = object_call(int(Op.FLUSH_VDI), vdi_oid(self._inode.vid))
            self._channel.perform((call,))
            if call.status == Result.INVALID_PARMS:
                # The sheep keep nothing back that could be flushed.
                self._flush_wanted = False
            elif call.status:
                raise self._error(call.status, "flush writes")

    def snapshot(self, tag: str) -> int:
        """Make a snapshot of the present content; its VDI id.

        Writes that are under way may be in it or not.  Raises TagExists, and OutcomeUnknown
        where the connection is lost and it cannot be found out what happened.
        """
        self._check_write(0, 0)
        self._rights.take_all()
        try:
            old = self._inode
            if old.became_snapshot():
                old = self._inode = self._learn(old)
            self._inode = take_snapshot(self._caller, self._channel, self.name, tag, old)
            if self._lock is not None:
                self._lock.follow(self._inode.vid)
                self._inode.takes = self._lock.takes
        finally:
            self._rights.give_back_all()
        return old.vid

    def reload(self) -> None:
        """Forget what is known of the map: others may have changed it.

        Only needed where the VDI is open here without the lock.
        """
        self._refresh(self._inode)

    def open_file(self) -> VdiFile:
        """A seekable, unbuffered file over the VDI; closing it leaves the VDI open."""
        return VdiFile(self)

    def copy_in(self, source, offset=0, length=None, progress=None) -> int:
        """Write what ``source.read()`` gives; see :func:`sparse_copy.copy_in`."""
        return copy_in(self, source, offset, length, progress)

    def copy_out(self, target, offset=0, length=None, progress=None, sparse=True) -> int:
        """Write the content to a file; see :func:`sparse_copy.copy_out`."""
        return copy_out(self, target, offset, length, progress, sparse)

    def close(self) -> None:
        """Wait for what was submitted and give the lock back.  May be called twice."""
        if self._closed:
            return
        try:
            for future in list(self._unfinished):
                future.exception()
        finally:
            self._closed = True
            if self._lock is not None:
                self._lock.release()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class _StalePatience:
    """Patience with an inode that turns out to be out of date; little where an object is not
    there, as that may be for good."""

    def __init__(self, caller):
        self._change = Patience(caller)
        self._absence = Patience(caller, _ABSENCE)

    def lose(self, error):
        if error.result == Result.NO_OBJ:
            self._absence.lose(error)
        else:
            self._change.lose(error)


def _windows(parts, size):
    """Lists of at most ``size`` of the iterator ``parts``."""
    window = []
    for part in parts:
        window.append(part)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
