"""VDIs as iSCSI disks, served by tgt with its ``sheepdog`` backing store.

::

    targets = Targets("unix:/var/lib/sheepstack/sock")
    targets.create("iqn.2026-11.org.example:disk", "disk", chap=Chap("user", "secret"),
                   initiators=["iqn.1993-08.org.debian:01:host"])
    targets.delete("iqn.2026-11.org.example:disk")

All that an OpenStack driver needs to attach a volume is a call here.
"""

from sheepstack.export.iscsi.errors import (
    BadTarget, IscsiError, TargetBusy, TargetConflict, TgtdFailed, TgtdUnreachable)
from sheepstack.export.iscsi.exporter import Exporter
from sheepstack.export.iscsi.plan import Plan, Status, Wanted
from sheepstack.export.iscsi.target import ANYBODY, Chap, Target
from sheepstack.export.iscsi.targets import Targets
from sheepstack.export.iscsi.tgtd import Tgtd

__all__ = [
    "ANYBODY", "BadTarget", "Chap", "Exporter", "IscsiError", "Plan", "Status", "Target",
    "TargetBusy", "TargetConflict", "Targets", "Tgtd", "TgtdFailed", "TgtdUnreachable", "Wanted",
]
