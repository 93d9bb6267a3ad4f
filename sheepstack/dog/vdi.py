"""``dog vdi``: images, their snapshots and clones."""

from contextlib import contextmanager

from sheepstack.client import SheepError, TagExists
from sheepstack.dog import (
    alter_copy, backup, check, output, vdi_attr, vdi_data, vdi_limit, vdi_list, vdi_lock,
    vdi_object)
from sheepstack.dog.block_size import set_block_size_shift
from sheepstack.dog.command import Command, Context, Group, printing
from sheepstack.dog.common_options import CommonSettings
from sheepstack.dog.copies import set_copies
from sheepstack.dog.exits import Exit, Failure, UsageError
from sheepstack.dog.options import Option, flag, positive_number
from sheepstack.dog.session import Snapshot, reason
from sheepstack.dog.sizes import parse_size
from sheepstack.dog.vdi_map import FLAT, usage
from sheepstack.redundancy.policy import from_wire
from sheepstack.wire import inode_layout as layout, oid as oids
from sheepstack.wire.results import Result, describe

HYPER_SHIFT = 22
MAX_HYPER_SIZE = 1 << (32 + HYPER_SHIFT)

NO_SIZE = "Please specify the VDI size"


class VdiSettings(CommonSettings):

    def __init__(self):
        super().__init__(snapshot=Snapshot(), from_snapshot=Snapshot(), index=None, oid=None,
                         prealloc=False, no_share=False, exclusive=False, delete=False,
                         writeback=False, force=False, hyper=False, exist=False,
                         reduce_identical=False, copies=None, block_size_shift=0)

    def set_snapshot(self, text: str) -> None:
        self.snapshot = parse_snapshot(text)

    def set_from(self, text: str) -> None:
        self.from_snapshot = parse_snapshot(text)

    def set_index(self, text: str) -> None:
        base = 16 if text.startswith("0x") else 10
        try:
            self.index = int(text, base)
        except ValueError:
            self.index = -1
        if not 0 <= self.index <= oids.INDEX_MASK:
            raise Failure("The index must be a decimal integer or a hexadecimal integer "
                          "started with 0x, at most 0x%x" % oids.INDEX_MASK)

    def set_oid(self, text: str) -> None:
        try:
            self.oid = int(text, 16)
        except ValueError:
            self.oid = -1
        if not 0 <= self.oid < 1 << 64:
            raise Failure("object id must be a hex integer")


def parse_snapshot(text: str) -> Snapshot:
    """A number is a snapshot's id, all else its tag."""
    if not (text.isascii() and text.isdigit()):
        return Snapshot(tag=text)
    if not 0 < int(text) < 1 << 32:
        raise Failure("The snapshot id must be larger than zero")
    return Snapshot(id=int(text))


def create(context: Context) -> None:
    settings, session = context.settings, context.session
    name = context.take("")
    size = parse_size(context.take(NO_SIZE))
    if settings.hyper and settings.block_size_shift:
        raise Failure("Don't specify both -y and -z options, please")
    shift = settings.block_size_shift
    if settings.hyper:
        shift = HYPER_SHIFT
    elif not shift:
        info = session.cluster_info()
        if not info.ctime:
            raise Failure("Failed to create VDI %s: %s"
                          % (name, describe(Result.WAIT_FOR_FORMAT)))
        shift = info.block_size_shift
    limit = layout.DATA_INDEX << shift
    if size > MAX_HYPER_SIZE:
        raise UsageError("VDI size is too large")
    if size > limit and not settings.hyper:
        raise UsageError(
            "VDI size is larger than %s bytes, please use '-y' to create a hyper volume with "
            "size up to %s bytes or use '-z' to create larger object size volume"
            % (context.size(limit), context.size(MAX_HYPER_SIZE)))
    with _creating(name):
        made = session.ask(
            "create_vdi", name, size, policy=settings.copies,
            block_size_shift=settings.block_size_shift or None, hyper=settings.hyper)
    _warn_of_few_zones(session, name, settings.copies)
    if settings.prealloc:
        vdi_data.preallocate(session, name)
    _tell(context, "VDI ID of newly created VDI: %x", made.vdi_id)


def _warn_of_few_zones(session, name, policy):
    if policy is None:
        defaults = session.ask("defaults")
        policy = from_wire(defaults.copies, defaults.copy_policy)
    if policy.is_erasure and session.zones() < policy.width:
        output.complain(
            "%s needs %d zones, there are %d: until there are more, the objects of %s are kept "
            "as up to %d whole copies" % (
                policy, policy.width, session.zones(), name, policy.parity + 1))


