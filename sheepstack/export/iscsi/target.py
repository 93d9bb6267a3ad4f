"""What a target is: a value that is checked when it is made."""

import hashlib
import ipaddress
import re
from typing import NamedTuple

from sheepstack.client.address import GatewayAddress
from sheepstack.client.address import parse as parse_gateway
from sheepstack.export.iscsi.errors import BadTarget

#: As an address in a target's list: any initiator.
ANYBODY = "ALL"

#: The unit that holds the VDI; tgt has a controller of its own at 0.
LUN = 1

# RFC 3720, 3.2.6.3; names are compared byte by byte, and are lower case where they are
# prepared as RFC 3722 says.
_NAME = re.compile(r"(iqn\.\d{4}-\d{2}\.|eui\.|naa\.)[A-Za-z0-9.:-]+")
_NAME_LIMIT = 223
_SECRET = re.compile(r"[!-+\--~]{1,255}")
#: Bytes of a Unix socket's path, and digits of a port, that tgt keeps.
_PATH_LIMIT = 107
_PORT_LIMIT = 9999


class Chap(NamedTuple):
    """What an initiator proves that it knows."""

    user: str
    password: str


class Target(NamedTuple):
    """A VDI under a name of iSCSI's, and who may use it.

    ``initiators``: names, ``addresses``: IP addresses, networks or :data:`ANYBODY`; who is in
    either list may log in, and must know the secret of ``chap`` where there is one.
    ``gateway``: of the sheep to use, None for the usual one.  ``clone``: the VDI that stands
    for a snapshot, as tgt cannot open one.
    """

    name: str
    vdi: str
    snapshot: str | int | None = None
    chap: Chap | None = None
    initiators: tuple = ()
    addresses: tuple = ()
    read_only: bool = False
    gateway: str | None = None
    clone: str | None = None

    @property
    def lun(self) -> int:
        return LUN

    @property
    def backing_vdi(self) -> str:
        return self.clone or self.vdi


def checked(target: Target) -> Target:
    """``target`` with its lists in order; raises BadTarget with a reason."""
    _check_name(target.name)
    for name in target.initiators:
        _check_name(name)
    for address in target.addresses:
        _check_address(address)
    if target.chap is not None:
        for what, text in zip(("user", "password"), target.chap):
            if not _SECRET.fullmatch(text):
                raise BadTarget("a CHAP %s has 1 to 255 printable ASCII characters, and "
                                "neither spaces nor commas" % what)
    if target.snapshot is None:
        _check_backing(target.vdi)
    return target._replace(
        initiators=tuple(sorted(set(target.initiators))),
        addresses=tuple(sorted(set(target.addresses))),
        read_only=target.read_only or target.snapshot is not None)


def backing_store(gateway: str, vdi: str) -> str:
    """How tgt is told to open ``vdi`` through a sheep at ``gateway``; raises BadTarget."""
    _check_backing(vdi)
    try:
        address = parse_gateway(gateway)
    except ValueError as error:
        raise BadTarget(str(error)) from None
    return "%s:%s" % (_source(address), vdi)


def _source(address: GatewayAddress) -> str:
    if address.path:
        if ":" in address.path or "," in address.path:
            raise BadTarget("tgt cannot use a socket with ':' or ',' in its path: '%s'"
                            % address.path)
        if len(address.path.encode()) > _PATH_LIMIT:
            raise BadTarget("tgt cannot use a socket whose path has more than %d bytes: '%s'"
                            % (_PATH_LIMIT, address.path))
        return "unix:" + address.path
    if ":" in address.host:
        raise BadTarget("tgt cannot reach a sheep by its IPv6 address %s: use its Unix socket"
                        % address.host)
    if address.port > _PORT_LIMIT:
        raise BadTarget("tgt cannot reach port %d: it takes four digits; use the sheep's Unix "
                        "socket" % address.port)
    return "tcp:%s:%d" % (address.host, address.port)


def identity(cluster_time: int, target: Target) -> str:
    """32 hexadecimal digits that are the same for all paths to a VDI and for no other VDI.

    ``cluster_time``: the cluster's time of creation, which no other one has.  tgt makes the
    NAA designator of VPD page 0x83 from them, by which initiators join paths.
    """
    words = (str(cluster_time), target.vdi, "" if target.snapshot is None else
             "%s %s" % (type(target.snapshot).__name__, target.snapshot))
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def as_record(target: Target) -> dict:
    """What JSON can hold of a target."""
    return {**target._asdict(), "chap": target.chap and target.chap._asdict()}


def from_record(record: dict) -> Target:
    """Raises BadTarget for what :func:`as_record` did not make."""
    try:
        chap = record["chap"] and Chap(**record["chap"])
        return checked(Target(**{
            **record, "chap": chap, "initiators": tuple(record["initiators"]),
            "addresses": tuple(record["addresses"])}))
    except (KeyError, TypeError) as error:
        raise BadTarget("not the record of a target: %s" % error) from None


def _check_name(name):
    if not _NAME.fullmatch(name) or len(name) > _NAME_LIMIT:
        raise BadTarget(
            "'%s' is no iSCSI name: write iqn.YYYY-MM.DOMAIN:WORD, eui.... or naa.... of at "
            "most %d letters, digits, dots, colons and dashes" % (name, _NAME_LIMIT))


def _check_address(text):
    if text == ANYBODY:
        return
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise BadTarget("no IP address, network or '%s': %s" % (ANYBODY, error)) from None


def _check_backing(vdi):
    if not vdi or not vdi.isprintable() or ":" in vdi or "," in vdi:
        raise BadTarget("tgt cannot open a VDI of the name '%s': it must be printable and hold "
                        "neither ':' nor ','" % vdi)
