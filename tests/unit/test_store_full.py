"""Full disks and failing ones: filesystems that really are, where mounting is permitted."""

import errno
import os
import random
import shutil
import subprocess
import tempfile
import unittest
from unittest import mock

from sheepstack.store import NoSpace, ObjectStore, StoreError, StoreIOError, replay
from sheepstack.store.object_file import ObjectFile
from sheepstack.store.objects import DOUBTFUL
from tests.unit.store_case import IN_MEMORY, MODES, StoreTestCase, call

OID = 0x1234560000000A
KIB = 1 << 10
MIB = 1 << 20


def _run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise unittest.SkipTest("%s: %s" % (" ".join(command[:3]), done.stdout.strip()))


class NoRoomForTheJournal(StoreTestCase):
    def test_an_object_that_could_not_be_brought_up_to_date_is_doubtful(self):
        store = self.open(True)
        call(store.create, OID, MIB, 0, b"first")
        call(store.create, OID + 1, MIB, 0, b"first")
        call(store.write, OID, 0, b"later")
        after_crash = self.path + "-crashed"
        self.addCleanup(shutil.rmtree, after_crash)
        shutil.copytree(self.path, after_crash, ignore=shutil.ignore_patterns("sock"))
        apply = replay._apply

        def full(record, layout, files):
            if record.oid == OID:
                raise NoSpace("no space")
            apply(record, layout, files)

        with mock.patch.object(replay, "_apply", full):
            store = ObjectStore(after_crash)
        self.addCleanup(_close, store)
        with self.assertRaises(StoreIOError):
            store.read(OID, 0, 5)
        for oid in (OID, OID + 1):
            self.assertIn(oid, store.suspects)
            store.accept(oid)
            store.retire([oid], 3)
        self.assertEqual([(3, DOUBTFUL, MIB)], list(store.stale_info(OID)))
        self.assertEqual([(3, 0, MIB)], list(store.stale_info(OID + 1)))
        store.promote(OID, 3)
        self.assertEqual([], store.verify(OID))


