"""``dog cluster``: the cluster as a whole."""

import time
from typing import Iterator

from sheepstack.client import SheepError
from sheepstack.dog import cluster_snapshot, epoch_log, output
from sheepstack.dog.block_size import set_block_size_shift
from sheepstack.dog.check import check_vdi
from sheepstack.dog.command import CONFIRM, Command, Context, Group, printing
from sheepstack.dog.common_options import CommonSettings
from sheepstack.dog.copies import DEFAULT_COPIES, set_copies
from sheepstack.dog.exits import Exit, Failure, UsageError
from sheepstack.dog.options import Option, flag
from sheepstack.dog.session import reason
from sheepstack.dog.vdi_table import any_vdi, read_vdis
from sheepstack.redundancy.policy import CopyPolicy
from sheepstack.wire.admin import MAX_NODES, NODE_SIZE
from sheepstack.wire.header import ClusterRequest, ObjRequest
from sheepstack.wire.inode import clock_value
from sheepstack.wire.opcodes import ClusterFlag, Flag, Op
from sheepstack.wire.results import Result, describe

DEFAULT_STORE = "plain"


class ClusterSettings(CommonSettings):

    def __init__(self):
        super().__init__(store=DEFAULT_STORE, copies=None, block_size_shift=0, force=False,
                         avoid_diskfull=False, lock=False, recycle_vid=False, strict=False,
                         fixed_vnodes=False, diff=False, multithread=False)

    def set_store(self, name: str) -> None:
        self.store = name or DEFAULT_STORE


def info_lines(context: Context) -> Iterator[str]:
    """What ``dog cluster info`` prints."""
    session = context.session
    history = epoch_log.read(session)
    first = history.logs[0] if history.logs else None
    running = history.result == Result.SUCCESS and first is not None
    state = describe(history.result)

    def line(title, text):
        return text if context.raw else "%s: %s" % (title, text)

    yield line("Cluster status", "running, auto-recovery %s" % (
        "disabled" if first.disable_recovery else "enabled") if running else state)
    if context.verbose:
        if running:
            yield line("Cluster store", "%s with %s redundancy policy" % (
                first.store, output.redundancy(first.nr_copies, first.copy_policy)))
            yield line("Cluster vnodes strategy",
                       "auto" if first.flags & ClusterFlag.AUTO_VNODES else "fixed")
        else:
            yield line("Cluster store", state)
        by_disk = first is not None and first.flags & ClusterFlag.DISKMODE
        yield line("Cluster vnode mode", "disk" if by_disk else "node")
    else:
        yield ""
    if first is not None:
        yield from context.headings(
            "Cluster created at %s\n" % output.long_date(output.clock_seconds(first.ctime)),
            "Epoch Time           Version [Host:Port:V-Nodes,,,]")
    for position, log in enumerate(history.logs):
        if not context.settings.diff:
            members = ", ".join("%s:%d" % (node.nid, node.nr_vnodes) for node in log.nodes)
        elif position + 1 == len(history.logs):
            members = "formated"
        else:
            members = difference(log, history.logs[position + 1])
        if context.raw:
            yield "%d %d [%s]" % (log.time, log.epoch, members)
        else:
            yield "%s %6d [%s]" % (output.second(log.time), log.epoch, members)


def difference(log, before):
    now = {node.nid.sort_key: node.nid for node in log.nodes}
    then = {node.nid.sort_key: node.nid for node in before.nodes}
    changes = ["+" + str(nid) for key, nid in now.items() if key not in then]
    changes += ["-" + str(nid) for key, nid in then.items() if key not in now]
    return ", ".join(changes)


