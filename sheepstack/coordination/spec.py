"""The words by which an operator names a coordination service, as values."""

import os
import re
from typing import NamedTuple, Tuple, Union

from sheepstack.coordination.errors import BadSpec

LOCAL_TIMEOUT = 5.0
ZOOKEEPER_TIMEOUT = 10.0
ZOOKEEPER_PORT = 2181
DEFAULT_CLUSTER_ID = "default"

MIN_TIMEOUT = 0.1
MAX_TIMEOUT = 3600.0

_FORMS = "local[:DIR] or zookeeper:HOST[:PORT][,HOST[:PORT]...][/CLUSTER-ID]"
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_CLUSTER_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_TIMEOUT_OPTION = re.compile(r"^(?P<rest>.*?),timeout=(?P<ms>[^,/]*)$")


class LocalSpec(NamedTuple):
    """``timeout`` in seconds."""

    directory: str
    timeout: float


class ZooKeeperSpec(NamedTuple):
    """``hosts`` as ``host:port``, IPv6 addresses in brackets; ``timeout`` in seconds."""

    hosts: Tuple[str, ...]
    cluster_id: str
    timeout: float


def parse(spec: str, timeout: "float | None" = None) -> Union[LocalSpec, ZooKeeperSpec]:
    """Raises :class:`BadSpec`.  A timeout in ``spec`` wins over the argument, in seconds."""
    driver, _, rest = spec.partition(":")
    if driver == "local":
        rest, timeout = _take_timeout(spec, rest, timeout)
        return LocalSpec(os.path.abspath(rest) if rest else default_directory(),
                         _checked(spec, LOCAL_TIMEOUT if timeout is None else timeout))
    if driver != "zookeeper":
        raise BadSpec("unknown cluster driver in '%s': use %s" % (spec, _FORMS))
    hosts, slash, cluster_id = rest.partition("/")
    hosts, timeout = _take_timeout(spec, hosts, timeout)
    cluster_id, timeout = _take_timeout(spec, cluster_id, timeout)
    if slash and not _CLUSTER_ID.fullmatch(cluster_id):
        raise BadSpec("bad cluster id '%s' in '%s': up to 64 letters, digits, '.', '_' and '-'"
                      % (cluster_id, spec))
    return ZooKeeperSpec(tuple(_host_port(spec, host) for host in hosts.split(",")),
                         cluster_id or DEFAULT_CLUSTER_ID,
                         _checked(spec, ZOOKEEPER_TIMEOUT if timeout is None else timeout))


def default_directory() -> str:
    """Where the local driver keeps its files unless told otherwise."""
    return os.environ.get("SHEEPSTACK_LOCAL_DIR") or "/tmp/sheepstack-%d/local" % os.getuid()


def _take_timeout(spec, text, timeout):
    found = _TIMEOUT_OPTION.match(text)
    if not found:
        return text, timeout
    if not found["ms"].isdecimal():
        raise BadSpec("bad timeout '%s' in '%s': a number of milliseconds" % (found["ms"], spec))
    return found["rest"], int(found["ms"]) / 1000


def _checked(spec, timeout):
    # Written so that NaN fails too.
    if not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
        raise BadSpec("bad session timeout of %g s for '%s': from %g s to %g s"
                      % (timeout, spec, MIN_TIMEOUT, MAX_TIMEOUT))
    return float(timeout)


def _host_port(spec, text):
    found = _HOST_PORT.fullmatch(text)
    port = int(found["port"] or ZOOKEEPER_PORT) if found else 0
    if not 0 < port < 65536:
        raise BadSpec("bad address '%s' in '%s': use %s" % (text, spec, _FORMS))
    return "%s:%d" % (found["host"], port)
