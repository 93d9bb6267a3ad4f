"""What an operator may say to a sheep: the command line and the configuration file."""

import argparse
import ipaddress
import os
import socket
import sys
from typing import NamedTuple, Optional, Tuple

from sheepstack.placement.succession import AUTO_VNODES
from sheepstack.placement.weight import MAX_VNODES
from sheepstack.wire import auth
from sheepstack.wire.errors import LocalProtocolError
from sheepstack.wire.opcodes import LISTEN_PORT

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
LOG_DESTINATIONS = ("file", "stdout", "syslog")
UNIX = "unix"
STRIP_AFTER = 5


class OptionError(Exception):
    """An option is wrong; the message is one line for the operator."""


class Options(NamedTuple):
    """All that is known when the daemon starts.

    ``allow`` are addresses, networks and the word ``unix`` of those who are let in without
    the cluster's secret; ``throttle`` is (objects at once, seconds between them).
    """

    store_dir: str
    bind: str
    host: str
    port: int
    cluster: str
    zone: int
    vnodes: int
    foreground: bool
    durable: bool
    io_host: str
    io_port: int
    log_level: str
    log_dst: str
    log_dir: str
    pidfile: Optional[str]
    throttle: Tuple[int, float]
    strip_after: float
    runtime: str
    auth_key: Optional[bytes]
    allow: Tuple[str, ...]
    direct: bool = True
    host_id: str = ""
    sock: str = ""
    space: int = 0


#: Options of Sheepdog's sheep that mean nothing here, and why they may be left out; those
#: without a reason would not do what whoever gives them wants.
_SHEEPDOGS = {
    "-D/--directio": "the store decides by itself what goes past the page cache",
    "-j/--journal": "the store always has a journal, in STORE_DIR",
    "-w/--wq-threads": "threads are made as they are needed",
    "-x/--max-dynamic-threads": "threads are made as they are needed",
    "-W/--wildcard-recovery": "recovery always looks at all that may be there",
    "-u/--upgrade": "",
}
_WITHOUT_VALUE = ("-D/--directio", "-W/--wildcard-recovery", "-u/--upgrade")