@contextmanager
def _creating(name):
    try:
        yield
    except SheepError as error:
        words = str(error) if error.result is None else describe(error.result)
        raise Failure("Failed to create VDI %s: %s" % (name, words)) from None


def snapshot(context: Context) -> None:
    settings, session = context.settings, context.session
    name = context.take("")
    tag = settings.snapshot.tag
    if settings.snapshot.id:
        raise UsageError("Please specify a non-integer value for a snapshot tag name")
    inode = _current(session, name)
    if inode.store_policy != FLAT:
        raise Failure("creating a snapshot of hypervolume is not supported")
    if settings.reduce_identical and not usage(session, inode)[0]:
        if context.verbose:
            output.complain("VDI %s doesn't have its own objects, skipping creation of snapshot"
                            % name)
        return
    if tag:
        try:
            session.ask("snapshot", name, tag)
        except TagExists:
            raise Failure("Failed to create snapshot for %s, maybe snapshot id (0) or tag (%s) "
                          "is existed" % (name, tag)) from None
    else:
        session.derive(inode, inode.vdi_id, snapshot=True)
    if context.verbose:
        vid = session.find(name)
        print(("%x %x" if context.raw else "new VID of original VDI: %x, VDI ID of newly "
               "created snapshot: %x") % (vid, inode.vdi_id))


def _current(session, name):
    """The inode of the working VDI of which a snapshot is to be made."""
    try:
        return session.inode(session.find(name))
    except SheepError as error:
        raise Failure("Failed to create snapshot for %s: %s" % (name, reason(error))) from None


def clone(context: Context) -> None:
    settings, session = context.settings, context.session
    source = context.take("")
    target = context.take("Destination VDI name must be specified")
    if not settings.snapshot:
        raise UsageError("Only snapshot VDIs can be cloned", "Please specify the '-s' option")
    inode = session.open(source, settings.snapshot)
    with _creating(target):
        if settings.no_share:
            made = session.ask(
                "create_vdi", target, inode.vdi_size,
                policy=from_wire(inode.nr_copies, inode.copy_policy),
                block_size_shift=inode.block_size_shift)
        else:
            made = session.ask("clone", source, settings.snapshot.key, target)
    if settings.no_share:
        with vdi_data.open_vdi(session, source, settings.snapshot) as old:
            vdi_data.copy(session, old, target)
    if settings.prealloc:
        vdi_data.preallocate(session, target)
    _tell(context, "VDI ID of newly created clone: %x", made.vdi_id)


def delete(context: Context) -> None:
    name, wanted = context.take(""), context.settings.snapshot
    try:
        context.session.ask("delete_vdi", name, wanted.key)
    except SheepError as error:
        raise Failure(
            "Failed to open VDI %s (snapshot id: %d snapshot tag: %s): %s"
            % (name, wanted.id, wanted.tag, reason(error)),
            code=Exit.MISSING if error.result == Result.NO_VDI else Exit.FAILURE) from None


def rollback(context: Context) -> None:
    settings, session = context.settings, context.session
    name = context.take("")
    if not settings.snapshot:
        raise UsageError("Please specify the '-s' option")
    session.open(name, settings.snapshot)
    if not settings.force:
        context.confirm("This operation discards any changes made since the previous",
                        "snapshot was taken.  Continue?")
    with _creating(name):
        made = session.ask("rollback", name, settings.snapshot.key)
    _tell(context, "New VDI ID of rollbacked VDI: %x", made.vdi_id)


def resize(context: Context) -> None:
    session = context.session
    name = context.take("")
    size = parse_size(context.take("Please specify the new size for the VDI"))
    inode = session.open(name)
    limit = layout.DATA_INDEX << inode.block_size_shift
    if inode.store_policy != FLAT:
        limit = MAX_HYPER_SIZE
    if size > limit:
        raise UsageError("New VDI size is too large. This volume's max size is %d" % limit)
    if size < inode.vdi_size:
        raise UsageError("Shrinking VDIs is not implemented")
    session.ask("resize", name, size)


def check_vdi(context: Context) -> Exit:
    name = context.take("")
    inode = context.session.open(name, context.settings.snapshot)
    if context.settings.exist:
        return check.check_existence(context.session, inode)
    return check.check_vdi(context.session, inode)


def _tell(context, form, vid):
    """Say an id where the administrator wants to hear it."""
    if context.verbose:
        print("%x" % vid if context.raw else form % vid)


