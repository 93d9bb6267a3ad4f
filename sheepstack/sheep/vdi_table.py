"""What a gateway must know of a VDI to route and admit requests: policy, size, read-only.

Entries are read from inode objects when they are first needed, changed when the leader says
so, and forgotten when the map changes.
"""

import collections
import logging
import threading
from typing import NamedTuple

from sheepstack.redundancy import policy
from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.store.errors import StoreError
from sheepstack.wire import oid as oids
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.inode_layout import INODE_HEADER_SIZE
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

#: VDIs of up to so many copies may exist that this sheep has not heard of.
_USUAL_WIDTH = 6
#: The leader takes few snapshots while one of its messages is under way.
_THAWS_KEPT = 64


class VdiEntry(NamedTuple):
    """``frozen``, if not 0: writes wait while the leader takes the snapshot of that number.
    ``deleted``: all are refused, though other VDIs may still share its objects."""

    policy: CopyPolicy
    block_size_shift: int
    snapshot: bool = False
    frozen: int = 0
    deleted: bool = False


class UnknownVdi(Exception):
    """There is no inode for this VDI id."""


class VdiTable:
    """``read(oid, offset, length, policy)`` gives (result, bytes) and may wait.

    ``identity`` keeps over a restart how many holders some object may have.
    """

    def __init__(self, state, identity):
        self._state = state
        self._identity = identity
        self._entries = {}
        self._widest = identity.get("widest", _USUAL_WIDTH)
        self._policies = {}
        self._thawed = collections.deque(maxlen=_THAWS_KEPT)
        self._lock = threading.Lock()
        self.read = None

    def find(self, vid):
        """The entry, or None where it must be loaded first.  Never waits."""
        return self._entries.get(vid)

    def load(self, vid) -> VdiEntry:
        """The entry, read from the inode where need be; raises UnknownVdi."""
        entry = self._entries.get(vid)
        if entry is not None:
            return entry
        result, data = self.read(
            oids.vdi_oid(vid), 0, INODE_HEADER_SIZE, self._state.view.map.copies)
        if result != Result.SUCCESS:
            raise UnknownVdi("%06x: %s" % (vid, result))
        inode = InodeHeader.unpack(data)
        return self.learn(vid, entry_of(inode))

    def learn(self, vid, entry) -> VdiEntry:
        """Take ``entry`` unless one is there already; returns the one that counts."""
        with self._lock:
            self._note_width(entry.policy)
            self._policies[vid] = entry.policy
            return self._entries.setdefault(vid, entry)

    def change(self, vid, thawed=0, **fields):
        """Set fields of an entry that is there; what is not there will be read anew.

        ``thawed``: the snapshot of that number is over, and whoever still comes to freeze for
        it is late.
        """
        with self._lock:
            if thawed:
                self._thawed.append(thawed)
            if fields.get("frozen") in self._thawed:
                return
            entry = self._entries.get(vid)
            if entry is not None:
                if thawed and entry.frozen == thawed:
                    fields["frozen"] = 0
                self._entries[vid] = entry._replace(**fields)

    def set(self, vid, entry):
        with self._lock:
            self._note_width(entry.policy)
            self._policies[vid] = entry.policy
            self._entries[vid] = entry

    def forget(self, vid=None):
        with self._lock:
            if vid is None:
                self._entries.clear()
            else:
                self._entries.pop(vid, None)
                self._policies.pop(vid, None)

    def reset(self):
        """Forget all VDIs for good: there are none any more."""
        with self._lock:
            self._entries.clear()
            self._policies.clear()

    def _note_width(self, copies):
        if copies.width > self._widest:
            self._widest = copies.width
            try:
                self._identity.update(widest=copies.width)
            except StoreError as error:
                log.warning("cannot note that objects have %d holders: %s", copies.width, error)

    def widths(self):
        """Numbers of holders that some object may have."""
        view = self._state.view
        most = max(self._widest, view.map.copies.width)
        return range(1, min(most, view.map.zones()) + 1)

    def widths_in_use(self):
        """Numbers of holders of the VDIs that this sheep knows, and of the cluster's default."""
        with self._lock:
            known = {*self._policies.values(), self._state.view.map.copies}
        return {copies.width for copies in known} | {
            copies.parity + 1 for copies in known if copies.is_erasure}

    def erasure_policies(self):
        """{vid: policy} of the VDIs that this sheep knows whose objects are cut into strips."""
        with self._lock:
            return {vid: copies for vid, copies in self._policies.items() if copies.parity}

    def erasure_codes(self, cluster_map):
        """Policies with parity that objects may have."""
        with self._lock:
            known = {*self._policies.values(), cluster_map.copies}
        return {copies for copies in known if copies.parity}

    def widths_of(self, cluster_map):
        """Like :meth:`widths`, at a map that is not the present one."""
        return range(1, max(self._widest, cluster_map.copies.width) + 1)

    def remember(self, vid, copies: CopyPolicy):
        """Note the policy of a VDI whose inode need not be read now."""
        if vid not in self._policies:
            with self._lock:
                self._note_width(copies)
                self._policies.setdefault(vid, copies)

    def remembered_policy(self, oid, cluster_map):
        """The copy policy of an object if this sheep ever knew it: policies never change."""
        if oids.is_attr(oid):
            return cluster_map.copies
        return self._policies.get(oids.vid_of(oid))

    def policy_if_known(self, oid):
        """The copy policy of an object, or None where its VDI is not in the table."""
        if oids.is_attr(oid):
            return self._state.view.map.copies
        return self._policies.get(oids.vid_of(oid))

    def policy_of(self, oid) -> CopyPolicy:
        """The copy policy of an object; that of the cluster where its VDI is gone."""
        known = self.policy_if_known(oid)
        if known is not None:
            return known
        try:
            return self.load(oids.vid_of(oid)).policy
        except UnknownVdi:
            return self._state.view.map.copies


def entry_of(inode: InodeHeader) -> VdiEntry:
    try:
        copies = policy.from_wire(inode.nr_copies, inode.copy_policy)
    except ValueError as error:
        raise UnknownVdi("%06x: %s" % (inode.vdi_id, error)) from None
    return VdiEntry(copies, inode.block_size_shift, inode.is_snapshot,
                    deleted=inode.is_deleted)
