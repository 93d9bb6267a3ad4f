"""What Swift's own tests do not see.

Some of it only shows below the gatekeeper, which takes such headers away from clients: these
tests call a pipeline without one.
"""

import hashlib
import json
import secrets
import sys
import time

import pytest
import sqlalchemy
from swift.common.swob import Request
from swift.common.utils import Timestamp

from swift_middleware import listing
from swift_middleware.database import queries, schema
from swift_middleware.database.engine import Database
from tests.swift.service import USUAL_PIPELINE, Account, ObjectApi

_BARE = "catch_errors cache listing_formats copy slo dlo versioned_writes symlink proxy-server"


class App:
    """The pipeline in this process."""

    def __init__(self, config):
        from swift.common.wsgi import loadapp
        # Caches are shared with other tests.
        self.account = "AUTH_" + secrets.token_hex(4)
        self.app = loadapp(str(config), global_conf={"log_name": "test"},
                           allow_modify_pipeline=False)

    def ask(self, method, path, headers=None, body=b"", env=None):
        req = Request.blank(
            "/v1/%s%s" % (self.account, path), headers=headers or {}, body=body,
            environ={"REQUEST_METHOD": method, **(env or {})})
        resp = req.get_response(self.app)
        resp.request_environ = req.environ
        return resp

    @property
    def store(self):
        return self.app._pipeline_final_app.store


@pytest.fixture(params=["sqlite", "mariadb"])
def app(tmp_path, sheep, memcached, request):
    options = []
    if request.param != "sqlite":
        url = request.getfixturevalue(request.param).database("t" + secrets.token_hex(4))
        options.append("connection = " + url)
    api = ObjectApi(tmp_path / "app", sheep.addresses, memcached, pipeline=_BARE,
                    options=options)
    app = App(api.config)
    assert app.ask("PUT", "/c").status_int == 201
    yield app
    app.store.close()


def ts(offset, extra=0):
    return Timestamp(1700000000 + offset, offset=extra).internal


def test_the_newest_timestamp_wins_whatever_comes_last(app):
    assert app.ask("PUT", "/c/o", {"X-Timestamp": ts(10)}, b"new").status_int == 201
    assert app.ask("PUT", "/c/o", {"X-Timestamp": ts(5)}, b"old").status_int == 202
    assert app.ask("PUT", "/c/o", {"X-Timestamp": ts(10)}, b"same").status_int == 202
    assert app.ask("GET", "/c/o").body == b"new"
    assert app.ask("POST", "/c/o", {"X-Timestamp": ts(9)}).status_int == 409
    assert app.ask("DELETE", "/c/o", {"X-Timestamp": ts(9)}).status_int == 409
    assert app.ask("PUT", "/c/o", {"X-Timestamp": ts(10, 1)}, b"offset").status_int == 201
    assert app.ask("GET", "/c/o").body == b"offset"
    assert app.ask("DELETE", "/c/o", {"X-Timestamp": ts(20)}).status_int == 204
    assert app.ask("PUT", "/c/o", {"X-Timestamp": ts(15)}, b"late").status_int == 202
    assert app.ask("GET", "/c/o").status_int == 404
    assert app.ask("PUT", "/c/o", {"X-Timestamp": ts(25)}, b"again").status_int == 201
    assert app.ask("HEAD", "/c").headers["X-Container-Object-Count"] == "1"


def test_backend_timestamps_are_told(app):
    app.ask("PUT", "/c/o", {"X-Timestamp": ts(1), "Content-Type": "a/b"}, b"x")
    resp = app.ask("GET", "/c/o")
    assert resp.headers["X-Backend-Timestamp"] == ts(1)
    app.ask("POST", "/c/o", {"X-Timestamp": ts(2)})
    resp = app.ask("HEAD", "/c/o")
    assert resp.headers["X-Backend-Timestamp"] == ts(2)
    assert resp.headers["X-Backend-Data-Timestamp"] == ts(1)
    resp = app.ask("DELETE", "/c/o", {"X-Timestamp": ts(3)})
    assert resp.headers["X-Backend-Timestamp"] == ts(3)
    assert resp.headers["X-Backend-Content-Type"] == "a/b"
    resp = app.ask("GET", "/c/o")
    assert (resp.status_int, resp.headers["X-Backend-Timestamp"]) == (404, ts(3))
    assert app.ask("DELETE", "/c/o", {"X-Timestamp": ts(4)}).status_int == 404