class _Ignored(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        reason = next(why for option, why in _SHEEPDOGS.items()
                      if self.option_strings[0] in option.split("/"))
        print("sheep: %s is ignored: %s" % (option_string, reason), file=sys.stderr)


class _Refused(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        parser.error("%s: stores of Sheepdog are not read: copy the images, for instance with "
                     "'dog cluster snapshot'" % option_string)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(1, "sheep: %s (see sheep --help)\n" % message)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sheep", description="The storage daemon of sheepstack.",
        epilog="STORE_DIR holds this node's objects; it is made where it does not exist.")
    add = parser.add_argument
    add("store_dir", metavar="STORE_DIR", nargs="?")
    add("-b", "--bindaddr", metavar="ADDR", help="listen on ADDR (default: 127.0.0.1)")
    add("-c", "--cluster", metavar="DRIVER",
        help="local[:DIR] or zookeeper:HOST:PORT[,HOST:PORT...][/CLUSTER-ID] (default: local)")
    add("-f", "--foreground", action="store_true", default=None,
        help="stay in the foreground and log to the terminal")
    add("-g", "--gateway", action="store_true", default=None,
        help="store nothing, only pass requests on")
    add("-i", "--ioaddr", metavar="host=ADDR[,port=PORT]",
        help="an address of its own for the traffic between sheep")
    add("-l", "--log", metavar="level=LEVEL,dst=DST,dir=DIR",
        help="levels: %s; destinations: %s" % (", ".join(LOG_LEVELS),
                                              ", ".join(LOG_DESTINATIONS)))
    add("-n", "--nosync", action="store_true", default=None,
        help="do not wait for the disk: a power failure may lose acknowledged writes")
    add("-p", "--port", metavar="PORT", help="listen on PORT (default: %d)" % LISTEN_PORT)
    add("-P", "--pidfile", metavar="FILE", help="write the process id to FILE")
    add("-y", "--myaddr", metavar="ADDR", help="the address by which others reach this sheep")
    add("-z", "--zone", metavar="ZONE",
        help="failure domain, a number (default: made from the address)")
    add("-V", "--vnodes", metavar="N", help="v-nodes (default: 128, weighted by space)")
    add("-R", "--recovery", metavar="max=N,interval=MS",
        help="recover at most N objects every MS milliseconds")
    add("--strip-after", metavar="SECONDS",
        help="cut objects of erasure-coded VDIs into strips when nobody has written to them for "
             "so long (default: %d)" % STRIP_AFTER)
    add("--runtime", metavar="RUNTIME", help="threading (default) or eventlet")
    add("--auth-key-file", metavar="FILE",
        help="the cluster's secret: all who connect must prove to know it")
    add("--allow-legacy", metavar="ADDRS",
        help="comma-separated addresses, networks or the word 'unix', let in without it")
    add("--no-direct", action="store_true", default=None,
        help="do not let clients on this host read objects by themselves")
    add("--config-file", metavar="FILE", help="read options from FILE, section [sheep]")
    for option, what in _SHEEPDOGS.items():
        add(*option.split("/"), metavar="...", action=_Ignored if what else _Refused,
            nargs=0 if option in _WITHOUT_VALUE else None, help=argparse.SUPPRESS)
    add("-v", "--version", action="store_true", help="print the version and exit")
    return parser


_FILE_OPTIONS = ("bindaddr", "cluster", "gateway", "ioaddr", "log", "nosync", "port", "pidfile",
                 "myaddr", "zone", "vnodes", "recovery", "strip_after", "runtime", "auth_key_file",
                 "allow_legacy", "store_dir", "foreground", "no_direct")
_FLAGS = ("gateway", "nosync", "foreground", "no_direct")


def parse(arguments) -> Options:
    """Raises :class:`OptionError`; exits on --help, --version and unknown options."""
    given = build_parser().parse_args(arguments)
    if given.version:
        from importlib.metadata import version
        print("sheep (sheepstack) %s" % version("sheepstack"))
        sys.exit(0)
    if given.config_file:
        _read_file(given)
    return _checked(given)


def _read_file(given):
    """Fill in from the file what the command line left open."""
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    conf.register_opts(
        [(cfg.BoolOpt if name in _FLAGS else cfg.StrOpt)(name) for name in _FILE_OPTIONS],
        group="sheep")
    try:
        conf([], project="sheep", default_config_files=[given.config_file])
        for name in _FILE_OPTIONS:
            if getattr(given, name) is None:
                setattr(given, name, getattr(conf.sheep, name))
    except (cfg.Error, ValueError) as error:
        raise OptionError("cannot use '%s': %s" % (given.config_file, error)) from None


def _checked(given) -> Options:
    if not given.store_dir:
        raise OptionError("which directory is the store? say: sheep [options] STORE_DIR")
    if "," in given.store_dir:
        raise OptionError("a sheep has one directory, not several: '%s'; start one sheep for "
                          "each disk, all with the same -z" % given.store_dir)
    bind = given.bindaddr or "127.0.0.1"
    address = _address("-b", bind)
    if address.is_unspecified and not given.myaddr:
        raise OptionError("listening on all addresses needs -y: by which one do others reach us?")
    host = str(_address("-y", given.myaddr)) if given.myaddr else str(address)
    port = _number("-p", given.port or LISTEN_PORT, 1, 65535)
    io_host, io_port = _io_address(given.ioaddr)
    log = _pairs("-l", given.log, ("level", "dst", "dir", "format"))
    recovery = _pairs("-R", given.recovery, ("max", "interval"))
    options = Options(
        store_dir=os.path.abspath(given.store_dir), bind=str(address), host=host, port=port,
        cluster=given.cluster or "local",
        zone=_zone(given.zone, host), vnodes=_vnodes(given),
        foreground=bool(given.foreground), durable=not given.nosync,
        io_host=io_host, io_port=io_port or (port if io_host else 0),
        log_level=_choice("-l level", log.get("level", "info"), LOG_LEVELS),
        log_dst=_choice("-l dst", log.get("dst", "stdout" if given.foreground else "file"),
                        LOG_DESTINATIONS),
        log_dir=os.path.abspath(log.get("dir") or given.store_dir),
        pidfile=os.path.abspath(given.pidfile) if given.pidfile else None,
        throttle=(_number("-R max", recovery.get("max", 0), 0, 1024),
                  _number("-R interval", recovery.get("interval", 0), 0, 3600000) / 1000),
        strip_after=_seconds("--strip-after", given.strip_after or STRIP_AFTER),
        runtime=_choice("--runtime", given.runtime or "threading", ("threading", "eventlet")),
        auth_key=_key(given.auth_key_file), allow=_allowed(given.allow_legacy),
        direct=not given.no_direct,
        host_id=_host_id())
    if not address.is_loopback and options.auth_key is None and not options.allow:
        raise OptionError("listening on %s lets in anybody: give --auth-key-file, or name with "
                          "--allow-legacy who may come without a secret" % bind)
    return options


def _address(option, text):
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.getaddrinfo(text, None)[0][4][0])
    except (OSError, ValueError):
        raise OptionError("%s: '%s' is no address" % (option, text)) from None


