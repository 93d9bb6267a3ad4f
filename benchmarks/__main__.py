"""The command line: ``python -m benchmarks --help``."""

import argparse
import logging
import re
import shutil
import sys

from benchmarks.clients import OwnClient, QemuClient
from benchmarks.cluster import BenchmarkFailed
from benchmarks.peer import peer_of
from benchmarks.runner import GROWTH, PARTS, USUAL, Runner
from benchmarks.settings import FULL, QUICK
from sheepstack.client.errors import SheepError


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures a cluster of three sheep with three "
        "copies on this host and prints medians of several repeats; where nbdkit and tgt are "
        "installed, also that of VDIs exported by them.")
    add = parser.add_argument
    add("--runtime", choices=("threading", "eventlet"), default="threading",
        help="of our sheep (default: threading)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--sync", action="store_true", help="only sheep that write durably")
    mode.add_argument("--nosync", action="store_true",
                      help="only sheep that leave it to the kernel when to write")
    add("--peer", metavar="PEER",
        help="another server of the protocol: every row that it can run is run on both in "
        "turn.  Either the path of a C sheep, of which three are started, durable as ours "
        "are; or HOST:PORT of a cluster that runs: say --sync or --nosync then, as it is "
        "(default: --sync)")
    add("--qemu-img", metavar="PATH",
        help="qemu-img of a QEMU with the sheepdog driver (up to 6.0): data rows with it, too")
    add("--in-order", action="store_true",
        help="requests follow one another without a gap, so that many go to one object")
    add("--rows", metavar="REGEX", help="only those reads and writes whose row's name matches")
    add("--growth", action="store_true",
        help="also with many VDIs, snapshots and objects: takes long")
    add("--only", metavar="PART,...", type=_parts, help="nothing but these parts: data (reads "
        "and writes), disks (fill and read back), snapshots, memory, recovery, exports, and of "
        "growth vdis, chain and objects")
    add("--quick", action="store_true", help="little of everything, to see that all works")
    add("--repeats", type=int, metavar="N", help="how often each row is run")
    add("--growth-objects", type=int, metavar="N", help="objects of the growth rows")
    add("--growth-vdis", type=int, metavar="N", help="VDIs of the growth rows")
    add("--growth-chain", type=int, metavar="N",
        help="snapshots in a chain, and clones of one, of the growth rows")
    add("--directory", metavar="DIR", help="where our sheep keep their stores (default: /tmp)")
    return parser


def _parts(text):
    parts = frozenset(text.split(","))
    if not parts <= PARTS:
        raise argparse.ArgumentTypeError("no such part: %s" % ", ".join(sorted(parts - PARTS)))
    return parts


def main():
    given = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    settings = QUICK if given.quick else FULL
    if given.repeats:
        settings = settings._replace(repeats=given.repeats)
    for name in ("growth_objects", "growth_vdis", "growth_chain"):
        if getattr(given, name):
            settings = settings._replace(**{name: getattr(given, name)})
    clients = [OwnClient()]
    if given.qemu_img:
        if not shutil.which(given.qemu_img):
            sys.exit("benchmarks: there is no program '%s'" % given.qemu_img)
        clients.append(QemuClient(given.qemu_img))
    if given.nosync:
        modes = (False,)
    elif given.sync or given.peer and ":" in given.peer:
        modes = (True,)
    else:
        modes = (True, False)
    try:
        chosen = re.compile(given.rows) if given.rows else None
        peer = peer_of(given.peer) if given.peer else None
        parts = given.only or (frozenset(("data",)) if chosen else USUAL)
        if given.growth:
            parts |= GROWTH
        runner = Runner(
            settings, clients, peer, given.in_order, chosen, given.directory, parts)
        for durable in modes:
            runner.run(given.runtime, durable)
    except (BenchmarkFailed, SheepError, OSError, ValueError, re.error) as error:
        sys.exit("benchmarks: %s" % error)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
