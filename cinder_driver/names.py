"""What Cinder's things are called in sheep.

A volume's VDI has the volume's name, or the name that it had when Cinder took it over, which
is kept as ``provider_location``; the tag of a snapshot likewise.  What this driver makes for
a while only, or for itself, is told by the beginning of its name or tag.
"""

#: Snapshots and VDIs that are needed as long as an operation takes.
TEMPORARY = "temp-"
#: What a volume was until it was reverted, or converted.
FORMER = TEMPORARY + "former"
#: Snapshots up to which a volume is on the replication target.
REPLICA = "replica-"
#: Snapshots that the next incremental backup is compared with.
BACKUP = "backup-"

#: VDIs of those who export volumes.
EXPORT = "iscsi-export"

_OURS = (TEMPORARY, REPLICA, BACKUP, EXPORT)


def vdi_of(volume) -> str:
    """The name of a volume's VDI."""
    return volume.provider_location or volume.name


def tag_of(snapshot) -> str:
    """The tag of a snapshot of a volume's VDI."""
    return snapshot.provider_location or snapshot.name


def is_ours(name: str) -> bool:
    """Whether a VDI or tag is one of those that Cinder knows nothing of."""
    return name.startswith(_OURS)
