"""Objects."""

from swift.common import constraints
from swift.common.constraints import valid_timestamp
from swift.common.exceptions import ChunkReadError, ChunkReadTimeout
from swift.common.header_key_dict import HeaderKeyDict
from swift.common.request_helpers import (
    is_backend_open_expired, resolve_etag_is_at_header, resolve_ignore_range_header)
from swift.common.swob import (
    HTTPAccepted, HTTPBadRequest, HTTPClientDisconnect, HTTPConflict, HTTPCreated, HTTPException,
    HTTPNoContent, HTTPNotFound, HTTPPreconditionFailed, HTTPRequestEntityTooLarge,
    HTTPRequestTimeout, HTTPUnprocessableEntity, Request, Response, multi_range_iterator,
    normalize_etag, wsgi_to_str)
from swift.common.utils import Timestamp
from swift.proxy.controllers import obj as proxy

from sheepstack.client import NoSuchObject
from swift_middleware import concurrency
from swift_middleware import headers as kept
from swift_middleware.controllers.errors import answers_503, retried
from swift_middleware.controllers.methods import CachedMethods
from swift_middleware.database import ledger, queries
from swift_middleware.database.schema import MAX_OBJECT_NAME

_TRIES = 10

#: Bytes after which the requests of others have their turn.
_TURN = 1 << 20


