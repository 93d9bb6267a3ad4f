"""Objects as they were in an earlier epoch, kept until their new holders have them.

``stale/<epoch>/<16 hex>`` are files like those of current objects.  A directory
``stale/<epoch>.part`` is what retire_all() moved when there already was one of that epoch;
it is merged, file by file, also after a crash.
"""

import os

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store.errors import NoObject, StoreError, from_os_error
from sheepstack.store.layout import object_ids
from sheepstack.store.object_file import ObjectFile
from sheepstack.store.open_files import OpenFiles
from sheepstack.wire.oid import name_of

_PART = ".part"


class Stale:
    """The directory ``path``, which exists.  Unfinished merges are finished on opening.

    All methods raise StoreIOError or NoSpace where the disk fails.
    """

    def __init__(self, path):
        self._path = path
        self._files = OpenFiles(limit=64, table_limit=8 << 20)
        for name in os.listdir(path):
            if name.endswith(_PART):
                self._merge(name)

    def directory(self, epoch) -> str:
        return "%s/%08d" % (self._path, epoch)

    def path(self, oid, epoch) -> str:
        return "%s/%08d/%s" % (self._path, epoch, name_of(oid))

    def epochs(self) -> list:
        """Epochs of which there may be copies, ascending."""
        return sorted(int(name) for name in os.listdir(self._path) if name.isdecimal())

    def oids(self, epoch):
        """Iterates over the ids of the copies as of ``epoch``."""
        try:
            yield from object_ids(self.directory(epoch))
        except FileNotFoundError:
            pass

    def open(self, oid, epoch) -> ObjectFile:
        """Raises NoObject, Rotten, StoreIOError."""
        key = oid, epoch
        file = self._files.get(key) or self._files.find(key)
        if file is None:
            try:
                file = ObjectFile.open(self.path(oid, epoch), oid)
            except NoObject:
                raise NoObject(oid, epoch) from None
            self._files.keep(key, file)
        file.recent = True
        return file

    def info(self, oid) -> list:
        """(epoch, stamp, size) of the copies of ``oid``, newest first.

        A copy that cannot be opened has stamp 0 and size 0.
        """
        found = []
        for epoch in reversed(self.epochs()):
            try:
                file = self.open(oid, epoch)
                found.append((epoch, file.stamp, file.size))
            except NoObject:
                continue
            except StoreError:
                found.append((epoch, 0, 0))
        return found

    def forget(self, oid, epoch):
        """Ends the use of a copy's open file."""
        self._files.drop((oid, epoch))

    def make(self, epoch):
        """Makes the directory of ``epoch``; returns its path."""
        path = self.directory(epoch)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise from_os_error(error, "cannot keep copies of epoch %d" % epoch) from error
        return path

    def take_all(self, objects, epoch):
        """Makes everything in the directory ``objects`` copies as of ``epoch``.

        ``objects`` is gone afterwards.  Where both have an object, that from ``objects`` is
        kept.  Raises OSError.
        """
        target = self.directory(epoch)
        try:
            os.rmdir(target)
        except OSError:
            # There is none, or it has files.
            pass
        if os.path.isdir(target):
            part = "%08d%s" % (epoch, _PART)
            if os.path.isdir(os.path.join(self._path, part)):
                runtime.offload(self._merge, part)
            os.rename(objects, os.path.join(self._path, part))
            self._files.drop_all()
            runtime.offload(self._merge, part)
        else:
            os.rename(objects, target)

    def _merge(self, part):
        source = os.path.join(self._path, part)
        target = source[:-len(_PART)]
        os.makedirs(target, mode=0o700, exist_ok=True)
        for name in os.listdir(source):
            os.rename(os.path.join(source, name), os.path.join(target, name))
        os.rmdir(source)

    def drop(self, oid, epoch):
        """Removes a copy, if there is one."""
        self.forget(oid, epoch)
        try:
            os.unlink(self.path(oid, epoch))
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os_error(error, "cannot drop object %016x" % oid) from error
        self.tidy(epoch)

    def tidy(self, epoch):
        """Removes the directory of ``epoch`` if it is empty."""
        try:
            os.rmdir(self.directory(epoch))
        except OSError:
            pass

    def purge(self, keep_after=None):
        """Removes all copies, or those as of epochs up to ``keep_after``."""
        for epoch in self.epochs():
            if keep_after is None or epoch <= keep_after:
                for oid in list(self.oids(epoch)):
                    self.forget(oid, epoch)
                runtime.offload(self._remove, epoch)

    def _remove(self, epoch):
        directory = self.directory(epoch)
        try:
            for name in os.listdir(directory):
                os.unlink(os.path.join(directory, name))
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise from_os_error(error, "cannot drop copies of epoch %d" % epoch) from error

    def distrust(self):
        """Clears all stamps: what is here may be older or newer than they say."""
        for epoch in self.epochs():
            for oid in self.oids(epoch):
                try:
                    file = ObjectFile.open(self.path(oid, epoch), oid)
                    if file.stamp:
                        file.set_stamp(0)
                except StoreError:
                    continue

    def sync(self, *epochs):
        """Makes it durable which copies there are; raises OSError."""
        for epoch in epochs:
            try:
                disk.sync_directory(self.directory(epoch))
            except FileNotFoundError:
                # Purged meanwhile: there is nothing left whose name could be lost.
                pass
        disk.sync_directory(self._path)
