"""The command ``sheep-iscsi``."""

import argparse
import json
import logging
import os
import signal
import sys

from sheepstack.client import SheepError
from sheepstack.export.iscsi.errors import BadTarget, IscsiError
from sheepstack.export.iscsi.exporter import Exporter
from sheepstack.export.iscsi.target import ANYBODY, Chap
from sheepstack.export.iscsi.targets import DIRECTORY, Targets
from sheepstack.export.iscsi.tgtd import Tgtd
from sheepstack.export.options import add_cluster_options, read_auth_key
from sheepstack.wire.errors import WireError

#: Below the directory, where targets of the plan are written down.
_PLAN = "plan"


def main(argv=None) -> int:
    """Run ``argv`` (without the program's name); returns the exit code."""
    settings = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    try:
        tgtd = Tgtd(settings.control_port)
        directory = os.path.join(settings.directory, settings.within)
        targets = Targets(settings.gateway, directory, tgtd=tgtd,
                          auth_key=read_auth_key(settings.auth_key_file),
                          timeout=settings.timeout)
        return settings.run(settings, targets, tgtd) or 0
    except (IscsiError, SheepError, WireError, OSError, ValueError) as error:
        print("sheep-iscsi: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="sheep-iscsi", description="Export VDIs as iSCSI targets through tgtd.")
    add_cluster_options(parser)
    parser.add_argument("-d", "--directory", default=DIRECTORY,
                        help="where targets are written down (default: %(default)s)")
    parser.add_argument("-C", "--control-port", type=int, default=0, metavar="N",
                        help="control port of tgtd (default: 0)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS",
                        help="how long to wait for the sheep and for tgtd (default: 30)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text):
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run, within="")
        return sub

    create = command("create", _create, "make a target, or change who may use it")
    create.add_argument("name", help="the target's name: iqn.YYYY-MM.DOMAIN:WORD")
    create.add_argument("vdi")
    create.add_argument("-s", "--snapshot", type=_snapshot, metavar="TAG",
                        help="export this snapshot (tag or id), to be read only")
    create.add_argument("-i", "--initiator", action="append", default=[], metavar="NAME",
                        help="initiator that may log in (repeatable)")
    create.add_argument("-I", "--address", action="append", default=[], metavar="ADDRESS",
                        help="IP address or network of initiators that may log in, or %s "
                        "(repeatable)" % ANYBODY)
    create.add_argument("--chap-file", metavar="FILE",
                        help="file with the user and the password that initiators must know, "
                        "separated by a space; - is standard input")
    create.add_argument("-r", "--read-only", action="store_true")

    delete = command("delete", _delete, "end an export")
    delete.add_argument("name")
    reopen = command("reopen", _reopen, "let tgtd see that a VDI was made bigger")
    reopen.add_argument("name")
    listing = command("list", _list, "list targets")
    listing.add_argument("--json", action="store_true", help="for programs; without passwords")
    command("restore", _restore, "give a tgtd that was started anew its targets back")
    serve = command("serve", _serve, "export what the cluster's plan says, until a signal ends "
                    "it; for several exporting hosts")
    # What is made by hand the plan knows nothing of, and must not be taken away.
    serve.set_defaults(within=_PLAN)
    serve.add_argument("exporter", help="what this host is called in the plan")
    serve.add_argument("portals", nargs="+", metavar="HOST:PORT",
                       help="where initiators reach this host's tgtd")
    portal = command("portal", _portal, "list or change the addresses on which tgtd listens")
    portal.add_argument("action", choices=("list", "add", "delete"))
    portal.add_argument("address", nargs="?", metavar="HOST:PORT")
    return parser


def _snapshot(text):
    return int(text) if text.isdigit() else text


def _create(settings, targets, _tgtd):
    targets.create(settings.name, settings.vdi, settings.snapshot,
                   chap=_chap(settings.chap_file), initiators=settings.initiator,
                   addresses=settings.address, read_only=settings.read_only)


def _chap(path):
    if path is None:
        return None
    if path == "-":
        text = sys.stdin.read()
    else:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    words = text.split()
    if len(words) != 2:
        raise BadTarget("'%s' holds no user and password separated by a space" % path)
    return Chap(*words)


def _delete(settings, targets, _tgtd):
    targets.delete(settings.name)


def _reopen(settings, targets, _tgtd):
    targets.reopen(settings.name)


def _restore(_settings, targets, _tgtd):
    return 1 if targets.restore() else 0


def _serve(settings, targets, _tgtd):
    logging.getLogger().setLevel(logging.INFO)
    exporter = Exporter(settings.exporter, settings.portals, targets, settings.gateway,
                        read_auth_key(settings.auth_key_file), settings.timeout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exporter.stop())
    exporter.run()


def _list(settings, targets, _tgtd):
    live = targets.live()
    rows = [_describe(target, live.get(target.name)) for target in targets.list()]
    if settings.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("%s\t%s\t%s\t%s" % (
            row["name"], row["vdi"] if row["snapshot"] is None else
            "%s@%s" % (row["vdi"], row["snapshot"]),
            "rw" if not row["read_only"] else "ro",
            ", ".join(row["sessions"]) or "-" if row["live"] else "not in tgtd"))


def _describe(target, live):
    return {
        "name": target.name, "vdi": target.vdi, "snapshot": target.snapshot,
        "read_only": target.read_only, "user": target.chap and target.chap.user,
        "initiators": target.initiators, "addresses": target.addresses,
        "live": live is not None,
        "sessions": [session.initiator for session in live.sessions] if live else [],
    }


def _portal(settings, _targets, tgtd):
    if settings.action == "list":
        print("\n".join(tgtd.portals()))
        return
    if settings.address is None:
        raise BadTarget("say which address: HOST:PORT")
    (tgtd.add_portal if settings.action == "add" else tgtd.remove_portal)(settings.address)
