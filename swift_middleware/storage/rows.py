"""Rows as they stand in records, which must mean the same to another database.

A record's row is ``{"t": kind, "a": account, "c": container, "row": {column: value...},
"data": ...}``.  ``data`` of an object: None (it is empty), "inline" (behind the row),
``[volume name, offset, extents]`` elsewhere.
"""

_PLACE = ("log_volume", "log_slot")
_DATA = ("data_volume", "data_offset", "extents")
_COUNTS = ("id", "objects", "bytes", "container")
INLINE = "inline"


def of_account(row):
    return {"t": "account", "row": _portable(row)}


def of_container(row):
    return {"t": "container", "row": _portable(row)}


def deleted_container(row, timestamp):
    """The row of a container once it is deleted."""
    kept = {key: row[key] for key in (
        "account", "name", "policy", "created_at", "put_timestamp")}
    return {**kept, "delete_timestamp": timestamp, "status_changed_at": timestamp, "deleted": 1,
            "headers": "{}"}


def of_object(account, container, row, inline, volume_name=None):
    """``volume_name``: of the volume where the bytes are."""
    data = None
    if inline:
        data = INLINE
    elif row["data_volume"] is not None:
        data = [volume_name, row["data_offset"], row["extents"]]
    return {"t": "object", "a": account.decode(), "c": container.decode(),
            "row": _portable(row), "data": data}


def of_tombstone(account, container, name, timestamp):
    return {"t": "tombstone", "a": account.decode(), "c": container.decode(),
            "row": {"name": name.decode(), "timestamp": timestamp}}


def columns(told) -> dict:
    """The columns of a record's row, as the database has them."""
    return {key: value.encode() if key in ("name", "account") else value
            for key, value in told["row"].items()}


def _portable(row):
    return {key: value.decode() if isinstance(value, bytes) else value
            for key, value in row.items() if key not in _PLACE + _DATA + _COUNTS}
