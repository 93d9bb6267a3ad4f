"""The changes that an object can undergo, each a small class with the same three methods.

``run(core)`` is called once, with the object's stripe held, when all earlier changes of the
object have been applied.  It applies the change and returns None or a StoreError for the
``done`` callback, or PENDING where somebody else will call it.  It may instead make the
object wait (:class:`Deferral`); ``finish(core, error)`` then goes on after the wait, with
the stripe held again, and returns the same things.

``keep()`` is called before the caller's buffer is handed back: it copies what is still
needed of it.
"""

import abc
import os
from functools import partial

from sheepstack import runtime
from sheepstack.store import journal_format as form
from sheepstack.store.deferral import PENDING, Deferral
from sheepstack.store.errors import NoObject, StoreError, from_os_error
from sheepstack.store.object_file import ObjectFile

#: From this many bytes on, a change is flushed in its own file and not journaled.
LARGE = 128 << 10


class Change(abc.ABC):
    """Base: ``done(error)`` is called once, error being None or a StoreError."""

    def __init__(self, oid, done):
        self.oid = oid
        self.done = done

    def keep(self):
        """Most changes hold no buffer."""

    @abc.abstractmethod
    def run(self, core):
        """See above."""

    def finish(self, core, error):
        """See above; called only for a change that made its object wait."""
        return error

    def cancel(self, core, error):
        """Refuses, with ``error``, what the journal already holds."""
        core.journal.append(form.CANCEL, self.oid, offset=core.deferred[self.oid].number,
                            callback=lambda _: self.done(error))
        return PENDING


class InPlace(Change):
    """A change inside an existing object."""

    def __init__(self, oid, offset, length, done):
        super().__init__(oid, done)
        self.offset = offset
        self.length = length
        self._file = None
        self._journaled = False

    @abc.abstractmethod
    def apply(self, core, file):
        """Changes the file; the file's lock is held.  Raises StoreError."""

    @abc.abstractmethod
    def record(self):
        """Arguments of Journal.append that describe the change; None: it is too large."""

    def run(self, core):
        try:
            file = core.open(self.oid)
            file.check_bounds(self.offset, self.length)
            with file.lock:
                if not file.ready:
                    core.activity.add(self.oid)
                    if not core.activity.covered(self.oid):
                        return self._postpone(core, file)
                    file.ready = True
                return self.apply_now(core, file)
        except StoreError as error:
            return error

    def apply_now(self, core, file):
        """Applies it, with the file's lock held, and makes it as durable as promised."""
        try:
            self.apply(core, file)
        except StoreError as error:
            return error
        if core.journal is None:
            return None
        record = self.record()
        if record is None:
            core.flush_file(file, self.done)
        else:
            core.journal.append(**record, callback=self.done)
        return PENDING

    def _postpone(self, core, file):
        # The first change after a rest: nothing may reach the file before the journal,
        # whose records count like slots of the activity log, durably names the object.
        self._file = file
        self.keep()
        deferral = core.defer(Deferral(self.oid, self))
        record = self.record()
        self._journaled = record is not None
        core.journal.append(
            **(record or {"kind": form.INTENT, "oid": self.oid}),
            gate=deferral, callback=partial(core.drain_later, deferral))
        return PENDING

    def finish(self, core, error):
        if error is not None:
            return error
        with self._file.lock:
            core.activity.cover(self.oid)
            self._file.ready = True
            if not self._journaled:
                return self.apply_now(core, self._file)
            try:
                self.apply(core, self._file)
            except StoreError as failure:
                return self.cancel(core, failure)
        return None


class Write(InPlace):
    """New bytes."""

    def __init__(self, oid, offset, data, done):
        super().__init__(oid, offset, len(data), done)
        self.data = data

    def keep(self):
        if type(self.data) is not bytes:
            self.data = bytes(self.data)

    def apply(self, core, file):
        file.write(self.offset, self.data, core.space.claim, self.oid in core.suspects)

    def record(self):
        if self.length >= LARGE:
            return None
        return {"kind": form.WRITE, "oid": self.oid, "offset": self.offset,
                "payload": self.data}


class Discard(InPlace):
    """Zeros, and their space given back."""

    def apply(self, core, file):
        file.discard(self.offset, self.length, core.space.claim, self.oid in core.suspects)

    def record(self):
        return {"kind": form.DISCARD, "oid": self.oid, "offset": self.offset,
                "size": self.length}


