"""The store of one sheep: see :class:`ObjectStore`."""

import logging
import os
from contextlib import ExitStack, contextmanager

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store import journal as journals
from sheepstack.store.activity import ActivityLog
from sheepstack.store.changes import (
    LARGE, Create, Discard, Install, Prepared, Remove, Write)
from sheepstack.store.core import Core
from sheepstack.store.epochs import Epochs
from sheepstack.store.errors import NoObject, Rotten, StoreError, from_os_error
from sheepstack.store.identity import Identity
from sheepstack.store.journal_format import WRITE
from sheepstack.store.layout import Layout, object_ids
from sheepstack.store.object_file import ObjectFile
from sheepstack.store.replay import Replay
from sheepstack.store.space import Space
from sheepstack.store.stale import Stale
from sheepstack.store.workers import Workers
from sheepstack.wire.checksum import BLOCK_MASK, BLOCK_SHIFT
from sheepstack.wire.oid import name_of

_LOG = logging.getLogger(__name__)

#: Stamp of a copy that may lack changes which were reported done.
DOUBTFUL = (1 << 128) - 1

#: Bytes of each of the two journals.
JOURNAL_SIZE = 64 << 20

#: Objects that are moved at a time.
_BATCH = 1024

#: Threads that flush the files of large writes.
_FLUSHERS = 4


