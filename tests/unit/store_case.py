"""What the tests of the store share."""

import os
import shutil
import tempfile
import threading
import unittest

from sheepstack.store import ObjectStore

MODES = (False, True)

#: Where a flush costs nothing, whatever else the machine is writing.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def call(method, *arguments):
    """Calls a method that takes ``done`` and waits; raises the error that it was given."""
    finished = threading.Event()
    errors = []

    def done(error):
        errors.append(error)
        finished.set()

    method(*arguments, done)
    if not finished.wait(30):
        raise AssertionError("%s was never done" % method.__name__)
    if len(errors) != 1:
        raise AssertionError("done was called %d times" % len(errors))
    if errors[0] is not None:
        raise errors[0]


class StoreTestCase(unittest.TestCase):
    """``self.path`` is a directory for a store; open() opens one that is closed afterwards."""

    #: Tests for which the filesystem matters set this to None.
    where = IN_MEMORY

    def setUp(self):
        self.path = tempfile.mkdtemp(prefix="sheepstore-", dir=self.where)
        self.addCleanup(shutil.rmtree, self.path, ignore_errors=True)

    def open(self, durable=False, **options):
        options.setdefault("journal_size", 1 << 20)
        options.setdefault("reserve", 0)
        store = ObjectStore(self.path, durable=durable, **options)
        self.addCleanup(store.close)
        return store

    def object_path(self, oid, *directory):
        return os.path.join(self.path, *(directory or ("obj",)), "%016x" % oid)

    def flip(self, path, bit):
        """Turns over one bit of a file, behind the store's back."""
        with open(path, "r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            file.seek(bit // 8)
            file.write(bytes([byte ^ (1 << bit % 8)]))
