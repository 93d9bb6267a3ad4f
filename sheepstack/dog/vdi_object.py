"""``dog vdi object`` and ``dog vdi track``: single objects of a VDI and where they are."""

from sheepstack.client import SheepError
from sheepstack.dog import epoch_log, vdi_map
from sheepstack.dog.command import Context
from sheepstack.dog.exits import Failure
from sheepstack.dog.location import Locations
from sheepstack.dog.output import complain
from sheepstack.dog.session import reason
from sheepstack.wire import inode_layout as layout, oid as oids
from sheepstack.wire.header import ObjRequest
from sheepstack.wire.inode import GenerationReference, InodeHeader, unpack_map
from sheepstack.wire.opcodes import Op
from sheepstack.wire.results import Result, describe


def show_map(context: Context) -> None:
    index = context.settings.index
    inode = _open(context)
    print("Index       VID")
    if index is not None:
        print("%08d %8x" % (index, vdi_map.owner(context.session, inode, index)))
        return
    for number, vid in vdi_map.entries(context.session, inode):
        print("%08d %8x" % (number, vid))


def show_location(context: Context) -> None:
    session, index = context.session, context.settings.index
    nodes = session.nodes()
    inode = _open(context)
    if index is None:
        oid = oids.vdi_oid(inode.vdi_id)
        print("Looking for the inode object 0x%x with %d nodes\n" % (inode.vdi_id, len(nodes)))
    else:
        vid = vdi_map.owner(session, inode, index)
        if not vid:
            print("The inode object 0x%x idx %d is not allocated" % (inode.vdi_id, index))
            return
        oid = oids.data_oid(vid, index)
        print("Looking for the object %s (vid 0x%x idx %d, %d copies) with %d nodes\n"
              % (oids.name_of(oid), inode.vdi_id, index, inode.nr_copies, len(nodes)))
    for node in nodes:
        _ask(session, node.nid, oid)
    if len(nodes) < inode.nr_copies:
        print("\nBecause number of nodes (%d) is less than number of copies (%d), "
              "the object should be located at every nodes." % (len(nodes), inode.nr_copies))
        return
    print("\nAccording to sheepdog algorithm, the object should be located at:")
    print(" ".join(str(node.nid)
                   for node in Locations(nodes).holders(oid, inode.nr_copies)))


def _ask(session, nid, oid):
    try:
        session.execute(ObjRequest(Op.EXIST, epoch=session.epoch, oid=oid), node=nid)
    except Failure as failure:
        complain(*failure.lines)
    except SheepError as error:
        if error.result == Result.NO_OBJ:
            print("%s doesn't have the object" % (nid,))
        elif error.result in (Result.OLD_NODE_VER, Result.NEW_NODE_VER):
            complain("The node list has changed: please try again")
        else:
            complain("%s: hit an unexpected error (%s)" % (nid, reason(error)))
    else:
        print("%s has the object" % (nid,))


def track(context: Context) -> None:
    session, settings = context.session, context.settings
    count = len(session.nodes())
    inode = _open(context)
    if settings.oid is not None:
        oid = settings.oid
        print("Tracking the object %s (the inode vid 0x%x) with %d nodes"
              % (oids.name_of(oid), inode.vdi_id, count))
    elif settings.index is not None:
        index = settings.index
        oid = oids.data_oid(vdi_map.owner(session, inode, index), index)
        print("Tracking the object %s (the inode vid 0x%x idx %d) with %d nodes"
              % (oids.name_of(oid), inode.vdi_id, index, count))
    else:
        oid = oids.vdi_oid(inode.vdi_id)
        print("Tracking the inode object 0x%x with %d nodes" % (inode.vdi_id, count))
    history = epoch_log.read(session)
    if history.result != Result.SUCCESS:
        raise Failure(describe(history.result))
    for log in history.logs:
        print("\nobj %s locations at epoch %d, copies = %d"
              % (oids.name_of(oid), log.epoch, inode.nr_copies))
        print("---------------------------------------------------")
        for node in Locations(log.nodes).holders(oid, inode.nr_copies):
            print(node.nid)


def dump_inode(context: Context) -> None:
    """Show what an inode object that lies in a file holds."""
    path = context.take("")
    try:
        with open(path, "rb") as file:
            raw = file.read(layout.INODE_SIZE)
    except OSError as error:
        raise Failure("failed to open inode object file: %s" % error.strerror) from None
    if len(raw) < layout.INODE_SIZE:
        raise Failure("failed to read inode object file: it has %d bytes, not %d"
                      % (len(raw), layout.INODE_SIZE))
    inode = InodeHeader.unpack(raw)
    for name, form in (
            ("name", "%s"), ("tag", "%s"), ("create_time", "%x"), ("snap_ctime", "%x"),
            ("vm_clock_nsec", "%x"), ("vdi_size", "%d"), ("vm_state_size", "%d"),
            ("copy_policy", "%d"), ("store_policy", "%d"), ("nr_copies", "%d"),
            ("block_size_shift", "%d"), ("snap_id", "%d"), ("vdi_id", "%x"),
            ("parent_vdi_id", "%x"), ("btree_counter", "%d")):
        print(("%s: " + form) % (name, getattr(inode, name)))
    owners = unpack_map(raw[layout.DATA_VDI_ID_OFFSET:layout.GREF_OFFSET])
    print("data_vdi_id:")
    for index, vid in enumerate(owners):
        if vid:
            print("%d: %x" % (index, vid))
    print("gref:")
    for index, vid in enumerate(owners):
        if vid:
            reference = GenerationReference.unpack(raw, layout.GREF_OFFSET + 8 * index)
            print("%d: %x, %d, %d" % (index, vid, reference.generation, reference.count))


def _open(context):
    return context.session.open(context.take(""), context.settings.snapshot)