def test_a_range_is_ignored_where_a_middleware_says_so(app):
    app.ask("PUT", "/c/o", {"X-Object-Sysmeta-Whole": "yes"}, b"0123456789")
    asked = {"Range": "bytes=2-3"}
    assert app.ask("GET", "/c/o", asked).body == b"23"
    resp = app.ask("GET", "/c/o", {
        **asked, "X-Backend-Ignore-Range-If-Metadata-Present": "X-Object-Sysmeta-Whole"})
    assert (resp.status_int, resp.body) == (200, b"0123456789")
    assert resp.request_environ["HTTP_RANGE"] == "bytes=2-3"


def test_a_guessed_type_is_left_in_the_environment(app):
    resp = app.ask("PUT", "/c/a.png", body=b"x")
    assert resp.request_environ["CONTENT_TYPE"] == "image/png"
    assert app.ask("HEAD", "/c/a.png").headers["Content-Type"] == "image/png"


def test_sysmeta_is_in_the_answer_to_a_post(app):
    app.ask("PUT", "/c/o", {"X-Object-Sysmeta-A": "b", "X-Object-Meta-Old": "1"}, b"x")
    resp = app.ask("POST", "/c/o", {"X-Object-Meta-New": "2"})
    assert resp.headers["X-Object-Sysmeta-A"] == "b"
    resp = app.ask("HEAD", "/c/o")
    assert "X-Object-Meta-Old" not in resp.headers
    assert resp.headers["X-Object-Meta-New"] == "2"


def test_an_object_that_expires_is_deleted_only_at_that_time(app):
    due = int(time.time()) + 1000
    app.ask("PUT", "/c/o", {"X-Delete-At": str(due)}, b"x")
    assert app.ask("DELETE", "/c/o", {"X-If-Delete-At": str(due - 1)}).status_int == 412
    assert app.ask("DELETE", "/c/none", {"X-If-Delete-At": str(due)}).status_int == 404
    assert app.ask("DELETE", "/c/o", {"X-If-Delete-At": str(due)}).status_int == 204
    assert app.ask("GET", "/c/o").status_int == 404


def test_the_expirer_deletes_what_is_over(app):
    from swift_middleware.background.expirer import expire
    app.ask("PUT", "/c/short", {"X-Delete-After": "1"}, b"x")
    app.ask("PUT", "/c/long", {"X-Delete-After": "1000"}, b"x")
    deadline = time.monotonic() + 30
    while app.ask("GET", "/c/short").status_int != 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert app.ask("HEAD", "/c").headers["X-Container-Object-Count"] == "2"
    assert expire(app.store) == 1
    assert app.ask("HEAD", "/c").headers["X-Container-Object-Count"] == "1"
    assert app.ask("GET", "/c/long").status_int == 200


def test_segments_are_deleted_in_the_background(app):
    """What the middleware for large objects leaves to Swift's object expirer."""
    from swift_middleware.background.expirer import expire
    names = ["/c/s%d" % number for number in range(3)]
    for name in names:
        assert app.ask("PUT", name, body=b"x").status_int == 201
    manifest = json.dumps([{"path": name} for name in names]).encode()
    assert app.ask("PUT", "/c/large?multipart-manifest=put", body=manifest).status_int == 201
    assert app.ask("GET", "/c/large").body == b"xxx"
    asked = app.ask("DELETE", "/c/large?multipart-manifest=delete&async=on")
    assert asked.status_int == 204
    assert app.ask("GET", "/c/large").status_int == 404
    assert app.ask("HEAD", "/c").headers["X-Container-Object-Count"] == "3"
    # Somebody makes one of them anew before its turn has come.
    assert app.ask("PUT", names[1], body=b"new").status_int == 201
    assert expire(app.store) == 3
    assert [app.ask("GET", name).status_int for name in names] == [404, 200, 404]
    assert app.ask("GET", names[1]).body == b"new"
    assert expire(app.store) == 0


def test_footers_are_kept_and_checked(app):
    def footers(target):
        target["X-Object-Sysmeta-Late"] = "yes"
        target["X-Object-Sysmeta-Container-Update-Override-Etag"] = "other"
    resp = app.ask("PUT", "/c/o", body=b"x", env={"swift.callback.update_footers": footers})
    assert resp.status_int == 201
    assert app.ask("HEAD", "/c/o").headers["X-Object-Sysmeta-Late"] == "yes"
    assert b'"hash": "other"' in app.ask("GET", "/c?format=json").body

    def wrong(target):
        target["Etag"] = hashlib.md5(b"something else").hexdigest()
    resp = app.ask("PUT", "/c/o2", body=b"x", env={"swift.callback.update_footers": wrong})
    assert resp.status_int == 422
    assert app.ask("GET", "/c/o2").status_int == 404


