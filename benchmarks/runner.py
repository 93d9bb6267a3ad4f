"""Runs the rows, ours and the peer's in turn, and hands the results to the table."""

import os
import tempfile

from benchmarks import exports, growth, recovery, rows
from benchmarks.cluster import OwnCluster
from benchmarks.data_rows import data_rows, requests_for
from benchmarks.table import Result, Table

MIB = 1 << 20
_DISK = rows.own_name("disk")
_SLOW_REPEATS = 3

#: The parts of a run, in their order; see ``--help``.
GROWTH = frozenset(("vdis", "chain", "objects"))
USUAL = frozenset(("data", "disks", "snapshots", "memory", "recovery", "exports"))
PARTS = USUAL | GROWTH


class Runner:
    """``clients`` send the requests of the data rows.  ``chosen``: a compiled regular
    expression or None; only data rows whose names match are run then.  ``parts``: which of
    :data:`PARTS` are run.  ``peer``: see :mod:`benchmarks.peer`."""

    def __init__(self, settings, clients, peer=None, in_order=False, chosen=None,
                 directory=None, parts=USUAL):
        self._settings = settings
        self._clients = clients
        self._peer = peer
        self._in_order = in_order
        self._chosen = chosen
        self._directory = directory
        self._parts = parts

    def run(self, runtime, durable):
        """All rows on a cluster of this runtime, durable or not."""
        with tempfile.TemporaryDirectory(
                prefix="sheepstack-bench.", dir=self._directory) as root:
            if not self._parts <= {"objects"}:
                self._on_three_nodes(root, runtime, durable)
            if "objects" in self._parts:
                self._one(Table("one sheep, one copy, no sync"), growth.many_objects(
                    os.path.join(root, "objects"), runtime, self._settings.growth_objects))

    def _on_three_nodes(self, root, runtime, durable):
        parts = self._parts
        ours = OwnCluster(os.path.join(root, "cluster"), runtime, durable)
        targets = [ours]
        try:
            if self._peer is not None:
                targets.append(self._peer.start(os.path.join(root, "peer"), durable))
            table = Table(*(target.name for target in targets))
            if "data" in parts:
                self._data(table, targets)
            if "disks" in parts:
                self._whole_disks(table, targets)
            if "snapshots" in parts:
                self._snapshots(table, targets)
            if "memory" in parts:
                self._memory(table, targets)
            if "recovery" in parts:
                self._recovery(table, ours, durable)
            if "vdis" in parts:
                self._one(table, growth.many_vdis(ours, self._settings.growth_vdis))
            if "chain" in parts:
                self._one(table, growth.long_chain(ours, self._settings.growth_chain))
            if "exports" in parts:
                self._exports(ours, os.path.join(root, "exports"))
            ours.complain_if_ended()
        finally:
            for target in targets:
                target.close()

    # -- reads and writes

    def _data(self, table, targets):
        span = self._settings.span
        for target in targets:
            rows.make_disk(target, _DISK, span)
        try:
            for row in data_rows(self._in_order):
                if self._chosen is None or self._chosen.search(row.name):
                    for client in self._clients:
                        self._data_row(table, targets, client, row)
        finally:
            for target in targets:
                target.client.delete_vdi(_DISK)

    def _data_row(self, table, targets, client, row):
        counts = [self._count(target, client, row) for target in targets]
        values = [[] for _ in targets]
        for _ in range(self._settings.repeats):
            for target, count, found in zip(targets, counts, values):
                found.append(count / client.run(
                    target, _DISK, self._settings.span, row, count))
        table.add(Result(row.name, client.name, "/s", True, *values))

    def _count(self, target, client, row):
        return requests_for(row, self._settings.seconds, lambda count: client.run(
            target, _DISK, self._settings.span, row, count))

    # -- through servers

    def _exports(self, ours, root):
        table = Table("%s, exported" % ours.name, "a raw file exported by the same server")
        os.makedirs(root)
        exports.measure(table, ours, self._settings, root)

    # -- the rest

    def _whole_disks(self, table, targets):
        size = self._settings.fill
        fills, reads = [[] for _ in targets], [[] for _ in targets]
        for _ in range(min(_SLOW_REPEATS, self._settings.repeats)):
            for target, filled, read in zip(targets, fills, reads):
                seconds = rows.fill_and_read(target, size)
                filled.append(seconds[0])
                read.append(seconds[1])
        table.add(Result("fill %d MiB" % (size // MIB), "own", "s", False, *fills))
        table.add(Result("read %d MiB back" % (size // MIB), "own", "s", False, *reads))

    def _snapshots(self, table, targets):
        name = rows.own_name("snapshots")
        taken, cloned = [], []
        for target in targets:
            rows.make_disk(target, name, self._settings.fill)
            snapshots, clones = rows.snapshot_and_clone(target, name, self._settings.snapshots)
            taken.append([1000 * value for value in snapshots])
            cloned.append([1000 * value for value in clones])
            target.client.delete_vdi(name)
        table.add(Result("snapshot", "own", "ms", False, *taken))
        table.add(Result("clone", "own", "ms", False, *cloned))

    def _memory(self, table, targets):
        values = []
        for target in targets:
            try:
                values.append([target.memory()])
            except LookupError as error:
                table.say("no row of the peer's memory: %s" % error)
        table.add(Result("memory of a sheep", "", "MiB", False, *values))

    def _recovery(self, table, ours, durable):
        repeats = min(_SLOW_REPEATS, self._settings.repeats)
        for load in (None, *recovery.LOADS):
            runs = [recovery.recover(ours, self._settings.fill, durable, load)
                    for _ in range(repeats)]
            for figures in zip(*runs):
                name, _, unit, more_is_better = figures[0]
                table.add(Result(name, "own" if load else "", unit, more_is_better,
                                 [figure[1] for figure in figures]))

    @staticmethod
    def _one(table, figures):
        for name, value, unit in figures:
            table.add(Result(name, "", unit, False, [value]))
