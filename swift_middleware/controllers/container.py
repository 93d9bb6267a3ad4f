"""Containers."""

import json

from swift.common.constraints import valid_timestamp
from swift.common.http import HTTP_NOT_FOUND
from swift.common.request_helpers import get_param, is_sys_meta, validate_container_params
from swift.common.storage_policy import POLICIES
from swift.common.swob import (
    HTTPAccepted, HTTPBadRequest, HTTPConflict, HTTPCreated, HTTPNoContent, HTTPNotFound, Response)
from swift.common.utils import (
    Timestamp, config_true_value, decode_timestamps, override_bytes_from_content_type)
from swift.proxy.controllers import container as proxy
from swift.proxy.controllers.base import clear_info_cache

from swift_middleware import headers as kept
from swift_middleware import listing
from swift_middleware.controllers import account, page
from swift_middleware.controllers.errors import answers_503, retried
from swift_middleware.controllers.methods import CachedMethods
from swift_middleware.database import ledger, queries
from swift_middleware.database.schema import MAX_NAME

_TRIES = 10


class ContainerController(CachedMethods, proxy.ContainerController):

    def autocreate_account(self, req, account_name):
        headers = {name: value for name, value in req.headers.items()
                   if is_sys_meta("account", name)}
        headers["X-Timestamp"] = Timestamp.now().internal
        made = account.create(self, req, account_name, headers)
        clear_info_cache(req.environ, account_name)
        return made

    def _GET_auto(self, req):
        return self._show(req)

    def GETorHEAD_base(self, req, server_type, node_iter, partition, path, *args, **kwargs):
        return self._show(req)

    @answers_503
    def _show(self, req):
        """What a container server would answer."""
        params = validate_container_params(req)
        bounds = None if req.method == "HEAD" else _bounds(req, params)
        row, entries = self.app.store.database.read(
            self._look, self.account_name.encode(), self.container_name.encode(), bounds)
        if row is None or row["deleted"]:
            return HTTPNotFound(request=req, headers=_backend_headers(row))
        answer = {**kept.load(row["headers"]), **_backend_headers(row), **_headers(row)}
        if bounds is None:
            resp = HTTPNoContent(request=req, headers=answer, charset="utf-8")
            resp.content_type = "application/json"
        else:
            answer["X-Backend-Record-Type"] = "object"
            body = page.of_entries(entries, _listed)
            resp = Response(request=req, headers=answer, body=body, charset="utf-8",
                            content_type="application/json")
        resp.last_modified = Timestamp(row["put_timestamp"])
        return resp

    @staticmethod
    def _look(connection, account_name, name, bounds):
        row = queries.find_container(connection, account_name, name)
        if bounds is None or row is None or row["deleted"]:
            return row, []
        return row, listing.names(queries.scan_objects(connection, row["id"]), **bounds)

    def make_requests(self, req, ring, part, method, path, headers, *args, body=b"", **kwargs):
        if method == "UPDATE":
            return self._update(req, headers[0], body)
        answer = _change(self, req, method, headers[0])
        if answer.status_int == HTTP_NOT_FOUND and method == "PUT" and \
                self.app.account_autocreate:
            # A cache told of an account that is not there any more.
            if self.autocreate_account(req, self.account_name):
                answer = _change(self, req, method, headers[0])
        return answer

    @answers_503
    def _update(self, req, headers, body):
        """Put rows into a container that is a queue for one of Swift's daemons."""
        store = self.app.store
        try:
            items = json.loads(body)
        except ValueError as error:
            return HTTPBadRequest(request=req, body=str(error), content_type="text/plain")
        account_name, name = self.account_name.encode(), self.container_name.encode()
        policy = int(headers["X-Backend-Storage-Policy-Index"])
        queue = store.database.read(queries.find_container, account_name, name)
        if queue is None or queue["deleted"]:
            if not self.account_name.startswith(self.app.auto_create_account_prefix):
                return HTTPNotFound(request=req)
            account.create(self, req, self.account_name, headers)
            answer = _change(self, req, "PUT", headers)
            if not answer.is_success:
                return answer
        for item in items:
            self._merge(account_name, name, policy, item)
        return HTTPAccepted(request=req)

    def _merge(self, account_name, name, policy, item):
        store = self.app.store
        timestamp = decode_timestamps(item["created_at"])[0].internal
        try:
            if item["deleted"]:
                store.delete_object(account_name, name, policy, item["name"].encode(), timestamp)
                return
            with store.upload(policy, 0) as upload:
                upload.finish()
                store.put(account_name, name, policy, {
                    "name": item["name"].encode(), "timestamp": timestamp,
                    "type_timestamp": timestamp, "meta_timestamp": timestamp, "size": 0,
                    "etag": upload.etag, "content_type": item["content_type"],
                    "listed_size": item["size"], "listed_etag": item["etag"],
                    "listed_type": item["content_type"], "delete_at": None,
                    "headers": "{}"}, upload)
        except ledger.Newer:
            pass


