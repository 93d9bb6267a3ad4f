"""The page by which clients on this host know whether they may read objects by themselves.

What it holds, and why that is enough: :mod:`sheepstack.wire.direct`.
"""

import atexit
import ctypes
import fcntl
import logging
import mmap
import os
import threading

from sheepstack.wire import direct
from sheepstack.wire.direct import SERVICE, slot_of

log = logging.getLogger(__name__)

_F_ADD_SEALS = 1033
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW, _F_SEAL_FUTURE_WRITE = 1, 2, 4, 16
_PTHREAD_PROCESS_SHARED = 1
_PTHREAD_MUTEX_ROBUST = 1
_TID_MASK = 0x3FFFFFFF
_NS = 1_000_000_000


class NoPage:
    """Where nobody reads directly."""

    usable = False
    service = 0

    def show(self, view):
        """Clients are served under ``view`` from now on, or not at all."""

    def set_lease(self, until):
        """The lease holds until then, seconds of CLOCK_BOOTTIME; 0: it does not."""

    def begin(self, oid):
        """A write to an object is about to be applied."""

    def end(self, oid):
        """All writes to an object that were begun are with all its holders."""

    def moved(self, oid):
        """An object is about to have another file, or none."""

    def all_moved(self):
        """All objects are."""

    def close(self):
        """Nobody is served any more."""


NO_PAGE = NoPage()


class DirectPage(NoPage):
    """To be made, and left, by the thread that lives as long as the process.

    ``begin`` and ``end`` come in pairs for each object, never one within another.  Raises
    OSError where this machine cannot do it.
    """

    usable = True

    def __init__(self):
        if not direct.is_possible():
            raise OSError("this processor orders memory accesses too loosely")
        self._lock = threading.Lock()
        self._busy = {}
        self._shown = None
        self._count = 0
        self.descriptor = os.memfd_create(
            "sheep-direct", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, direct.PAGE_SIZE)
            self._map = mmap.mmap(self.descriptor, direct.PAGE_SIZE)
            # What is mapped by now can be written to, by us; all that is mapped later can not.
            fcntl.fcntl(self.descriptor, _F_ADD_SEALS, _F_SEAL_SHRINK | _F_SEAL_GROW
                        | _F_SEAL_FUTURE_WRITE | _F_SEAL_SEAL)
            self._words = memoryview(self._map).cast("Q")
            # Never unmapped: the kernel looks for the mutex there when this thread ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._map))
            self.life = self._take_life()
        except BaseException:
            os.close(self.descriptor)
            raise
        self._words[0] = direct.MAGIC
        atexit.register(self.close)

    def _take_life(self) -> tuple:
        """Lock a mutex that the kernel marks when this thread is no more; (number of the word
        that it marks, its present value)."""
        libc = ctypes.CDLL(None)
        place = ctypes.c_char.from_buffer(self._map, direct.MUTEX_AT)
        attributes = ctypes.create_string_buffer(64)
        for step in (
                lambda: libc.pthread_mutexattr_init(attributes),
                lambda: libc.pthread_mutexattr_setpshared(attributes, _PTHREAD_PROCESS_SHARED),
                lambda: libc.pthread_mutexattr_setrobust(attributes, _PTHREAD_MUTEX_ROBUST),
                lambda: libc.pthread_mutex_init(ctypes.byref(place), attributes),
                lambda: libc.pthread_mutex_lock(ctypes.byref(place))):
            error = step()
            if error:
                raise OSError(error, os.strerror(error))
        me = threading.get_native_id()
        with memoryview(self._map).cast("I") as halves:
            for at in range(direct.MUTEX_AT // 4, (direct.MUTEX_AT + direct.MUTEX_SIZE) // 4):
                # The word that the kernel knows comes first in glibc's mutex as in musl's.
                if halves[at] & _TID_MASK == me:
                    return at, halves[at]
        raise OSError("this C library has mutexes that are not known here")

    @property
    def service(self) -> int:
        return self._words[SERVICE]

    def files(self, oid) -> int:
        """To be given out with an object's file, which must not change meanwhile."""
        return self._words[slot_of(oid) + 1]

    def show(self, view):
        shown = (view.revision, view.index) if (
            view.open and view.serving and view.index >= 0) else None
        with self._lock:
            if shown != self._shown:
                self._shown = shown
                self._renew_service()

    def _renew_service(self):
        self._count += 1
        self._words[SERVICE] = self._count if self._shown is not None else 0

    def set_lease(self, until):
        self._words[direct.LEASE] = int(until * _NS)

    def begin(self, oid):
        slot = slot_of(oid)
        with self._lock:
            count = self._busy.get(slot, 0)
            self._busy[slot] = count + 1
            if not count:
                self._words[slot] += 1

    def end(self, oid):
        slot = slot_of(oid)
        with self._lock:
            count = self._busy[slot] - 1
            if count:
                self._busy[slot] = count
            else:
                del self._busy[slot]
                self._words[slot] += 1

    def moved(self, oid):
        with self._lock:
            self._words[slot_of(oid) + 1] += 1

    def all_moved(self):
        with self._lock:
            self._renew_service()

    def close(self):
        with self._lock:
            self._shown = None
            self._renew_service()


def make_page(wanted):
    """A :class:`DirectPage` where it is ``wanted`` and possible."""
    if wanted:
        try:
            return DirectPage()
        except (OSError, AttributeError) as error:
            log.info("clients cannot read objects by themselves here: %s", error)
    return NO_PAGE
