"""The client library: all that a face of sheepstack ever imports.

::

    with Cluster(["127.0.0.1:7000"]) as cluster:
        cluster.create_vdi("disk", 10 << 30)
        with cluster.open_vdi("disk") as vdi:
            vdi.pwrite(0, b"hello")

It speaks Sheepdog's protocol and so works with this project's sheep and with C ones.  It is
plain blocking code: in a process that eventlet has patched its waiting is green.
"""

from sheepstack.client.cluster import Cluster, ClusterDefaults, Space, VdiInfo
from sheepstack.client.errors import (
    AttributeExists, AuthenticationFailed, Busy, Closed, ClusterUnreachable, ConnectionLost,
    Halted, InputOutputError, InvalidParameters, NoFreeVdiId, NoSpace, NoSuchAttribute,
    NoSuchObject, NoSuchTag, NoSuchVdi, NotFormatted, NotSupported, OutcomeUnknown, ReadOnly,
    SheepError, ShuttingDown, TagExists, VdiExists, VdiLocked, VersionMismatch, WaitingForNodes)
from sheepstack.client.file import VdiFile
from sheepstack.client.future import Future
from sheepstack.client.vdi import Vdi
from sheepstack.redundancy.policy import (
    CopyPolicy, from_wire as copy_policy_from_wire, parse as parse_copy_policy)
from sheepstack.wire.limits import Limits, parse as parse_limits

__all__ = [
    "AttributeExists", "AuthenticationFailed", "Busy", "Closed", "Cluster", "ClusterDefaults",
    "ClusterUnreachable", "ConnectionLost", "CopyPolicy", "Future", "Halted",
    "InputOutputError", "InvalidParameters", "Limits", "NoFreeVdiId", "NoSpace", "NoSuchAttribute",
    "NoSuchObject", "NoSuchTag", "NoSuchVdi", "NotFormatted", "NotSupported", "OutcomeUnknown",
    "ReadOnly", "SheepError", "ShuttingDown", "Space", "TagExists", "Vdi", "VdiExists", "VdiFile",
    "VdiInfo", "VdiLocked", "VersionMismatch", "WaitingForNodes", "copy_policy_from_wire",
    "parse_copy_policy", "parse_limits",
]
