"""Where things are in a store's directory.

======================  =====================================================
obj/<16 hex>            current objects (object_file.py)
spare/                  empty; becomes obj/ when all objects are retired, so
                        that this needs no disk space
stale/<epoch>/<16 hex>  objects as of an earlier epoch (stale.py)
new/                    objects that are not whole yet; emptied on opening
journal.0, journal.1    small changes of a durable store (journal_format.py)
active                  objects written lately (activity.py)
identity                what the store is (identity.py)
epoch/<8 digits>        past cluster maps (epochs.py)
lock                    held by the process that has the store open
======================  =====================================================
"""

import fcntl
import os

from sheepstack.store.errors import BadStore, StoreLocked, from_os_error


class Layout:
    """The directory ``path``, made where it is missing, and locked.

    Raises StoreLocked, BadStore (something else is in the way), NoSpace, StoreIOError.
    ``fd`` is open on the directory.
    """

    def __init__(self, path):
        self.path = os.path.abspath(path)
        self.objects = os.path.join(self.path, "obj")
        self.spare = os.path.join(self.path, "spare")
        self.stale = os.path.join(self.path, "stale")
        self.new = os.path.join(self.path, "new")
        self.epochs = os.path.join(self.path, "epoch")
        self.journals = [os.path.join(self.path, "journal.%d" % which) for which in (0, 1)]
        self.activity = os.path.join(self.path, "active")
        self.identity = os.path.join(self.path, "identity")
        self._lock = None
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError):
            raise BadStore("%s is not a directory" % self.path) from None
        except OSError as error:
            raise from_os_error(error, "cannot open %s" % self.path) from error
        try:
            self._take_lock()
            if os.path.isdir(self.spare) and not os.path.exists(self.objects):
                # All objects were being retired.
                os.rename(self.spare, self.objects)
            for directory in self.objects, self.stale, self.new, self.epochs:
                os.makedirs(directory, mode=0o700, exist_ok=True)
        except FileExistsError as error:
            self.close()
            raise BadStore("%s is not a directory" % error.filename) from None
        except OSError as error:
            self.close()
            raise from_os_error(error, "cannot make a store in %s" % self.path) from error
        except BaseException:
            self.close()
            raise

    def _take_lock(self):
        self._lock = os.open(os.path.join(self.path, "lock"),
                             os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            raise StoreLocked("%s is in use by process %s" % (
                self.path, holder or "unknown")) from None
        # With a full disk the lock is as good without the number in it.
        try:
            os.pwrite(self._lock, b"%-15d\n" % os.getpid(), 0)
        except OSError:
            pass

    def replace_objects(self):
        """Puts an empty directory where that of the objects was; raises OSError."""
        self.make_spare()
        try:
            os.rename(self.spare, self.objects)
        except FileNotFoundError:
            os.mkdir(self.objects, 0o700)
        self.make_spare()

    def make_spare(self):
        """Has an empty directory ready, if there is room for one."""
        try:
            os.mkdir(self.spare, 0o700)
        except OSError:
            pass

    def empty_new(self):
        """Removes what was left half made; raises OSError."""
        for name in os.listdir(self.new):
            os.unlink(os.path.join(self.new, name))

    def close(self):
        """Gives the lock up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def object_ids(directory):
    """Iterates over the ids of the objects in ``directory``; other names are passed over."""
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            if len(name) == 16:
                try:
                    oid = int(name, 16)
                except ValueError:
                    continue
                if "%016x" % oid == name:
                    yield oid