def test_listings_look_names_up_and_do_not_scan(app):
    """A listing by delimiter asks once for each prefix, however many names it stands for."""
    class Names:
        asked = 0

        def scan(self, low, low_included, high, reverse, limit):
            self.asked += 1
            # A million names, in a hundred directories.
            found = []
            for directory in range(100):
                name = b"d%02d/000000" % directory
                last = b"d%02d/999999" % directory
                if low is not None and last < low:
                    continue
                found += [{"name": max(name, low or b"")}] * limit
                if len(found) >= limit:
                    break
            return found[:limit]

    names = Names()
    entries = listing.names(names.scan, 10000, delimiter=b"/")
    assert entries == [b"d%02d/" % directory for directory in range(100)]
    assert names.asked <= 101


def test_a_page_of_many_names_costs_the_database_no_more_than_one_of_few(tmp_path):
    asked = ({"limit": 50}, {"limit": 50, "marker": b"d50/3"}, {"limit": 50, "reverse": True},
             {"limit": 50, "marker": b"d70/3", "end_marker": b"d50/3", "reverse": True},
             {"limit": 50, "prefix": b"d5", "delimiter": b"/"}, {"limit": 50, "delimiter": b"/"},
             {"limit": 50, "path": b"d50"})

    def steps(count):
        """Instructions of SQLite's virtual machine for each listing, and the listings' lengths."""
        database = Database("sqlite:///%s/%d.db" % (tmp_path, count))
        database.migrate()
        row = {column.name: "" if isinstance(column.type, sqlalchemy.String) else 0
               for column in schema.object.c}
        row.update(container=7, timestamp=ts(0), meta_timestamp=ts(0))
        database.write(lambda connection: connection.execute(schema.object.insert(), [
            {**row, "name": b"d%02d/%07d" % (number % 100, number)} for number in range(count)]))
        found = []

        def listed(connection, bounds):
            taken = []
            sqlite = connection.connection.dbapi_connection
            sqlite.set_progress_handler(lambda: taken.append(1) and None, 1)
            entries = listing.names(queries.scan_objects(connection, 7), **bounds)
            sqlite.set_progress_handler(None, 0)
            return len(taken), len(entries)
        for bounds in asked:
            found.append(database.read(listed, bounds))
        database.close()
        return found

    for bounds, few, many in zip(asked, steps(2000), steps(40000)):
        assert many[1] == (10 if "prefix" in bounds else 50) or "path" in bounds
        assert 0 < many[0] < 3 * few[0], (bounds, few, many)


@pytest.mark.parametrize("timestamp", [
    "0000000000.00000", "0000000001.00001", "1795838527.48004", "1795838527.99999",
    "1795838527.50000_0000000000000001", "9999999999.99999"])
def test_times_in_listings_are_written_as_swift_writes_them(timestamp):
    assert listing.isoformat(timestamp) == Timestamp(timestamp).isoformat


def test_under_native_threads_s3_has_what_it_needs(tmp_path, sheep, memcached):
    """Another WSGI server gives neither RAW_PATH_INFO nor the headers as they came."""
    import threading

    import boto3
    import botocore.config
    import waitress.server

    api = ObjectApi(tmp_path / "threads", sheep.addresses, memcached, pipeline=USUAL_PIPELINE)
    from swift_middleware.wsgi import application
    server = waitress.server.create_server(
        application(str(api.config)), host="127.0.0.1", port=api.port, threads=8)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        s3 = boto3.client(
            "s3", endpoint_url=api.url, aws_access_key_id="test:tester",
            aws_secret_access_key="testing", region_name="us-east-1",
            config=botocore.config.Config(s3={"addressing_style": "path"}))
        s3.create_bucket(Bucket="bucket-t")
        key = "a b/ü+%25?&=*~'()"
        s3.put_object(Bucket="bucket-t", Key=key, Body=b"x" * 100000, Metadata={"Word": "1"})
        found = s3.get_object(Bucket="bucket-t", Key=key)
        assert found["Body"].read() == b"x" * 100000
        assert {key.lower(): value for key, value in found["Metadata"].items()} == {"word": "1"}
        assert [o["Key"] for o in s3.list_objects_v2(Bucket="bucket-t")["Contents"]] == [key]
        assert Account(api.url).ask("GET", "/bucket-t").text == key + "\n"
        # What is for eventlet's threads stays out of the way.
        assert "swift_middleware.green" not in sys.modules
    finally:
        server.close()
        thread.join(10)