class Create(Change):
    """A new object, or entirely new content for an existing one.

    ``stamp`` not 0: the object is settled at once.  ``reserved``: it may use the space that
    is held back.
    """

    def __init__(self, oid, size, extents, stamp, reserved, done):
        super().__init__(oid, done)
        self.size = size
        self.extents = extents
        self.stamp = stamp
        self.reserved = reserved
        self._file = None
        self._path = None
        self._installed = False

    def keep(self):
        self.extents = [(offset, data if type(data) is bytes else bytes(data))
                        for offset, data in self.extents]

    def run(self, core):
        claim = core.space.claim_reserved if self.reserved else core.space.claim
        self._path = core.new_path(self.oid)
        try:
            self._file = ObjectFile.create(
                self._path, self.oid, self.size, self.extents, self.stamp, claim)
        except StoreError as error:
            return error
        if core.journal is None:
            return self._install(core)
        length = sum(len(data) for _, data in self.extents)
        payload = form.pack_extents(self.extents) if length < LARGE else None
        self.extents = None
        return self._wait(core, payload)

    def _wait(self, core, payload):
        """Until it is durable; ``payload`` None: in its own file, not in the journal."""
        deferral = core.defer(Deferral(self.oid, self))
        core.forget(self.oid)
        if payload is None:
            core.flusher.put(partial(self._flush, core, deferral))
        else:
            core.journal.append(
                form.CREATE, self.oid, size=self.size, payload=payload, stamp=self.stamp,
                gate=deferral, callback=partial(core.drain_later, deferral))
        return PENDING

    def finish(self, core, error):
        if self._installed:
            return error
        if error is not None:
            core.unlink(self._path)
            return error
        error = self._install(core, covered=True)
        return None if error is None else self.cancel(core, error)

    def _install(self, core, covered=False):
        """Puts the file where the object's file belongs; the stripe is held."""
        oid = self.oid
        core.forget(oid)
        try:
            if not self.stamp:
                core.activity.add(oid)
            os.rename(self._path, core.path(oid))
        except (OSError, StoreError) as error:
            core.unlink(self._path)
            if oid not in core.index:
                core.activity.settle(oid)
            if isinstance(error, StoreError):
                return error
            return from_os_error(error, "cannot create object %016x" % oid)
        self._installed = True
        if self.stamp:
            core.activity.settle(oid)
        else:
            if covered:
                core.activity.cover(oid)
            self._file.ready = core.activity.covered(oid)
        core.index.add(oid)
        core.suspects.discard(oid)
        core.mend(oid)
        core.keep(oid, self._file)
        return None

    def _flush(self, core, deferral):
        """In a thread of the flusher: the way of a large object to the disk."""
        error = None
        try:
            runtime.offload(os.fdatasync, self._file.fd)
            with core.stripe(self.oid):
                error = self._install(core)
            if error is None:
                core.sync_names()
        except OSError as failure:
            error = from_os_error(failure, "cannot write object %016x" % self.oid)
        if error is None and core.journal.mentions(self.oid):
            core.journal.void(self.oid, core.journal.next_number, gate=deferral,
                              callback=partial(core.drain_later, deferral))
        else:
            deferral.open(error)
            core.drain(deferral)


class Prepared:
    """The file of an object, complete, which is not the object yet."""

    __slots__ = ("file", "path", "stamp")

    def __init__(self, file, path, stamp):
        self.file = file
        self.path = path
        self.stamp = stamp


class Install(Create):
    """A new object, or entirely new content for one, whose file is there."""

    def __init__(self, prepared, done):
        super().__init__(prepared.file.oid, prepared.file.size, (), prepared.stamp, True, done)
        self._file = prepared.file
        self._path = prepared.path

    def run(self, core):
        if core.journal is None:
            return self._install(core)
        return self._wait(core, None)


class Remove(Change):
    """No object any more."""

    def run(self, core):
        oid = self.oid
        if oid not in core.index:
            return NoObject(oid)
        core.forget(oid)
        try:
            os.unlink(core.path(oid))
        except FileNotFoundError:
            pass
        except OSError as error:
            return from_os_error(error, "cannot remove object %016x" % oid)
        core.index.discard(oid)
        core.suspects.discard(oid)
        core.activity.settle(oid)
        if core.journal is None:
            return None
        core.journal.append(form.REMOVE, oid, callback=self.done)
        return PENDING
