"""A random load on a store whose outcome can be judged after any crash.

Every object has its own endless list of operations, which follows from a seed alone.  Each
sector of 512 bytes that an operation writes says which object, sector and operation it
belongs to.  A :class:`Ledger` notes what was called for and what was acknowledged;
:func:`judge` then knows what each sector may hold: what the last acknowledged operation
put there, or any that was called for later.
"""

import random
import threading
from array import array
from struct import Struct

SECTOR = 512
LABEL = Struct("<QII")

ZERO = 0
ABSENT = -1


class Operation:
    """``kind`` is create, write, discard, remove or settle; ``number`` counts from 1."""

    def __init__(self, number, kind, offset=0, length=0):
        self.number = number
        self.kind = kind
        self.offset = offset
        self.length = length

    def __repr__(self):
        return "%d:%s(%d+%d)" % (self.number, self.kind, self.offset, self.length)

    def touches(self, sector):
        if self.kind in ("create", "remove"):
            return True
        if self.kind == "settle":
            return False
        return self.offset <= sector * SECTOR < self.offset + self.length

    def value(self, sector):
        """What the sector holds after this operation, which touches it."""
        if self.kind == "remove":
            return ABSENT
        inside = self.offset <= sector * SECTOR < self.offset + self.length
        return self.number if self.kind != "discard" and inside else ZERO