def _number(option, text, least, most):
    try:
        value = int(text)
    except ValueError:
        raise OptionError("%s: '%s' is no number" % (option, text)) from None
    if not least <= value <= most:
        raise OptionError("%s: %d is not between %d and %d" % (option, value, least, most))
    return value


def _seconds(option, text):
    try:
        value = float(text)
    except ValueError:
        raise OptionError("%s: '%s' is no number" % (option, text)) from None
    if not 0 < value <= 1e6:
        raise OptionError("%s: %s is not between 0 and a million" % (option, text))
    return value


def _choice(option, text, choices):
    if text not in choices:
        raise OptionError("%s: '%s' is none of %s" % (option, text, ", ".join(choices)))
    return text


def _pairs(option, text, names):
    pairs = {}
    for piece in filter(None, (text or "").split(",")):
        name, equals, value = piece.partition("=")
        if not equals or name not in names:
            raise OptionError("%s: '%s' is not of the form %s" % (
                option, piece, ",".join("%s=..." % known for known in names)))
        pairs[name] = value
    return pairs


def _io_address(text):
    if not text:
        return "", 0
    pairs = _pairs("-i", text, ("host", "port"))
    if "host" not in pairs:
        raise OptionError("-i: an address is needed: host=ADDR[,port=PORT]")
    port = _number("-i port", pairs["port"], 1, 65535) if "port" in pairs else 0
    return str(_address("-i", pairs["host"])), port


def _zone(text, host):
    if text is not None:
        return _number("-z", text, 0, 0xFFFFFFFF)
    packed = ipaddress.ip_address(host).packed
    return int.from_bytes(packed[-4:], "little")


def _vnodes(given):
    if given.gateway:
        return 0
    if given.vnodes is None:
        return AUTO_VNODES
    return _number("-V", given.vnodes, 0, MAX_VNODES)


def _key(path):
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return auth.check_key(file.read(4096))
    except (OSError, LocalProtocolError) as error:
        raise OptionError("--auth-key-file %s: %s" % (
            path, getattr(error, "strerror", None) or error)) from None


def _allowed(text):
    allowed = []
    for piece in filter(None, (text or "").split(",")):
        if piece != UNIX:
            try:
                piece = str(ipaddress.ip_network(piece, strict=False))
            except ValueError:
                raise OptionError("--allow-legacy: '%s' is no address, no network and not '%s'"
                                  % (piece, UNIX)) from None
        allowed.append(piece)
    return tuple(allowed)


def _host_id():
    """Equal for all processes on this host and for no others, as far as one can tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


def admits(options: Options):
    """A function that tells whether a source address is let in without the secret."""
    networks = [ipaddress.ip_network(piece) for piece in options.allow if piece != UNIX]
    open_house = options.auth_key is None

    def admitted(source):
        if source is None:
            return open_house or UNIX in options.allow
        address = ipaddress.ip_address(source.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if open_house and address.is_loopback:
            return True
        return any(address in network for network in networks)

    return admitted