class MountedTestCase(unittest.TestCase):
    """``self.path`` is an empty filesystem of its own."""

    def mount(self, *arguments):
        """Mounts something on a new directory; skips the test where that is not permitted."""
        if os.geteuid():
            self.skipTest("only root can mount a small filesystem")
        path = tempfile.mkdtemp(prefix="sheepfull-")
        self.addCleanup(os.rmdir, path)
        try:
            _run("mount", *arguments, path)
        except FileNotFoundError:
            self.skipTest("there is no mount command")
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=False)
        return path

    def mount_image(self, directory, size, *options):
        """Mounts a fresh ext4 in a sparse file."""
        image = os.path.join(directory, "image")
        with open(image, "wb") as file:
            file.truncate(size)
        mke2fs = shutil.which("mke2fs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if mke2fs is None:
            self.skipTest("there is no mke2fs")
        _run(mke2fs, "-q", "-F", "-m0", "-b4096", "-t", "ext4",
             "-E", "lazy_itable_init=0,nodiscard", *options, image)
        return self.mount("-o", "loop", image)

    def open(self, durable, **options):
        options.setdefault("reserve", 0)
        store = ObjectStore(os.path.join(self.path, "store"), durable=durable,
                            journal_size=MIB, **options)
        self.addCleanup(_close, store)
        return store


def _close(store):
    try:
        store.close()
    except StoreError:
        pass


def _hope(file, offset, length):
    """Claims nothing."""


def _allocate(file, offset, length):
    try:
        file.allocate(offset, length)
    except OSError as error:
        raise NoSpace("no space") from error


class FullDiskMixin:
    """The same for each kind of filesystem."""

    def _fill(self, store, size=MIB):
        """Creates objects of ``size`` bytes until no more fit; returns their contents."""
        contents = {}
        rng = random.Random(1)
        while True:
            oid = OID + len(contents)
            data = rng.randbytes(size)
            try:
                call(store.create, oid, size, 0, data)
            except NoSpace:
                return contents
            contents[oid] = data

    def _fill_up(self):
        """Leaves not a single block."""
        with open(os.path.join(self.path, "ballast"), "ab", buffering=0) as file:
            for size in (MIB, 64 * KIB, 4 * KIB, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError as error:
                    self.assertEqual(errno.ENOSPC, error.errno)

    def _spare_room(self):
        os.unlink(os.path.join(self.path, "ballast"))

    def test_objects_that_do_not_fit(self):
        for durable in MODES:
            store = self.open(durable)
            contents = self._fill(store)
            self.assertGreater(len(contents), 3)
            self._fill_up()
            missing = OID + len(contents)
            self.assertFalse(store.exists(missing))
            for size in (1, 4 * KIB, 512 * KIB):
                with self.assertRaises(NoSpace):
                    call(store.create, missing, 4 * MIB, 0, b"x" * size)
                with self.assertRaises(NoSpace):
                    call(store.create, OID, 4 * MIB, 0, b"x" * size)
            self.assertEqual([], os.listdir(os.path.join(self.path, "store", "new")))
            for again in range(2):
                self.assertEqual(set(contents), set(store.oids()))
                for oid, content in contents.items():
                    self.assertEqual([], store.verify(oid))
                    self.assertEqual(content, store.read(oid, 0, MIB))
                store.close()
                store = self.open(durable)
                self.assertEqual(set(contents), store.suspects)
            self._still_works(store, durable, contents)
            self._spare_room()
            store = self.open(durable)
            call(store.create, missing, 4 * MIB, 0, b"fits")
            store.close()
            shutil.rmtree(os.path.join(self.path, "store"))

    def _still_works(self, store, durable, contents):
        """What must go on without a free block."""
        for oid in contents:
            store.settle(oid, 8)
        call(store.write, OID, 5, b"in place")
        call(store.write, OID, 0, b"L" * 256 * KIB)
        store.identity.update(epoch=3)
        self.assertTrue(store.is_full)
        try:
            store.epochs.put(3, bytes(100 * KIB))
            self.fail("there was room for a map")
        except NoSpace:
            self.assertIsNone(store.epochs.get(3))
        self.assertEqual([], os.listdir(os.path.join(self.path, "store", "epoch")))
        store.close()
        store = self.open(durable)
        self.assertEqual(3, store.identity.get("epoch"))
        self.assertEqual({OID}, store.suspects)
        store.accept(OID)
        self.assertEqual(b"L" * 9, store.read(OID, 0, 9))
        store.close()

    def test_writes_into_holes(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 4 * MIB, 64 * KIB, b"x" * 4 * KIB)
            call(store.create, OID + 1, 8 * MIB, 0, b"y")
            for _ in range(2):
                self._fill_up()
                before = bytes(store.read(OID, 0, 4 * MIB)), bytes(store.read(OID + 1, 0, MIB))
                for offset, length in ((0, 4 * KIB), (60 * KIB, 8 * KIB), (64 * KIB, 512 * KIB),
                                       (66 * KIB, 3 * KIB), (0, MIB), (63 * KIB, 100)):
                    with self.assertRaises(NoSpace):
                        call(store.write, OID, offset, b"n" * length)
                    with self.assertRaises(NoSpace):
                        call(store.write, OID + 1, 5 * MIB + offset, b"n" * length)
                    self.assertEqual(before[0], store.read(OID, 0, 4 * MIB))
                    self.assertEqual([], store.verify(OID))
                    self.assertEqual([], store.verify(OID + 1))
                # Without having been settled, and after a rest.
                self._spare_room()
                store.settle(OID, 4)
                store.checkpoint()
            call(store.write, OID, 0, b"n" * MIB)
            store.close()
            shutil.rmtree(os.path.join(self.path, "store"))

    def test_zeros_into_holes_need_no_space(self):
        for durable in MODES:
            store = self.open(durable)
            call(store.create, OID, 4 * MIB, MIB, b"here" * KIB)
            self._fill_up()
            with self.assertRaises(NoSpace):
                call(store.write, OID, 2 * MIB, b"x" * 4 * KIB)
            call(store.write, OID, 2 * MIB + 5, bytes(64 * KIB))
            call(store.write, OID, MIB - 8 * KIB, bytes(8 * KIB) + b"more" * 10 + bytes(16 * KIB))
            call(store.write, OID, 0, bytes(MIB))
            self.assertEqual(b"more" * 10 + bytes(4 * KIB - 40),
                             store.read(OID, MIB, 4 * KIB))
            self.assertEqual(bytes(MIB), store.read(OID, 2 * MIB, MIB))
            self.assertEqual([], store.verify(OID))
            store.close()
            self._spare_room()
            shutil.rmtree(os.path.join(self.path, "store"))

    def test_any_write_is_done_or_was_never_there(self):
        for durable in MODES:
            store = self.open(durable)
            rng = random.Random()
            size = 3 * MIB + 700
            model = {}
            for oid in range(OID, OID + 40):
                try:
                    call(store.create, oid, size, 0, b"")
                except NoSpace:
                    break
                model[oid] = bytearray(size)
            refused = 0
            for _ in range(700):
                oid = rng.choice(list(model))
                offset = rng.randrange(size)
                length = min(size - offset, rng.choice((100, 4 * KIB, 64 * KIB, 300 * KIB)))
                if rng.random() < 0.5:
                    offset &= ~4095
                data = rng.randbytes(length)
                try:
                    if rng.random() < 0.05:
                        call(store.discard, oid, offset, length)
                        data = bytes(length)
                    else:
                        call(store.write, oid, offset, data)
                except NoSpace:
                    refused += 1
                else:
                    model[oid][offset:offset + length] = data
            self.assertGreater(refused, 10)
            for again in range(2):
                for oid, content in model.items():
                    self.assertEqual([], store.verify(oid))
                    self.assertTrue(content == store.read(oid, 0, size), "object %x" % oid)
                store.close()
                store = self.open(durable)
            store.close()
            shutil.rmtree(os.path.join(self.path, "store"))

    def test_a_disk_that_had_less_room_than_it_said(self):
        path = os.path.join(self.path, "file")
        file = ObjectFile.create(path, OID, MIB, [(64 * KIB, b"x" * 4 * KIB)], 0, _hope)
        self._fill_up()
        # Room for a part of what follows.
        ballast = os.path.join(self.path, "ballast")
        os.truncate(ballast, os.path.getsize(ballast) - 100 * KIB)
        before = bytes(file.read(0, MIB))
        for claim in (_hope, _allocate):
            with self.assertRaises(NoSpace):
                file.write(128 * KIB, b"n" * 512 * KIB, claim)
            self.assertEqual(before, file.read(0, MIB))
            self.assertEqual([], file.verify())
        with self.assertRaises(NoSpace):
            file.write(64 * KIB, b"n" * 512 * KIB, _allocate)
        self.assertEqual(before, file.read(0, MIB))
        # Old bytes are gone then, but not without a trace of what is there instead.
        with self.assertRaises(NoSpace):
            file.write(66 * KIB, b"n" * 510 * KIB, _hope)
        self.assertEqual([], file.verify())
        self.assertEqual(b"x" * 2 * KIB, file.read(64 * KIB, 2 * KIB))
        self.assertEqual(before[:64 * KIB], file.read(0, 64 * KIB))
        self.assertEqual([], ObjectFile.open(path, OID).verify())
        with self.assertRaises(NoSpace):
            ObjectFile.create(path + "2", OID, MIB, [(0, bytes(MIB))], 0, _hope)
        self.assertFalse(os.path.exists(path + "2"))

    def test_removing_and_discarding_make_room(self):
        for durable in MODES:
            store = self.open(durable)
            contents = self._fill(store)
            self._fill_up()
            call(store.remove, OID)
            call(store.discard, OID + 1, 0, MIB)
            call(store.create, OID, 512 * KIB, 0, b"z" * 512 * KIB)
            self.assertEqual(bytes(MIB), store.read(OID + 1, 0, MIB))
            self.assertEqual(contents[OID + 2], store.read(OID + 2, 0, MIB))
            store.close()
            self._spare_room()
            shutil.rmtree(os.path.join(self.path, "store"))

    def test_the_reserve_is_for_recovery(self):
        for durable in MODES:
            store = self.open(durable, reserve=5 * MIB)
            contents = self._fill(store)
            free = store.space()[1]
            self.assertTrue(5 * MIB <= free < 7 * MIB, "%d bytes are free" % free)
            recovered = OID + len(contents)
            for at in range(3):
                call(store.create_sparse, recovered + at, MIB, [(0, b"r" * MIB)], 7)
            self.assertTrue(store.is_full)
            with self.assertRaises(NoSpace):
                call(store.create, recovered + 4, MIB, 0, b"x")
            call(store.write, OID, 0, b"in place")
            call(store.create_sparse, recovered + 4, 8 * MIB, [(0, b"r")], 7)
            with self.assertRaises(NoSpace):
                call(store.write, recovered + 4, MIB, b"a new block")
            store.epochs.put(1, b"map")
            store.close()
            shutil.rmtree(os.path.join(self.path, "store"))

    def test_moving_objects_on_a_full_disk(self):
        for durable in MODES:
            store = self.open(durable)
            contents = self._fill(store)
            store.retire([OID], 5)
            self._fill_up()
            try:
                store.retire(list(contents)[:9], 5)
                store.retire(list(contents)[9:12], 4)
            except NoSpace:
                pass
            # This must succeed: a node that was away for too long begins with it.
            store.retire_all(6)
            self.assertEqual(0, store.count())
            store.close()
            store = self.open(durable)
            # Wherever they are now, none is lost.
            for oid, content in contents.items():
                if store.exists(oid):
                    self.assertEqual(content, store.read(oid, 0, MIB))
                else:
                    epoch = store.stale_info(oid)[0][0]
                    self.assertEqual(content, store.stale_read(oid, epoch, 0, MIB))
                    store.promote(oid, epoch)
            self.assertEqual(set(contents), set(store.oids()))
            store.close()
            self._spare_room()
            shutil.rmtree(os.path.join(self.path, "store"))

    def test_a_new_store_on_a_full_disk(self):
        self._fill_up()
        with self.assertRaises(NoSpace):
            self.open(True)
        self._spare_room()
        self.open(True).close()


class FullMemoryTest(FullDiskMixin, MountedTestCase):
    """On tmpfs, which allocates when it is written to."""

    def setUp(self):
        self.path = self.mount("-t", "tmpfs", "-o", "size=24m", "sheepstack-test")


class FullExt4Test(FullDiskMixin, MountedTestCase):
    """On ext4, which allocates when it flushes."""

    def setUp(self):
        image = tempfile.mkdtemp(prefix="sheepimage-", dir=IN_MEMORY)
        self.addCleanup(shutil.rmtree, image)
        self.path = self.mount_image(image, 40 * MIB)


class ThinDiskTest(MountedTestCase):
    """A filesystem that has room, on a device that has not."""

    def setUp(self):
        self.device = self.mount("-t", "tmpfs", "-o", "size=24m", "sheepstack-test")
        # With a journal of its own ext4 would not let anybody write again.
        self.path = self.mount_image(self.device, 200 * MIB, "-O", "^has_journal")

    def _exhaust(self):
        with open(os.path.join(self.device, "ballast"), "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * KIB))
            except OSError:
                pass

    def test_acknowledged_data_outlive_it(self):
        store = self.open(True)
        call(store.create, OID, 8 * MIB, 0, b"before")
        call(store.create, OID + 1, 4096, 0, b"other")
        store.checkpoint()
        self._exhaust()
        acknowledged = []
        error = None
        for at in range(1, 60):
            try:
                call(store.write, OID, at * 100 * KIB, b"%4d" % at * 25 * KIB)
                acknowledged.append(at)
            except StoreError as failure:
                error = failure
                break
        self.assertIsInstance(error, (NoSpace, StoreIOError))
        # Reading goes on; writing is refused until the store is opened again.
        self.assertEqual(b"other", store.read(OID + 1, 0, 5))
        self.assertEqual(b"before", store.read(OID, 0, 6))
        with self.assertRaises(StoreError):
            call(store.write, OID + 1, 0, b"x")
        with self.assertRaises(StoreError):
            store.close()
        os.unlink(os.path.join(self.device, "ballast"))
        store = self.open(True)
        self.assertEqual(b"before", store.read(OID, 0, 6))
        for at in acknowledged:
            self.assertEqual(b"%4d" % at * 25 * KIB,
                             store.read(OID, at * 100 * KIB, 100 * KIB, verify=False))
        call(store.write, OID + 1, 0, b"again")
        store.close()


class FailingDiskTest(StoreTestCase):
    """No disk here fails when told to, so single calls of the kernel are made to."""

    def _failing(self, name, chosen):
        real = getattr(os, name)

        def fail(fd, *arguments):
            if chosen(os.readlink("/proc/self/fd/%d" % fd)):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, *arguments)

        return mock.patch.object(os, name, fail)

    def _prepared(self, durable):
        store = self.open(durable)
        call(store.create, OID, MIB, 0, b"before" * 20000)
        call(store.create, OID + 1, MIB, 0, b"other")
        return store

    def test_reading(self):
        store = self._prepared(False)
        with self._failing("pread", lambda path: path.endswith("a")):
            with self.assertRaises(StoreIOError):
                store.read(OID, 0, 4096)
            with self.assertRaises(StoreIOError):
                store.verify(OID)
            with self.assertRaises(StoreIOError):
                call(store.write, OID, 1, b"partial")
            self.assertEqual(b"other", store.read(OID + 1, 0, 5))
        self.assertEqual(b"before", store.read(OID, 0, 6))

    def test_writing(self):
        for durable in MODES:
            store = self._prepared(durable)
            with self._failing("pwrite", lambda path: "/obj/" in path or "/new/" in path):
                for data in (b"x" * 4096, b"x" * 300 * KIB, b"short"):
                    with self.assertRaises(StoreIOError):
                        call(store.write, OID, 0, data)
                with self.assertRaises(StoreIOError):
                    call(store.create, OID + 2, 4096, 0, b"x")
            self.assertFalse(store.exists(OID + 2))
            self.assertEqual(b"before", store.read(OID, 0, 6))
            self.assertEqual([], store.verify(OID))
            call(store.write, OID, 0, b"better")
            store.close()
            shutil.rmtree(self.path)

    def test_flushing_a_large_write(self):
        store = self._prepared(True)
        with self._failing("fdatasync", lambda path: "/obj/" in path):
            with self.assertRaises(StoreIOError):
                call(store.write, OID, 0, b"x" * 300 * KIB)
        # Nobody knows what the disk holds: no answer rather than a wrong one.
        with self.assertRaises(StoreIOError):
            store.read(OID, 0, 6)
        with self.assertRaises(StoreIOError):
            call(store.write, OID, 0, b"x")
        self.assertEqual(b"other", store.read(OID + 1, 0, 5))
        call(store.create, OID, MIB, 0, b"anew")
        self.assertEqual(b"anew", store.read(OID, 0, 4))
        with self._failing("fdatasync", lambda path: "/new/" in path):
            with self.assertRaises(StoreIOError):
                call(store.create, OID, MIB, 0, b"x" * 300 * KIB)
        self.assertEqual(b"anew", store.read(OID, 0, 4))
        self.assertEqual([], os.listdir(os.path.join(self.path, "new")))

    def test_flushing_the_journal(self):
        store = self._prepared(True)
        store.settle(OID + 1, 5)
        with self._failing("fdatasync", lambda path: "journal" in path):
            with self.assertRaises(StoreIOError):
                call(store.write, OID, 0, b"lost??")
        for change in ((store.write, OID, 0, b"x"), (store.write, OID + 1, 0, b"x"),
                       (store.create, OID + 5, 4096, 0, b"x"), (store.remove, OID + 1),
                       (store.discard, OID, 0, 4096),
                       (store.write, OID, 0, b"x" * 300 * KIB),
                       (store.create, OID + 6, MIB, 0, b"x" * 300 * KIB)):
            with self.assertRaises(StoreIOError):
                call(*change)
        self.assertEqual(b"other", store.read(OID + 1, 0, 5))
        with self.assertRaises(StoreIOError):
            store.close()
        store = self.open(True)
        self.assertEqual(b"other", store.read(OID + 1, 0, 5))
        self.assertIn(OID, store.suspects)
        call(store.write, OID, 0, b"works again")

    def test_flushing_everything(self):
        from sheepstack.store import disk
        store = self._prepared(True)
        with mock.patch.object(disk, "syncfs", side_effect=OSError(errno.EIO, "I/O error")):
            with self.assertRaises(StoreIOError):
                store.checkpoint()
        with self.assertRaises(StoreIOError):
            call(store.write, OID, 0, b"x")
        self.assertEqual(b"before", store.read(OID, 0, 6))
        with self.assertRaises(StoreIOError):
            store.close()
