"""Which VDIs a server exports, by which names, and who has them open.

A VDI goes by its own name, a snapshot by ``VDI@TAG`` or ``VDI@ID``.  All connections of a
client to one VDI share one open :class:`~sheepstack.client.Vdi`, so that each sees at once
what was written through another.
"""

import itertools
import threading
from typing import NamedTuple

from sheepstack.client import NoSuchTag, NoSuchVdi, Vdi
from sheepstack.export.names import meanings_of, name_of
from sheepstack.export.nbd.errors import BadExport, ExportBusy

EXCLUSIVE = "exclusive"
SHARED = "shared"
LOCKS = (EXCLUSIVE, SHARED)


class Export(NamedTuple):
    """What a client can open.  ``snapshot``: None, or the tag or id of one."""

    vdi: str
    snapshot: str | int | None = None

    def __str__(self):
        return name_of(*self)


class Handle(NamedTuple):
    """An export that a connection has open."""

    export: Export
    vdi: Vdi
    writable: bool


class _Writers:
    """Who has a VDI open for writing: ``users`` connections of one ``client``, or of many."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.vdi = None
        self.client = None
        self.users = 0


class Exports:
    """``only``: names of the VDIs that are exported, with their snapshots; all where it is
    empty.  ``lock``: one of :data:`LOCKS`.

    Methods raise SheepError where the cluster fails.
    """

    def __init__(self, cluster, only=(), lock=EXCLUSIVE):
        self._cluster = cluster
        self._only = frozenset(only)
        self._shared = lock == SHARED
        self._mutex = threading.Lock()
        self._writers = {}

    # -- names

    def list(self) -> list:
        """All exports as (name, what it is)."""
        found = []
        for header in self._cluster.list_vdis():
            if self._only and header.name not in self._only:
                continue
            if header.is_snapshot:
                export = Export(header.name, header.tag or header.snap_id)
                found.append((str(export), "snapshot, %d bytes, read only" % header.vdi_size))
            else:
                found.append((header.name, "VDI, %d bytes" % header.vdi_size))
        return sorted(found)

    def find(self, name) -> Export:
        """The export of that name; raises BadExport."""
        for export in itertools.starmap(Export, meanings_of(name)):
            if self._only and export.vdi not in self._only:
                continue
            try:
                self._cluster.lookup(*export)
            except (NoSuchVdi, NoSuchTag, ValueError):
                continue
            return export
        raise BadExport("there is no export '%s'" % name)

    # -- use

    def open(self, name, client, read_only=False) -> Handle:
        """Open an export for a connection of ``client``, a value that tells clients apart.

        Raises BadExport, ExportBusy where another client of this server writes to it, and
        VdiLocked where somebody else in the cluster does.
        """
        export = self.find(name)
        if read_only or export.snapshot is not None:
            return Handle(export, self._cluster.open_vdi(*export, read_only=True), False)
        return Handle(export, self._join_writers(export.vdi, client), True)

    def close(self, handle):
        if not handle.writable:
            handle.vdi.close()
            return
        writers = self._writers_of(handle.export.vdi)
        with writers.mutex:
            writers.users -= 1
            if writers.users == 0:
                vdi, writers.vdi, writers.client = writers.vdi, None, None
                vdi.close()

    def close_all(self):
        """Give back all locks, whoever has exports open."""
        with self._mutex:
            everybody = list(self._writers.values())
        for writers in everybody:
            with writers.mutex:
                if writers.vdi is not None:
                    writers.vdi.close()

    def _writers_of(self, name):
        with self._mutex:
            return self._writers.setdefault(name, _Writers())

    def _join_writers(self, name, client):
        writers = self._writers_of(name)
        with writers.mutex:
            if writers.users and client != writers.client and not self._shared:
                raise ExportBusy("'%s' is open for writing by %s" % (name, writers.client))
            if not writers.users:
                writers.vdi = self._cluster.open_vdi(
                    name, lock="shared" if self._shared else True)
                writers.client = client
            writers.users += 1
            return writers.vdi
