"""``dog vdi lock``: who has which VDI open."""

from sheepstack.client import SheepError
from sheepstack.dog.command import Context
from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.session import reason
from sheepstack.dog.vdi_list import kind, snapshot_id
from sheepstack.dog.vdi_table import read_vdis
from sheepstack.wire import admin
from sheepstack.wire.header import ObjRequest, VdiRequest
from sheepstack.wire.opcodes import LockType, Op
from sheepstack.wire.results import Result

#: States for which the first question leaves room.
_ROOM = 512
_MOST_ROOM = 1 << 15

_LOCKED = (admin.LockState.LOCKED, admin.LockState.SHARED)

_SHARES = {
    admin.SharedLockState.MODIFIED: "(modified)",
    admin.SharedLockState.SHARED: "(shared)",
    admin.SharedLockState.INVALIDATED: "(invalidated)",
}


def list_locks(context: Context) -> None:
    states = _states(context.session)
    print("  Name         Id  VDI id  Tag            Owner node(s)")
    for inode in read_vdis(context.session):
        state = states.get(inode.vdi_id)
        if state is None or state.lock_state not in _LOCKED:
            continue
        print("%s %-8s  %5d  %6x  %-13s %s" % (
            kind(inode, " "), inode.name, snapshot_id(inode), inode.vdi_id, inode.tag,
            holders(state)))


def holders(state):
    if state.lock_state == admin.LockState.LOCKED:
        return " " + _described(state.lock_owner)
    return "".join(" %s%s" % (_described(nid), _SHARES.get(share, "(unknown state %d)" % share))
                   for share, nid in state.participants)


def _described(nid):
    if nid is None:
        return "nobody"
    return "%s ip:%s port:%d" % ("IPv6" if ":" in nid.addr else "IPv4", nid.addr, nid.port)


def unlock(context: Context) -> None:
    session, snapshot = context.session, context.settings.snapshot
    name = context.take("")
    try:
        vid = session.find(name, snapshot)
    except SheepError as error:
        raise Failure("Failed to find VDI %s: %s" % (
            _what(name, snapshot), reason(error))) from None
    state = _states(session).get(vid)
    if state is None:
        raise Failure("Failed to find VDI state %s" % _what(name, snapshot, vid),
                      code=Exit.SYSFAIL)
    if state.lock_state not in _LOCKED:
        raise Failure("VDI %s is not locked" % _what(name, snapshot, vid))
    shared = state.lock_state == admin.LockState.SHARED
    session.execute(VdiRequest(Op.RELEASE_VDI, base_vdi_id=vid,
                               type=LockType.SHARED if shared else LockType.NORMAL))


def is_locked(session, vid: int) -> bool:
    """Whether somebody has the VDI with this id open under a lock."""
    state = _states(session).get(vid)
    return state is not None and state.lock_state in _LOCKED


def _what(name, snapshot, vid=None):
    """A VDI as messages name it: ``a (tag=t, vid=1ec8c)``."""
    parts = []
    if snapshot.id:
        parts.append("snapid=%d" % snapshot.id)
    elif snapshot.tag:
        parts.append("tag=%s" % snapshot.tag)
    if vid is not None:
        parts.append("vid=%x" % vid)
    return "%s (%s)" % (name, ", ".join(parts)) if parts else name


def _states(session) -> dict:
    """The state of each VDI by its id."""
    room = _ROOM
    while True:
        try:
            reply = session.execute(ObjRequest(
                Op.GET_VDI_COPIES, data_length=room * admin.VDI_STATE_SIZE))
        except SheepError as error:
            if error.result != Result.BUFFER_SMALL or room >= _MOST_ROOM:
                raise Failure("Failed to get VDI state: %s" % reason(error),
                              code=Exit.SYSFAIL) from None
            room *= 2
            continue
        return {state.vid: state for state in admin.unpack_vdi_states(reply.payload)}
