"""The inode of an open VDI: its header, and as much of its map as was needed so far.

A snapshot gives the VDI a new id and a new inode; a :class:`LiveInode` is one of them from
beginning to end.
"""

import threading

from sheepstack.client.call import ReadCall, object_call
from sheepstack.client.errors import NotSupported, error_for
from sheepstack.client.inode_map import PAGE_BYTES, InodeMap, packed_run, page_offset
from sheepstack.client.splitting import runs
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.inode import InodeHeader, unpack_map
from sheepstack.wire.oid import vdi_oid
from sheepstack.wire.opcodes import Op
from sheepstack.wire.results import Result

_WRITE_OBJ = int(Op.WRITE_OBJ)

#: Entries written by one request.  A C sheep reads as many, and their references, first.
_RUN_LIMIT = 4096


class Channel:
    """How the requests of one open VDI are carried through.

    ``flags`` go with every object request.  ``lock``: the :class:`VdiLock`, or None.
    """

    def __init__(self, caller, flags=0, lock=None):
        self.caller = caller
        self.flags = flags
        self.lock = lock
        self._guard = lock.guard if lock is not None else None

    def perform(self, calls):
        """Perform calls that are right whatever others did to the VDI."""
        self.caller.perform(calls, self._guard)

    @property
    def takes(self):
        return self.lock.takes if self.lock is not None else 0


class _Outdated(Exception):
    """Others may have had the lock since the inode was read."""


