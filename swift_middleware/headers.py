"""Which headers of a request are kept with what it makes, and which are given back.  Pure.

Headers are dictionaries of WSGI strings by title-cased name, as Swift's middlewares see them.
"""

import json

from swift.common.request_helpers import (
    OBJECT_SYSMETA_CONTAINER_UPDATE_OVERRIDE_PREFIX, is_object_transient_sysmeta, is_sys_meta,
    is_sys_or_user_meta, is_user_meta)
from swift.common.swob import bytes_to_wsgi, wsgi_to_bytes
from swift.common.utils import extract_swift_bytes

_CONTAINER = frozenset((
    "x-container-read", "x-container-write", "x-container-sync-key", "x-container-sync-to",
    "x-versions-location"))
_OBJECT = frozenset((
    "content-disposition", "content-encoding", "x-delete-at", "x-object-manifest",
    "x-static-large-object", "cache-control", "content-language", "expires", "x-robots-tag"))
_KEPT_OVER_POST = "x-static-large-object"
_OVERRIDES = ("x-backend-container-update-override-",
              OBJECT_SYSMETA_CONTAINER_UPDATE_OVERRIDE_PREFIX)


def load(text: str) -> dict:
    return json.loads(text)


def dump(headers: dict) -> str:
    return json.dumps(headers, separators=(",", ":"), sort_keys=True)


def _title(name):
    return bytes_to_wsgi(wsgi_to_bytes(name).title())


def merged(kind, old, request) -> dict:
    """The headers of an account or container after a request; an empty value removes one."""
    result = dict(old)
    for name, value in request.items():
        if is_sys_or_user_meta(kind, name) or (kind == "container" and
                                               name.lower() in _CONTAINER):
            if value:
                result[_title(name)] = value
            else:
                result.pop(_title(name), None)
    return result


def of_object(request, footers) -> dict:
    """What a PUT lets an object have."""
    kept = {_title(name): value for name, value in request.items()
            if is_sys_or_user_meta("object", name) or is_object_transient_sysmeta(name)
            or name.lower() in _OBJECT}
    kept.update((_title(name), value) for name, value in footers.items()
                if is_sys_or_user_meta("object", name) or is_object_transient_sysmeta(name))
    return kept


def after_post(old, request) -> dict:
    """What an object has after a POST."""
    kept = {name: value for name, value in old.items()
            if is_sys_meta("object", name) or name.lower() == _KEPT_OVER_POST}
    kept.update(
        (_title(name), value) for name, value in request.items()
        if is_user_meta("object", name) or is_object_transient_sysmeta(name)
        or (name.lower() in _OBJECT and name.lower() != _KEPT_OVER_POST))
    return kept


def sysmeta(headers) -> dict:
    return {name: value for name, value in headers.items() if is_sys_meta("object", name)}


def listed(size, etag, content_type, stored, request=None, footers=None):
    """(size, etag, type) for the listing; middlewares may want others in it.

    ``stored``: the object's headers.  ``request`` and ``footers``: of a PUT.
    """
    entry = {"x-size": str(size), "x-etag": etag, "x-content-type": content_type}
    for prefix in _OVERRIDES:
        for headers in (request or stored, footers or {}):
            for name, value in headers.items():
                if name.lower().startswith(prefix):
                    entry["x-" + name.lower()[len(prefix):]] = value
    return int(entry["x-size"]), entry["x-etag"], entry["x-content-type"]


def with_swift_bytes(content_type, former) -> str:
    """``content_type`` with the ``swift_bytes`` parameter that ``former`` has."""
    _, swift_bytes = extract_swift_bytes(former)
    return "%s;swift_bytes=%s" % (content_type, swift_bytes) if swift_bytes else content_type
