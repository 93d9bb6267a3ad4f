"""Accounts."""

from swift.common import constraints
from swift.common.request_helpers import (
    constrain_req_limit, get_param, validate_params)
from swift.common.swob import (
    HTTPAccepted, HTTPCreated, HTTPForbidden, HTTPNoContent, HTTPNotFound, HTTPOk)
from swift.common.storage_policy import POLICIES
from swift.common.utils import Timestamp, config_true_value
from swift.proxy.controllers import account as proxy

from swift_middleware import headers as kept
from swift_middleware import listing
from swift_middleware.controllers import page
from swift_middleware.controllers.errors import answers_503, retried
from swift_middleware.controllers.methods import CachedMethods
from swift_middleware.database import ledger, queries

_TRIES = 10


class AccountController(CachedMethods, proxy.AccountController):

    def GETorHEAD_base(self, req, server_type, node_iter, partition, path, *args, **kwargs):
        """What an account server would answer."""
        return self._show(req)

    @answers_503
    def _show(self, req):
        name = self.account_name.encode()
        limit = constrain_req_limit(req, constraints.ACCOUNT_LISTING_LIMIT)
        validate_params(req, ("marker", "end_marker", "prefix", "delimiter"))
        row, totals, entries = self.app.store.database.read(
            self._look, name, None if req.method == "HEAD" else _bounds(req, limit))
        if not ledger.is_live(row):
            gone = {} if row is None else {"X-Account-Status": "Deleted"}
            return HTTPNotFound(request=req, headers=gone)
        answer = {**kept.load(row["headers"]), **_totals(totals),
                  "X-Timestamp": Timestamp(row["created_at"]).normal,
                  "X-PUT-Timestamp": Timestamp(row["put_timestamp"]).normal}
        if req.method == "HEAD":
            resp = HTTPNoContent(request=req, headers=answer)
        else:
            body = page.of_entries(entries, _listed)
            resp = HTTPOk(request=req, headers=answer, body=body)
        resp.content_type = "application/json"
        resp.charset = "utf-8"
        return resp

    @staticmethod
    def _look(connection, name, bounds):
        row = queries.find_account(connection, name)
        if not ledger.is_live(row):
            return row, {}, []
        entries = []
        if bounds is not None:
            entries = listing.names(queries.scan_containers(connection, name), **bounds)
        return row, queries.account_totals(connection, name), entries

    def make_requests(self, req, ring, part, method, path, headers, *args, **kwargs):
        return _change(self, req, self.account_name, method, headers[0])


@answers_503
@retried(_TRIES, ledger.Changed)
def _change(controller, req, account_name, method, headers):
    """What an account server would answer to PUT, POST or DELETE."""
    store = controller.app.store
    name = account_name.encode()
    timestamp = Timestamp(headers["X-Timestamp"]).internal
    old = store.database.read(queries.find_account, name)
    status = {} if old is None or ledger.is_live(old) else {"X-Account-Status": "Deleted"}
    if not ledger.is_live(old):
        if method != "PUT":
            return HTTPNotFound(request=req, headers=status)
        if old is not None:
            return HTTPForbidden(request=req, headers=status, body="Recently deleted")
        old = None
    zero = Timestamp.zero().internal
    row = {"name": name, "created_at": timestamp, "put_timestamp": timestamp,
           "delete_timestamp": zero, "headers": "{}"}
    expected = None
    if old is not None:
        expected = old["log_volume"], old["log_slot"]
        row = {key: old[key] for key in row}
        if method == "DELETE":
            row["delete_timestamp"] = max(timestamp, old["delete_timestamp"])
        else:
            row["put_timestamp"] = max(timestamp, old["put_timestamp"])
    if method == "DELETE":
        row["headers"] = "{}"
    else:
        row["headers"] = kept.dump(kept.merged("account", kept.load(row["headers"]), headers))
        error = too_much(req, "account", row["headers"])
        if error is not None:
            return error
    store.put_account(row, expected)
    if method == "PUT" and old is None:
        return HTTPCreated(request=req)
    return (HTTPAccepted if method == "PUT" else HTTPNoContent)(
        request=req, headers={"X-Account-Status": "Deleted"} if method == "DELETE" else {})


def create(controller, req, name, headers) -> bool:
    """Make an account because something is to be in it."""
    return _change(controller, req, name, "PUT", headers).is_success


def too_much(req, kind, dumped):
    """The error where all metadata together is more than is allowed, or None."""
    prefix = "x-%s-meta-" % kind
    meta = {name: value for name, value in kept.load(dumped).items()
            if name.lower().startswith(prefix)}
    size = sum(len(name) - len(prefix) + len(value) for name, value in meta.items())
    if len(meta) > constraints.MAX_META_COUNT:
        return proxy.HTTPBadRequest(
            request=req, content_type="text/plain",
            body="Too many metadata items; max %d" % constraints.MAX_META_COUNT)
    if size > constraints.MAX_META_OVERALL_SIZE:
        return proxy.HTTPBadRequest(
            request=req, content_type="text/plain",
            body="Total metadata too large; max %d" % constraints.MAX_META_OVERALL_SIZE)
    return None


def _bounds(req, limit):
    return {"limit": limit, "reverse": config_true_value(get_param(req, "reverse")),
            "reserved": req.allow_reserved_names,
            **{name: get_param(req, name, "").encode()
               for name in ("marker", "end_marker", "prefix", "delimiter")}}


def _totals(totals):
    """The headers that say how much there is."""
    sums = [sum(column) for column in zip(*totals.values())] or [0, 0, 0]
    names = ("Container-Count", "Object-Count", "Bytes-Used")
    answer = {"X-Account-" + name: value for name, value in zip(names, sums)}
    for index, values in totals.items():
        policy = POLICIES.get_by_index(index)
        if policy is not None:
            answer.update(("X-Account-Storage-Policy-%s-%s" % (policy.name, name), value)
                          for name, value in zip(names, values))
    return answer


def _listed(entry):
    if isinstance(entry, bytes):
        return {"subdir": entry.decode()}
    listed = {"name": entry["name"].decode(), "count": entry["objects"], "bytes": entry["bytes"],
              "last_modified": Timestamp(entry["put_timestamp"]).isoformat}
    policy = POLICIES.get_by_index(entry["policy"])
    if policy is not None:
        listed["storage_policy"] = policy.name
    return listed
