"""The leader's work: making, finding, deleting VDIs, one request at a time.

What a VDI is stands in its inode object and nowhere else; a new leader reads them all
(:meth:`VdiService.rebuild`).  A snapshot is taken in an order that leaves no hole whichever
sheep dies when: writes to the VDI are held at all gateways, the new working VDI is made
from its map, and the one write that makes the old one a snapshot decides.
"""

import contextlib
import logging
import secrets
import threading
from typing import NamedTuple

from sheepstack.redundancy import policy as policies
from sheepstack.redundancy.erasure import UnsupportedPolicy, check_supported
from sheepstack.sheep.catalogue import Catalogue
from sheepstack.sheep.vdi_table import UnknownVdi, entry_of
from sheepstack.sheep.workers import in_lanes
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import limits
from sheepstack.wire import oid as oids
from sheepstack.wire.hashing import fnv1a_64, vdi_name_hash
from sheepstack.wire.inode import InodeHeader, VdiAttr, unpack_map
from sheepstack.wire.opcodes import AttrFlag
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result
from sheepstack.wire.text import pad

log = logging.getLogger(__name__)

_LANES = 8
_REPEAT_SECONDS = 0.05
MAX_BLOCK_SIZE_SHIFT = 31
MIN_BLOCK_SIZE_SHIFT = 20


class Failure(Exception):
    """Carries the result code that answers the request."""

    def __init__(self, result):
        super().__init__(result)
        self.result = result


class _Taking(NamedTuple):
    """A snapshot to be taken: ``working`` becomes one, with ``tag`` where that is given, and
    ``inode``, which is not there yet, the working VDI with the map of ``base``."""

    working: InodeHeader
    inode: InodeHeader
    base: InodeHeader
    tag: str | None = None

    def mark(self, ctime) -> tuple:
        """Where to write what into the inode of ``working``, so that it is a snapshot."""
        mark = ctime.to_bytes(8, "little")
        if self.tag is None:
            return layout.SNAP_CTIME_OFFSET, mark
        return layout.TAG_OFFSET, (pad(self.tag, layout.VDI_TAG_LEN)
                                   + self.working.create_time.to_bytes(8, "little") + mark)


