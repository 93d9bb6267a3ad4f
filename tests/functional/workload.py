"""Clients that write while something is broken, and the look at what is left at rest."""

import os
import random
import threading

from sheepstack.placement.cluster_map import ClusterMap
from sheepstack.placement.ring import Ring
from sheepstack.store.object_file import FOOTER_SIZE
from sheepstack.wire import oid as oids
from sheepstack.wire.header import ClusterRequest, version_of
from sheepstack.wire.opcodes import Op
from tests.functional.harness import wait_until

MIB = 1 << 20
BLOCK = 4096
PROGRESS_TIMEOUT = 60


class Writers:
    """One thread for each of ``vdis``, open VDIs, that writes in an area of its own.

    Areas are of ``area`` bytes, the first at ``start``: whole objects, as clients that do not
    know of one another must not both make the same one.  :meth:`check` compares with what was
    acknowledged last.
    """

    def __init__(self, vdis, area=4 * MIB, start=0, seed=0):
        self._vdis = vdis
        self._area = area
        self._start = start
        self._stopping = threading.Event()
        self._errors = []
        self._acknowledged = [0] * len(vdis)
        self._models = [{} for _ in vdis]
        self._threads = [threading.Thread(target=self._write, args=(number, seed))
                         for number in range(len(vdis))]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if kind is None and self._errors:
            raise self._errors[0]

    def _write(self, number, seed):
        chance = random.Random("%d-%d" % (seed, number))
        vdi, model = self._vdis[number], self._models[number]
        first = (self._start + number * self._area) // BLOCK
        try:
            while not self._stopping.is_set():
                block = first + chance.randrange(self._area // BLOCK)
                data = chance.randbytes(BLOCK)
                vdi.pwrite(block * BLOCK, data)
                model[block] = data
                self._acknowledged[number] += 1
                if chance.random() < 0.2:
                    seen = chance.choice(list(model))
                    assert vdi.pread(seen * BLOCK, BLOCK) == model[seen], (
                        "block %d reads as something else than was written" % seen)
        except BaseException as error:
            self._errors.append(error)
            self._stopping.set()

    def progress(self, writes=20, timeout=PROGRESS_TIMEOUT):
        """Wait until each of the threads has made so many more writes."""
        before = list(self._acknowledged)
        wait_until(
            lambda: self._errors or all(now - then >= writes for now, then
                                        in zip(self._acknowledged, before)),
            timeout, lambda: "writes; there were %s, now %s" % (before, self._acknowledged))
        if self._errors:
            raise self._errors[0]

    def check(self, vdi):
        """Compare with what ``vdi``, open on the same VDI or a copy of it, reads now."""
        vdi.reload()
        for model in self._models:
            for block, data in model.items():
                assert vdi.pread(block * BLOCK, BLOCK) == data, (
                    "block %d reads as something else than was acknowledged" % block)


def cluster_map(cluster, index=None) -> ClusterMap:
    """The present map, as the sheep with this index (or a live one) has it."""
    client = cluster.client(cluster.live[0].index if index is None else index, timeout=10)
    with client:
        return ClusterMap.from_bytes(client.execute(ClusterRequest(
            Op.CLUSTER_MAP, data_length=1 << 20, proto_ver=version_of(Op.CLUSTER_MAP)))[1])


def set_aside(cluster, index) -> set:
    """Names of the copies that a sheep has set aside."""
    # A sheep may be removing what is walked through.
    return {name for _, _, names in os.walk(cluster.sheep[index].directory / "stale")
            for name in names}


def disorder(cluster, copies):
    """What is not as it must be when all is at rest, as text; None: all is well.

    Each object has its copies where the map says and nowhere else, they are equal, and no
    copy is set aside any more.
    """
    present = cluster_map(cluster)
    ring = Ring.of(present)
    sheep_of = {sheep.address: sheep.index for sheep in cluster.sheep}
    held = {sheep.index: cluster.objects(sheep.index) for sheep in cluster.live}
    for index in held:
        if set_aside(cluster, index):
            return "sheep %d has copies set aside: %s" % (index, sorted(set_aside(cluster, index)))
    for name in set().union(*held.values()):
        wanted = {sheep_of[present.nodes[node].name]
                  for node in ring.holders(int(name, 16), copies)}
        found = {index for index, names in held.items() if name in names}
        if wanted != found:
            return "object %s is on sheep %s, not %s" % (name, sorted(found), sorted(wanted))
        contents = set()
        for path in cluster.object_files(name):
            if cluster.index_of_path(path) in found:
                try:
                    contents.add(path.read_bytes()[:-FOOTER_SIZE])
                except FileNotFoundError:
                    return "object %s is being removed" % name
        if len(contents) != 1:
            return "%d different copies of object %s" % (len(contents), name)
    return None


def wait_order(cluster, copies=3, timeout=30):
    """Wait until nothing moves any more and all copies are equal and where they belong."""
    cluster.wait_recovered()
    found = []

    def in_order():
        found[:] = [disorder(cluster, copies)]
        return found[0] is None

    wait_until(in_order, timeout, lambda: "the copies to be in order: %s" % found[0])


def vids_on_disk(cluster) -> set:
    """Ids of the VDIs that have an inode on some live sheep."""
    return {oids.vid_of(int(name, 16)) for sheep in cluster.live
            for name in cluster.objects(sheep.index) if oids.is_vdi(int(name, 16))}


def leader_of(cluster) -> int:
    """Index of the sheep that leads: the last to have said so that runs."""
    cluster.dog("vdi", "list", "-r")
    said = []
    for sheep in cluster.live:
        lines = [line for line in sheep.log_text().splitlines() if ": leading; " in line]
        if lines:
            said.append((lines[-1][:23], sheep.index))
    return max(said)[1]
