"""The requests about VDIs as a whole, as calls."""

from sheepstack.client.call import ControlCall
from sheepstack.wire.header import Header, VdiRequest, VdiResponse, version_of
from sheepstack.wire.inode_layout import VDI_NAME_LEN, VDI_TAG_LEN
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.text import pad


def checked_name(name: str) -> str:
    """``name`` if a VDI can have it; raises ValueError."""
    if not name:
        raise ValueError("a VDI's name cannot be empty")
    pad(name, VDI_NAME_LEN)
    return name


def checked_tag(tag: str) -> str:
    """``tag`` if a snapshot can have it; raises ValueError."""
    if not tag:
        raise ValueError("a snapshot's tag cannot be empty")
    pad(tag, VDI_TAG_LEN)
    return tag


def _named(opcode, name, snapshot, **fields) -> ControlCall:
    """``snapshot``: None, a snapshot's id (int) or its tag (str)."""
    tag, snapid = "", 0
    if isinstance(snapshot, str):
        tag = checked_tag(snapshot)
    elif snapshot is not None:
        snapid = snapshot
        if not 0 < snapid < 1 << 32:
            raise ValueError("%r is no id of a snapshot" % snapid)
    resendable = fields.pop("resendable", True)
    payload = pad(checked_name(name), VDI_NAME_LEN) + pad(tag, VDI_TAG_LEN)
    request = VdiRequest(
        opcode, Flag.WRITE, data_length=len(payload), snapid=snapid, **fields)
    return ControlCall(request.pack(), payload, resendable=resendable)


def look_up(name, snapshot=None) -> ControlCall:
    return _named(Op.GET_VDI_INFO, name, snapshot)


def lock(name, lock_type, token=0) -> ControlCall:
    return _named(Op.LOCK_VDI, name, None, type=lock_type, token=token)


def delete(name, snapshot=None) -> ControlCall:
    return _named(Op.DEL_VDI, name, snapshot, resendable=False)


def release(vid, lock_type, token=0) -> ControlCall:
    request = VdiRequest(Op.RELEASE_VDI, base_vdi_id=vid, type=lock_type, token=token)
    return ControlCall(request.pack())


def new(name, size, base_vid=0, snapshot=False, copies=0, copy_policy=0,
        block_size_shift=0) -> ControlCall:
    """Create, clone (``base_vid``), or snapshot and roll back (``snapshot`` too)."""
    payload = pad(checked_name(name), VDI_NAME_LEN)
    request = VdiRequest(
        Op.NEW_VDI, Flag.WRITE, data_length=len(payload), vdi_size=size, base_vdi_id=base_vid,
        copies=copies, copy_policy=copy_policy, block_size_shift=block_size_shift,
        snapid=int(snapshot))
    return ControlCall(request.pack(), payload, resendable=False)


def snapshot_together(pairs) -> ControlCall:
    """Snapshots of several VDIs at one instant: pairs of name and tag."""
    payload = b"".join(pad(checked_name(name), VDI_NAME_LEN) + pad(checked_tag(tag), VDI_TAG_LEN)
                       for name, tag in pairs)
    request = Header(version_of(Op.SNAPSHOT_TOGETHER), Op.SNAPSHOT_TOGETHER, Flag.WRITE, 0, 0,
                     len(payload))
    return ControlCall(request.pack(), payload, resendable=False)


def answer_of(call) -> VdiResponse:
    return VdiResponse.unpack(call.response)


def is_ours(call) -> bool:
    """Whether one of our own sheep answered: a C one does not state a version."""
    return answer_of(call).proto_ver != 0