class VdiService:
    """Methods raise :class:`Failure`; all may wait and so run in worker threads."""

    def __init__(self, state, gateway, table):
        self._state = state
        self._gateway = gateway
        self._table = table
        self._catalogue = None
        self._gaps_at = 0
        self._only = None
        self.lock = threading.RLock()
        self.reclaim = None

    # -- the catalogue ---------------------------------------------------------------------

    def abdicate(self):
        """Another sheep leads, or none: forget all, it may change without us."""
        self._catalogue = None

    def leading(self) -> int:
        """The revision of the map at which this sheep leads; raises Failure.

        What a leader writes it writes at this revision or not at all: at another one somebody
        else may lead, and have decided otherwise.
        """
        view = self._state.view
        if (not view.open or view.index < 0 or view.leader != view.index
                or self._only not in (None, view.revision)):
            raise Failure(Result.AGAIN)
        return view.revision

    @contextlib.contextmanager
    def at(self, revision):
        """What this thread does meanwhile it does at that revision of the map, or not at all.

        Who asked at that one asks again at the next, and may have been answered by another
        leader before we get to it.
        """
        with self.lock:
            former, self._only = self._only, revision
            try:
                yield
            finally:
                self._only = former

    def catalogue(self) -> Catalogue:
        """What VDIs there are; reads all inodes when this sheep has just become the leader.

        Read while all holders of some were away it counts for as long as those are.
        """
        with self.lock:
            view = self._state.view
            if self._gaps_at not in (0, view.revision):
                self._catalogue = None
            if self._catalogue is None:
                self._catalogue = self._rebuild()
            return self._catalogue

    def _note(self, inode):
        # It may be given up at any time, when another sheep leads or none.
        catalogue = self._catalogue
        if catalogue is not None:
            catalogue.put(inode)

    def _rebuild(self):
        view = self._state.wait_open()
        revision = self.leading()
        if view is None or view.revision != revision:
            raise Failure(Result.AGAIN)
        self._gaps_at = revision if view.bereft else 0
        vids = set()
        for answer in self._state.call_all({"call": "inodes"}):
            vids |= set(answer)
        headers = self._read_headers(sorted(vids))
        catalogue = Catalogue(headers)
        for inode in catalogue.unfinished():
            # Not removed here: that waits for all to be complete, which may wait for us.
            log.warning("VDI %06x of '%s' was never finished: deleted", inode.vdi_id, inode.name)
            self._write_inode(inode, 0, bytes(layout.VDI_NAME_LEN), revision)
            catalogue.put(inode._replace(name=""))
        log.info("leading; %d VDIs", len(catalogue))
        return catalogue

    def _read_headers(self, vids):
        headers = []

        def read(vid):
            inode = self._read_header(vid)
            if inode is not None:
                headers.append(inode)

        in_lanes(read, vids, _LANES)
        return headers

    def _read_header(self, vid):
        result, data = self._gateway.read(
            oids.vdi_oid(vid), 0, layout.INODE_HEADER_SIZE, self._state.view.map.copies)
        if result == Result.NO_OBJ:
            return None
        if result != Result.SUCCESS:
            raise Failure(result)
        inode = InodeHeader.unpack(data)
        # An inode that died before its header was written carries no id.
        return inode._replace(vdi_id=vid)

    def inode_changed(self, vid):
        """A client wrote to the header of an inode."""
        with self.lock:
            # It may be given up while we read.
            catalogue = self._catalogue
            if catalogue is not None:
                inode = self._read_header(vid)
                if inode is not None:
                    catalogue.put(inode)

    # -- requests --------------------------------------------------------------------------

    def look_up(self, name, tag, snap_id) -> InodeHeader:
        with self.lock:
            found = self.catalogue().look_up(name, tag, snap_id)
        if found.inode is None:
            raise Failure(found.result)
        return found.inode

    def vids(self):
        with self.lock:
            return self.catalogue().vids()

    def deleted_vids(self):
        with self.lock:
            return [inode.vdi_id for inode in self.catalogue().deleted()]

    def inodes(self):
        with self.lock:
            catalogue = self.catalogue()
            return catalogue.live() + catalogue.deleted()

    def create(self, name, size, base_vid, copies, shift, store_policy, ctime) -> InodeHeader:
        """A new working VDI, empty or with the map of ``base_vid``.

        ``copies`` is (nr_copies, copy_policy), zeros for the cluster's.  ``ctime`` also names
        the request: the same one again gives the same VDI.
        """
        with self.lock:
            catalogue = self.catalogue()
            working = catalogue.working(name)
            if working is not None:
                if working.create_time == ctime:
                    return working
                raise Failure(Result.VDI_EXIST)
            base = self._base(catalogue, base_vid)
            revision = self.leading()
            inode = self._new_inode(catalogue, name, size, base, copies, shift, store_policy,
                                    ctime)
            try:
                self._make(inode, base, revision)
            except BaseException:
                # Some holders may have it, and see to it at the next map that all do.  Where it
                # was not in the catalogue, nothing would keep the objects that it shares.
                self._catalogue = None
                raise
            catalogue.put(inode)
            return inode

    def snapshot(self, name, size, base_vid, copies, shift, store_policy, ctime) -> InodeHeader:
        """Turn the working VDI into a snapshot; the new working one starts from ``base_vid``.

        The same ``ctime`` again gives the same VDI.  All happens at one revision of the map:
        where that changes, AGAIN says so and nothing or all of it has happened.
        """
        with self.lock:
            catalogue = self.catalogue()
            working = catalogue.working(name)
            if working is None:
                raise Failure(Result.NO_VDI)
            if working.create_time == ctime:
                return working
            base = self._base(catalogue, base_vid or working.vdi_id)
            inode = self._new_inode(catalogue, name, size, base, copies, shift, store_policy,
                                    ctime)
            self._take([_Taking(working, inode, base)], ctime)
            return inode

    def snapshot_together(self, wanted, ctime) -> None:
        """Turn several working VDIs into snapshots at one instant.

        ``wanted``: pairs of name and tag.  The same ``ctime`` again changes nothing more.
        Where only some of them could be taken before this sheep lost the lead, the next
        attempt gets VDI_EXIST.
        """
        with self.lock:
            catalogue = self.catalogue()
            workings = [catalogue.working(name) for name, _ in wanted]
            if not wanted or len({name for name, _ in wanted}) < len(wanted) or not all(
                    tag for _, tag in wanted):
                raise Failure(Result.INVALID_PARMS)
            if None in workings:
                raise Failure(Result.NO_VDI)
            if all(working.create_time == ctime for working in workings):
                return
            if any(catalogue.look_up(name, tag).inode for name, tag in wanted):
                raise Failure(Result.VDI_EXIST)
            takings = []
            for working, (name, tag) in zip(workings, wanted):
                inode = self._new_inode(
                    catalogue, name, working.vdi_size, working,
                    (working.nr_copies, working.copy_policy), 0, 0, ctime)
                takings.append(_Taking(working, inode, working, tag))
                # Its id is taken from now on.
                catalogue.put(inode)
            try:
                self._take(takings, ctime)
            except BaseException:
                self._catalogue = None
                raise

    def _take(self, takings, ctime):
        """Carry out snapshots; writes to all of the VDIs are held until the last is taken."""
        vids = [taking.working.vdi_id for taking in takings]
        revision, number = self.leading(), _new_number()
        try:
            for vid in vids:
                self._tell(vid, frozen=number)
            for taking in takings:
                self._make(taking.inode, taking.base, revision)
            for taking in takings:
                self._write_inode(taking.working, *taking.mark(ctime), revision)
            olds = [self._read_header(taking.working.vdi_id) or taking.working
                    for taking in takings]
        except BaseException:
            # Whether the deciding writes were made is seen when all inodes are read again.
            self._catalogue = None
            for vid in vids:
                self._tell_all(vid, thawed=number)
            raise
        for taking, old in zip(takings, olds):
            self._note(old._replace(snap_ctime=ctime))
            self._note(taking.inode)
        for vid in vids:
            self._tell_all(vid, thawed=number, snapshot=True)

    def delete(self, name, tag, snap_id) -> InodeHeader:
        with self.lock:
            catalogue = self.catalogue()
            inode = self.look_up(name, tag, snap_id)
            self._write_inode(inode, 0, bytes(layout.VDI_NAME_LEN), self.leading())
            catalogue.put(inode._replace(name=""))
            self._tell_all(inode.vdi_id, deleted=True)
            if not catalogue.has_name(name):
                self._remove_attributes(name)
        self.reclaim()
        return inode

    def late_entries(self, vid, first, entries) -> bool:
        """Map entries that were meant for ``vid`` and came just after it became a snapshot.

        They go into the map of its working VDI where that has not changed since; False where
        there is none to take them.
        """
        with self.lock:
            catalogue = self.catalogue()
            old = catalogue.get(vid)
            new = catalogue.working(old.name) if old and not old.is_deleted else None
            if new is None or new.parent_vdi_id != vid:
                return False
            revision, number = self.leading(), _new_number()
            try:
                self._tell(new.vdi_id, frozen=number)
                before = self._entries(old, first, len(entries))
                now = self._entries(new, first, len(entries))
                for index, entry in enumerate(entries):
                    if entry == vid and now[index] == before[index] != entry:
                        self._write_inode(new, layout.data_vdi_id_offset(first + index),
                                          entry.to_bytes(4, "little"), revision)
            finally:
                self._tell_all(new.vdi_id, thawed=number)
            return True

    def make_object(self, vid, index) -> Result:
        """See to it that a VDI has its own data object ``index``, with the content that is
        seen there now."""
        with self.lock:
            inode = self.catalogue().get(vid)
            if inode is None or inode.is_deleted:
                return Result.NO_VDI
            if inode.is_snapshot:
                return Result.READONLY
            revision = self.leading()
            [owner] = self._entries(inode, index, 1)
            if owner == vid:
                return Result.SUCCESS
            size, policy, image = 1 << inode.block_size_shift, entry_of(inode).policy, b""
            if owner:
                source = oids.data_oid(owner, index)
                result, image = self._gateway.read(
                    source, 0, size, self._table.policy_of(source))
                if result != Result.SUCCESS:
                    return result
            result = self._gateway.write_wait(
                PeerOp.CREATE, oids.data_oid(vid, index), 0, bytes(image).rstrip(b"\0"), size,
                policy, revision)
            if result == Result.SUCCESS:
                self._write_inode(inode, layout.data_vdi_id_offset(index),
                                  vid.to_bytes(4, "little"), revision)
            return result

    def _entries(self, inode, first, count):
        result, data = self._gateway.read(
            oids.vdi_oid(inode.vdi_id), layout.data_vdi_id_offset(first), 4 * count,
            entry_of(inode).policy)
        if result != Result.SUCCESS:
            raise Failure(result)
        return unpack_map(data)

    # -- parts of them ---------------------------------------------------------------------

    def _base(self, catalogue, base_vid):
        if not base_vid:
            return None
        base = catalogue.get(base_vid)
        if base is None or base.is_deleted:
            raise Failure(Result.NO_BASE_VDI)
        return base

    def _new_inode(self, catalogue, name, size, base, copies, shift, store_policy, ctime):
        cluster = self._state.view.map
        if self._state.view.bereft:
            # A VDI of this name or id may be on nodes that are away.
            raise Failure(Result.HALT)
        if not name:
            raise Failure(Result.INVALID_PARMS)
        if store_policy:
            raise Failure(Result.NO_SUPPORT)
        try:
            policy = policies.from_wire(*copies) if any(copies) else cluster.copies
            check_supported(policy)
        except UnsupportedPolicy:
            raise Failure(Result.NO_SUPPORT) from None
        except ValueError:
            raise Failure(Result.INVALID_PARMS) from None
        if base is not None:
            shift = base.block_size_shift
        shift = shift or cluster.block_size_shift
        if not MIN_BLOCK_SIZE_SHIFT <= shift <= MAX_BLOCK_SIZE_SHIFT:
            raise Failure(Result.INVALID_PARMS)
        if base is not None:
            size = size or base.vdi_size
        if size > layout.DATA_INDEX << shift:
            raise Failure(Result.INVALID_PARMS)
        vid = catalogue.free_vid(name)
        if vid is None:
            raise Failure(Result.FULL_VDI)
        return InodeHeader(
            name=name, create_time=ctime, vdi_size=size, copy_policy=policy.copy_policy,
            nr_copies=policy.nr_copies, block_size_shift=shift,
            snap_id=catalogue.next_snap_id(name), vdi_id=vid,
            parent_vdi_id=base.vdi_id if base is not None else 0)

    def _make(self, inode, base, revision):
        """Write a new inode object, with the map of ``base``."""
        image = inode.pack()
        if base is not None:
            image += self.read_map(base)
        entry = entry_of(inode)
        self._table.set(inode.vdi_id, entry)
        result = self._gateway.write_wait(
            PeerOp.CREATE, oids.vdi_oid(inode.vdi_id), 0, image, layout.INODE_SIZE, entry.policy,
            revision)
        if result != Result.SUCCESS:
            raise Failure(result)

    def read_map(self, inode) -> bytes:
        """The map of a VDI as bytes, up to its size, without the zeros at its end."""
        length = 4 * inode.object_count
        if not length:
            return b""
        result, data = self._gateway.read(
            oids.vdi_oid(inode.vdi_id), layout.DATA_VDI_ID_OFFSET, length,
            entry_of(inode).policy)
        if result != Result.SUCCESS:
            raise Failure(Result.BASE_VDI_READ)
        data = bytes(data).rstrip(b"\0")
        return data + bytes(-len(data) % 4)

    def named_in(self, inode, vids):
        """Iterates over (index, vid) of the entries that name one of ``vids``, a set, also
        those behind the present size; of 4 MiB reads only what was ever written."""
        result, pieces = self._gateway.read_sparse(
            oids.vdi_oid(inode.vdi_id), layout.DATA_VDI_ID_OFFSET, layout.DATA_INDEX_SIZE,
            entry_of(inode).policy)
        if result != Result.SUCCESS:
            raise Failure(Result.BASE_VDI_READ)
        for offset, data in pieces:
            first = (offset - layout.DATA_VDI_ID_OFFSET) // 4
            entries = unpack_map(data)
            if not vids.isdisjoint(entries):
                yield from ((index, vid) for index, vid in enumerate(entries, first)
                            if vid in vids)

    def _write_inode(self, inode, offset, data, revision):
        result = self._gateway.write_wait(
            PeerOp.WRITE, oids.vdi_oid(inode.vdi_id), offset, data, 0, entry_of(inode).policy,
            revision)
        if result != Result.SUCCESS:
            raise Failure(result)

    def set_parent(self, inode, parent_vid):
        """Give a VDI another parent; the caller holds the lock."""
        self._write_inode(inode, 564, parent_vid.to_bytes(4, "little"), self.leading())
        self._note(inode._replace(parent_vdi_id=parent_vid))

    def remove(self, inode):
        """Remove the inode of a deleted VDI and free its id; the caller holds the lock."""
        self._remove_inode(inode, self.leading())
        # The id is free only when no gateway believes any more that its VDI is deleted.
        self._state.call_all({"call": "forget_vdi", "vid": inode.vdi_id})
        catalogue = self._catalogue
        if catalogue is not None:
            catalogue.drop(inode.vdi_id)

    def _remove_inode(self, inode, revision):
        try:
            policy = entry_of(inode).policy
        except UnknownVdi:
            policy = self._state.view.map.copies
        result = self._gateway.write_wait(
            PeerOp.REMOVE, oids.vdi_oid(inode.vdi_id), 0, b"", 0, policy, revision)
        if result not in (Result.SUCCESS, Result.NO_OBJ):
            raise Failure(result)

    def _tell(self, vid, **fields):
        """Change what all gateways know of a VDI; none then has an older write on its way."""
        self._state.call_all({"call": "vdi", "vid": vid, "fields": fields})

    def _tell_all(self, vid, **fields):
        """Like :meth:`_tell`, and again until all have heard it, which a sheep without a lease
        for a moment has not.  At another map all gateways look at the inode anew."""
        revision = self._state.view.revision
        while True:
            try:
                self._tell(vid, **fields)
                return
            except Failure:
                view = self._state.view
                if (view.revision != revision or not view.serving
                        or self._state.stopping.is_set()):
                    raise
                self._state.wait_view(revision, _REPEAT_SECONDS)

    # -- attributes ------------------------------------------------------------------------

    def attribute(self, attr: VdiAttr, flags):
        """Find, make, overwrite or delete an attribute: (vid, attr id, copies).

        Attributes lie at the hash of the VDI's name, not at its id, as in Sheepdog.
        """
        is_limits = attr.key == limits.KEY and flags & (AttrFlag.CREAT | AttrFlag.DEL)
        text = _checked_limits(b"" if flags & AttrFlag.DEL else attr.value) if is_limits else ""
        with self.lock:
            inode = self.look_up(attr.name, attr.tag, attr.snap_id)
            found = self._attribute(inode, attr, flags)
            if is_limits and not inode.is_snapshot:
                try:
                    self._state.call_all({"call": "limit", "vid": inode.vdi_id, "text": text})
                except Failure:
                    # Whoever did not hear it asks when the map changes, as it will.
                    log.info("not all sheep were told the limits of '%s'", inode.name)
            return found

    def _attribute(self, inode, attr, flags):
        attr = attr._replace(ctime=inode.create_time)
        vid = vdi_name_hash(attr.name.encode("utf-8", "surrogateescape"))
        attr_id = _attr_hash(attr)
        policy = self._state.view.map.copies
        while True:
            oid = oids.attr_oid(vid, attr_id)
            result, data = self._gateway.read(oid, 0, layout.ATTR_SIZE, policy)
            if result == Result.NO_OBJ:
                if not flags & AttrFlag.CREAT:
                    raise Failure(Result.NO_OBJ)
                self._write_attribute(PeerOp.CREATE, oid, attr.pack(), policy)
                return vid, attr_id, policy.nr_copies
            if result != Result.SUCCESS:
                raise Failure(result)
            present = VdiAttr.unpack(data)
            if ((present.name, present.tag, present.snap_id, present.key)
                    == (attr.name, attr.tag, attr.snap_id, attr.key)):
                break
            attr_id = (attr_id + 1) & 0xFFFFFFFF
        if flags & AttrFlag.EXCL:
            raise Failure(Result.VDI_EXIST)
        if flags & AttrFlag.DEL:
            self._write_attribute(PeerOp.WRITE, oid, b"\0", policy)
        elif flags & AttrFlag.CREAT:
            self._write_attribute(PeerOp.WRITE, oid, attr.pack(), policy)
        return vid, attr_id, policy.nr_copies

    def limits(self, vid) -> str:
        """How fast a VDI may be used, as :func:`sheepstack.wire.limits.parse` reads it."""
        with self.lock:
            inode = self.catalogue().get(vid)
            if inode is None or inode.is_deleted or inode.is_snapshot:
                return ""
            try:
                place, number, _ = self.attribute(VdiAttr(inode.name, limits.KEY), 0)
            except Failure as failure:
                if failure.result == Result.NO_OBJ:
                    return ""
                raise
            result, data = self._gateway.read(
                oids.attr_oid(place, number), 0, layout.ATTR_SIZE, self._state.view.map.copies)
            if result != Result.SUCCESS:
                raise Failure(result)
            try:
                return _checked_limits(VdiAttr.unpack(data).value)
            except Failure:
                log.warning("the limits of '%s' make no sense", inode.name)
                return ""

    def _write_attribute(self, kind, oid, data, policy):
        result = self._gateway.write_wait(
            kind, oid, 0, data, layout.ATTR_SIZE, policy, self.leading())
        if result != Result.SUCCESS:
            raise Failure(result)

    def _remove_attributes(self, name):
        """The last VDI of a name is gone, so are its attributes."""
        vid = vdi_name_hash(name.encode("utf-8", "surrogateescape"))
        policy = self._state.view.map.copies
        found = set()
        for answer in self._state.call_all({"call": "attributes", "vid": vid}):
            found |= set(answer)
        for oid in found:
            result, data = self._gateway.read(oid, 0, layout.ATTR_SIZE, policy)
            if result == Result.SUCCESS and VdiAttr.unpack(data).name in (name, ""):
                self._gateway.write(PeerOp.REMOVE, oid, 0, b"", 0, policy, _ignore,
                                    only=self.leading())


def _new_number():
    """For a snapshot, so that its end is not mistaken for that of another."""
    return secrets.randbits(62) | 1


def _checked_limits(value) -> str:
    """The value of an attribute that has limits; raises Failure where it has not."""
    try:
        return str(limits.parse(value.decode()))
    except ValueError:
        raise Failure(Result.INVALID_PARMS) from None


def _attr_hash(attr: VdiAttr) -> int:
    packed = attr.pack_key()
    names, snap_id = packed[:512], attr.snap_id.to_bytes(4, "little")
    key = packed[-layout.ATTR_KEY_LEN:]
    return fnv1a_64(key, fnv1a_64(snap_id, fnv1a_64(names))) & 0xFFFFFFFF


def _ignore(result, batch):
    pass
