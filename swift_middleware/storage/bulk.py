"""The bytes of large objects, in whole slots of bulk volumes.

Slots are registered as being written before anything goes into them; so those of a process
that dies are found.
"""

import threading

from swift_middleware import concurrency
from swift_middleware.database import ledger
from swift_middleware.database.schema import extent, volume
from swift_middleware.storage.volumes import BULK, SLOT_SHIFT, SLOT_SIZE, SLOTS, check_owned

#: Slots of an object of unknown length: at first, and at most at a time.
_FIRST_RUN = 2
_LONGEST_RUN = 64

#: Writes that one upload has under way, and what one read fetches at a time, and ahead.
_WRITES = 4
READ_SIZE = 1 << 20
_READS = 3
_LEAN_READ = 128 << 10


class Bulk:
    """The bulk volume of one copy policy that this process writes to."""

    def __init__(self, volumes, database, copies):
        self._volumes = volumes
        self._database = database
        self._copies = copies
        self._lock = threading.Lock()
        self._volume = None
        self._next_slot = 0

    def reset(self):
        """Go on in another volume."""
        self._volume = None

    def allocate(self, count):
        """(volume id, first slot) of ``count`` slots that are registered as being written."""
        with self._lock:
            if self._volume is None or self._next_slot + count > SLOTS:
                self._volume, self._next_slot = self._volumes.acquire(BULK, self._copies)
            ident, slot = self._volume.id, self._next_slot
            self._database.write(_register, ident, self._volumes.owner, slot, count)
            self._next_slot += count
            return ident, slot


def _register(connection, ident, owner, slot, count):
    check_owned(connection, [ident], owner)
    connection.execute(volume.update().where(volume.c.id == ident).values(
        next_slot=slot + count))
    connection.execute(extent.insert().values(
        volume=ident, slot=slot, count=count, freed=None))


class Writer:
    """Writes the bytes of one object, in order.  All extents are in one volume.

    ``length``: of the object, None where that is not known.
    """

    def __init__(self, bulk, volumes, length):
        self._bulk = bulk
        self._volumes = volumes
        self._left = None if length is None else -(-length // SLOT_SIZE)
        self._run = _FIRST_RUN
        self._offset = self._end = 0
        self._writes = []
        self.volume = None
        self.extents = []

    def write(self, data, on_done):
        """Start to write ``data``, which does not reach over the end of a slot.

        ``on_done(is_written)`` is called when its bytes are not needed any more; where they
        could not be written, some of them may still be on their way.  Raises SheepError where
        an earlier write failed.
        """
        try:
            if self._offset == self._end:
                self._grow()
            future = self._volumes.vdi(self.volume).submit_pwrite(self._offset, data)
        except BaseException:
            on_done(False)
            raise
        future.add_done_callback(lambda done: on_done(done.exception() is None))
        self._offset += len(data)
        self._writes.append(future)
        while len(self._writes) > _WRITES:
            self.wait()

    def wait(self) -> bool:
        """Return when the oldest write is done; False where there is none under way."""
        if not self._writes:
            return False
        self._writes.pop(0).result()
        return True

    @property
    def room(self) -> int:
        """Bytes up to the end of the slot that is being written to."""
        return SLOT_SIZE - self._offset % SLOT_SIZE

    def _grow(self):
        count = self._left if self._left is not None else self._run
        self._run = min(2 * self._run, _LONGEST_RUN)
        ident, slot = self._bulk.allocate(count)
        if self.volume not in (None, ident):
            raise ledger.Changed()
        self.volume = ident
        self.extents.append((slot, count))
        self._offset = slot << SLOT_SHIFT
        self._end = (slot + count) << SLOT_SHIFT

    def finish(self):
        """Return when all is written."""
        for future in self._writes:
            future.result()

    def abandon(self):
        """Return when nothing is being written any more."""
        for future in self._writes:
            future.exception()


def spell(extents) -> str:
    """As it stands in the database."""
    return ",".join("%d+%d" % extent for extent in extents)


def pieces(extents, start, stop):
    """(offset in the volume, length) of the bytes from ``start`` to ``stop`` of an object, each
    at most :data:`READ_SIZE` long and within one slot."""
    base = 0
    for slot, count in extents:
        size = count << SLOT_SHIFT
        position = max(start, base)
        end = min(stop, base + size)
        while position < end:
            length = min(READ_SIZE - position % READ_SIZE, end - position)
            yield (slot << SLOT_SHIFT) + position - base, length
            position += length
        base += size


def read(vdi, parts, budget):
    """Yields the bytes of ``parts``, reading ahead as far as ``budget`` allows."""
    ahead = []
    parts = iter(parts)
    try:
        while True:
            while len(ahead) < _READS:
                part = next(parts, None)
                if part is None:
                    break
                offset, length = part
                if not budget.try_take(length):
                    if ahead:
                        parts = _put_back(part, parts)
                        break
                    # Slower, but in little room.
                    for start in range(offset, offset + length, _LEAN_READ):
                        yield vdi.pread(start, min(_LEAN_READ, offset + length - start))
                    continue
                ahead.append((length, vdi.submit_pread(offset, length)))
            if not ahead:
                return
            length, future = ahead.pop(0)
            try:
                data = future.result()
            finally:
                budget.give_back(length)
            yield data
            # Neither the page cache nor a fast client has made us wait.
            concurrency.pause()
    finally:
        for length, _ in ahead:
            budget.give_back(length)


def _put_back(part, parts):
    yield part
    yield from parts
