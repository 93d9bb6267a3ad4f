"""What lies in the cluster and could be taken over by Cinder."""

from cinder import exception
from cinder.volume import volume_utils
from oslo_utils import units

from cinder_driver import names

SOURCE_NAME = "source-name"


def gib(size: int) -> int:
    """``size`` bytes in GiB, rounded up."""
    return -(-size // units.Gi)


def source_name(reference) -> str:
    """What a reference names; raises ManageExistingInvalidReference."""
    name = (reference or {}).get(SOURCE_NAME)
    if not name or not isinstance(name, str):
        raise exception.ManageExistingInvalidReference(
            existing_ref=reference, reason="it has no %s" % SOURCE_NAME)
    return name


def volumes(cluster, cinder_volumes, *page) -> list:
    """VDIs as get_manageable_volumes lists them; ``page``: its last five arguments."""
    known = {names.vdi_of(volume): volume.id for volume in cinder_volumes}
    found = [_entry(header.name, header, known.get(header.name))
             for header in cluster.list_vdis()
             if not header.is_snapshot and not names.is_ours(header.name)]
    return volume_utils.paginate_entries_list(found, *page)


def snapshots(cluster, cinder_snapshots, *page) -> list:
    """Snapshots as get_manageable_snapshots lists them, those without a tag excepted."""
    known = {(names.vdi_of(snapshot.volume), names.tag_of(snapshot)): snapshot.id
             for snapshot in cinder_snapshots}
    found = [dict(_entry(header.tag, header, known.get((header.name, header.tag))),
                  source_reference={SOURCE_NAME: header.name})
             for header in cluster.list_vdis()
             if header.is_snapshot and header.tag and not names.is_ours(header.tag)]
    return volume_utils.paginate_entries_list(found, *page)


def _entry(name, header, cinder_id):
    return {
        "reference": {SOURCE_NAME: name},
        "size": gib(header.vdi_size),
        "safe_to_manage": cinder_id is None,
        "reason_not_safe": None if cinder_id is None else "already managed",
        "cinder_id": cinder_id,
        "extra_info": None,
    }
