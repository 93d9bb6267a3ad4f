"""How a VDI gets to the host that wants it.

Each class is one kind of connection.  ``connect`` gives what Cinder hands on to the host, and
the same again when it is asked again; ``disconnect`` takes it back, also what was taken back
before, and all connections where ``connector`` is None.  ``tag``: None, or of a snapshot.

``one_for``: what connectors have in common that get the very same connection to a VDI, which
must stay as long as one of them needs it; None where nobody loses anything by ``disconnect``.
"""

import errno
import hashlib
import os
import secrets

from cinder import exception

from cinder_driver.connector import PROTOCOL
from sheepstack.export.iscsi import Chap, Target
from sheepstack.export.iscsi.target import LUN

_USER_LETTERS = 16


class ClientConnections:
    """Through the client library, by a process that has :mod:`cinder_driver.connector`."""

    protocol = PROTOCOL
    one_for = None

    def __init__(self, backend, timeout):
        self._backend = backend
        self._timeout = timeout

    def connect(self, vdi, tag, connector):
        key = self._backend.auth_key
        return {"vdi": vdi, "snapshot": tag, "addresses": list(self._backend.addresses),
                "auth_password": key and key.hex(), "timeout": self._timeout}

    def disconnect(self, vdi, tag, connector):
        pass

    def resized(self, vdi):
        pass


class IscsiConnections:
    """By tgt: a target for each VDI and initiator, with a secret of its own.

    ``exports``: a :class:`~cinder_driver.exports.Here` or
    :class:`~cinder_driver.exports.Everywhere`.
    """

    protocol = "iscsi"
    one_for = "initiator"

    def __init__(self, exports, prefix):
        self._exports = exports
        self._prefix = prefix

    def _common(self, vdi, tag):
        """What the names of all targets of a VDI begin with."""
        word = vdi if tag is None else "%s.%s" % (vdi, tag)
        return "%s%s." % (self._prefix, word.lower())

    def _name(self, vdi, tag, connector):
        initiator = connector["initiator"].encode()
        return self._common(vdi, tag) + hashlib.sha256(initiator).hexdigest()[:_USER_LETTERS]

    def connect(self, vdi, tag, connector):
        if not connector.get("initiator"):
            raise exception.InvalidConnectorException(missing="initiator")
        name = self._name(vdi, tag, connector)
        old = self._exports.get(name)
        chap = old.chap if old is not None else Chap(
            secrets.token_hex(_USER_LETTERS // 2), secrets.token_hex(8))
        portals = self._exports.create(
            Target(name, vdi, tag, chap=chap, initiators=(connector["initiator"],)))
        found = {
            "target_discovered": False,
            "target_portal": portals[0], "target_iqn": name, "target_lun": LUN,
            "auth_method": "CHAP", "auth_username": chap.user, "auth_password": chap.password,
            "discard": False,
        }
        if len(portals) > 1:
            found.update(target_portals=portals, target_iqns=[name] * len(portals),
                         target_luns=[LUN] * len(portals))
        return found

    def disconnect(self, vdi, tag, connector):
        if connector and connector.get("initiator"):
            self._exports.delete([self._name(vdi, tag, connector)])
        else:
            self._exports.delete(self._of(vdi, tag))

    def resized(self, vdi):
        self._exports.reopen(self._of(vdi, None))

    def _of(self, vdi, tag):
        return [target.name for target in self._exports.list()
                if target.name.startswith(self._common(vdi, tag))
                and (target.vdi, target.snapshot) == (vdi, tag)]


class LocalConnections:
    """As a file of a sheepfs that is mounted on the host that wants it."""

    protocol = "local"
    one_for = "host"

    def __init__(self, mount_point):
        self._mount_point = mount_point

    def connect(self, vdi, tag, connector):
        name = _file_name(vdi, tag)
        self._command("mount", name)
        return {"device_path": os.path.join(self._mount_point, "volume", name)}

    def disconnect(self, vdi, tag, connector):
        try:
            self._command("unmount", _file_name(vdi, tag))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _command(self, word, name):
        path = os.path.join(self._mount_point, "vdi", word)
        try:
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(name)
        except FileNotFoundError as error:
            if word == "unmount" and os.path.exists(path):
                raise
            raise exception.VolumeBackendAPIException(
                data="no sheepfs is mounted at %s" % self._mount_point) from error

    def resized(self, vdi):
        """sheepfs sees it by itself."""


def _file_name(vdi, tag):
    """What sheepfs calls a VDI or a snapshot of it."""
    return vdi if tag is None else "%s@%s" % (vdi, tag)