class ObjectStore:
    """Objects, by id, in the directory ``path``.

    ``durable``: a change is reported done when it is on disk; otherwise when it is in the
    page cache, which survives the death of the process but not that of the machine.
    ``journal_size``: bytes of each of the two journals, at least 1 MiB; less is taken
    where that would be more than a sixteenth of the filesystem.  ``reserve``: bytes of disk
    that only recovery may use; by default a hundredth of the filesystem, at most 1 GiB.

    Opening makes a store where there is none, replays the journals and finishes what a crash
    cut short.  Raises StoreLocked, BadStore, NoSpace, StoreIOError.

    ``suspects`` is the set of the ids of objects that were being changed, or had not been
    settled, when the store was last in use.  Their stamps mean nothing, and a block of
    theirs may have been torn, so that a wrong checksum need not be rot.  They leave the set
    by retire(), accept(), settle(), remove() or create().  ``identity`` and ``epochs``:
    see :class:`~sheepstack.store.identity.Identity`, :class:`~sheepstack.store.epochs.Epochs`.

    Methods that take ``done`` raise nothing but ValueError, for arguments that are wrong:
    ``done(error)`` is called exactly once, with None or a StoreError, by this thread or by
    one of the store's, while no lock is held.  Changes of an object take effect in the order
    of the calls, and whoever looks at an object sees all changes that were called for
    before, also those that are not done yet.  The caller may use its buffer again when the
    method returns.  After a failed change the object is as it was; only where the disk
    itself failed halfway, it may hold part of the new bytes.

    All methods are thread-safe.  Methods that find an object raise NoObject, Rotten (by
    reading damaged bytes) and StoreIOError.
    """

    def __init__(self, path, durable=True, journal_size=JOURNAL_SIZE, reserve=None):
        if journal_size < journals.MIN_SIZE:
            raise ValueError("a journal has at least %d bytes" % journals.MIN_SIZE)
        self.durable = durable
        self._journal = None
        with ExitStack() as opened:
            self._layout = Layout(path)
            opened.callback(self._layout.close)
            try:
                self._open(journal_size, reserve, opened)
            except OSError as error:
                raise from_os_error(error, "cannot open %s" % path) from error
            self._opened = opened.pop_all()

    # Opening and closing

    def _open(self, journal_size, reserve, opened):
        layout = self._layout
        layout.empty_new()
        layout.make_spare()
        self.identity = Identity(layout.identity)
        opened.callback(self.identity.close)
        self.epochs = Epochs(layout.epochs)
        self._space = Space(layout.path, reserve)
        self._stale = Stale(layout.stale)
        self._activity = activity = ActivityLog(layout.activity, self.durable)
        opened.callback(activity.close)
        self._core = core = Core(layout, self._space, activity)
        self.suspects = core.suspects
        self._cached = core.files.get

        replay = Replay(layout.journals)
        if replay.records:
            _LOG.info("%s: replaying %d records of the journal", layout.path, replay.records)
        unflushed = replay.records or (self.durable and not activity.flushed)
        lost = unflushed and self._failed_to_flush()
        core.break_objects(replay.apply(layout))
        core.index.fill(object_ids(layout.objects))
        if lost or replay.damaged or (activity.is_new and len(core.index)):
            activity.all_suspect = True
        self._find_suspects(replay.oids)
        if unflushed:
            # What the journals said, and what a run without durable writes left behind.
            disk.syncfs(layout.fd)
        activity.mark(flushed=False)
        self._start_journal(replay, journal_size)

    def _failed_to_flush(self) -> bool:
        """True where the filesystem lost, earlier on, something that nobody was told of.

        The kernel reports that to the first who flushes.  Told of it only after the journals
        were applied, one could not know that it is not they who failed.
        """
        try:
            disk.syncfs(self._layout.fd)
        except OSError as error:
            _LOG.warning("%s: an earlier run could not write everything: %s",
                         self._layout.path, error)
            return True
        return False

    def _find_suspects(self, journaled):
        activity, index = self._activity, self._core.index
        for oid in activity.found:
            if oid in index:
                self.suspects.add(oid)
            else:
                activity.settle(oid)
        for oid in journaled:
            if oid in index:
                # The slot outlives the journal, which is about to be emptied.
                activity.hold(oid)
                self.suspects.add(oid)
        if activity.all_suspect:
            _LOG.warning("%s: the machine went down, or the store was damaged: all of %d "
                         "objects are suspect", self._layout.path, len(index))
            self.suspects.fill(index)
            self._stale.distrust()

    def _start_journal(self, replay, journal_size):
        core, paths = self._core, self._layout.journals
        if not self.durable:
            for path in paths:
                if os.path.exists(path):
                    os.unlink(path)
                    disk.sync_directory(self._layout.path)
            return
        total, _ = self._space.ask()
        size = max(journals.MIN_SIZE, min(journal_size, total // 16))
        for path in paths:
            journals.make_file(path, size)
        disk.sync_directory(self._layout.path)
        core.finisher = Workers("store-done", 1)
        core.flusher = Workers("store-flush", _FLUSHERS)
        core.journal = self._journal = journals.Journal(
            paths, size, replay.salt, replay.number, core.finisher, core.request_checkpoint)

    def close(self):
        """Makes everything durable and gives the store up.  Everything submitted is done
        before it returns; what is called for later fails.

        Raises StoreIOError where the disk fails; the store is closed all the same.
        """
        core = self._core
        if core.closed:
            return
        core.closed = True
        core.pause()
        core.resume()
        in_place = False
        try:
            if core.journal is None:
                runtime.offload(disk.syncfs, self._layout.fd)
            else:
                core.journal.flush()
                core.flusher.close()
                core.checkpoint()
                in_place = True
            if not self.suspects:
                self._activity.all_suspect = False
            self._activity.mark(flushed=True)
        except OSError as error:
            raise from_os_error(error, "cannot flush the objects") from error
        finally:
            if core.journal is not None:
                core.flusher.close()
                core.journal.close(in_place)
                core.flusher.close()
                core.finisher.close()
            self._opened.close()

    # Reading

    def read(self, oid, offset, length, verify=True):
        """``length`` bytes (bytes-like) at ``offset``; checked unless ``verify`` is false."""
        file = self._cached(oid)
        if file is None:
            file = self._core.find(oid)
        file.recent = True
        if verify:
            return file.read(offset, length)
        return file.read_unchecked(offset, length)

    def read_into(self, oid, offset, buffer):
        """Fills ``buffer`` (writable, bytes-like) from ``offset``."""
        self._core.find(oid).read_into(offset, buffer)

    def watch(self, moved, all_moved):
        """Have ``moved(oid)`` called before an object gets another file, or none, and
        ``all_moved()`` before all of them do; by any thread, which must not be kept waiting.
        """
        self._core.moved = moved
        self._core.all_moved = all_moved

    def share(self, oid, token):
        """(descriptor, size, ``token(oid)``) of the object's file, opened for reading; for the
        caller to close.  See :mod:`~sheepstack.store.object_file` for what is in it.

        No call of what was given to :meth:`watch` comes between.  None while a change of the
        object waits, or where not all of the file can be relied on.  Does not wait.
        """
        return self._core.share(oid, token)

    def exists(self, oid) -> bool:
        return self._core.exists(oid)

    def size(self, oid) -> int:
        """Bytes in the object."""
        return self._core.find(oid).size

    def extents(self, oid) -> list:
        """(offset, length) of what is not a hole: all the rest is zeros."""
        return self._core.find(oid).extents()

    def occupied(self, oid, start, stop) -> list:
        """(offset, length) of what may be other than zeros from ``start`` to ``stop``."""
        return self._core.find(oid).occupied(start, stop)

    def unchecked(self, oid):
        """All bytes with their checksums, for one who checks them: see ObjectFile.unchecked().
        """
        return self._core.find(oid).unchecked()

    # Changing

    def write(self, oid, offset, data, done):
        """Puts ``data`` (bytes-like) into an existing object."""
        journal = self._journal
        if journal is not None and journal.blocked and self._refused(done):
            return
        file = self._cached(oid)
        length = len(data)
        if file is not None and length:
            file.recent = True
            error = None
            with file.lock:
                ready = file.ready
                if ready:
                    if offset < 0 or offset + length > file.size:
                        file.check_bounds(offset, length)
                    try:
                        file.write(offset, data, self._space.claim,
                                   oid in self.suspects)
                    except StoreError as failure:
                        error = failure
                    else:
                        if journal is not None:
                            if length < LARGE:
                                journal.append(WRITE, oid, 0, offset, data, 0, done)
                            else:
                                self._core.flush_file(file, done)
                            return
            if ready:
                done(error)
                return
        if length:
            self._core.submit(Write(oid, offset, data, done))
        else:
            self._touch(oid, offset, done)

    def create(self, oid, size, offset, data, done):
        """Makes an object of ``size`` bytes: ``data`` at ``offset``, zeros elsewhere.

        An object that exists is replaced as a whole.
        """
        self._create(oid, size, [(offset, data)], 0, False, done)

    def create_sparse(self, oid, size, extents, stamp, done):
        """As create(), with ``extents``, a list of (offset, data), and settled with
        ``stamp`` at once unless that is 0.  It may use the reserve: it is for recovery.
        """
        self._create(oid, size, list(extents), stamp, True, done)

    def _create(self, oid, size, extents, stamp, reserved, done):
        if not 0 <= oid < 1 << 64 or size < 1 or not 0 <= stamp < 1 << 128:
            raise ValueError("no object %r of %r bytes with stamp %r" % (oid, size, stamp))
        for offset, data in extents:
            if offset < 0 or offset + len(data) > size:
                raise ValueError("object %016x has %d bytes, not %d at %d" % (
                    oid, size, len(data), offset))
        if not self._refused(done):
            self._core.submit(Create(oid, size, extents, stamp, reserved, done))

    def prepare(self, oid, size, extents, stamp, sums=None) -> Prepared:
        """Writes what create_sparse() would, where nobody sees it, and waits until it is as
        durable as promised; then install() or forsake() it.

        No lock is held meanwhile, and other threads go on.  Each of ``extents`` is made of
        whole blocks, the last one may be short where the object ends.  ``sums``: checksums
        that the blocks must have, as of unchecked().  Raises NoSpace, StoreIOError, Rotten
        for a wrong checksum; ValueError.
        """
        extents = list(extents)
        blocks = 0
        for offset, data in extents:
            end = offset + len(data)
            if offset & BLOCK_MASK or (end & BLOCK_MASK and end != size) or end > size:
                raise ValueError("not whole blocks: %d bytes at %d" % (len(data), offset))
            blocks += (len(data) + BLOCK_MASK) >> BLOCK_SHIFT
        if sums is not None and len(sums) != 4 * blocks:
            raise ValueError("%d bytes of checksums of %d blocks" % (len(sums), blocks))
        claim = self._space.claim_reserved
        path = self._core.new_path(oid)
        prepared = Prepared(ObjectFile.create(path, oid, size, (), stamp, claim), path, stamp)
        try:
            for offset, data in extents:
                claim(prepared.file, offset, len(data))
            runtime.offload(self._fill, prepared.file, extents, sums)
        except BaseException as error:
            self.forsake(prepared)
            if isinstance(error, OSError):
                raise from_os_error(error, "cannot create object %016x" % oid) from error
            raise
        return prepared

    def _fill(self, file, extents, sums):
        file.fill(extents, sums)
        if self.durable:
            os.fdatasync(file.fd)

    def install(self, prepared, done):
        """Makes what was prepared the object, as create_sparse() would."""
        if not self._refused(done):
            self._core.submit(Install(prepared, done))

    def forsake(self, prepared):
        """Removes what was prepared and is not wanted."""
        self._core.unlink(prepared.path)
        prepared.file.abandon()

    def discard(self, oid, offset, length, done):
        """Makes a range read as zeros, and frees the space of its whole blocks."""
        if not length:
            self._touch(oid, offset, done)
        elif not self._refused(done):
            self._core.submit(Discard(oid, offset, length, done))

    def remove(self, oid, done):
        if not self._refused(done):
            self._core.submit(Remove(oid, done))

    def _touch(self, oid, offset, done):
        """A change of no bytes."""
        try:
            self._core.find(oid).check_bounds(offset, 0)
        except StoreError as error:
            done(error)
        else:
            done(None)

    def _refused(self, done):
        """Waits for room in the journal; true, and ``done`` called, where it has failed."""
        error = None if self._journal is None else self._journal.wait_for_room()
        if error is None:
            return False
        done(error)
        return True

    # Quiet objects and suspect ones

    def stamp(self, oid) -> int:
        """The stamp that the object was settled with; 0: it never was, or has been changed
        since, or is a suspect.
        """
        file = self._core.find(oid)
        if self._activity.is_active(oid) or oid in self.suspects:
            return 0
        return file.stamp

    def is_active(self, oid) -> bool:
        """True for an object that was changed since it was last settled."""
        return self._activity.is_active(oid)

    def active(self) -> list:
        """The ids of the objects that are active."""
        return self._activity.active()

    def settle(self, oid, stamp):
        """The object is quiet: keeps ``stamp`` (128 bits) with it.

        A suspect is accepted first.  The next change makes the object active again.
        """
        if not 0 <= stamp < 1 << 128:
            raise ValueError("a stamp has 128 bits")
        self._settle(oid, stamp)

    def accept(self, oid):
        """Takes a suspect as it is: mends its checksums, clears its stamp.

        Where the journal held changes of it for which there was no room, its stamp becomes
        DOUBTFUL: any other copy is to be preferred.
        """
        broken = self._core.mend(oid)
        try:
            self._settle(oid, DOUBTFUL if broken else 0, accept=True)
        except StoreError:
            if broken:
                self._core.break_objects({oid})
            raise

    def _settle(self, oid, stamp, accept=False):
        with self._locked(oid) as file:
            if accept or oid in self.suspects:
                file.accept()
            if file.stamp != stamp or not file.sound:
                file.set_stamp(stamp)
            file.ready = False
            self._activity.settle(oid)
            self.suspects.discard(oid)
        self._core.settled()

    @contextmanager
    def _locked(self, oid):
        """The open file of an object, locked, and sure to be still the object's."""
        while True:
            file = self._core.find(oid)
            with self._core.stripe(oid):
                if self._core.is_current(oid, file):
                    with file.lock:
                        yield file
                    return

    def checkpoint(self):
        """Flushes everything, so that less needs replaying after a crash; blocks.

        Raises StoreIOError.
        """
        if self._journal is not None:
            self._core.checkpoint()
            return
        try:
            runtime.offload(disk.syncfs, self._layout.fd)
        except OSError as error:
            raise from_os_error(error, "cannot flush the objects") from error

    # Damage

    def verify(self, oid) -> list:
        """Indexes of the blocks of 4,096 bytes that are damaged, on disk."""
        return self._core.find(oid).verify()

    def repair(self, oid, block, data):
        """Puts the good bytes of a damaged block in; a sound one is left alone.

        ``data`` has 4,096 bytes, less for a short last block.  The stamp stays valid.
        """
        with self._locked(oid) as file:
            file.repair(block, data)

    # Which objects there are

    def count(self) -> int:
        return len(self._core.index)

    def oids(self):
        """Iterates over the ids of all objects; the store may change meanwhile.

        Those whose creation was called for before are among them, and so waited for.
        """
        self._core.finish_submitted()
        return iter(self._core.index)

    def oids_in(self, arcs):
        """As oids(), over those in ``arcs`` of the ring: see OidSet.in_arcs()."""
        self._core.finish_submitted()
        return self._core.index.in_arcs(arcs)

    def oids_between(self, ranges):
        """As oids(), over those in ``ranges`` of ids: see OidSet.between()."""
        self._core.finish_submitted()
        return self._core.index.between(ranges)

    # Objects of earlier epochs

    def retire(self, oids, epoch) -> int:
        """Makes current objects copies as of ``epoch``; returns how many there were.

        Each moves by one rename, and replaces a copy of the same epoch.  The stamp of an
        active object or of a suspect is cleared, of a suspect also torn blocks mended.
        """
        oids = list(oids)
        moved = 0
        for start in range(0, len(oids), _BATCH):
            moved += self._retire_batch(oids[start:start + _BATCH], epoch)
        return moved

    def _retire_batch(self, oids, epoch):
        core = self._core
        frozen = core.freeze(oids)
        try:
            oids = [oid for oid in dict.fromkeys(oids) if oid in core.index]
            self._clear_stamps(oids)
            core.put_in_place(oids)
            target = self._stale.make(epoch)
            names = [name_of(oid) for oid in oids]
            moved, error = runtime.offload(_move, self._layout.objects, target, names)
            for oid in oids[:moved]:
                self._stale.forget(oid, epoch)
                self._gone(oid)
            if error is not None:
                raise from_os_error(error, "cannot retire object %016x" % oids[moved])
            self._sync_names(epoch)
            return moved
        finally:
            core.thaw(frozen)

    def retire_all(self, epoch):
        """As retire(), of all objects, by one rename."""
        core = self._core
        core.pause()
        try:
            self._clear_stamps(list(self._activity.active()) + list(self.suspects))
            if core.journal is not None:
                core.checkpoint()
                core.journal.flush()
            oids = list(self._activity.active())
            try:
                self._stale.take_all(self._layout.objects, epoch)
            finally:
                if not os.path.isdir(self._layout.objects):
                    self._layout.replace_objects()
                core.index.clear()
                core.index.fill(object_ids(self._layout.objects))
            for oid in oids + list(self.suspects):
                self._gone(oid)
            self._sync_names(epoch)
            if self.durable:
                disk.sync_directory(self._layout.path)
        except OSError as error:
            raise from_os_error(error, "cannot retire all objects") from error
        finally:
            core.resume()

    def _clear_stamps(self, oids):
        for oid in oids:
            suspect = oid in self.suspects
            if not suspect and not self._activity.is_active(oid):
                continue
            try:
                file = ObjectFile.open(self._core.path(oid), oid)
                if suspect:
                    file.accept()
                elif file.stamp or not file.sound:
                    file.set_stamp(0)
            except (NoObject, Rotten) as error:
                _LOG.warning("%s", error)

    def _gone(self, oid):
        self._core.index.discard(oid)
        self.suspects.discard(oid)
        self._activity.settle(oid)

    def promote(self, oid, epoch):
        """Makes the copy as of ``epoch`` the current object, by one rename.

        Raises NoObject where there is no copy.
        """
        core = self._core
        frozen = core.freeze([oid])
        try:
            self._stale.open(oid, epoch)
            core.put_in_place([oid])
            self._stale.forget(oid, epoch)
            try:
                os.rename(self._stale.path(oid, epoch), core.path(oid))
            except FileNotFoundError:
                raise NoObject(oid, epoch) from None
            except OSError as error:
                raise from_os_error(error, "cannot promote object %016x" % oid) from error
            core.mend(oid)
            core.index.add(oid)
            self.suspects.discard(oid)
            self._activity.settle(oid)
            self._sync_names(epoch)
            self._stale.tidy(epoch)
        finally:
            core.thaw(frozen)

    def _sync_names(self, epoch):
        if self.durable:
            try:
                # What was moved must have arrived before it is gone from where it was.
                self._stale.sync(epoch)
                self._core.sync_names()
            except OSError as error:
                raise from_os_error(error, "cannot flush directories") from error

    def stale_epochs(self) -> list:
        """The epochs of which there may be copies, ascending."""
        return self._stale.epochs()

    def stale_oids(self, epoch):
        """Iterates over the ids of the copies as of ``epoch``."""
        return self._stale.oids(epoch)

    def stale_info(self, oid) -> list:
        """(epoch, stamp, size) of the copies of ``oid``, newest first; a copy that is
        beyond use has stamp 0 and size 0.
        """
        return self._stale.info(oid)

    def stale_read(self, oid, epoch, offset, length, verify=True):
        """As read(), of the copy as of ``epoch``."""
        file = self._stale.open(oid, epoch)
        return file.read(offset, length) if verify else file.read_unchecked(offset, length)

    def stale_extents(self, oid, epoch) -> list:
        """As extents(), of the copy as of ``epoch``."""
        return self._stale.open(oid, epoch).extents()

    def stale_verify(self, oid, epoch) -> list:
        """As verify(), of the copy as of ``epoch``."""
        return self._stale.open(oid, epoch).verify()

    def drop_stale(self, oid, epoch):
        """Removes the copy as of ``epoch``, if there is one."""
        self._stale.drop(oid, epoch)

    def purge_stale(self, keep_after=None):
        """Removes all copies, or those as of epochs up to ``keep_after``."""
        self._stale.purge(keep_after)

    # Space

    def space(self):
        """(total, free) bytes of the filesystem."""
        return self._space.ask()

    @property
    def is_full(self) -> bool:
        """True where nothing is left but the reserve."""
        return self._space.is_full


def _move(source, target, names):
    """Renames files from one directory to another; (how many, the OSError or None)."""
    for count, name in enumerate(names):
        try:
            os.rename(source + "/" + name, target + "/" + name)
        except OSError as error:
            return count, error
    return len(names), None