def format_cluster(context: Context) -> None:
    settings, session = context.settings, context.session
    _check_vnodes_strategy(session, settings.fixed_vnodes)
    copies = settings.copies
    if not settings.force and copies is not None and copies.width > session.zones():
        context.confirm("Number of copies (%d) is larger than number of zones (%d)."
                        % (copies.width, session.zones()), CONFIRM)
    if not settings.force and any_vdi(session):
        context.confirm("Caution! The cluster is not empty.", CONFIRM)

    flags = ClusterFlag(0)
    for wanted, bit in ((settings.strict, ClusterFlag.STRICT),
                        (settings.lock, ClusterFlag.USE_LOCK),
                        (settings.recycle_vid, ClusterFlag.RECYCLE_VID),
                        (settings.avoid_diskfull, ClusterFlag.AVOID_DISKFULL),
                        (not settings.fixed_vnodes, ClusterFlag.AUTO_VNODES)):
        if wanted:
            flags |= bit
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    store = settings.store.encode("utf-8", "surrogateescape") + b"\0"
    print("using backend %s store" % settings.store)
    try:
        session.execute(ClusterRequest(
            Op.MAKE_FS, Flag.WRITE, data_length=len(store),
            copies=copies.nr_copies if copies else 0,
            copy_policy=copies.copy_policy if copies else 0, cluster_flags=flags,
            block_size_shift=settings.block_size_shift,
            ctime=clock_value(seconds, nanoseconds // 1000 * 1000)), store)
    except SheepError as error:
        lines = ["Format failed: %s" % reason(error)]
        if error.result == Result.NO_STORE:
            lines.append("Available stores: %s" % _stores(session))
        raise Failure(*lines, code=Exit.SYSFAIL) from None


def _check_vnodes_strategy(session, fixed):
    for node in session.nodes():
        automatic = session.cluster_info(node.nid).flags & ClusterFlag.AUTO_VNODES
        if node.nr_vnodes and automatic and fixed:
            raise Failure("Option '-V' cannot be used: %s was started with an automatic number "
                          "of v-nodes" % (node.nid,))
        if node.nr_vnodes and not automatic and not fixed:
            raise Failure("Option '-V' is needed: %s was started with a fixed number of v-nodes"
                          % (node.nid,))


def _stores(session):
    reply = session.execute(ObjRequest(Op.GET_STORE_LIST, data_length=512))
    return reply.payload.rstrip(b"\0 ").decode("utf-8", "replace")


def shutdown(context: Context) -> None:
    _plain_request(context, Op.SHUTDOWN)


def force_recovery(context: Context) -> None:
    if not context.settings.force:
        context.confirm(
            "Caution! The cluster goes on without the nodes that it waits for: what only they",
            "hold is lost. First try to start all of its nodes in the ordinary way.",
            CONFIRM)
    try:
        context.session.execute(ObjRequest(
            Op.FORCE_RECOVER, data_length=MAX_NODES * NODE_SIZE))
    except SheepError as error:
        raise Failure("failed to execute request, %s" % reason(error)) from None


def enable_recovery(context: Context) -> None:
    _plain_request(context, Op.ENABLE_RECOVER)
    print("Cluster recovery: enable")


def disable_recovery(context: Context) -> None:
    _plain_request(context, Op.DISABLE_RECOVER)
    print("Cluster recovery: disable")


def reweight(context: Context) -> None:
    _plain_request(context, Op.REWEIGHT)


def _plain_request(context, opcode):
    try:
        context.session.execute(ObjRequest(opcode))
    except SheepError as error:
        raise Failure("Response's result: %s" % reason(error)) from None


def check(context: Context) -> Exit:
    worst = Exit.SUCCESS
    for inode in read_vdis(context.session):
        if inode.is_snapshot:
            print('fix snapshot %s (id: %d, tag: "%s")' % (
                inode.name, inode.snap_id, inode.tag))
        else:
            print("fix vdi %s" % inode.name)
        try:
            worst = max(worst, check_vdi(context.session, inode))
        except Failure as failure:
            output.complain(*failure.lines)
            worst = max(worst, failure.code)
    return worst


def alter_copy(context: Context) -> None:
    settings, session = context.settings, context.session
    copies = settings.copies
    if copies is None:
        copies = CopyPolicy(DEFAULT_COPIES)
        print("The cluster's redundancy level is not specified, use %d as default."
              % DEFAULT_COPIES)
    if copies.is_erasure:
        raise UsageError(
            "Changing redundancy level of erasure coded vdi is not supported yet.")
    count = len(session.nodes())
    if not settings.force and copies.nr_copies > count:
        context.confirm("Number of copies (%d) is larger than number of nodes (%d)."
                        % (copies.nr_copies, count), CONFIRM)
    try:
        before = epoch_log.latest(session)
    except SheepError as error:
        raise Failure("Response's result: %s" % reason(error)) from None
    if before.copy_policy:
        raise Failure("The cluster's copy policy is erasure code, "
                      "changing it is not supported yet.")
    if before.nr_copies == copies.nr_copies:
        raise Failure("The cluster's redundancy level is already set to %d, nothing changed."
                      % copies.nr_copies)
    if not settings.force:
        context.confirm("Caution! All VDIs that are created from now on get the new "
                        "redundancy level.", CONFIRM)
    try:
        session.execute(ClusterRequest(Op.ALTER_CLUSTER_COPY, copies=copies.nr_copies))
    except SheepError as error:
        raise Failure("Response's result: %s" % reason(error),
                      "Changing the cluster's redundancy level failure.") from None
    output.complain("The cluster's redundancy level is set to %d, the old one was %d."
                    % (copies.nr_copies, before.nr_copies))


def load_snapshot(context: Context) -> None:
    cluster_snapshot.load(context, format_cluster)


OPTIONS = (
    Option("b", "store", True, "kind of store on the nodes", ClusterSettings.set_store),
    Option("c", "copies", True, "copies of each object, or data:parity strips", set_copies),
    flag("f", "force", "do not ask", "force"),
    flag("F", "avoid-diskfull", "no recovery where it would fill a disk", "avoid_diskfull"),
    flag("l", "lock", "one user of a VDI at a time", "lock"),
    flag("R", "recyclevid", "use ids of deleted VDIs again", "recycle_vid"),
    flag("t", "strict", "no writes with too few zones for all copies", "strict"),
    Option("z", "block_size_shift", True, "size of data objects as a power of two",
           set_block_size_shift),
    flag("V", "fixedvnodes", "nodes were given their numbers of v-nodes", "fixed_vnodes"),
    flag("m", "multithread", "without effect: saving always uses several threads",
         "multithread"),
    flag("d", "diff", "show only what changed from epoch to epoch", "diff"),
)

GROUP = Group("cluster", (
    Command("info", "show state and history of the cluster", printing(info_lines), "aprhvTd"),
    Command("format", "create the cluster's store; all VDIs are lost", format_cluster,
            "bcltaphzTVRfF"),
    Command("shutdown", "stop all sheep", shutdown, "aphT"),
    Command("snapshot", "save all snapshots of images to a directory, or load them",
            options="afphTm", arguments="<tag|idx> <path> [vdi1] [vdi2] ...", subcommands=(
                Command("save", "save to a directory", cluster_snapshot.save,
                        needs_argument=True),
                Command("list", "list what a directory holds", cluster_snapshot.list_saved,
                        needs_argument=True),
                Command("load", "format the cluster and load into it", load_snapshot,
                        needs_argument=True),
                Command("show", "list the images in a snapshot", cluster_snapshot.show,
                        needs_argument=True))),
    Command("recover", "switch automatic recovery, or do without missing nodes",
            options="afphT", subcommands=(
                Command("force", "go on without the nodes that are missing", force_recovery),
                Command("enable", "recover by itself, and do now what is due",
                        enable_recovery),
                Command("disable", "no recovery when nodes come and go", disable_recovery))),
    Command("reweight", "adapt numbers of v-nodes to the size of disks", reweight, "aphT"),
    Command("check", "check and repair all VDIs", check, "aphT"),
    Command("alter-copy", "change the redundancy level of new VDIs", alter_copy, "aphTcf"),
), OPTIONS, ClusterSettings)
