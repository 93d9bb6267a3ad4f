"""The activity log: which objects were written lately, known after any crash.

An object is in the log before its file changes and leaves it when it has been settled.  What
the log holds when a store is opened are the objects that may be torn, or newer than their
stamp says.  The file is written in place and never grows while there are free slots, so a
full disk does not matter; all integers are little-endian::

    offset  size  field
    0       8     magic "sheepact"
    8       4     version of this format, 1
    12      4     flags: 1 closed in good order and flushed; 2 writes are durable;
                  4 every object is suspect
    16      16    id of the machine's boot in which the store was last open
    32      4     CRC-32C of the 32 bytes in front
    36      4060  0
    4096    16 a slot

and a slot, all zeros where it is free::

    0       8     object id
    8       4     1
    12      4     CRC-32C of the 12 bytes in front
"""

import logging
import os
import threading
from struct import Struct

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store.errors import BadStore, from_os_error
from sheepstack.wire.checksum import crc32c

_LOG = logging.getLogger(__name__)

_HEADER = Struct("<8sII16s")
_SLOT = Struct("<QI")
_CRC = Struct("<I")
_SLOT_SIZE = 16
_SLOTS_AT = 4096
_MAGIC = b"sheepact"
_VERSION = 1
_USED = 1
_FREE = bytes(_SLOT_SIZE)

_FLUSHED = 1
_DURABLE = 2
_ALL_SUSPECT = 4

#: How many slots a new log has, and how many are added at a time.
SLOTS = 16384