class ObjectController(CachedMethods, proxy.BaseObjectController):

    @property
    def _path(self):
        return (self.account_name.encode(), self.container_name.encode(),
                self.object_name.encode())

    def _backend_requests(self, req, *args, **kwargs):
        return [req.headers]

    def _find(self):
        return queries.find_object(self.app.store.database, *self._path)

    # -- GET and HEAD

    @answers_503
    @retried(_TRIES, NoSuchObject)
    def _get_or_head_response(self, req, node_iter, partition, policy):
        # What the filters above see of the request stays as it is.
        inner = Request(dict(req.environ))
        row = self._find()
        if not queries.is_object(row) or (
                _is_expired(row, valid_timestamp(req)) and not is_backend_open_expired(req)):
            resp = HTTPNotFound(request=inner, conditional_response=True)
            if row is not None:
                resp.headers["X-Backend-Timestamp"] = row.get("meta_timestamp", row["timestamp"])
            return resp
        stored = kept.load(row["headers"])
        metadata = {**stored, "ETag": row["etag"], "Content-Type": row["content_type"]}
        resolve_ignore_range_header(inner, HeaderKeyDict(metadata))
        resp = Response(
            request=inner, conditional_response=True,
            conditional_etag=resolve_etag_is_at_header(inner, HeaderKeyDict(metadata)))
        resp.headers.update(stored)
        resp.headers["Content-Type"] = row["content_type"]
        resp.headers["ETag"] = row["etag"]
        timestamp = Timestamp(row["meta_timestamp"])
        resp.last_modified = timestamp
        resp.headers.update({
            "X-Timestamp": timestamp.normal, "X-Backend-Timestamp": timestamp.internal,
            "X-Backend-Data-Timestamp": row["timestamp"],
            "X-Backend-Durable-Timestamp": row["timestamp"], "Accept-Ranges": "bytes"})
        if req.method == "GET":
            self._add_body(resp, row)
        resp.content_length = row["size"]
        return resp

    def _add_body(self, resp, row):
        store = self.app.store
        if row["extents"] is None:
            # So little that an error is still an answer, and not the end of the connection.
            resp.body = b"".join(store.read(row, 0, row["size"]))
        else:
            store.find(row)
            resp.app_iter = _Body(store, row)

    # -- PUT

    @answers_503
    def _store_object(self, req, data_source, nodes, partition, outgoing_headers):
        if len(self._path[2]) > MAX_OBJECT_NAME:
            return HTTPBadRequest(
                request=req, content_type="text/plain",
                body="The object's name has more than %d bytes" % MAX_OBJECT_NAME)
        absent = req.if_none_match is not None
        timestamp = valid_timestamp(req)
        if absent:
            found = self._find()
            if queries.is_object(found) and not _is_expired(found, timestamp):
                return HTTPPreconditionFailed(request=req)
        policy = int(req.headers["X-Backend-Storage-Policy-Index"])
        try:
            with self.app.store.upload(policy, req.message_length()) as upload:
                self._receive(req, data_source, upload)
                footers = self._get_footers(req)
                upload.finish()
                wanted = normalize_etag(footers.get("etag", req.headers.get("etag", "")))
                if wanted and wanted != upload.etag:
                    return HTTPUnprocessableEntity(request=req)
                row = self._row(req, footers, upload, timestamp.internal)
                self.app.store.put(*self._path[:2], policy, row, upload, absent)
        except HTTPException as error:
            return error
        except ledger.AlreadyThere:
            return HTTPPreconditionFailed(request=req)
        except ledger.Newer as refusal:
            return HTTPAccepted(request=req, headers={
                "X-Backend-Timestamp": refusal.found["timestamp"]})
        except ledger.NotThere:
            return HTTPNotFound(request=req)
        resp = HTTPCreated(request=req, headers={"ETag": upload.etag})
        resp.last_modified = timestamp
        return resp

    def _receive(self, req, data_source, upload):
        """Raises HTTPException where what comes is not what was announced."""
        length = req.message_length()
        turn = _TURN
        try:
            while True:
                with concurrency.client_timeout(self.app.client_timeout, ChunkReadTimeout):
                    chunk = next(data_source, None)
                if chunk is None:
                    break
                if upload.size + len(chunk) > constraints.MAX_FILE_SIZE:
                    raise HTTPRequestEntityTooLarge(request=req)
                upload.write(chunk)
                if upload.size >= turn:
                    turn = upload.size + _TURN
                    concurrency.pause()
        except ChunkReadTimeout:
            self.logger.increment("object.client_timeouts")
            raise HTTPRequestTimeout(request=req) from None
        except ChunkReadError:
            self.logger.increment("object.client_disconnects")
            raise HTTPClientDisconnect(request=req) from None
        if length is not None and upload.size < length:
            self.logger.increment("object.client_disconnects")
            raise HTTPClientDisconnect(request=req)

    def _row(self, req, footers, upload, timestamp):
        content_type = req.headers["Content-Type"]
        stored = kept.of_object(req.headers, footers)
        size, etag, listed_type = kept.listed(
            upload.size, upload.etag, content_type, stored, req.headers, footers)
        return {
            "name": self._path[2], "timestamp": timestamp, "type_timestamp": timestamp,
            "meta_timestamp": timestamp, "size": upload.size, "etag": upload.etag,
            "content_type": content_type, "listed_size": size, "listed_etag": wsgi_to_str(etag),
            "listed_type": wsgi_to_str(listed_type), "delete_at": _delete_at(stored),
            "headers": kept.dump(stored)}

    # -- POST

    @answers_503
    @retried(_TRIES, ledger.Changed)
    def _post_object(self, req, obj_ring, partition, headers):
        timestamp = valid_timestamp(req)
        old = self._find()
        if not queries.is_object(old) or (
                _is_expired(old, timestamp) and not is_backend_open_expired(req)):
            return HTTPNotFound(request=req)
        content_type = req.headers.get("Content-Type")
        try:
            type_timestamp = Timestamp(req.headers.get(
                "Content-Type-Timestamp", timestamp.internal) if content_type else 0).internal
        except ValueError as error:
            return HTTPBadRequest(request=req, body=str(error), content_type="text/plain")
        is_newer = timestamp.internal > old["meta_timestamp"]
        has_newer_type = bool(content_type) and type_timestamp > old["type_timestamp"]
        if not is_newer and not has_newer_type:
            return HTTPConflict(request=req, headers={
                "X-Backend-Timestamp": old["meta_timestamp"]})
        row = dict(old)
        stored = kept.load(old["headers"])
        if is_newer:
            stored = kept.after_post(stored, req.headers)
            row.update(meta_timestamp=timestamp.internal, delete_at=_delete_at(stored),
                       headers=kept.dump(stored))
        if has_newer_type:
            row.update(
                type_timestamp=type_timestamp, content_type=content_type,
                listed_type=kept.with_swift_bytes(
                    wsgi_to_str(content_type), old["listed_type"]))
        policy = int(req.headers["X-Backend-Storage-Policy-Index"])
        self.app.store.change_object(*self._path[:2], policy, old, row)
        return HTTPAccepted(request=req, headers={
            **kept.sysmeta(stored), "X-Backend-Content-Type": row["content_type"]})

    # -- DELETE

    @answers_503
    def _delete_object(self, req, obj_ring, partition, headers, **kwargs):
        timestamp = valid_timestamp(req)
        delete_at = None
        if "X-If-Delete-At" in req.headers:
            try:
                delete_at = int(Timestamp(req.headers["X-If-Delete-At"]))
            except ValueError:
                return HTTPBadRequest(request=req, body="Bad X-If-Delete-At header value")
        policy = int(req.headers["X-Backend-Storage-Policy-Index"])
        newest = timestamp.internal
        try:
            old = self.app.store.delete_object(
                *self._path[:2], policy, self._path[2], timestamp.internal, delete_at)
        except ledger.Mismatch:
            return HTTPPreconditionFailed(
                request=req, body="X-If-Delete-At and X-Delete-At do not match")
        except ledger.NotThere:
            return HTTPNotFound(request=req)
        except ledger.Newer as refusal:
            old = refusal.found
            newest = old["timestamp"]
            answer = HTTPConflict
        else:
            answer = HTTPNoContent
        is_gone = not queries.is_object(old) or _is_expired(old, timestamp)
        if is_gone and delete_at is None:
            answer = HTTPNotFound
        return answer(request=req, headers={
            "X-Backend-Timestamp": newest,
            "X-Backend-Content-Type": (old or {}).get("content_type", "")})


class _Body:
    """The bytes of a large object, whole or in ranges, as swob asks for them."""

    def __init__(self, store, row):
        self._store = store
        self._row = row

    def __iter__(self):
        return self._store.read(self._row, 0, self._row["size"])

    def app_iter_range(self, start, stop):
        return self._store.read(
            self._row, start or 0, self._row["size"] if stop is None else stop)

    def app_iter_ranges(self, ranges, content_type, boundary, size):
        return multi_range_iterator(ranges, content_type, boundary, size, self.app_iter_range)


def _delete_at(stored):
    return int(stored["X-Delete-At"]) if "X-Delete-At" in stored else None


def _is_expired(row, timestamp):
    return row["delete_at"] is not None and row["delete_at"] <= float(timestamp)
