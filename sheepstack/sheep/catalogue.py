"""All VDIs by id and by name: what the leader remembers of the inode objects."""

from typing import NamedTuple

from sheepstack.wire.hashing import NR_VDIS, vdi_name_hash
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.results import Result


class Found(NamedTuple):
    result: Result
    inode: "InodeHeader | None" = None


class Catalogue:
    """Pure bookkeeping: inodes in, answers out.  Deleted VDIs stay until their id is free."""

    def __init__(self, inodes=()):
        self._inodes = {}
        self._names = {}
        self._children = {}
        for inode in inodes:
            self.put(inode)

    def __len__(self):
        return len(self._inodes)

    def put(self, inode: InodeHeader):
        self.drop(inode.vdi_id)
        self._inodes[inode.vdi_id] = inode
        self._children.setdefault(inode.parent_vdi_id, set()).add(inode.vdi_id)
        if not inode.is_deleted:
            self._names.setdefault(inode.name, set()).add(inode.vdi_id)

    def drop(self, vid):
        old = self._inodes.pop(vid, None)
        if old is not None:
            _take_out(self._children, old.parent_vdi_id, vid)
            if not old.is_deleted:
                _take_out(self._names, old.name, vid)

    def get(self, vid):
        return self._inodes.get(vid)

    def vids(self):
        return list(self._inodes)

    def live(self):
        return [inode for inode in self._inodes.values() if not inode.is_deleted]

    def deleted(self):
        return [inode for inode in self._inodes.values() if inode.is_deleted]

    def named(self, name):
        """Inodes of a name, oldest first."""
        found = [self._inodes[vid] for vid in self._names.get(name, ())]
        return sorted(found, key=lambda inode: inode.snap_id)

    def has_name(self, name):
        return name in self._names

    def working(self, name):
        """The VDI of this name that can be written to, or None."""
        for inode in self.named(name):
            if not inode.is_snapshot:
                return inode
        return None

    def look_up(self, name, tag="", snap_id=0) -> Found:
        """The snapshot with this tag or id; without either the working VDI."""
        inodes = self.named(name)
        if not inodes:
            return Found(Result.NO_VDI)
        if not tag and not snap_id:
            working = self.working(name)
            return Found(Result.SUCCESS, working) if working else Found(Result.NO_VDI)
        for inode in reversed(inodes):
            if inode.is_snapshot and ((tag and inode.tag == tag) or
                                      (snap_id and inode.snap_id == snap_id)):
                return Found(Result.SUCCESS, inode)
        return Found(Result.NO_TAG)

    def next_snap_id(self, name):
        inodes = self.named(name)
        return inodes[-1].snap_id + 1 if inodes else 1

    def free_vid(self, name):
        """The id for a new VDI: the first free one from the name's hash on, or None."""
        start = vdi_name_hash(name.encode("utf-8", "surrogateescape")) or 1
        for probe in range(NR_VDIS):
            vid = (start + probe) % NR_VDIS
            if vid and vid not in self._inodes:
                return vid
        return None

    def children(self, vid):
        return [self._inodes[child] for child in self._children.get(vid, ())]

    def ancestors(self, inode):
        """Ids of all that this VDI may share objects with, nearest first."""
        result, seen = [], {inode.vdi_id}
        parent = inode.parent_vdi_id
        while parent and parent not in seen:
            seen.add(parent)
            result.append(parent)
            above = self._inodes.get(parent)
            parent = above.parent_vdi_id if above else 0
        return result

    def unfinished(self):
        """VDIs that a leader died in making: a second working one of the same name."""
        result = []
        for name in self._names:
            working = [inode for inode in self.named(name) if not inode.is_snapshot]
            result += working[1:]
        return result


def _take_out(groups, key, vid):
    vids = groups[key]
    vids.discard(vid)
    if not vids:
        del groups[key]


def bitmap(vids) -> bytearray:
    """2^24 bits, one set for each id, lowest bit first."""
    bits = bytearray(NR_VDIS // 8)
    for vid in vids:
        bits[vid >> 3] |= 1 << (vid & 7)
    return bits
