"""Clients of a cluster that is being broken: what they did and saw goes into a history.

A :class:`Owner` has a VDI for itself, with snapshots and clones of it.  Several
:class:`Sharer` s write to the same sectors of one VDI through different gateways.
"""

import itertools
import logging
import random
import threading
import time

from sheepstack.client import (
    Cluster, NoSuchTag, NoSuchVdi, SheepError)
from tests.thrash import sectors
from tests.thrash.history import NEVER, Origin, Read, Write
from tests.thrash.sectors import SECTOR

log = logging.getLogger(__name__)

#: Sectors of one window; a window begins or lies across where an object begins.
WINDOW = 32
LARGE_WINDOW = 512
_OBJECTS = 5
_MOST_CLONES = 2
_MOST_SNAPSHOTS = 3
_WATCHERS = 2
#: So often a watcher reads each range, in a row.
_LOOKS = 8


class Shape:
    """Of a VDI: its size in bytes, and the windows [(first sector, sectors)] that are used."""

    def __init__(self, shift):
        self.shift = shift
        self.per_object = (1 << shift) // SECTOR
        self.size = _OBJECTS << shift
        self.windows = [(0, WINDOW)]
        for index in range(1, _OBJECTS):
            self.windows.append((index * self.per_object - WINDOW // 2, WINDOW))
        self.windows.append((2 * self.per_object + 64, WINDOW))
        self.large = (3 * self.per_object + 128, LARGE_WINDOW)

    def used_in(self, first, count):
        """Parts of the windows that lie in a range of sectors."""
        for start, length in self.windows + [self.large]:
            low, high = max(start, first), min(start + length, first + count)
            if low < high:
                yield low, high - low


class Client(threading.Thread):
    """``addresses`` are those of the gateways that it uses, in order.

    It ends when ``stop`` (an Event) is set.  ``complaints`` are violations that need no
    checker, ``succeeded`` the time of the last thing that went well, ``slowest`` what took
    longest: (seconds, when it ended, what it was).
    """

    def __init__(self, name, seed, history, addresses, timeout, stop):
        super().__init__(name=name, daemon=True)
        self.random = random.Random("%s/%s" % (seed, name))
        self.history = history
        self.addresses = list(addresses)
        self.timeout = timeout
        self.stop = stop
        self.complaints = []
        self.succeeded = time.monotonic()
        self.done = 0
        self.failures = 0
        self.doing = ""
        self.slowest = 0.0, 0.0, ""
        self.cluster = Cluster(self.addresses, timeout=timeout)

    def run(self):
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self.step()
                self.done += 1
                self.succeeded = time.monotonic()
            except SheepError as error:
                self.failures += 1
                log.info("%s: %s: %s", self.name, type(error).__name__, error)
                self.stop.wait(0.1)
            except Exception as error:
                log.exception(self.name)
                self.complaints.append("client %s: %s: %s" % (
                    self.name, type(error).__name__, error))
                return
            now = time.monotonic()
            self.slowest = max(self.slowest, (now - began, now, "%s: %s" % (
                self.name, self.doing)))
            self.stop.wait(self.random.expovariate(1 / 0.008))
        try:
            self.leave()
        except SheepError as error:
            self.complaints.append("client %s cannot end in order: %s" % (self.name, error))
        finally:
            self.cluster.close()

    def step(self):
        """Do something."""
        raise AssertionError("a client that does nothing")

    def leave(self):
        """Give back what is held."""

    def _range(self, shape, whole=0.15):
        draw = self.random
        if draw.random() < 0.02:
            first, count = shape.large
            if draw.random() < 0.5:
                return first, count
            return first + draw.randrange(count // 2), count // 2
        first, count = draw.choice(shape.windows)
        kind = draw.random()
        if kind < whole:
            return first, count
        if kind < 0.6:
            return first // 8 * 8 + 8 * draw.randrange(count // 8), 8
        length = draw.randint(1, 12)
        return first + draw.randrange(count - length), length

    def write(self, vdi, volume, shape):
        first, count = self._range(shape)
        number = self.history.next_number()
        data = sectors.pattern(number, first, count)
        start, end, link = time.monotonic(), NEVER, self._link()
        try:
            vdi.pwrite(first * SECTOR, data)
            end = time.monotonic()
        finally:
            self.history.add(Write(volume, number, first, count, start, end, self.name,
                                   self._link() != link))

    def _link(self):
        """A number that changes whenever the client has to connect to a gateway anew."""
        return self.cluster._pool.generation

    def write_many(self, vdi, volume, shape):
        """Writes that are all under way at once."""
        windows = self.random.sample(shape.windows, 4)
        link = self._link()
        pending = []
        for first, count in windows:
            number = self.history.next_number()
            start = time.monotonic()
            future = vdi.submit_pwrite(first * SECTOR, sectors.pattern(number, first, count))
            pending.append((future, number, first, count, start))
        failure = None
        for future, number, first, count, start in pending:
            end = NEVER
            try:
                future.result()
                end = time.monotonic()
            except SheepError as error:
                failure = error
            self.history.add(Write(volume, number, first, count, start, end, self.name,
                                   self._link() != link))
        if failure is not None:
            raise failure

    def discard(self, vdi, volume, shape):
        index = self.random.randrange(1, _OBJECTS)
        start, end = time.monotonic(), NEVER
        try:
            vdi.discard(index << shape.shift, 1 << shape.shift)
            end = time.monotonic()
        finally:
            for first, count in shape.used_in(index * shape.per_object, shape.per_object):
                self.history.add(Write(volume, 0, first, count, start, end, self.name))

    def read(self, vdi, volume, shape):
        self.read_range(vdi, volume, *self._range(shape, whole=0.4))

    def read_range(self, vdi, volume, first, count):
        read_range(self.history, vdi, volume, first, count, self.name)


def read_range(history, vdi, volume, first, count, client):
    """Read sectors and note what they held."""
    start = time.monotonic()
    data = vdi.pread(first * SECTOR, count * SECTOR)
    end = time.monotonic()
    history.add(Read(volume, first, sectors.decode(data, first), start, end, client))


def read_all(history, vdi, volume, shape, client):
    for first, count in shape.windows + [shape.large]:
        read_range(history, vdi, volume, first, count, client)


class Disk:
    """A VDI that is there: its name, the volume it is, its snapshots {tag: volume}."""

    def __init__(self, name, volume, shape):
        self.name = name
        self.volume = volume
        self.shape = shape
        self.snapshots = {}
        self.vdi = None

    def close(self):
        vdi, self.vdi = self.vdi, None
        if vdi is not None:
            vdi.close()


class Owner(Client):
    """Has VDIs for itself.  ``lock`` is that of :meth:`Cluster.open_vdi`.

    Where it is not known whether a request was carried out, or will be, nothing is expected
    any more of what it was about: it is *abandoned*.
    """

    def __init__(self, *arguments, lock):
        super().__init__(*arguments)
        self.disks = []
        self.abandoned = set()
        self.abandoned_tags = set()
        self._lock = lock
        self._names = itertools.count()
        self._free_names = []
        self._doomed = []
        self._volumes = itertools.count()
        self._main = None
        self._deeds = (
            (40, self._write), (30, self._read), (5, self._write_many), (4, self._discard),
            (3, self._snapshot), (6, self._look_at_snapshot), (3, self._clone),
            (2, self._roll_back), (2, self._delete_snapshot), (2, self._delete_clone),
            (5, self._look_from_elsewhere), (1, self._reopen), (1, self._replace))

    def step(self):
        if self._doomed and self.random.random() < 0.2:
            self._delete_what_is_left()
            return
        if not self.disks:
            self._create()
            return
        weights = [weight for weight, _ in self._deeds]
        deed = self.random.choices([deed for _, deed in self._deeds], weights)[0]
        self.doing = deed.__name__.strip("_")
        deed(self.random.choice(self.disks))

    def leave(self):
        for disk in self.disks:
            disk.close()

    def _new_name(self):
        if self._free_names and self.random.random() < 0.7:
            return self._free_names.pop(0)
        return "%s-%d" % (self.name, next(self._names))

    def _new_volume(self, name):
        return "%s#%d" % (name, next(self._volumes))

    def _open(self, disk):
        if disk.vdi is None:
            disk.vdi = self.cluster.open_vdi(disk.name, lock=self._lock)
        return disk.vdi

    def _try(self, name, action):
        """Do ``action()``; the VDI ``name`` is abandoned where nobody knows how it went."""
        try:
            return action()
        except SheepError:
            self._abandon(name)
            raise

    def _abandon(self, name):
        self.abandoned.add(name)
        for disk in [disk for disk in self.disks if disk.name == name]:
            self.disks.remove(disk)
            disk.close()

    def _create(self):
        name = self._new_name()
        shape = Shape(self.random.choice((20, 22)))
        self._try(name, lambda: self.cluster.create_vdi(
            name, shape.size, block_size_shift=shape.shift))
        self.disks.append(Disk(name, self._new_volume(name), shape))

    def _write(self, disk):
        self.write(self._open(disk), disk.volume, disk.shape)

    def _write_many(self, disk):
        self.write_many(self._open(disk), disk.volume, disk.shape)

    def _read(self, disk):
        self.read(self._open(disk), disk.volume, disk.shape)

    def _discard(self, disk):
        self.discard(self._open(disk), disk.volume, disk.shape)

    def _reopen(self, disk):
        disk.close()

    def _look_from_elsewhere(self, disk):
        """Through one gateway, which need not be that of the owner."""
        with Cluster([self.random.choice(self.addresses)], timeout=self.timeout) as cluster:
            with cluster.open_vdi(disk.name, read_only=True) as vdi:
                for first, count in self.random.sample(disk.shape.windows, 3):
                    self.read_range(vdi, disk.volume, first, count)

    def _snapshot(self, disk):
        if len(disk.snapshots) >= _MOST_SNAPSHOTS:
            return
        tag = "t%d" % next(self._volumes)
        volume = "%s@%s" % (disk.volume, tag)
        start = time.monotonic()
        try:
            self._open(disk).snapshot(tag)
        except SheepError:
            self.abandoned_tags.add((disk.name, tag))
            raise
        self.history.add(Origin(volume, disk.volume, start, time.monotonic()))
        disk.snapshots[tag] = volume

    def _look_at_snapshot(self, disk):
        if not disk.snapshots:
            return
        tag, volume = self.random.choice(sorted(disk.snapshots.items()))
        with self.cluster.open_vdi(disk.name, tag) as vdi:
            for first, count in self.random.sample(disk.shape.windows, 4):
                self.read_range(vdi, volume, first, count)

    def _clone(self, disk):
        if not disk.snapshots or len(self.disks) > _MOST_CLONES:
            return
        tag, source = self.random.choice(sorted(disk.snapshots.items()))
        name = self._new_name()
        start = time.monotonic()
        self._try(name, lambda: self.cluster.clone(disk.name, tag, name))
        volume = self._new_volume(name)
        self.history.add(Origin(volume, source, start, time.monotonic()))
        self.disks.append(Disk(name, volume, disk.shape))

    def _roll_back(self, disk):
        if not disk.snapshots:
            return
        tag, source = self.random.choice(sorted(disk.snapshots.items()))
        disk.close()
        start = time.monotonic()
        self._try(disk.name, lambda: self.cluster.rollback(disk.name, tag))
        disk.volume = self._new_volume(disk.name)
        self.history.add(Origin(disk.volume, source, start, time.monotonic()))

    def _delete_snapshot(self, disk):
        if not disk.snapshots:
            return
        tag = self.random.choice(sorted(disk.snapshots))
        del disk.snapshots[tag]
        self.abandoned_tags.add((disk.name, tag))
        self.cluster.delete_vdi(disk.name, tag)
        self.abandoned_tags.discard((disk.name, tag))
        try:
            self.cluster.lookup(disk.name, tag)
        except NoSuchTag:
            return
        self.complaints.append("undead: snapshot %s of %s was deleted and is there" % (
            tag, disk.name))

    def _delete_clone(self, disk):
        if len(self.disks) > 1:
            self._delete_vdi(disk)

    def _replace(self, disk):
        """Delete all there is; a new VDI of the same name is made soon."""
        if self.random.random() < 0.4:
            self._delete_vdi(disk)

    def _delete_vdi(self, disk):
        disk.close()
        try:
            for tag in sorted(disk.snapshots):
                self._try(disk.name, lambda: self.cluster.delete_vdi(disk.name, tag))
            self._try(disk.name, lambda: self.cluster.delete_vdi(disk.name))
        except SheepError:
            self._doomed.append(disk.name)
            raise
        self.disks.remove(disk)
        try:
            self.cluster.lookup(disk.name)
        except NoSuchVdi:
            if not any(name == disk.name for name, _ in self.abandoned_tags):
                self._free_names.append(disk.name)
            return
        self.complaints.append("undead: %s was deleted and is there" % disk.name)

    def _delete_what_is_left(self):
        """Of a VDI that could not be deleted; the next of its name must not suffer from what was
        asked for then."""
        name = self._doomed[0]
        self.doing = "delete_what_is_left"
        for header in self.cluster.list_vdis():
            if header.name == name and not header.is_deleted:
                try:
                    self.cluster.delete_vdi(name, header.tag if header.is_snapshot else None)
                except (NoSuchTag, NoSuchVdi):
                    log.info("%s: %s %s is gone by now", self.name, name, header.tag)
        if any(header.name == name and not header.is_deleted
               for header in self.cluster.list_vdis()):
            return
        self._doomed.pop(0)
        self.abandoned.discard(name)
        self.abandoned_tags = {each for each in self.abandoned_tags if each[0] != name}
        self._free_names.insert(0, name)


class SharedDisk(Disk):
    """One that several use.  Who took no lock must look at the inode anew after a snapshot:
    ``age`` counts those, and nobody reads while one is taken."""

    def __init__(self, name, volume, shape):
        super().__init__(name, volume, shape)
        self.snapshotted = False
        self.age = 0
        self.condition = threading.Condition()
        self.readers = 0
        self.snapshotting = False

    def begin_read(self):
        with self.condition:
            while self.snapshotting:
                self.condition.wait()
            self.readers += 1
            return self.age

    def end_read(self):
        with self.condition:
            self.readers -= 1
            self.condition.notify_all()

    def begin_snapshot(self) -> bool:
        with self.condition:
            if self.snapshotting:
                return False
            self.snapshotting = True
            while self.readers:
                self.condition.wait()
            return True

    def end_snapshot(self):
        with self.condition:
            self.age += 1
            self.snapshotting = False
            self.condition.notify_all()


class Sharer(Client):
    """Writes to and reads from a VDI that others use, too."""

    def __init__(self, *arguments, disk):
        super().__init__(*arguments)
        self.disk = disk
        self.abandoned_tags = set()
        self._vdi = None
        self._age = -1
        self._tags = itertools.count()

    def step(self):
        disk = self.disk
        if self._vdi is None:
            self._vdi = self.cluster.open_vdi(disk.name, lock=False)
        kind = self.random.random()
        self.doing = "write" if kind < 0.5 else "snapshot" if kind < 0.55 else "read"
        if kind < 0.45:
            self.write(self._vdi, disk.volume, disk.shape)
        elif kind < 0.5:
            self.write_many(self._vdi, disk.volume, disk.shape)
        elif kind < 0.51 and self.disk.snapshotted:
            self._snapshot()
        elif kind < 0.55:
            self._look_at_snapshot()
        else:
            self._read()

    def leave(self):
        if self._vdi is not None:
            self._vdi.close()

    def _read(self):
        age = self.disk.begin_read()
        try:
            if age != self._age:
                self._vdi.reload()
                self._age = age
            self.read(self._vdi, self.disk.volume, self.disk.shape)
        finally:
            self.disk.end_read()

    def _snapshot(self):
        disk = self.disk
        if len(disk.snapshots) >= _MOST_SNAPSHOTS or not disk.begin_snapshot():
            return
        tag = "%s-%d" % (self.name, next(self._tags))
        volume = "%s@%s" % (disk.volume, tag)
        start = time.monotonic()
        try:
            self.cluster.snapshot(disk.name, tag)
            self.history.add(Origin(volume, disk.volume, start, time.monotonic()))
            disk.snapshots[tag] = volume
        except SheepError:
            self.abandoned_tags.add((disk.name, tag))
            raise
        finally:
            disk.end_snapshot()

    def _look_at_snapshot(self):
        disk = self.disk
        if not disk.snapshots:
            return
        tag, volume = self.random.choice(sorted(disk.snapshots.items()))
        with self.cluster.open_vdi(disk.name, tag) as vdi:
            for first, count in self.random.sample(disk.shape.windows, 3):
                self.read_range(vdi, volume, first, count)


class Watcher(Sharer):
    """Reads the same bytes again and again while others write to them.

    All sheep are on this host, so part of it comes from the files of his own gateway, whatever
    becomes of that: see :mod:`sheepstack.wire.direct`.
    """

    def step(self):
        if self._vdi is None:
            self._vdi = self.cluster.open_vdi(self.disk.name, read_only=True)
        first, count = self._range(self.disk.shape)
        age = self.disk.begin_read()
        try:
            if age != self._age:
                self._vdi.reload()
                self._age = age
            for _ in range(_LOOKS):
                self.read_range(self._vdi, self.disk.volume, first, count)
        finally:
            self.disk.end_read()

    @property
    def direct_reads(self) -> int:
        """How many reads did without a sheep."""
        return self.cluster._direct.told + self.cluster._direct.reads


class Crowd:
    """All clients of a run."""

    def __init__(self, seed, history, *, timeout):
        self._seed = seed
        self._stop = threading.Event()
        self._history = history
        self._timeout = timeout
        self.shared = SharedDisk("shared", "shared#0", Shape(22))
        self.owners, self.sharers, self.watchers = [], [], []

    @property
    def clients(self):
        return self.owners + self.sharers + self.watchers

    def start(self, addresses, *, owners, sharers, lock):
        """Make the VDI that is shared, and start so many clients of the gateways given."""
        draw = random.Random("%s/crowd" % self._seed)
        with Cluster(addresses, timeout=self._timeout) as setup:
            setup.create_vdi("shared", self.shared.shape.size, prealloc=True)

        def through(count):
            return draw.sample(list(addresses), count)

        self.owners = [
            Owner("owner%d" % number, self._seed, self._history, through(len(addresses)),
                  self._timeout, self._stop, lock=lock) for number in range(owners)]
        self.sharers = [
            Sharer("sharer%d" % number, self._seed, self._history,
                   through(1 if number == 0 else len(addresses)), self._timeout, self._stop,
                   disk=self.shared) for number in range(sharers)]
        self.watchers = [
            Watcher("watcher%d" % number, self._seed, self._history, through(len(addresses)),
                    self._timeout, self._stop, disk=self.shared) for number in range(_WATCHERS)]
        for client in self.clients:
            client.start()

    def stop(self, timeout):
        """End all; returns complaints about those that do not."""
        self._stop.set()
        end = time.monotonic() + timeout
        for client in self.clients:
            client.join(max(0.1, end - time.monotonic()))
        return ["client %s hangs" % client.name for client in self.clients if client.is_alive()]

    def stuck_since(self, moment, removed) -> list:
        """Names of the clients with which nothing went well after that moment, though they
        know other gateways than those that were ``removed`` (a set of addresses)."""
        return [client.name for client in self.clients
                if client.succeeded < moment and not removed.issuperset(client.addresses)]

    def complaints(self) -> list:
        return [complaint for client in self.clients for complaint in client.complaints]

    def disks(self) -> list:
        """What should be there now."""
        return [disk for owner in self.owners for disk in owner.disks] + [self.shared]

    def abandoned(self) -> tuple:
        """(names, (name, tag)s) that may be there or not."""
        names, tags = set(), set()
        for owner in self.owners:
            names |= owner.abandoned
            tags |= owner.abandoned_tags
        for sharer in self.sharers:
            tags |= sharer.abandoned_tags
        return names, tags


def look_everywhere(history, crowd, addresses, timeout) -> list:
    """Read all there is through each gateway, alone; returns complaints.

    No client may be at work any more.
    """
    complaints = []
    for address in addresses:
        with Cluster([address], timeout=timeout) as cluster:
            for disk in crowd.disks():
                for tag, volume in [(None, disk.volume), *disk.snapshots.items()]:
                    try:
                        with cluster.open_vdi(disk.name, tag, read_only=True) as vdi:
                            read_all(history, vdi, volume, disk.shape, "end:" + address)
                    except SheepError as error:
                        complaints.append("missing: %s %s cannot be read through %s: %s: %s" % (
                            disk.name, tag or "", address, type(error).__name__, error))
            complaints += _compare_list(cluster, crowd, address)
    return complaints


def _compare_list(cluster, crowd, address):
    names, tags = crowd.abandoned()
    expected = {(disk.name, tag) for disk in crowd.disks() for tag in [None, *disk.snapshots]}
    found = set()
    complaints = []
    for header in cluster.list_vdis():
        if header.is_deleted or header.name in names:
            continue
        key = header.name, header.tag if header.is_snapshot else None
        if key in found and key[1]:
            complaints.append("twins: %s %s through %s" % (*key, address))
        found.add(key)
    complaints += ["missing: %s %s is not listed by %s" % (name, tag or "", address)
                   for name, tag in expected - found]
    complaints += ["undead: %s %s is listed by %s" % (name, tag or "", address)
                   for name, tag in found - expected
                   # A roll-back leaves what it rolled back, without a tag, if it was cut short.
                   if (name, tag) not in tags and tag != ""]
    return complaints
