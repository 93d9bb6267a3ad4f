"""The command ``sheep-nbd``: nbdkit with our plugin."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

from sheepstack.export.nbd.exports import EXCLUSIVE, LOCKS
from sheepstack.export.options import add_cluster_options

_TOP = pathlib.Path(__file__).resolve().parents[3]
_PLUGIN = pathlib.Path(__file__).resolve().with_name("plugin.py")
#: What the client library is written for; it needs nothing beside the standard library, so
#: that any newer Python will do.
_OLDEST = (3, 10)
_PACKAGES = "Debian's packages nbdkit and nbdkit-plugin-python"


def main(argv=None) -> int:
    """Become nbdkit; returns an exit code where that cannot be."""
    words = sys.argv[1:] if argv is None else list(argv)
    ours, theirs = words, []
    if "--" in words:
        ours, theirs = words[:words.index("--")], words[words.index("--") + 1:]
    settings = _parser().parse_args(ours)
    nbdkit = shutil.which("nbdkit")
    if nbdkit is None:
        return _complain("nbdkit is not installed (%s)" % _PACKAGES)
    environment = _environment()
    complaint = _unfit(nbdkit, environment)
    if complaint:
        return _complain(complaint)
    command = [nbdkit, *theirs, "python", str(_PLUGIN), "lock=" + settings.lock,
               "timeout=%g" % settings.timeout]
    command += ["gateway=" + _absolute(each) for each in settings.gateway.split(",")]
    command += ["vdi=" + name for name in settings.vdi]
    if settings.auth_key_file is not None:
        command.append("auth-key-file=" + os.path.abspath(settings.auth_key_file))
    os.execve(nbdkit, command, environment)


def _parser():
    parser = argparse.ArgumentParser(
        prog="sheep-nbd", usage="sheep-nbd [OPTIONS] [VDI...] [-- NBDKIT-OPTIONS]",
        description="Export VDIs over NBD, by their names; snapshots, to be read only, by "
        "VDI@TAG.  All VDIs are exported where none is named.",
        epilog="ADDRESS may be several, separated by commas: the next one takes over when one "
        "fails. What follows -- goes to nbdkit: -f to stay in the foreground, -U PATH for a "
        "Unix socket, -i ADDRESS and -p PORT, -r for reading only, --tls=require and its "
        "siblings, --threads=N, --filter=NAME; see nbdkit(1).")
    add_cluster_options(parser)
    parser.add_argument("vdi", nargs="*", metavar="VDI", help="export this VDI alone")
    parser.add_argument(
        "--lock", choices=LOCKS, default=EXCLUSIVE,
        help="who else may write to a VDI that is open for writing: nobody, or others who say "
        "shared too (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS",
                        help="how long a request may wait for the cluster (default: 60)")
    return parser


def _absolute(gateway):
    """nbdkit leaves the directory that it is started in."""
    kind, colon, path = gateway.partition(":")
    return "unix:" + os.path.abspath(path) if kind == "unix" and path else gateway


def _environment():
    """What nbdkit's Python needs to find this very package, wherever it is installed."""
    environment = dict(os.environ)
    environment.pop("PYTHONHOME", None)
    environment["PYTHONPATH"] = str(_TOP)
    return environment


def _unfit(nbdkit, environment):
    """Why nbdkit cannot load the plugin, or None."""
    done = subprocess.run([nbdkit, "python", "--dump-plugin"], env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r"^python_version=(\d+)\.(\d+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        return "nbdkit has no plugin for Python (%s): %s" % (_PACKAGES, done.stderr.strip())
    version = tuple(map(int, found.groups()))
    if version < _OLDEST:
        return "nbdkit was built for Python %d.%d, sheepstack needs %d.%d or later" % (
            *version, *_OLDEST)
    return None


def _complain(text):
    print("sheep-nbd: %s" % text, file=sys.stderr)
    return 1