@answers_503
@retried(_TRIES, ledger.Changed)
def _change(controller, req, method, headers):
    """What a container server would answer to PUT, POST or DELETE."""
    store = controller.app.store
    account_name = controller.account_name.encode()
    name = controller.container_name.encode()
    if max(len(account_name), len(name)) > MAX_NAME:
        return HTTPBadRequest(request=req, body="The name has more than %d bytes" % MAX_NAME)
    timestamp = valid_timestamp(req).internal
    old = store.database.read(queries.find_container, account_name, name)
    is_there = old is not None and not old["deleted"]
    if method != "PUT" and not is_there:
        return HTTPNotFound(request=req)
    requested = headers.get("X-Backend-Storage-Policy-Index")
    if is_there and requested is not None and method == "PUT" and \
            int(requested) != old["policy"]:
        return HTTPConflict(request=req, headers={
            "X-Backend-Storage-Policy-Index": old["policy"]})
    policy = int(requested if requested is not None else headers.get(
        "X-Backend-Storage-Policy-Default", int(POLICIES.default)))
    row = _next(old, is_there, account_name, name, policy, method, timestamp)
    if row is None:
        return HTTPConflict(request=req)
    if method == "POST" and config_true_value(
            headers.get("X-Backend-No-Timestamp-Update", False)):
        row["put_timestamp"] = old["put_timestamp"]
    if method != "DELETE":
        row["headers"] = kept.dump(kept.merged("container", kept.load(row["headers"]), headers))
        error = account.too_much(req, "container", row["headers"])
        if error is not None:
            return error
    expected = (old["log_volume"], old["log_slot"]) if old is not None else None
    try:
        store.put_container(row, expected)
    except ledger.NotEmpty:
        return HTTPConflict(request=req)
    except ledger.NotThere:
        return HTTPNotFound(request=req)
    if method == "PUT":
        return (HTTPAccepted if is_there else HTTPCreated)(
            request=req, headers={"X-Backend-Storage-Policy-Index": row["policy"]})
    return HTTPNoContent(request=req)


def _next(old, is_there, account_name, name, policy, method, timestamp):
    """The row after the request, but for its headers; None where what is there is newer."""
    zero = Timestamp.zero().internal
    if old is None:
        return {"account": account_name, "name": name, "policy": policy,
                "created_at": timestamp, "put_timestamp": timestamp, "delete_timestamp": zero,
                "status_changed_at": timestamp, "deleted": 0, "headers": "{}"}
    row = {key: old[key] for key in (
        "account", "name", "policy", "created_at", "put_timestamp", "delete_timestamp",
        "status_changed_at", "deleted", "headers")}
    if method == "DELETE":
        if timestamp <= old["put_timestamp"]:
            return None
        row.update(delete_timestamp=max(timestamp, old["delete_timestamp"]), deleted=1,
                   status_changed_at=timestamp, headers="{}")
        return row
    if not is_there:
        if timestamp <= old["delete_timestamp"]:
            return None
        row.update(policy=policy, created_at=timestamp, deleted=0, headers="{}",
                   status_changed_at=timestamp)
    row["put_timestamp"] = max(timestamp, old["put_timestamp"])
    return row


def _bounds(req, params):
    path = params.get("path")
    return {"limit": params["limit"], "reserved": req.allow_reserved_names,
            "reverse": config_true_value(get_param(req, "reverse")),
            "path": None if path is None else path.encode(),
            **{name: (params.get(name) or "").encode()
               for name in ("marker", "end_marker", "prefix", "delimiter")}}


def _backend_headers(row):
    """What only middlewares see, of containers that are deleted too."""
    zero = Timestamp.zero().internal
    row = row or {"created_at": zero, "put_timestamp": zero, "delete_timestamp": zero,
                  "status_changed_at": zero, "policy": 0}
    return {"X-Backend-Timestamp": row["created_at"],
            "X-Backend-PUT-Timestamp": row["put_timestamp"],
            "X-Backend-DELETE-Timestamp": row["delete_timestamp"],
            "X-Backend-Status-Changed-At": row["status_changed_at"],
            "X-Backend-Storage-Policy-Index": row["policy"]}


def _headers(row):
    policy = POLICIES.get_by_index(row["policy"])
    return {"X-Container-Object-Count": row["objects"], "X-Container-Bytes-Used": row["bytes"],
            "X-Timestamp": Timestamp(row["created_at"]).normal,
            "X-PUT-Timestamp": Timestamp(row["put_timestamp"]).normal,
            "X-Backend-Sharding-State": "unsharded",
            **({"X-Storage-Policy": policy.name} if policy is not None else {})}


def _listed(entry):
    if isinstance(entry, bytes):
        return {"subdir": entry.decode()}
    listed = {"name": entry["name"].decode(), "bytes": entry["listed_size"],
              "hash": entry["listed_etag"], "content_type": entry["listed_type"],
              "last_modified": listing.isoformat(
                  max(entry["timestamp"], entry["meta_timestamp"]))}
    if ";" in entry["listed_type"]:
        override_bytes_from_content_type(listed)
    return listed
