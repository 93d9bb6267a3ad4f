"""How fast lost copies are made again, and what clients feel of it.  Our own cluster only."""

import os
import shutil
import threading
import time

from benchmarks.rows import MIB, make_disk

_LOAD_SIZE = 16 << 10
_WARM_UP = 1.0
_AFTERWARDS = 3.0

#: Bytes from one write to the next.  Those that step from object to object are the worst
#: that can be: each has to wait for an object of its own.
LOADS = {"writes in order": _LOAD_SIZE, "writes to all objects": 4 * MIB + _LOAD_SIZE}


class Load:
    """A client that writes 16 KiB blocks one after the other, until the end of the block.

    ``stride``: bytes from the beginning of one to that of the next.
    """

    def __init__(self, target, name, span, stride):
        self._times = []
        self._stride = stride
        self._ended = threading.Event()
        self._failure = None
        self._arguments = (target, name, span)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._ended.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def rate(self, begin, end) -> float:
        """Writes per second between two moments (perf_counter)."""
        return sum(begin <= moment < end for moment in self._times) / (end - begin)

    def slowest(self, begin, end) -> float:
        """Seconds of the longest time without the end of a write."""
        moments = [begin, *(moment for moment in self._times if begin <= moment < end), end]
        return max(after - before for before, after in zip(moments, moments[1:]))

    def _run(self):
        target, name, span = self._arguments
        data = os.urandom(_LOAD_SIZE)
        offset = 0
        try:
            with target.client.open_vdi(name) as vdi:
                while not self._ended.is_set():
                    vdi.pwrite(offset, data)
                    self._times.append(time.perf_counter())
                    offset = (offset + self._stride) % (span - _LOAD_SIZE)
        except Exception as error:
            self._failure = error


def recover(cluster, size, durable, load=None):
    """Lose a node and give the cluster an empty one: its copies are made again there.

    ``load``: one of :data:`LOADS`, or None: nobody writes meanwhile.  Returns [(row name,
    value, unit, more is better)].
    """
    name = "bench-recovery"
    make_disk(cluster, name, size)
    cluster.kill(cluster.newest)
    cluster.wait_recovered()
    figures = (_unloaded(cluster, name, size, durable) if load is None else
               _loaded(cluster, name, size, load))
    cluster.client.delete_vdi(name)
    return figures


def _unloaded(cluster, name, size, durable):
    begun = time.perf_counter()
    node = cluster.add()
    cluster.wait_members()
    joined = time.perf_counter()
    cluster.wait_recovered()
    took = time.perf_counter() - joined
    copied = _copy_time(cluster.store(node) / "obj", durable)
    return [("start of the new sheep", joined - begun, "s", False),
            ("recovery of %d MiB" % (size // MIB), took, "s", False),
            ("copying the same files", copied, "s", False),
            ("speed of recovery / of copying", copied / took, "x", True)]


def _loaded(cluster, name, size, kind):
    with Load(cluster, name, size, LOADS[kind]) as load:
        threading.Event().wait(_WARM_UP)
        begun = time.perf_counter()
        cluster.add()
        cluster.wait_recovered()
        ended = time.perf_counter()
        threading.Event().wait(_AFTERWARDS)
        later = time.perf_counter()
    return [("recovery, %s" % kind, ended - begun, "s", False),
            # Before, with a node less, there was a copy less to write, too.
            ("%s, meanwhile / afterwards" % kind,
             load.rate(begun, ended) / load.rate(ended, later), "x", True),
            ("%s, longest pause" % kind, load.slowest(begun, ended), "s", False)]


def _copy_time(directory, durable):
    copy = directory.parent / "copy"
    begun = time.perf_counter()
    shutil.copytree(directory, copy)
    if durable:
        os.sync()
    took = time.perf_counter() - begun
    shutil.rmtree(copy)
    return took
