"""Attributes of VDIs: small values by key, kept in objects of their own."""

from sheepstack.client.call import ControlCall, ReadCall
from sheepstack.client.errors import AttributeExists, NoSuchAttribute, error_for
from sheepstack.client.vdi_requests import answer_of, checked_name, checked_tag
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.header import VdiRequest, version_of
from sheepstack.wire.inode import VdiAttr
from sheepstack.wire.oid import attr_oid
from sheepstack.wire.opcodes import AttrFlag, Flag, Op
from sheepstack.wire.results import Result


def _find(caller, name, key, snapshot, value, flags):
    """The object id of an attribute, after what ``flags`` ask for was done to it."""
    tag = checked_tag(snapshot) if isinstance(snapshot, str) else ""
    snap_id = snapshot if snapshot and not tag else 0
    payload = VdiAttr(checked_name(name), key, bytes(value), tag, snap_id=snap_id).pack()
    request = VdiRequest(
        Op.GET_VDI_ATTR, Flag.WRITE | flags, data_length=len(payload), snapid=snap_id,
        proto_ver=version_of(Op.GET_VDI_ATTR))
    # To create one that must not exist, twice, would fail the second time.
    call = ControlCall(request.pack(), payload, resendable=not flags & AttrFlag.EXCL)
    caller.perform((call,))
    if call.status:
        what = "attribute '%s' of VDI '%s'" % (key, name)
        classes = {Result.NO_OBJ: NoSuchAttribute, Result.VDI_EXIST: AttributeExists}
        raise error_for(call.status, what, classes.get(call.status))
    answer = answer_of(call)
    return attr_oid(answer.vdi_id, answer.attr_id)


def get(caller, name, key, snapshot=None) -> bytes:
    oid = _find(caller, name, key, snapshot, b"", 0)
    call = ReadCall(oid, 0, layout.ATTR_SIZE)
    caller.perform((call,))
    if call.status:
        raise error_for(call.status, "attribute '%s' of VDI '%s'" % (key, name),
                        NoSuchAttribute if call.status == Result.NO_OBJ else None)
    return VdiAttr.unpack(call.data).value


def set(caller, name, key, value, snapshot=None, exclusive=False):
    flags = AttrFlag.CREAT | (AttrFlag.EXCL if exclusive else 0)
    _find(caller, name, key, snapshot, value, flags)


def delete(caller, name, key, snapshot=None):
    _find(caller, name, key, snapshot, b"", AttrFlag.DEL)
