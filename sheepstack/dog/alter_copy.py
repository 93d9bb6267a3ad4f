"""``dog vdi alter-copy``: an image with another redundancy level.

How an object is kept never changes while it lives.  So the image is copied into a new one,
which then takes over its name.
"""

from sheepstack.client import SheepError
from sheepstack.dog import vdi_data
from sheepstack.dog.command import CONFIRM, Context
from sheepstack.dog.copies import DEFAULT_COPIES
from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.output import complain
from sheepstack.dog.vdi_table import read_vdis
from sheepstack.redundancy.policy import CopyPolicy, from_wire
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import oid as oids

#: What is put behind the name of the image that is being made, and of the one it replaces.
_NEW, _OLD = ".alter-copy", ".before-alter-copy"


def alter_copy(context: Context) -> None:
    settings, session = context.settings, context.session
    name = context.take("")
    copies = settings.copies
    if copies is None:
        copies = CopyPolicy(DEFAULT_COPIES)
        print("The vdi's redundancy level is not specified, use %d as default."
              % DEFAULT_COPIES)
    count = len(session.nodes())
    if not settings.force and copies.nr_copies > count:
        context.confirm("Number of copies (%d) is larger than number of nodes (%d)."
                        % (copies.nr_copies, count), CONFIRM)
    inode = session.open(name)
    present = from_wire(inode.nr_copies, inode.copy_policy)
    if present == copies:
        raise Failure("%s's redundancy level is already set to %s, nothing changed."
                      % (name, copies))
    if inode.parent_vdi_id or any(
            other.parent_vdi_id == inode.vdi_id for other in read_vdis(session)):
        raise Failure("Only standalone vdi supports changing redundancy level.",
                      "Please clone %s with -n (--no-share) option first." % name)
    if not settings.force:
        context.confirm("Caution! All data of this VDI will be copied; nobody may use it "
                        "meanwhile.", CONFIRM)
    _replace(session, name, inode, copies)
    complain("%s's redundancy level is set to %s, the old one was %s." % (name, copies, present))


def _replace(session, name, inode, copies):
    longest = layout.VDI_NAME_LEN - 1 - len(_OLD)
    if len(name.encode("utf-8", "surrogateescape")) > longest:
        raise Failure("The name of %s is too long: it may have %d bytes" % (name, longest))
    try:
        with session.ask("open_vdi", name) as old:
            made = session.ask("create_vdi", name + _NEW, inode.vdi_size, policy=copies,
                               block_size_shift=inode.block_size_shift)
            try:
                vdi_data.copy(session, old, name + _NEW)
            except BaseException:
                session.ask("delete_vdi", name + _NEW)
                raise
        _rename(session, inode.vdi_id, name=name + _OLD)
        _rename(session, made.vdi_id, name=name, create_time=inode.create_time)
        session.ask("delete_vdi", name + _OLD)
    except SheepError as error:
        raise Failure("Changing %s's redundancy level failure: %s" % (name, error),
                      code=Exit.FAILURE) from None


def _rename(session, vid, **fields):
    inode = session.inode(vid)
    session.write_object(oids.vdi_oid(vid), inode._replace(**fields).pack(), 0, inode)