class ActivityLog:
    """``durable``: a slot counts only when it is known to be on disk (``covered``).

    After opening, ``found`` is the list of object ids in the log; ``all_suspect`` says that
    the log cannot be relied on and any object may be in doubt; ``flushed`` that the store
    was closed in good order; ``is_new`` that there was no log.
    """

    def __init__(self, path, durable):
        self._durable = durable
        self._lock = threading.Lock()
        self._slots = {}
        self._active = set()
        # The values tell apart the times that an object came and went.
        self._unsure = {}
        self._idle = {}
        self._times = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._load(path)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise from_os_error(error, "cannot open the activity log") from error

    def _load(self, path):
        length = os.fstat(self._fd).st_size
        self.all_suspect = False
        self.flushed = True
        self.found = []
        self.is_new = length < _SLOTS_AT + _SLOT_SIZE
        if self.is_new:
            # Also where the making of a log was cut short.
            self._grow(0)
            return
        raw = memoryview(disk.read_at(self._fd, length, 0))
        head = raw[:_HEADER.size]
        magic, version, flags, boot = _HEADER.unpack(head)
        if _CRC.unpack_from(raw, _HEADER.size)[0] != crc32c(head):
            if any(raw[:_SLOTS_AT]):
                _LOG.error("%s: the header is damaged, every object is suspect", path)
                self.all_suspect = True
                self.flushed = False
        elif (magic, version) != (_MAGIC, _VERSION):
            raise BadStore("%s is no activity log that this version knows" % path)
        else:
            self.flushed = bool(flags & _FLUSHED)
            # Without durable writes nothing orders what reached the disk before the
            # machine went down.
            lost = not flags & (_FLUSHED | _DURABLE) and boot != disk.boot_id()
            self.all_suspect = lost or bool(flags & _ALL_SUSPECT)
        self._read_slots(path, raw)

    def _read_slots(self, path, raw):
        count = (len(raw) - _SLOTS_AT) // _SLOT_SIZE
        free = []
        for number in range(count):
            at = _SLOTS_AT + number * _SLOT_SIZE
            slot = raw[at:at + _SLOT_SIZE]
            if slot == _FREE:
                free.append(number)
                continue
            oid, used = _SLOT.unpack_from(slot)
            if used != _USED or _CRC.unpack_from(slot, 12)[0] != crc32c(slot[:12]):
                _LOG.error("%s: slot %d is damaged, every object is suspect", path, number)
                self.all_suspect = True
            elif oid not in self._slots:
                self._slots[oid] = number
                continue
            os.pwrite(self._fd, _FREE, at)
            free.append(number)
        self._count = count
        self._free = free[::-1]
        self.found = list(self._slots)

    def _grow(self, count):
        # Written, not only reserved: a slot must never need a disk block.
        disk.write_fully(self._fd, bytes(SLOTS * _SLOT_SIZE), _SLOTS_AT + count * _SLOT_SIZE)
        if not count:
            disk.write_fully(self._fd, bytes(_SLOTS_AT), 0)
            self._free = []
        self._free += range(count + SLOTS - 1, count - 1, -1)
        self._count = count + SLOTS

    def mark(self, flushed):
        """Notes on disk how the store is being used; raises StoreError."""
        flags = _FLUSHED if flushed else 0
        flags |= _DURABLE if self._durable else 0
        flags |= _ALL_SUSPECT if self.all_suspect else 0
        head = _HEADER.pack(_MAGIC, _VERSION, flags, disk.boot_id())
        try:
            os.pwrite(self._fd, head + _CRC.pack(crc32c(head)), 0)
            runtime.offload(os.fdatasync, self._fd)
        except OSError as error:
            raise from_os_error(error, "cannot write the activity log") from error

    def add(self, oid):
        """Enters ``oid``; raises NoSpace, StoreIOError."""
        if oid in self._active:
            return
        with self._lock:
            if oid not in self._slots:
                self._take_slot(oid)
                if self._durable:
                    self._times += 1
                    self._unsure[oid] = self._times
            self._idle.pop(oid, None)
            self._active.add(oid)

    def hold(self, oid):
        """Gives ``oid`` a slot without making it active, for a suspect; raises as add()."""
        with self._lock:
            if oid not in self._slots:
                self._take_slot(oid)

    def _take_slot(self, oid):
        try:
            if not self._free:
                self._grow(self._count)
            number = self._free[-1]
            head = _SLOT.pack(oid, _USED)
            os.pwrite(self._fd, head + _CRC.pack(crc32c(head)),
                      _SLOTS_AT + number * _SLOT_SIZE)
        except OSError as error:
            raise from_os_error(error, "cannot write the activity log") from error
        self._free.pop()
        self._slots[oid] = number

    def is_active(self, oid) -> bool:
        """True for an object that was written since it was last settled."""
        return oid in self._active

    def active(self) -> list:
        with self._lock:
            return list(self._active)

    def covered(self, oid) -> bool:
        """True for an active object of which any crash would leave a trace."""
        return oid in self._active and oid not in self._unsure

    def cover(self, oid):
        """Something as durable as the slot (a journal record) names ``oid``."""
        self._unsure.pop(oid, None)

    def holds(self, oid) -> bool:
        """True for an object that has a slot, settled or not."""
        return oid in self._slots

    def settle(self, oid):
        """Takes ``oid`` out of the log.

        In a durable log the slot stays until all that was written before is on disk; an
        object that becomes active again meanwhile finds it there.
        """
        with self._lock:
            self._active.discard(oid)
            if oid not in self._slots:
                return
            if self._durable:
                self._times += 1
                self._idle[oid] = self._times
            else:
                self._clear(oid)

    @property
    def idle(self) -> int:
        """How many slots wait for a flush."""
        return len(self._idle)

    def _clear(self, oid):
        number = self._slots.pop(oid)
        self._unsure.pop(oid, None)
        try:
            os.pwrite(self._fd, _FREE, _SLOTS_AT + number * _SLOT_SIZE)
        except OSError as error:
            _LOG.warning("cannot clear a slot of the activity log: %s", error)
            return
        self._free.append(number)

    def before_flush(self):
        """Call before everything is flushed; pass what it returns to after_flush()."""
        with self._lock:
            return dict(self._idle), dict(self._unsure)

    def after_flush(self, token):
        """Everything that was written before the matching before_flush() is on disk."""
        idle, unsure = token
        with self._lock:
            for oid, time in unsure.items():
                if self._unsure.get(oid) == time:
                    del self._unsure[oid]
            for oid, time in idle.items():
                if self._idle.get(oid) == time:
                    del self._idle[oid]
                    self._clear(oid)

    def close(self):
        os.close(self._fd)
