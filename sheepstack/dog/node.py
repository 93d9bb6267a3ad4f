"""``dog node``: single sheep."""

import re
import struct
import time
from typing import Iterator

from sheepstack.client import SheepError
from sheepstack.dog import output
from sheepstack.dog.command import CONFIRM, Command, Context, Group, printing
from sheepstack.dog.common_options import CommonSettings
from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.options import flag
from sheepstack.dog.progress import Progress
from sheepstack.dog.session import reason
from sheepstack.dog.vdi_table import read_vdis
from sheepstack.wire import admin
from sheepstack.wire.header import NodeResponse, ObjRequest
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.results import Result

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

_SECONDS_BETWEEN_LOOKS = 1.0
_NUMBER = struct.Struct("<i")
_MAX_U32 = (1 << 32) - 1


class NodeSettings(CommonSettings):

    def __init__(self):
        super().__init__(all=False, progress=False, watch=False, local=False, force=False)


def list_lines(context: Context) -> Iterator[str]:
    """What ``dog node list`` prints."""
    nodes = context.session.nodes()
    yield from context.headings("  Id   Host:Port         V-Nodes       Zone")
    form = "%d %s %d %d" if context.raw else "%4d   %-20s\t%2d%11d"
    for number, node in enumerate(nodes):
        yield form % (number, node.nid, node.nr_vnodes, node.zone)


def info_lines(context: Context) -> Iterator[str]:
    """What ``dog node info`` prints."""
    session = context.session
    nodes = session.nodes()
    yield from context.headings("Id\tSize\tUsed\tAvail\tUse%")
    total = free = answers = 0
    for number, node in enumerate(nodes):
        try:
            reply = session.execute(ObjRequest(Op.STAT_SHEEP), node=node.nid)
        except Failure as failure:
            output.complain(*failure.lines)
            continue
        except SheepError as error:
            output.complain("Response's result: %s" % reason(error))
            continue
        space = NodeResponse.unpack(reply.header)
        yield ("%d %s" if context.raw else "%2d\t%s") % (
            number, _space(context, space.store_size, space.store_free))
        answers += 1
        total += space.store_size
        free += space.store_free
    if not answers:
        raise Failure("Cannot get information from any nodes", code=Exit.SYSFAIL)
    virtual = context.size(sum(
        inode.vdi_size for inode in read_vdis(session) if not inode.is_snapshot))
    yield ("Total %s %s" if context.raw else "Total\t%s\n\nTotal virtual image size\t%s") % (
        _space(context, total, free), virtual)


def _space(context, total, free):
    used = total - free
    form = "%s %s %s %d%%" if context.raw else "%s\t%s\t%s\t%3d%%"
    return form % (context.size(total), context.size(used), context.size(free),
                   output.ratio(used, total))


def kill(context: Context) -> None:
    settings, session = context.settings, context.session
    number = context.take_if_any()
    if number is not None and settings.local:
        raise Failure("don't use -l option and specify node id at the same time",
                      code=Exit.USAGE)
    if settings.local:
        victim = None
    elif number is None:
        raise Failure("please specify -l option or node id", code=Exit.USAGE)
    elif not number.isascii() or not number.isdigit():
        raise Failure("Invalid node id '%s', please specify a numeric value" % number,
                      code=Exit.USAGE)
    elif int(number) >= len(session.nodes()):
        raise Failure("Invalid node id '%s'" % number, code=Exit.USAGE)
    else:
        victim = session.nodes()[int(number)].nid
    try:
        session.execute(ObjRequest(Op.KILL_NODE), node=victim)
    except SheepError as error:
        raise Failure("Response's result: %s" % reason(error),
                      "Failed to execute request") from None


def recovery_info(context: Context) -> None:
    if context.settings.progress:
        return _recovery_progress(context)
    session = context.session
    nodes = session.nodes()
    context.heading("Nodes In Recovery:\n"
                    "  Id   Host:Port         V-Nodes       Zone       Progress")
    for number, node in enumerate(nodes):
        state = _recovery_state(session, node.nid)
        if not state.in_recovery:
            continue
        if context.raw:
            print("%d %s %d %d %d %d" % (number, node.nid, node.nr_vnodes, node.zone,
                                         state.nr_finished, state.nr_total))
        else:
            done = 100 * state.nr_finished / state.nr_total if state.nr_total else 0
            print("%4d   %-20s%5d%11d%11.1f%%" % (
                number, node.nid, node.nr_vnodes, node.zone, done))
    return None