class LiveInode:
    """``header`` may be replaced by one with the same id.  Safe for many threads.

    ``takes``: of the lock, when the inode was read.
    """

    def __init__(self, channel, header, known_map, takes):
        self._channel = channel
        self._lock = channel.lock
        self._guard = self._check if channel.lock is not None else None
        self._oid = vdi_oid(header.vdi_id)
        self._loading = threading.Lock()
        self._batches = threading.Condition()
        self._batch = _Batch()
        self._writing = False
        self.header = header
        self.vid = header.vdi_id
        self.map = known_map
        self.takes = takes

    def perform(self, calls):
        """Perform calls that are right only if the map is as it is known.

        Those that were not sent because that is in doubt get INODE_INVALIDATED.
        """
        try:
            self._channel.caller.perform(calls, self._guard)
        except _Outdated:
            for call in calls:
                if call.status is None or call.error is not None:
                    call.error = None
                    call.status = Result.INODE_INVALIDATED

    def _check(self, connection, deadline):
        connection = self._lock.guard(connection, deadline)
        if self._lock.takes != self.takes:
            raise _Outdated
        return connection

    def entry(self, index) -> int:
        """The map's entry for data object ``index``, read from the sheep where need be."""
        vid = self.map.peek(index)
        if vid is None:
            self.load(index, index)
            vid = self.map.as_read(index)
        return vid

    def load(self, first, last):
        """Have the entries from ``first`` to ``last``."""
        if not self.map.missing(first, last):
            return
        with self._loading:
            pages = self.map.missing(first, last)
            calls = [ReadCall(self._oid, page_offset(page), PAGE_BYTES,
                              flags=self._channel.flags) for page in pages]
            self._channel.perform(calls)
            for page, call in zip(pages, calls):
                if call.status:
                    raise error_for(call.status, "cannot read the map of VDI %06x" % self.vid)
                # Whoever writes entries, and so knows better, ends their doubt with that lock.
                with self._batches:
                    self.map.install(page, call.data)

    def refetch(self, first, last) -> int:
        """Read the entries from ``first`` to ``last`` anew; their pages are there.

        The result is SUCCESS or INODE_INVALIDATED.
        """
        call = ReadCall(self._oid, layout.data_vdi_id_offset(first), 4 * (last - first + 1),
                        flags=self._channel.flags)
        self._channel.perform((call,))
        if not call.status:
            for index, vid in enumerate(unpack_map(call.data), first):
                self.map.set(index, vid)
        elif call.status != Result.INODE_INVALIDATED:
            raise error_for(call.status, "cannot read the map of VDI %06x" % self.vid)
        return call.status

    def write_header(self, offset, data) -> int:
        """Overwrite bytes of the header of the working VDI.

        The result is SUCCESS, READONLY where it is a snapshot by now, or another code.
        """
        if self.became_snapshot():
            return Result.READONLY
        header = self.header
        call = object_call(
            _WRITE_OBJ, self._oid, offset, data, self._channel.flags,
            copies=header.nr_copies, copy_policy=header.copy_policy)
        self._channel.perform((call,))
        if call.status:
            return call.status
        return Result.READONLY if self.became_snapshot() else Result.SUCCESS

    def became_snapshot(self) -> bool:
        """Ask the sheep whether the VDI of this id is a snapshot by now."""
        call = self._read_mark()
        if call.status:
            raise error_for(call.status, "cannot read the inode of VDI %06x" % self.vid)
        return any(call.data)

    def _read_mark(self):
        call = ReadCall(self._oid, layout.SNAP_CTIME_OFFSET, 8, flags=self._channel.flags)
        self._channel.perform((call,))
        return call

    def write_entries(self, entries) -> int:
        """Write new entries, a dict by index, into the inode, not yet into ``map``.

        What several threads want written at the same time goes out together.  The result is
        SUCCESS, READONLY where the VDI became a snapshot meanwhile (then they count for the
        snapshot at best), or another code.  Who takes entries away must know just before that
        it is no snapshot: a sheep does as it is told.

        Where it fails the entries may have been written all the same, or may be in a while: they
        are read anew whenever they are needed, until they could be written.
        """
        with self._batches:
            batch = self._batch
            batch.entries.update(entries)
            while self._writing and batch is self._batch:
                self._batches.wait()
            if batch is not self._batch:
                while batch.result is None and batch.error is None:
                    self._batches.wait()
                if batch.error is not None:
                    raise batch.error
                return batch.result
            self._batch = _Batch()
            self._writing = True
        try:
            batch.result = self._write_batch(batch.entries)
            return batch.result
        except BaseException as error:
            batch.error = error
            raise
        finally:
            with self._batches:
                if batch.result == Result.SUCCESS:
                    self.map.trust(batch.entries)
                else:
                    self.map.doubt(batch.entries)
                self._writing = False
                self._batches.notify_all()

    def _write_batch(self, entries):
        header, flags = self.header, self._channel.flags
        calls = [object_call(
            _WRITE_OBJ, self._oid, layout.data_vdi_id_offset(first),
            packed_run(entries, first, count), flags, copies=header.nr_copies,
            copy_policy=header.copy_policy)
            for first, count in runs(sorted(entries), _RUN_LIMIT)]
        self.perform(calls)
        for call in calls:
            if call.status:
                return call.status
        # Sheep take writes to a snapshot's inode.  Whoever took a snapshot before our write
        # was executed did not see it, and has marked the inode by now.
        mark = self._read_mark()
        if mark.status:
            return mark.status
        return Result.READONLY if any(mark.data) else Result.SUCCESS


class _Batch:
    def __init__(self):
        self.entries = {}
        self.result = None
        self.error = None


def read_inode(channel, vid, whole=False) -> LiveInode:
    """Read an inode from the sheep: its header and the beginning of its map.

    ``whole``: all of the map in the one read that tells a sheep that a sharer of the VDI is up
    to date.  Raises the error of the result, and NotSupported for a hyper volume.
    """
    takes = channel.takes
    length = layout.GREF_OFFSET if whole else layout.DATA_VDI_ID_OFFSET + PAGE_BYTES
    call = ReadCall(vdi_oid(vid), 0, length, flags=channel.flags)
    channel.perform((call,))
    if call.status:
        raise error_for(call.status, "cannot read the inode of VDI %06x" % vid)
    header = InodeHeader.unpack(call.data[:layout.INODE_HEADER_SIZE])
    if header.store_policy:
        raise NotSupported("VDI '%s' is a hyper volume: not supported" % header.name)
    known_map = InodeMap()
    entries = memoryview(call.data)[layout.DATA_VDI_ID_OFFSET:]
    if whole:
        known_map.install_all(entries)
    else:
        known_map.install(0, entries)
    return LiveInode(channel, header, known_map, takes)
