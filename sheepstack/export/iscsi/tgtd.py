"""A running tgtd, commanded through ``tgtadm``.

What tgtd knows is read from the report that ``tgtadm --op show --mode target`` prints.
"""

import os
import re
import subprocess
from typing import NamedTuple

from sheepstack.export.iscsi.errors import TargetBusy, TgtdFailed, TgtdUnreachable

_SOCKET_VARIABLE = "TGT_IPC_SOCKET"
_BUSY = ("this logical unit is still active", "this target is still active")
_LOST = ("tgt daemon", "tgtd closed the socket")
_TIMEOUT = 60


class Session(NamedTuple):
    """An initiator that is logged in."""

    number: int
    initiator: str
    addresses: tuple


class LiveTarget(NamedTuple):
    """A target as tgtd has it.  ``units`` maps LUNs to (type of store, its path)."""

    number: int
    name: str
    units: dict
    accounts: tuple
    acl: tuple
    sessions: tuple


class Tgtd:
    """``control_port``: the ``-C`` that tgtd was started with.  ``control_socket``: its
    environment's ``TGT_IPC_SOCKET``, where that is set.  ``root_helper``: words put in front
    of ``tgtadm``, such as ``("sudo",)``, as tgtd obeys only the user that it runs as.

    Methods raise TgtdUnreachable, and TgtdFailed where tgtd refuses.
    """

    def __init__(self, control_port=0, control_socket=None, root_helper=()):
        self._command = [*root_helper, "tgtadm", "-C", str(control_port), "--lld", "iscsi"]
        self._environment = dict(os.environ)
        # Root's programs are not on everybody's path.
        self._environment["PATH"] = os.pathsep.join(
            (self._environment.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        if control_socket is not None:
            self._environment[_SOCKET_VARIABLE] = control_socket

    def _run(self, op, mode, *words) -> str:
        argv = [*self._command, "--op", op, "--mode", mode, *map(str, words)]
        try:
            done = subprocess.run(
                argv, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="surrogateescape", timeout=_TIMEOUT)
        except FileNotFoundError as error:
            raise TgtdUnreachable("cannot run %s: it is not installed (Debian's package tgt)"
                                  % error.filename) from None
        except subprocess.TimeoutExpired:
            raise TgtdUnreachable("tgtd did not answer within %d s" % _TIMEOUT) from None
        complaint = done.stderr.strip()
        if any(word in complaint for word in _LOST) or done.returncode and not complaint:
            raise TgtdUnreachable("tgtd does not answer; does it run? %s" % complaint)
        if done.returncode:
            reason = complaint.removeprefix("tgtadm: ")
            if reason in _BUSY:
                raise TargetBusy(reason)
            raise TgtdFailed("tgtd refuses '%s' for a %s: %s" % (op, mode, reason), reason)
        return done.stdout

    # -- looking

    def targets(self) -> list:
        """All targets, ours or not, as :class:`LiveTarget`."""
        return parse_targets(self._run("show", "target"))

    def find(self, name) -> LiveTarget | None:
        return next((each for each in self.targets() if each.name == name), None)

    def accounts(self) -> set:
        """Users of all accounts."""
        return {line.strip() for line in self._run("show", "account").splitlines()[1:]}

    def portals(self) -> list:
        """Where tgtd listens, for every target: ``host:port``."""
        return re.findall(r"^Portal: (.*),\d+$", self._run("show", "portal"), re.MULTILINE)

    # -- changing

    def add_target(self, number, name):
        self._run("new", "target", "--tid", number, "--targetname", name)

    def remove_target(self, number):
        """Raises TargetBusy while a command is under way."""
        self._run("delete", "target", "--tid", number, "--force")

    def add_unit(self, number, lun, store):
        self._run("new", "logicalunit", "--tid", number, "--lun", lun, "--bstype", "sheepdog",
                  "--backing-store", store)

    def set_unit(self, number, lun, **parameters):
        """Set parameters of a unit, in the order given."""
        self._run("update", "logicalunit", "--tid", number, "--lun", lun, "--params",
                  ",".join("%s=%s" % item for item in parameters.items()))

    def add_account(self, user, password):
        self._run("new", "account", "--user", user, "--password", password)

    def remove_account(self, user):
        self._run("delete", "account", "--user", user)

    def bind_account(self, number, user):
        self._run("bind", "account", "--tid", number, "--user", user)

    def allow(self, number, who):
        """Let an initiator's name, or an address, log in."""
        self._run("bind", "target", "--tid", number, *_acl(who))

    def forbid(self, number, who):
        self._run("unbind", "target", "--tid", number, *_acl(who))

    def add_portal(self, portal):
        """Listen at ``host:port`` too."""
        self._run("new", "portal", "--param", "portal=" + portal)

    def remove_portal(self, portal):
        self._run("delete", "portal", "--param", "portal=" + portal)


def _acl(who):
    is_name = who.startswith(("iqn.", "eui.", "naa."))
    return ("--initiator-name" if is_name else "--initiator-address", who)


def parse_targets(report: str) -> list:
    """The :class:`LiveTarget` of each target in tgtadm's report.

    The report is a tree by indentation, four spaces a level; lines are ``key: value`` or, in
    the lists of accounts and of the ACL, the bare value.
    """
    found = []
    for line in report.splitlines():
        depth, text = (len(line) - len(line.lstrip())) // 4, line.strip()
        key, _, value = text.partition(": ")
        if depth == 0:
            number = int(key.partition(" ")[2])
            accounts, acl, sessions, units = [], [], [], {}
            found.append((number, value, units, accounts, acl, sessions))
        elif depth == 1:
            section = text
        elif section == "Account information:":
            accounts.append(text)
        elif section == "ACL information:":
            acl.append(text)
        elif key == "I_T nexus":
            sessions.append(Session(int(value), "", ()))
        elif key == "Initiator":
            sessions[-1] = sessions[-1]._replace(initiator=value.partition(" alias: ")[0])
        elif key == "IP Address":
            sessions[-1] = sessions[-1]._replace(addresses=(*sessions[-1].addresses, value))
        elif key == "LUN":
            lun = int(value)
        elif key == "Backing store type":
            kind = value
        elif key == "Backing store path":
            units[lun] = (kind, value)
    return [LiveTarget(number, name, units, tuple(accounts), tuple(acl), tuple(sessions))
            for number, name, units, accounts, acl, sessions in found]
