"""What the parts of an open store share: where objects are, and who may change them when.

Changes of one object take effect in the order in which they were submitted.  Each object
belongs to one of 256 *stripes*, a lock that is held to open, make, move or remove its file.
An object that is written often never comes near it: its open file is in the cache, and
``file.ready`` says, under ``file.lock``, that writes may be applied at once.

In a durable store the first change after a rest has to wait until the journal names the
object.  Meanwhile a :class:`~sheepstack.store.deferral.Deferral` stands in ``deferred`` and
the object's file is out of the cache, so that whoever wants the object comes here: changes
queue up behind the first one, readers wait.  Whoever comes first when the wait is over (a
reader, the finisher, a checkpoint) applies what queued up, so nobody ever waits for a
callback of somebody else to return.

Order of locks: checkpoint, stripe, file, then the inner locks of index, cache, activity log
and journal.  No lock is held while a callback runs or the disk is flushed.
"""

import itertools
import os
import threading
from functools import partial

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store.activity import ActivityLog
from sheepstack.store.deferral import PENDING, Deferral
from sheepstack.store.errors import NoObject, StoreError, StoreIOError, from_os_error
from sheepstack.store.index import OidSet
from sheepstack.store.object_file import ObjectFile
from sheepstack.store.open_files import OpenFiles
from sheepstack.store.workers import call_all
from sheepstack.wire.oid import name_of

_STRIPES = 256

#: A checkpoint is due when this many settled objects wait to leave the activity log.
_IDLE_LIMIT = 4096


def closed() -> StoreError:
    return StoreError("the store is closed")


