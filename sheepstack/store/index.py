"""Which objects a store has: eight bytes of memory for each.

Ids are spread over 4,096 buckets by the upper 12 bits of where they lie on the ring, so that
an arc of the ring is a run of buckets.  A bucket is a sorted ``array('Q')``.  Attributes,
inodes and vmstate, of which there are few, lie in one more of those, which finds them by id.
"""

import threading
from array import array
from bisect import bisect_left, insort
from collections.abc import MutableSet

from sheepstack.wire.hashing import oid_hash
from sheepstack.wire.oid import ATTR_BIT

_BUCKET_BITS = 12
_SHIFT = 64 - _BUCKET_BITS
_BUCKETS = 1 << _BUCKET_BITS
_RING = 1 << 64
#: No data object, and no strip of one, has an id as high.
_FEW_FROM = ATTR_BIT


class OidSet(MutableSet):
    """A set of object ids that knows the ring.

    Safe to change while another thread, or the same one, iterates: an iterator yields every
    id that stays in the set throughout, and may or may not yield those that come or go.
    """

    def __init__(self, oids=()):
        self._lock = threading.Lock()
        self._buckets = [None] * _BUCKETS
        self._count = 0
        self._few = array("Q")
        self.fill(oids)

    def fill(self, oids):
        """Adds many ids; faster than one by one."""
        fresh, few = {}, set()
        for oid in oids:
            fresh.setdefault(oid_hash(oid) >> _SHIFT, []).append(oid)
            if oid >= _FEW_FROM:
                few.add(oid)
        with self._lock:
            self._few = array("Q", sorted(few.union(self._few)))
            for number, members in fresh.items():
                members = set(members)
                bucket = self._buckets[number]
                if bucket is not None:
                    self._count -= len(bucket)
                    members.update(bucket)
                self._buckets[number] = array("Q", sorted(members))
                self._count += len(members)

    def __len__(self):
        return self._count

    def __contains__(self, oid):
        if not self._count:
            return False
        bucket = self._buckets[oid_hash(oid) >> _SHIFT]
        if bucket is None:
            return False
        with self._lock:
            place = bisect_left(bucket, oid)
            return place < len(bucket) and bucket[place] == oid

    def __iter__(self):
        for number in range(_BUCKETS):
            yield from self._members(number)

    def add(self, oid):
        number = oid_hash(oid) >> _SHIFT
        with self._lock:
            bucket = self._buckets[number]
            if bucket is None:
                bucket = self._buckets[number] = array("Q")
            place = bisect_left(bucket, oid)
            if place == len(bucket) or bucket[place] != oid:
                bucket.insert(place, oid)
                self._count += 1
                if oid >= _FEW_FROM:
                    insort(self._few, oid)

    def discard(self, oid):
        if not self._count:
            return
        number = oid_hash(oid) >> _SHIFT
        with self._lock:
            bucket = self._buckets[number]
            if bucket is None:
                return
            place = bisect_left(bucket, oid)
            if place < len(bucket) and bucket[place] == oid:
                del bucket[place]
                self._count -= 1
                if oid >= _FEW_FROM:
                    del self._few[bisect_left(self._few, oid)]

    def clear(self):
        with self._lock:
            self._buckets = [None] * _BUCKETS
            self._count = 0
            self._few = array("Q")

    def in_arcs(self, arcs):
        """Iterates over the ids that lie in one of ``arcs`` of the ring.

        An arc ``(start, end)`` is half-open and of 64-bit positions; ``start > end`` wraps,
        ``start == end`` is empty, ``(0, 1 << 64)`` is the whole ring.  An id that lies in
        several arcs is yielded once.
        """
        for start, end in _merged(arcs):
            for number in range(start >> _SHIFT, ((end - 1) >> _SHIFT) + 1):
                bottom = number << _SHIFT
                if start <= bottom and bottom + (1 << _SHIFT) <= end:
                    yield from self._members(number)
                else:
                    for oid in self._members(number):
                        if start <= oid_hash(oid) < end:
                            yield oid

    def between(self, ranges):
        """Iterates over the ids in ``ranges``, disjoint pairs of the first one and that behind
        the last.  A range of data objects takes a few thousand steps, however many there are.
        """
        low = [each for each in ranges if each[0] < _FEW_FROM]
        for bucket in self._buckets if low else ():
            if bucket is not None:
                for first, end in low:
                    yield from self._between(bucket, first, end)
        for first, end in ranges:
            if first >= _FEW_FROM:
                yield from self._between(self._few, first, end)

    def _between(self, bucket, first, end):
        with self._lock:
            return bucket[bisect_left(bucket, first):bisect_left(bucket, end)]

    def _members(self, number):
        bucket = self._buckets[number]
        if bucket is None:
            return ()
        with self._lock:
            return bucket[:]

    @classmethod
    def _from_iterable(cls, iterable):
        return set(iterable)


def _merged(arcs):
    """Sorted, disjoint and unwrapped arcs that cover what ``arcs`` cover."""
    straight = []
    for start, end in arcs:
        if not (0 <= start < _RING and 0 <= end <= _RING):
            raise ValueError("an arc lies between 0 and 2^64: (%r, %r)" % (start, end))
        if start < end:
            straight.append((start, end))
        elif start > end:
            straight += [(start, _RING), (0, end)]
    merged = []
    for start, end in sorted(straight):
        if start == end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