def operations(seed, oid, size):
    """Iterates over the operations of one object; with an odd seed it is settled often."""
    rng = random.Random((seed << 70) ^ oid)
    rests = 0.5 if seed % 2 else 0.06
    sectors = -(-size // SECTOR)
    exists = False
    number = 0
    while True:
        number += 1
        dice = rng.random()
        if not exists or dice < 0.04:
            kind, most = "create", sectors
        elif dice < 0.08:
            kind, most = "remove", 0
        elif dice < 0.14:
            kind, most = "discard", sectors
        elif dice < 0.14 + rests:
            kind, most = "settle", 0
        elif dice > 0.88:
            kind, most = "write", sectors
        else:
            kind, most = "write", 24
        exists = kind != "remove"
        if not most:
            yield Operation(number, kind)
            continue
        count = rng.randint(1, min(most, sectors))
        first = rng.randint(0, sectors - count)
        offset = first * SECTOR
        yield Operation(number, kind, offset, min(count * SECTOR, size - offset))


def payload(oid, operation):
    """The bytes that an operation writes."""
    first = operation.offset // SECTOR
    count = -(-operation.length // SECTOR)
    data = b"".join(LABEL.pack(oid, first + at, operation.number) * (SECTOR // LABEL.size)
                    for at in range(count))
    return data[:operation.length]


class Ledger:
    """What was called for and acknowledged, in ``memory`` that outlives the process.

    For each of ``objects``, a dictionary of sizes by id: a counter of operations called for,
    a byte for each of up to ``limit`` operations: 1 acknowledged, 2 refused.
    """

    def __init__(self, memory, objects, limit):
        self.objects = objects
        self.limit = limit
        self._issued = {}
        self._acked = {}
        view = memoryview(memory)
        at = 0
        for oid in objects:
            self._issued[oid] = view[at:at + 4].cast("I")
            self._acked[oid] = view[at + 4:at + 4 + limit]
            at += 4 + limit

    @classmethod
    def bytes_for(cls, objects, limit):
        return (4 + limit) * len(objects)

    def issue(self, oid, operation):
        self._issued[oid][0] = operation.number

    def acknowledge(self, oid, operation, error):
        self._acked[oid][operation.number - 1] = 2 if error else 1

    def copy(self) -> "Ledger":
        """What is noted now."""
        other = Ledger(bytearray(self.bytes_for(self.objects, self.limit)), self.objects,
                       self.limit)
        for oid in self.objects:
            other._acked[oid][:] = self._acked[oid]
        other.catch_up(self)
        return other

    def catch_up(self, other):
        """Takes over what was called for, not what was acknowledged, from ``other``."""
        for oid in self.objects:
            self._issued[oid][0] = other.issued(oid)

    def issued(self, oid):
        return self._issued[oid][0]

    def acked(self, oid, number):
        return self._acked[oid][number - 1]

    def acknowledged(self):
        return sum(bytes(self._acked[oid]).count(1) for oid in self.objects)

    def refused(self):
        return sum(bytes(self._acked[oid]).count(2) for oid in self.objects)


def drive(store, seed, oid, ledger, stop, window=6):
    """Carries out the operations of one object until ``stop`` (an Event) is set."""
    size = ledger.objects[oid]
    room = threading.Semaphore(window)
    rng = random.Random(seed ^ oid)
    for operation in operations(seed, oid, size):
        if stop.is_set() or operation.number > ledger.limit:
            break
        room.acquire()

        def done(error, operation=operation):
            ledger.acknowledge(oid, operation, error)
            room.release()

        ledger.issue(oid, operation)
        if operation.kind == "settle":
            for _ in range(window - 1):
                room.acquire()
            if seed % 2:
                stop.wait(rng.random() / 50)
            store.settle(oid, operation.number)
            for _ in range(window - 1):
                room.release()
            done(None)
            if seed % 2:
                stop.wait(rng.random() / 50)
        elif operation.kind == "create":
            store.create(oid, size, operation.offset, payload(oid, operation), done)
        elif operation.kind == "write":
            store.write(oid, operation.offset, bytearray(payload(oid, operation)), done)
        elif operation.kind == "discard":
            store.discard(oid, operation.offset, operation.length, done)
        else:
            store.remove(oid, done)
    for _ in range(window):
        room.acquire()


def drive_all(store, seed, ledger, stop):
    """A thread for each object; returns the threads."""
    threads = [threading.Thread(target=drive, args=(store, seed, oid, ledger, stop),
                                daemon=True) for oid in ledger.objects]
    for thread in threads:
        thread.start()
    return threads


def judge(store, seed, ledger):
    """Returns a list of what is wrong, in words."""
    wrong = []
    for oid, size in ledger.objects.items():
        for fault in _faults(store, seed, oid, size, ledger):
            wrong.append("object %x: %s" % (oid, fault))
    return wrong


def _candidates(history, sectors, ledger, oid):
    """For each sector, the set of values that it may have."""
    found = [set() for _ in range(sectors)]
    undecided = set(range(sectors))
    for operation in reversed(history):
        touched = [sector for sector in undecided if operation.touches(sector)]
        for sector in touched:
            found[sector].add(operation.value(sector))
        if ledger.acked(oid, operation.number) == 1:
            undecided.difference_update(touched)
        if not undecided:
            break
    for sector in undecided:
        found[sector].add(ABSENT)
    return found


def _exactly(history, sectors):
    values = array("q", [ABSENT] * sectors)
    for operation in history:
        for sector in range(sectors):
            if operation.touches(sector):
                values[sector] = operation.value(sector)
    return list(values)


def _faults(store, seed, oid, size, ledger):
    source = operations(seed, oid, size)
    history = [next(source) for _ in range(ledger.issued(oid))]
    sectors = -(-size // SECTOR)
    allowed = _candidates(history, sectors, ledger, oid)
    if not store.exists(oid):
        if not all(ABSENT in values for values in allowed):
            yield "is gone, after %r" % history[-6:]
        return
    if store.size(oid) != size:
        yield "has %d bytes" % store.size(oid)
        return
    suspect = oid in store.suspects
    bad = store.verify(oid)
    if bad and not suspect:
        yield "blocks %r are damaged" % bad
    data = bytes(store.read(oid, 0, size, verify=False))
    values = []
    for sector in range(sectors):
        piece = data[sector * SECTOR:(sector + 1) * SECTOR]
        if not any(piece):
            value = ZERO
        else:
            its_oid, its_sector, value = LABEL.unpack_from(piece)
            label = LABEL.pack(oid, sector, value)
            if (label * (SECTOR // LABEL.size))[:len(piece)] != piece:
                value = None
        values.append(value)
        if value not in allowed[sector]:
            yield "sector %d holds %r, not one of %r; after %r" % (
                sector, value, allowed[sector], history[-6:])
            return
    stamp = store.stamp(oid)
    if suspect:
        if stamp:
            yield "is a suspect and has stamp %d" % stamp
    elif stamp:
        if values != _exactly(history[:stamp], sectors):
            yield "is not what stamp %d says" % stamp
        later = [operation for operation in history[stamp:] if operation.kind != "settle"
                 and ledger.acked(oid, operation.number) == 1]
        if later:
            yield "has stamp %d and was changed later: %r" % (stamp, later)
