"""The ``sheepfs`` command."""

import argparse
import logging
import logging.handlers
import os
import sys

from sheepstack.client import Cluster, address
from sheepstack.dog.common_options import DEFAULT_ADDRESS
from sheepstack.export.options import add_auth_key_option, read_auth_key
from sheepstack.export.sheepfs.dog_text import DogText
from sheepstack.export.sheepfs.mounting import CannotMount, serve
from sheepstack.export.sheepfs.settings import PageCache, ReadAhead
from sheepstack.export.sheepfs.tree import plant
from sheepstack.export.sheepfs.volumes import Volumes
from sheepstack.wire.opcodes import LISTEN_PORT

_LOG_FORMAT = "sheepfs[%(process)d]: %(levelname)s: %(message)s"


def main(arguments=None) -> int:
    """Mount, and serve until it is unmounted; returns the exit status."""
    options = _parse(arguments)
    try:
        return _run(options)
    except (CannotMount, OSError, ValueError) as error:
        print("sheepfs: %s" % error, file=sys.stderr)
        return 1


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="sheepfs", description="Show VDIs as files, and the cluster's state as text.")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="an empty directory")
    parser.add_argument(
        "-a", "--address", metavar="ADDRESS", action="append",
        help="sheep to ask: HOST, HOST:PORT, or unix:PATH of its socket; given several times, "
        "the next one is asked when one fails (default: %s)" % DEFAULT_ADDRESS)
    parser.add_argument(
        "-p", "--port", type=_port, default=LISTEN_PORT,
        help="port of a sheep that is given without (default: %d)" % LISTEN_PORT)
    add_auth_key_option(parser)
    parser.add_argument(
        "-k", "--pagecache", action="store_true",
        help="let the kernel keep what it reads of volumes; see also /config/page_cache")
    parser.add_argument("-r", "--read-only", action="store_true",
                        help="lock no VDI, and write none")
    parser.add_argument(
        "-t", "--timeout", type=float, default=30.0, metavar="SECONDS",
        help="when a request that the cluster does not answer fails (default: 30)")
    parser.add_argument("-f", "--foreground", action="store_true",
                        help="stay in the foreground, and log to standard error")
    parser.add_argument("-d", "--debug", action="store_true",
                        help="show every request of the kernel; implies -f")
    return parser.parse_args(arguments)


def _port(text):
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError
    return number


def _run(options):
    mountpoint = os.path.realpath(options.mountpoint)
    if not os.path.isdir(mountpoint):
        raise CannotMount("%s is no directory" % options.mountpoint)
    auth_key = read_auth_key(options.auth_key_file)
    gateways = [str(address.parse(text, options.port))
                for text in options.address or [DEFAULT_ADDRESS]]
    cluster = Cluster(gateways, auth_key=auth_key, timeout=options.timeout)
    page_cache = PageCache(options.pagecache)
    volumes = Volumes(cluster, page_cache, options.read_only)
    root = plant(volumes, DogText(gateways, auth_key, options.timeout), gateways, page_cache,
                 ReadAhead(mountpoint))
    foreground = options.foreground or options.debug
    _start_log(foreground)

    def end():
        volumes.close()
        cluster.close()

    return serve(root, mountpoint, end, foreground, options.debug)


def _start_log(foreground):
    if foreground:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.handlers.SysLogHandler("/dev/log")
        except OSError as error:
            print("sheepfs: no log: cannot reach syslog: %s" % error, file=sys.stderr)
            handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.getLogger().addHandler(handler)
    logging.getLogger("sheepstack").setLevel(logging.INFO)
    logging.raiseExceptions = False