def _recovery_state(session, nid=None):
    try:
        reply = session.execute(ObjRequest(
            Op.STAT_RECOVERY, data_length=admin.RECOVERY_STATE_SIZE), node=nid)
    except SheepError as error:
        raise Failure(reason(error)) from None
    return admin.RecoveryState.unpack(reply.payload)


def _recovery_progress(context):
    session = context.session
    state = _recovery_state(session)
    if not state.in_recovery:
        return
    with Progress(state.nr_total, raw=True) as progress:
        while state.in_recovery:
            if state.phase == admin.RecoveryPhase.RECOVER_OBJ:
                progress.show(state.nr_finished, state.nr_total)
            # Only the sheep knows when something has changed, and it cannot tell us.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            state = _recovery_state(session)


def set_throttle(context: Context) -> None:
    texts = context.arguments
    if len(texts) < 2:
        raise Failure("Both <max> and <interval> are needed, got only '%s'" % texts[0],
                      code=Exit.USAGE)
    most = _throttle_number("max", texts[0], _MAX_U32)
    interval = _throttle_number("interval", texts[1], (1 << 63) - 1)
    if bool(most) != bool(interval):
        raise Failure("Invalid interval max (%d), interval (%d)" % (most, interval),
                      code=Exit.USAGE)
    payload = admin.RecoveryThrottling(most, interval, bool(most)).pack()
    _node_setting(context, ObjRequest(
        Op.SET_RECOVERY, Flag.WRITE, data_length=len(payload)), payload)


def _throttle_number(what, text, limit):
    if not re.fullmatch("[0-9]+", text) or int(text) > limit:
        raise Failure("Invalid %s (%s)" % (what, text), code=Exit.USAGE)
    return int(text)


def get_throttle(context: Context) -> None:
    reply = _node_setting(context, ObjRequest(
        Op.GET_RECOVERY, data_length=admin.THROTTLING_SIZE))
    throttling = admin.RecoveryThrottling.unpack(reply.payload)
    output.complain("max (%d), interval (%d)" % (
        throttling.max_exec_count, throttling.queue_work_interval))


def _node_setting(context, request, payload=b""):
    try:
        return context.session.execute(request, payload)
    except SheepError as error:
        raise Failure("Failed to execute request: %s" % reason(error),
                      code=Exit.NODE_SETTING) from None


def stat(context: Context) -> None:
    if not context.settings.watch:
        _print_stat(context, _stat(context), None)
        return
    before = _stat(context)
    _print_stat(context, before, before)
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        now = _stat(context)
        _print_stat(context, now, before)
        before = now


def _stat(context):
    try:
        reply = context.session.execute(ObjRequest(Op.STAT, data_length=admin.STAT_SIZE))
    except SheepError as error:
        raise Failure("failed to get stat information: %s" % reason(error)) from None
    return admin.SheepStat.unpack(reply.payload)


def _print_stat(context, now, before):
    context.heading("Request\tActive\tTotal\tWrite\tRead\tRemove\tFlush\tAll WR\tAll RD"
                    + ("\tWRBW\tRDBW\tRPS" if before is not None else ""))
    for title, side, flushes in (("Client", "gway", now.gway_total_flush_nr),
                                 ("Peer", "peer", 0)):
        def count(what, state=now, side=side):
            return getattr(state, "%s_%s" % (side, what))

        cells = [count("active_nr"), count("total_nr"), count("total_write_nr"),
                 count("total_read_nr"), count("total_remove_nr"), flushes,
                 context.size(count("total_rx")), context.size(count("total_tx"))]
        if before is not None:
            cells += [context.size(count("total_rx") - count("total_rx", before)),
                      context.size(count("total_tx") - count("total_tx", before)),
                      count("total_nr") - count("total_nr", before)]
        if not context.raw:
            cells.insert(0, title)
        print("\t".join(map(str, cells)), flush=True)


def md_info(context: Context) -> None:
    session = context.session
    nodes = session.nodes()
    context.heading("Id\tSize\tUsed\tAvail\tUse%\tPath")
    if not context.settings.all:
        gateway = context.settings.gateway
        _print_disks(context, None, gateway)
        return
    for number, node in enumerate(nodes):
        context.heading("Node %d:" % number)
        _print_disks(context, node.nid, node.nid)


def _print_disks(context, nid, host):
    try:
        reply = context.session.execute(ObjRequest(
            Op.MD_INFO, data_length=admin.DISKS_SIZE), node=nid)
    except SheepError as error:
        raise Failure("failed to get multi-disk information: %s" % reason(error)) from None
    for number, disk in enumerate(admin.unpack_disks(reply.payload)):
        space = _space(context, disk.free + disk.used, disk.free)
        if context.raw:
            print("%s %d %s %s" % (host, number, space, disk.path))
        else:
            print("%2d\t%s\t%s" % (number, space, disk.path))


