"""Taking a snapshot: who has the VDI open and who has not do it alike."""

from sheepstack.client import vdi_requests
from sheepstack.client.errors import OutcomeUnknown, TagExists, error_for
from sheepstack.client.live_inode import LiveInode, read_inode
from sheepstack.client.patience import Patience
from sheepstack.wire import inode_layout as layout
from sheepstack.wire.results import Result
from sheepstack.wire.text import pad

#: Seconds after which a request that was lost on its way is not expected to be executed.
_SETTLING = 2.0


def take_snapshot(caller, channel, name, tag, inode) -> LiveInode:
    """Turn the working VDI with ``inode`` into a snapshot; the inode of the new working VDI.

    The map known of the old one goes over to the new one.
    """
    vdi_requests.checked_tag(tag)
    ours = check_tag_is_free(caller, name, tag)
    header = inode.header
    set_tag(inode, tag)
    patience = Patience(caller)
    while True:
        # Where the base is not the present VDI any more, because somebody took a snapshot just
        # now or this request comes twice, a C sheep rolls back to it.  Ours take none as the
        # present one, so that a second snapshot is the worst that can happen.
        call = vdi_requests.new(
            name, header.vdi_size, 0 if ours else header.vdi_id, True, header.nr_copies,
            header.copy_policy, header.block_size_shift)
        try:
            caller.perform((call,))
        except OutcomeUnknown as error:
            if not becomes_snapshot(caller, inode):
                if not ours:
                    raise
                patience.lose(error)
                continue
            # The answer that was lost named the new VDI.
            call = vdi_requests.look_up(name)
            caller.perform((call,))
        break
    if call.status:
        inode.write_header(layout.TAG_OFFSET, bytes(layout.VDI_TAG_LEN))
        raise error_for(call.status, "cannot make a snapshot of VDI '%s'" % name)
    fresh = read_inode(channel, vdi_requests.answer_of(call).vdi_id)
    return LiveInode(channel, fresh.header, inode.map, inode.takes)


def set_tag(inode, tag):
    """Have the working VDI with ``inode`` get a tag, or none, when it becomes a snapshot."""
    result = inode.write_header(layout.TAG_OFFSET, pad(tag, layout.VDI_TAG_LEN))
    if result:
        raise error_for(result, "cannot make a snapshot of VDI '%s'" % inode.header.name)


def becomes_snapshot(caller, inode) -> bool:
    """Whether a VDI is a snapshot, now or after the time that a lost request may take."""
    patience = Patience(caller, _SETTLING)
    late = OutcomeUnknown("")
    try:
        while not inode.became_snapshot():
            patience.lose(late)
    except OutcomeUnknown:
        return False
    return True


def check_tag_is_free(caller, name, tag) -> bool:
    """Raise TagExists where the VDI has a snapshot of that tag, NoSuchVdi without a VDI.

    Returns whether the sheep are our own.
    """
    call = vdi_requests.look_up(name, tag)
    caller.perform((call,))
    if call.status == Result.SUCCESS:
        raise TagExists(
            "VDI '%s' has a snapshot '%s' already" % (name, tag), Result.VDI_EXIST)
    if call.status != Result.NO_TAG:
        raise error_for(call.status, "cannot make a snapshot of VDI '%s'" % name)
    return vdi_requests.is_ours(call)
