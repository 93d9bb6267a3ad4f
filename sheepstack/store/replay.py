"""Bringing objects up to date from the journals, before a store serves anybody."""

import logging
import os
import random

from sheepstack.store import journal_format as form
from sheepstack.store.errors import NoObject, StoreError, from_os_error
from sheepstack.store.journal_format import Kind
from sheepstack.store.object_file import ObjectFile
from sheepstack.wire.oid import name_of

_LOG = logging.getLogger(__name__)

#: Files kept open while records are applied.
_OPEN_FILES = 256


class Replay:
    """What the journals ``paths`` hold.

    ``oids``: objects that were being changed.  ``damaged``: records may be missing in the
    middle, so that nothing is known of the objects they were about.  ``number``: what no
    record has been numbered with yet.  ``salt``: one that has not been used before.
    """

    def __init__(self, paths):
        self.oids = set()
        self.damaged = False
        self.number = 1
        self.records = 0
        self._voided = {}
        self._all_voided = 0
        self._cancelled = set()
        salts = set()
        chain = []
        for path in paths:
            if not os.path.exists(path):
                continue
            header = form.read_header(path)
            if header is None:
                self.damaged = self.damaged or _holds_anything(path)
                continue
            salts.add(header[0])
            if header[1]:
                chain.append((header[1], header[0], path))
        self._chain = sorted(chain)
        self.salt = random.SystemRandom().randrange(1, 1 << 32)
        while self.salt in salts:
            self.salt = random.SystemRandom().randrange(1, 1 << 32)
        self._scan()

    def _scan(self):
        touched = {}
        following = None
        for first, salt, path in self._chain:
            if following is not None and following != first:
                _LOG.error("%s: records up to number %d are missing", path, first)
                self.damaged = True
            following = first
            for record in form.read_records(path, salt, first):
                following = record.number + 1
                self.records += 1
                if record.kind == Kind.VOID_ALL:
                    self._all_voided = max(self._all_voided, record.offset)
                elif record.kind == Kind.CANCEL:
                    self._cancelled.add(record.offset)
                else:
                    touched[record.oid] = record.number
                    if record.kind == Kind.VOID:
                        self._voided[record.oid] = max(
                            record.offset, self._voided.get(record.oid, 0))
            self.number = max(self.number, following)
        self.oids = {oid for oid, number in touched.items() if number >= self._all_voided}

    def apply(self, layout) -> set:
        """Does what the records say; returns ids of objects for which that failed.

        Raises StoreIOError where a journal cannot be read.
        """
        failed = {}
        files = {}
        try:
            for first, salt, path in self._chain:
                for record in form.read_records(path, salt, first):
                    if self._is_in_place(record):
                        continue
                    try:
                        _apply(record, layout, files)
                    except (StoreError, ValueError) as error:
                        failed[record.oid] = error
                    else:
                        # A file may be there that belongs to a record further on; what
                        # happened before the object was made anew does not matter.
                        if record.kind in (Kind.CREATE, Kind.REMOVE):
                            failed.pop(record.oid, None)
        except OSError as error:
            raise from_os_error(error, "cannot read the journal") from error
        for oid, error in failed.items():
            _LOG.error("object %016x is not up to date: %s", oid, error)
        return set(failed)

    def _is_in_place(self, record):
        return (record.number < self._all_voided
                or record.number < self._voided.get(record.oid, 0)
                or record.number in self._cancelled)


def _holds_anything(path):
    with open(path, "rb") as source:
        return any(source.read(form.HEADER_SIZE))


def _apply(record, layout, files):
    oid = record.oid
    path = layout.objects + "/" + name_of(oid)
    if record.kind in (Kind.WRITE, Kind.DISCARD):
        file = files.get(oid)
        if file is None:
            try:
                file = ObjectFile.open(path, oid)
            except NoObject:
                # Removed, or moved away, later on.
                return
            while len(files) >= _OPEN_FILES:
                files.pop(next(iter(files)))
            files[oid] = file
        if record.kind == Kind.WRITE:
            file.check_bounds(record.offset, len(record.payload))
            file.write(record.offset, record.payload, _claim_nothing, tolerant=True)
        else:
            file.check_bounds(record.offset, record.size)
            file.discard(record.offset, record.size, _claim_nothing, tolerant=True)
    elif record.kind == Kind.CREATE:
        files.pop(oid, None)
        fresh = layout.new + "/replay"
        extents = form.unpack_extents(record.payload)
        ObjectFile.create(
            fresh, oid, record.size, extents, record.stamp, _claim_nothing)
        _move(fresh, path, oid)
    elif record.kind == Kind.REMOVE:
        files.pop(oid, None)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise from_os_error(error, "cannot remove object %016x" % oid) from error


def _move(source, target, oid):
    try:
        os.rename(source, target)
    except OSError as error:
        os.unlink(source)
        raise from_os_error(error, "cannot create object %016x" % oid) from error


def _claim_nothing(file, offset, length):
    """What has been acknowledged may use the last block of the disk."""