class Core:
    """``journal`` is None in a store that is not durable; so are the workers."""

    def __init__(self, layout, space, activity: ActivityLog):
        self.layout = layout
        self.space = space
        self.activity = activity
        self.index = OidSet()
        self.suspects = OidSet()
        self.files = OpenFiles()
        self.deferred = {}
        self.closed = False
        self.journal = None
        self.finisher = None
        self.flusher = None
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._pause = None
        self._freezers = 0
        self._holding = threading.Condition()
        self._new_names = itertools.count()
        self._unflushed = {}
        self._unflushed_lock = threading.Lock()
        self._checkpoint_due = False
        self._broken = set()
        #: Called before an object gets another file, or none, and before all of them do.
        self.moved = _nobody
        self.all_moved = _nobody

    # Names

    def path(self, oid) -> str:
        return self.layout.objects + "/" + name_of(oid)

    def new_path(self, oid) -> str:
        """A name for a file that is not whole yet."""
        return "%s/%016x.%d" % (self.layout.new, oid, next(self._new_names))

    def stripe(self, oid):
        # Data objects of one VDI differ in the low bits, inodes from bit 32 on.
        return self._stripes[(oid ^ (oid >> 32)) % _STRIPES]

    @staticmethod
    def unlink(path):
        try:
            os.unlink(path)
        except OSError:
            # It is one of those that are removed when the store is opened.
            pass

    # Finding objects

    def find(self, oid) -> ObjectFile:
        """The open file of an object, after all changes submitted so far.

        Raises NoObject, Rotten, StoreIOError.
        """
        file = self.files.get(oid)
        if file is not None:
            file.recent = True
            return file
        while True:
            self._wait_while_paused()
            with self.stripe(oid):
                if self._pause is not None:
                    continue
                if self.closed:
                    raise closed()
                deferral = self.deferred.get(oid)
                if deferral is None:
                    return self.open(oid)
            deferral.gate.wait()
            self.drain(deferral)

    def exists(self, oid) -> bool:
        if self.files.get(oid) is not None:
            return True
        while True:
            deferral = self.deferred.get(oid)
            if deferral is None:
                return oid in self.index
            deferral.gate.wait()
            self.drain(deferral)

    def finish_submitted(self):
        """Returns when all that was submitted before is applied."""
        for oid in list(self.deferred):
            self.exists(oid)

    def open(self, oid) -> ObjectFile:
        """As find(); the stripe is held and nothing is deferred, or the caller drains."""
        file = self.files.find(oid)
        if file is None:
            if oid not in self.index:
                raise NoObject(oid)
            if oid in self._broken:
                raise StoreIOError("object %016x could not be written to disk" % oid)
            file = ObjectFile.open(self.path(oid), oid)
            file.ready = self.activity.covered(oid)
        self.keep(oid, file)
        return file

    def keep(self, oid, file):
        """Makes ``file`` the object's; it enters the cache unless something is deferred."""
        if oid in self.deferred:
            self.files.track(oid, file)
        else:
            self.files.keep(oid, file)

    def is_current(self, oid, file) -> bool:
        """True where ``file`` is the object's and nothing is deferred; the stripe is held."""
        return oid not in self.deferred and self.files.find(oid) is file

    def forget(self, oid):
        """Ends the use of an object's open file; the stripe is held."""
        self.moved(oid)
        file = self.files.drop(oid)
        if file is not None:
            with file.lock:
                file.ready = False

    def share(self, oid, token):
        """See :meth:`ObjectStore.share`."""
        with self.stripe(oid):
            if self._pause is not None or self.closed or oid in self.deferred:
                return None
            file = self.open(oid)
            if not file.sound or oid in self.suspects:
                return None
            return file.reopen(), file.size, token(oid)

    # Changes

    def submit(self, change):
        """Runs ``change`` or queues it; ValueError where its arguments are wrong."""
        oid = change.oid
        while True:
            self._wait_while_paused()
            with self.stripe(oid):
                if self._pause is not None:
                    continue
                deferral = self.deferred.get(oid)
                if deferral is not None:
                    change.keep()
                    deferral.queue.append(change)
                    return
                outcome = closed() if self.closed else change.run(self)
                break
        if outcome is not PENDING:
            change.done(outcome)

    def defer(self, deferral) -> Deferral:
        """Makes the object of ``deferral`` wait; the stripe is held."""
        earlier = self.deferred.get(deferral.oid)
        self.deferred[deferral.oid] = deferral
        if earlier is not None:
            # A change that ran out of a queue: the rest of the queue waits behind it.
            deferral.queue = earlier.queue
        self.files.hide(deferral.oid)
        return deferral

    def drain_later(self, deferral, _error):
        """As drain(), for a journal's callback."""
        self.drain(deferral)

    def drain(self, deferral):
        """Goes on with what waited; the gate is open.  Returns when all is applied."""
        oid = deferral.oid
        outcomes = []
        with self.stripe(oid):
            if self.deferred.get(oid) is not deferral:
                return
            if deferral.first is not None:
                outcome = deferral.first.finish(self, deferral.error)
                outcomes.append((deferral.first.done, outcome))
            queue = deferral.queue
            while queue and self.deferred[oid] is deferral:
                change = queue.popleft()
                try:
                    outcome = change.run(self)
                except ValueError as error:
                    outcome = StoreError(str(error))
                outcomes.append((change.done, outcome))
            if self.deferred[oid] is deferral:
                del self.deferred[oid]
                file = self.files.find(oid)
                if file is not None:
                    self.files.keep(oid, file)
        for done, outcome in outcomes:
            if outcome is PENDING:
                continue
            if self.finisher is None:
                done(outcome)
            else:
                self.finisher.put(partial(done, outcome))

    # Holding objects still

    def freeze(self, oids) -> list:
        """Stops all use of ``oids`` until thaw(); everything submitted before is applied.

        Returns what thaw() wants.  Objects that do not exist can be frozen too.
        """
        with self._holding:
            while self._pause is not None:
                self._holding.wait()
            self._freezers += 1
        gate = threading.Event()
        frozen = []
        # Sorted, so that two who freeze the same objects do not wait for each other.
        for oid in sorted(set(oids)):
            while True:
                with self.stripe(oid):
                    earlier = self.deferred.get(oid)
                    if earlier is None:
                        frozen.append(self.defer(Deferral(oid, gate=gate)))
                        self.forget(oid)
                        break
                earlier.gate.wait()
                self.drain(earlier)
        return frozen

    def thaw(self, frozen):
        """Undoes freeze()."""
        for deferral in frozen:
            deferral.gate.set()
        for deferral in frozen:
            self.drain(deferral)
        with self._holding:
            self._freezers -= 1
            self._holding.notify_all()

    def pause(self):
        """As freeze(), of all objects, until resume()."""
        with self._holding:
            while self._pause is not None or self._freezers:
                self._holding.wait()
            self._pause = threading.Event()
        # Who got past the check before holds a stripe until its change runs or is deferred.
        for stripe in self._stripes:
            with stripe:
                pass
        while self.deferred:
            for deferral in list(self.deferred.values()):
                deferral.gate.wait()
                self.drain(deferral)
        self.all_moved()
        for file in self.files.drop_all():
            with file.lock:
                file.ready = False

    def resume(self):
        """Undoes pause()."""
        with self._holding:
            pause, self._pause = self._pause, None
            self._holding.notify_all()
        pause.set()

    def put_in_place(self, oids):
        """Makes the journal irrelevant to ``oids``, which are frozen.

        Raises StoreIOError.
        """
        if self.journal is None or not any(
                self.journal.mentions(oid) or self.activity.holds(oid) for oid in oids):
            return
        number = self.journal.next_number
        self.checkpoint()
        for oid in oids:
            if self.journal.mentions(oid):
                self.journal.void(oid, number)
        self.journal.flush()

    def _wait_while_paused(self):
        pause = self._pause
        if pause is not None:
            pause.wait()

    # Durability

    def flush_file(self, file, done):
        """Calls ``done`` when all that was written to ``file`` is on disk; the file's lock
        is held.
        """
        number = self.journal.next_number
        with self._unflushed_lock:
            waiting = self._unflushed.get(file)
            if waiting is None:
                self._unflushed[file] = _Unflushed(number, [done])
            else:
                waiting.number = number
                waiting.callbacks.append(done)
                return
        self.flusher.put(partial(self._flush_file, file))

    def _flush_file(self, file):
        with self._unflushed_lock:
            waiting = self._unflushed.pop(file)
        error = None
        try:
            runtime.offload(os.fdatasync, file.fd)
            if self.journal.mentions(file.oid):
                self.sync_names()
        except OSError as failure:
            error = self.break_object(file, failure)
        finish = partial(call_all, waiting.callbacks)
        if error is None and self.journal.mentions(file.oid):
            self.journal.void(file.oid, waiting.number, callback=finish)
        else:
            self.finisher.put(partial(finish, error))

    def sync_names(self):
        """Makes it durable which objects there are; raises OSError."""
        disk.sync_directory(self.layout.objects)

    def break_object(self, file, failure) -> StoreError:
        """After a failed flush: what was written to ``file`` cannot be relied on any more."""
        oid = file.oid
        with self.stripe(oid):
            if self.files.find(oid) is file:
                self.forget(oid)
                self._broken.add(oid)
        return from_os_error(failure, "cannot write object %016x" % oid)

    def break_objects(self, oids):
        """These could not be brought up to date: reading them raises StoreIOError."""
        self._broken.update(oids)

    def mend(self, oid):
        """Takes back break_objects(): the object has new content, or is taken as it is.

        True where it was one of those.
        """
        broken = oid in self._broken
        self._broken.discard(oid)
        return broken

    def request_checkpoint(self):
        """Has a checkpoint made soon."""
        self.flusher.put(self.checkpoint)

    def settled(self):
        """Call after an object has been settled."""
        if (self.journal is not None and self.activity.idle > _IDLE_LIMIT
                and not self._checkpoint_due):
            self._checkpoint_due = True
            self.request_checkpoint()

    def checkpoint(self):
        """Flushes all objects, so that journal and activity log can forget about them.

        Raises StoreIOError.
        """
        self._checkpoint_due = False
        number = self.journal.next_number
        for deferral in list(self.deferred.values()):
            if deferral.gate.is_set():
                self.drain(deferral)
        # A change that is still deferred was given its number before it is applied.
        for deferral in list(self.deferred.values()):
            if deferral.number is not None:
                number = min(number, deferral.number)
        token = self.activity.before_flush()
        try:
            runtime.offload(disk.syncfs, self.layout.fd)
        except OSError as error:
            self.journal.fail(error)
            raise from_os_error(error, "cannot flush the objects") from error
        self.activity.after_flush(token)
        self.journal.void_before(number)


class _Unflushed:
    """``callbacks`` of those who wait for a file to be flushed; ``number``: that of the first
    journal record that may be about something the flush does not cover.
    """

    __slots__ = ("number", "callbacks")

    def __init__(self, number, callbacks):
        self.number = number
        self.callbacks = callbacks


def _nobody(*oid):
    """Nobody wants to know."""
