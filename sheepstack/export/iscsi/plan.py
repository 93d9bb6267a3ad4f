"""What all exporting hosts are to export: one document, kept in the cluster.

It lies in the VDI :data:`VDI`, twice: while one copy is written, readers have the other one.

========== ==========================================================
offset     content
========== ==========================================================
0          magic, serial number, length and CRC-32 of the document
1 MiB      the document, JSON, where the serial number is even
5 MiB      likewise, where it is odd
========== ==========================================================

An exporting host says in an attribute of that VDI how far it is, see :class:`Status`.
"""

import contextlib
import json
import struct
import zlib
from typing import NamedTuple

from sheepstack.client import NoSuchAttribute, NoSuchVdi, VdiExists
from sheepstack.export.iscsi.errors import BadTarget, IscsiError
from sheepstack.export.iscsi.target import Target, as_record, from_record

VDI = "iscsi-exports"
_STATUS = "exporter-"
_HEADER = struct.Struct("<8sQQI")
_MAGIC = b"sheepexp"
_SHIFT = 20
_FIRST = 1 << _SHIFT
_ROOM = 4 << _SHIFT
_SIZE = _FIRST + 2 * _ROOM
_ATTEMPTS = 20


class Wanted(NamedTuple):
    """A target, and how often its VDI was made bigger."""

    target: Target
    generation: int = 0


class Status(NamedTuple):
    """``serial``: of the plan that a host has carried out; ``portals``: where its targets are;
    ``failed``: reasons by name of target."""

    serial: int
    portals: list
    failed: dict


class Plan:
    """``cluster``: an open :class:`~sheepstack.client.Cluster`.  Methods raise SheepError, and
    IscsiError where what lies there is damaged, or full."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._vdi = None

    def close(self):
        if self._vdi is not None:
            self._vdi.close()
            self._vdi = None

    def _open(self):
        """The open VDI, or None where there is none yet."""
        if self._vdi is None:
            with contextlib.suppress(NoSuchVdi):
                self._vdi = self._cluster.open_vdi(VDI, lock=False)
        return self._vdi

    def serial(self) -> int:
        """Of the present plan; 0: there is none yet."""
        return self._header()[0]

    def _header(self):
        vdi = self._open()
        if vdi is None:
            return 0, 0, 0
        magic, serial, length, crc = _HEADER.unpack(vdi.pread(0, _HEADER.size))
        if magic != _MAGIC:
            # It is being made, and its map may be another one by the next time.
            self.close()
            return 0, 0, 0
        return serial, length, crc

    def read(self) -> tuple:
        """(serial number, {name: :class:`Wanted`})."""
        for _ in range(_ATTEMPTS):
            serial, length, crc = self._header()
            if not serial:
                return 0, {}
            data = self._vdi.pread(_place(serial), length)
            if zlib.crc32(data) == crc:
                return serial, {name: Wanted(from_record(record), generation)
                                for name, (record, generation) in json.loads(data).items()}
        raise IscsiError("VDI '%s' is damaged" % VDI)

    def change(self, edit) -> int:
        """Have ``edit(targets)`` change what :meth:`read` gives, and write that down; its serial
        number.  The caller sees to it that nobody else does so at the same time."""
        if self._open() is None:
            with contextlib.suppress(VdiExists):
                # Whole from the beginning, so that those who have it open see all of it.
                self._cluster.create_vdi(VDI, _SIZE, block_size_shift=_SHIFT, prealloc=True)
        serial, targets = self.read()
        edit(targets)
        data = json.dumps({name: (as_record(wanted.target), wanted.generation)
                           for name, wanted in targets.items()}).encode()
        if len(data) > _ROOM:
            raise IscsiError("there is no room for %d targets" % len(targets))
        vdi = self._open()
        vdi.pwrite(_place(serial + 1), data)
        vdi.pwrite(0, _HEADER.pack(_MAGIC, serial + 1, len(data), zlib.crc32(data)))
        return serial + 1

    # -- who is how far

    def report(self, exporter: str, status: Status):
        """Say how far a host is; nothing where there is no plan."""
        with contextlib.suppress(NoSuchVdi):
            self._cluster.setattr(VDI, _STATUS + exporter, json.dumps(status).encode())

    def status(self, exporter: str) -> Status | None:
        """How far a host is, None where it never said so."""
        try:
            return Status(*json.loads(self._cluster.getattr(VDI, _STATUS + exporter)))
        except (NoSuchVdi, NoSuchAttribute):
            return None
        except (TypeError, ValueError) as error:
            raise BadTarget("exporter '%s' says what makes no sense: %s"
                            % (exporter, error)) from None


def _place(serial):
    return _FIRST + serial % 2 * _ROOM
