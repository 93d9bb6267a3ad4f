"""What becomes of the costs when there is much of everything.  Our own cluster only.

Costs per item are taken near the beginning and at the end: they should not differ.
"""

import time

from benchmarks.cluster import OwnCluster

MIB = 1 << 20
_SAMPLE = 100
_OBJECT_SHIFT = 20


def many_vdis(cluster, count):
    """Make ``count`` VDIs; yields (row name, value, unit)."""
    client = cluster.client
    names = ["bench-many-%d" % number for number in range(count)]
    sample = min(_SAMPLE, count // 2)

    def each(what, items):
        begun = time.perf_counter()
        for item in items:
            what(item)
        return 1000 * (time.perf_counter() - begun) / len(items)

    def create(name):
        client.create_vdi(name, 64 * MIB)

    def open_it(name):
        with client.open_vdi(name) as vdi:
            vdi.pread(0, 1)

    def list_all():
        begun = time.perf_counter()
        number = sum(1 for _ in client.list_vdis())
        return 1000 * (time.perf_counter() - begun) / number

    yield "create a VDI, first %d" % sample, each(create, names[:sample]), "ms"
    yield "open a VDI, among %d" % sample, each(open_it, names[:sample]), "ms"
    yield "list, per VDI, among %d" % sample, list_all(), "ms"
    for name in names[sample:-sample]:
        create(name)
    yield ("create a VDI, last %d of %d" % (sample, count),
           each(create, names[-sample:]), "ms")
    yield "open a VDI, among %d" % count, each(open_it, names[-sample:]), "ms"
    yield "list, per VDI, among %d" % count, list_all(), "ms"
    yield ("delete a VDI, among %d" % count,
           each(client.delete_vdi, names[:sample]), "ms")
    for name in names[sample:-sample]:
        client.delete_vdi(name)
    yield ("delete a VDI, among %d" % sample,
           each(client.delete_vdi, names[-sample:]), "ms")


def long_chain(cluster, length):
    """Snapshots of one VDI, one after the other, then clones; yields as above."""
    client = cluster.client
    name = "bench-chain"
    client.create_vdi(name, 64 * MIB)
    snapshots, clones = [], []
    with client.open_vdi(name) as vdi:
        for number in range(length):
            vdi.pwrite(number % 16 * 4 * MIB, b"%d" % number)
            begun = time.perf_counter()
            vdi.snapshot("s%d" % number)
            snapshots.append(time.perf_counter() - begun)
    for number in range(length):
        begun = time.perf_counter()
        client.clone(name, "s0", "bench-wide-%d" % number)
        clones.append(time.perf_counter() - begun)
    tenth = max(1, length // 10)
    for what, values in (("snapshot", snapshots), ("clone", clones)):
        yield "%s, first %d" % (what, tenth), 1000 * sum(values[:tenth]) / tenth, "ms"
        yield ("%s, last %d of %d" % (what, tenth, length),
               1000 * sum(values[-tenth:]) / tenth, "ms")
    begun = time.perf_counter()
    for number in range(length):
        client.delete_vdi("bench-wide-%d" % number)
        client.delete_vdi(name, "s%d" % number)
    yield ("delete one of %d snapshots and clones" % (2 * length),
           1000 * (time.perf_counter() - begun) / (2 * length), "ms")
    client.delete_vdi(name)


def many_objects(root, runtime, count):
    """A sheep with ``count`` small objects; yields as above.

    It is not durable: making so many would take hours.  What is measured is their burden.
    """
    cluster = OwnCluster(root, runtime, False, nodes=1, copies=1)
    try:
        yield "join of a gateway, no objects", _join_time(cluster), "s"
        begun = time.perf_counter()
        _make_objects(cluster, count)
        yield ("make an object, average of %d" % count,
               1e6 * (time.perf_counter() - begun) / count, "us")
        yield "memory with %d objects" % count, cluster.memory(), "MiB"
        yield "join of a gateway, %d objects" % count, _join_time(cluster), "s"
        cluster.stop(0)
        begun = time.perf_counter()
        cluster.start(0)
        cluster.wait_recovered()
        yield "start with %d objects" % count, time.perf_counter() - begun, "s"
        yield "memory after the start", cluster.memory(), "MiB"
    finally:
        cluster.close()


def _make_objects(cluster, count):
    client = cluster.client
    per_vdi = 1 << 20
    for number in range(-(-count // per_vdi)):
        name = "bench-objects-%d" % number
        objects = min(per_vdi, count - number * per_vdi)
        client.create_vdi(name, objects << _OBJECT_SHIFT, block_size_shift=_OBJECT_SHIFT)
        with client.open_vdi(name) as vdi:
            vdi.preallocate()


def _join_time(cluster):
    """Seconds until a sheep that stores nothing is a member and all serve again."""
    begun = time.perf_counter()
    node = cluster.add("-g")
    cluster.wait_recovered()
    took = time.perf_counter() - begun
    cluster.stop(node)
    cluster.wait_recovered()
    return took