def md_plug(context: Context) -> None:
    _plug(context, Op.MD_PLUG, "Caution! All that the directories hold will be deleted.")


def md_unplug(context: Context) -> None:
    _plug(context, Op.MD_UNPLUG, "Caution! What the directories hold will be recovered.")


def _plug(context, opcode, warning):
    disks = context.take("")
    if not context.settings.force:
        context.confirm(warning, CONFIRM)
    payload = disks.encode("utf-8", "surrogateescape") + b"\0"
    try:
        context.session.execute(ObjRequest(opcode, Flag.WRITE, data_length=len(payload)), payload)
    except SheepError as error:
        if error.result == Result.NO_SUPPORT:
            raise Failure("These sheep keep their objects in one directory each") from None
        raise Failure("Failed to execute request, look for sheep.log for more information"
                      ) from None


def log_level_set(context: Context) -> None:
    name = context.take("")
    if name not in LOG_LEVELS:
        raise Failure("invalid loglevel: %s" % name, "available loglevels:", *_level_lines(),
                      code=Exit.NODE_SETTING)
    payload = _NUMBER.pack(LOG_LEVELS.index(name))
    _node_setting(context, ObjRequest(
        Op.SET_LOGLEVEL, Flag.WRITE, data_length=len(payload)), payload)


def log_level_get(context: Context) -> None:
    reply = _node_setting(context, ObjRequest(Op.GET_LOGLEVEL, data_length=_NUMBER.size))
    level, = _NUMBER.unpack(reply.payload[:_NUMBER.size].ljust(_NUMBER.size, b"\0"))
    name = LOG_LEVELS[level] if 0 <= level < len(LOG_LEVELS) else "unknown loglevel"
    output.complain("%s (%d)" % (name, level))


def log_level_list(context: Context) -> None:
    output.complain(*_level_lines())


def _level_lines():
    return ["%s\t(%d)" % (name, level) for level, name in enumerate(LOG_LEVELS)]


def vnodes_set(context: Context) -> None:
    text = context.take("")
    if not re.fullmatch("[0-9]+", text) or not 1 <= int(text) <= 65535:
        raise Failure("Invalid number of vnodes '%s': must be an integer between 1 and 65535"
                      % text, code=Exit.USAGE)
    payload = _NUMBER.pack(int(text))
    _node_setting(context, ObjRequest(
        Op.SET_VNODES, Flag.WRITE, data_length=len(payload)), payload)


OPTIONS = (
    flag("A", "all", "show the disks of all nodes", "all"),
    flag("P", "progress", "show how recovery gets on, until it is done", "progress"),
    flag("w", "watch", "show them every second", "watch"),
    flag("l", "local", "the sheep that is asked, instead of one by its number", "local"),
    flag("f", "force", "do not ask", "force"),
)

GROUP = Group("node", (
    Command("kill", "stop a sheep", kill, "aprhlT", "<node id>"),
    Command("list", "list nodes", printing(list_lines), "aprhT"),
    Command("info", "show the space of each node", printing(info_lines), "aprhT"),
    Command("recovery", "show recovery, or limit its speed", recovery_info, "aphPrT",
            "<max> <interval>", subcommands=(
                Command("info", "show which nodes recover (default)", recovery_info),
                Command("set-throttle", "recover <max> objects every <interval> ms; 0 0 ends it",
                        set_throttle, needs_argument=True),
                Command("get-throttle", "show the limit", get_throttle))),
    Command("md", "disks of a node", options="aprAfhT", arguments="[disks]", subcommands=(
        Command("info", "show disks", md_info),
        Command("plug", "add disks", md_plug, needs_argument=True),
        Command("unplug", "remove disks", md_unplug, needs_argument=True))),
    Command("stat", "show counts of requests", stat, "aprwhT"),
    Command("log", "how much the sheep logs", options="aphT", subcommands=(
        Command("level", "the least severity that is logged", subcommands=(
            Command("set", "change it", log_level_set, arguments="<log level>",
                    needs_argument=True),
            Command("get", "show it", log_level_get),
            Command("list", "show all there are", log_level_list))),)),
    Command("vnodes", "change the number of v-nodes", options="aph",
            arguments="<num of vnodes>", subcommands=(
                Command("set", "set it", vnodes_set, needs_argument=True),)),
), OPTIONS, NodeSettings, missing={
    "format": "stores are made when sheep start",
})