OPTIONS = (
    flag("P", "prealloc", "make all data objects at once", "prealloc"),
    flag("n", "no-share", "copy the data instead of sharing it", "no_share"),
    Option("i", "index", True, "number of a data object", VdiSettings.set_index),
    Option("s", "snapshot", True, "id or tag of a snapshot", VdiSettings.set_snapshot),
    flag("x", "exclusive", "only if there is none yet", "exclusive"),
    flag("d", "delete", "delete the key", "delete"),
    flag("w", "writeback", "for the cache of older sheep; without effect", "writeback"),
    Option("c", "copies", True, "copies of each object, or data:parity strips", set_copies),
    Option("F", "from", True, "snapshot that the receiver of the backup has",
           VdiSettings.set_from),
    flag("f", "force", "do not ask", "force"),
    flag("y", "hyper", "a hyper volume", "hyper"),
    Option("o", "oid", True, "id of an object, hexadecimal", VdiSettings.set_oid),
    flag("e", "exist", "only see whether objects are there", "exist"),
    Option("z", "block_size_shift", True, "size of data objects as a power of two",
           set_block_size_shift),
    flag("R", "reduce-identical-snapshots", "no snapshot where nothing changed since the last",
         "reduce_identical"),
    Option("B", "nr-batched-reclamation", True, "without effect: sheep choose their own pace",
           lambda _, text: positive_number("The number of batched reclamation", text)),
    Option("I", "reclamation-interval", True, "likewise",
           lambda _, text: positive_number("The interval of batched reclamation", text)),
)

GROUP = Group("vdi", (
    Command("check", "check and repair the copies of an image", check_vdi, "seaphT",
            "<vdiname>", True),
    Command("create", "create an image", create, "PycaphrvzT", "<vdiname> <size>", True),
    Command("snapshot", "make a snapshot", snapshot, "saphrvTR", "<vdiname>", True),
    Command("clone", "make an image from a snapshot", clone, "sPnaphrvT",
            "<src vdi> <dst vdi>", True),
    Command("delete", "delete an image or a snapshot", delete, "saphTBI", "<vdiname>", True),
    Command("rollback", "go back to a snapshot", rollback, "saphfrvTBI", "<vdiname>", True),
    Command("list", "list images", printing(vdi_list.list_lines), "aprhoT", "[vdiname]"),
    Command("tree", "show which image came from which", vdi_list.tree, "aphT"),
    Command("graph", "the same for Graphviz", vdi_list.graph, "aphT"),
    Command("object", "show objects of an image", None, "isaphT", "<vdiname>", subcommands=(
        Command("location", "show which nodes have an object", vdi_object.show_location,
                needs_argument=True),
        Command("map", "show whose objects an image consists of", vdi_object.show_map,
                needs_argument=True),
        Command("dump-inode", "show what an inode object in a file holds",
                vdi_object.dump_inode, needs_argument=True))),
    Command("track", "show where an object was at each epoch", vdi_object.track, "isaphoT",
            "<vdiname>", True),
    Command("setattr", "set an attribute of an image", vdi_attr.set_attribute, "dxaphT",
            "<vdiname> <key> [value]", True),
    Command("getattr", "show an attribute of an image", vdi_attr.get_attribute, "aphT",
            "<vdiname> <key>", True),
    Command("limit", "show or change how fast iSCSI may use an image", vdi_limit.limit, "aphT",
            "<vdiname> [<limit>=<number> ...]", True),
    Command("resize", "make an image bigger", resize, "aphT", "<vdiname> <new size>", True),
    Command("read", "write data of an image to standard output", vdi_data.read, "saphT",
            "<vdiname> [<offset> [<len>]]", True),
    Command("write", "write standard input to an image", vdi_data.write, "apwhT",
            "<vdiname> [<offset> [<len>]]", True),
    Command("backup", "write the difference of two snapshots to standard output",
            backup.backup, "sFaphT", "<vdiname>", True),
    Command("restore", "make a snapshot from a backup on standard input", backup.restore,
            "saphTBI", "<vdiname>", True),
    Command("alter-copy", "copy an image, to change its redundancy level",
            alter_copy.alter_copy, "caphTf", "<vdiname>", True),
    Command("lock", "locks on images", None, "saphT", subcommands=(
        Command("list", "list images that are locked", vdi_lock.list_locks),
        Command("unlock", "take a lock away from its holder", vdi_lock.unlock,
                arguments="<vdiname>", needs_argument=True))),
), OPTIONS, VdiSettings)
