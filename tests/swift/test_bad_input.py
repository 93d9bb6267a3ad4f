"""Nonsense gets an answer, nothing of it is stored, and the others are served on."""

import hashlib
import resource
import socket
import threading
import time

import pytest

from tests.functional.harness import HOST
from tests.swift.service import USUAL_PIPELINE, Account

#: Seconds for which a client may be silent, and for which a slow one is.
_TIMEOUT = 3
_SILENCE = _TIMEOUT / 4

MIB = 1 << 20

#: Slow clients at a time, and how many of them send a byte now and then; and the memory that a
#: worker may take for all of them: it lets 1,024 in at a time (max_clients), and reads 256 KiB
#: of each (client_chunk_size).
_CLIENTS = 2000
_TRICKLING = 200
_GROWTH = 1024 * MIB // 4 + 32 * MIB


@pytest.fixture(scope="module")
def api(tmp_path_factory, sheep, memcached):
    from tests.swift.service import ObjectApi
    api = ObjectApi(tmp_path_factory.mktemp("api"), sheep.addresses, memcached,
                    pipeline=USUAL_PIPELINE, client_timeout=_TIMEOUT)
    yield api.start()
    api.stop()


@pytest.fixture
def account(api):
    return Account(api.url)


def raw(api, request, body=b"", then_close=False):
    """Send bytes as they are; the status of the answer, None where there is none."""
    with socket.create_connection((HOST, api.port), timeout=30) as sock:
        sock.sendall(request)
        try:
            sock.sendall(body)
            if then_close:
                sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(65536)
        except (ConnectionError, TimeoutError):
            return None
    return int(answer.split()[1]) if answer else None


def put_request(account, path, *headers):
    return ("PUT /v1/AUTH_test%s HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\n%s\r\n" % (
        path, account.token, "".join(header + "\r\n" for header in headers))).encode()


def test_names_of_every_byte_value(api, account):
    container = account.new_container()
    for value in range(1, 256):
        quoted = "%s/a%%%02Xb" % (container, value)
        status = raw(api, put_request(account, quoted, "Content-Length: 1"), b"x")
        assert status == (201 if value < 128 else 412), value
    names = account.ask("GET", container + "?format=json").json()
    assert [entry["name"] for entry in names] == ["a%cb" % value for value in range(1, 128)]
    assert raw(api, put_request(account, container + "/a%00b", "Content-Length: 0")) == 412
    for value in range(256):
        assert raw(api, b"GET /v1/AUTH_test/%c%c HTTP/1.0\r\n\r\n" % (value, value)) is not None
    for name in ("\u00e4", "\u20ac", "\U0001f600" * 200, "a" * 1024):
        account.made("%s/%s" % (container, name), data=b"y")
        assert account.ask("GET", "%s/%s" % (container, name)).content == b"y"
    assert account.ask("PUT", "%s/%s" % (container, "\U0001f600" * 600)).status_code == 400
    assert account.ask("PUT", "%s/%s" % (container, "a" * 1025)).status_code == 400


def test_headers_that_are_too_much(api, account):
    container = account.new_container()
    for headers, status in (
            ({"X-Object-Meta-" + "a" * 200: "b"}, 400), ({"X-Object-Meta-A": "b" * 300}, 400),
            ({"X-Object-Meta-%d" % n: "b" for n in range(100)}, 400),
            ({"X-Object-Meta-%d" % n: "b" * 200 for n in range(40)}, 400),
            ({"X-Delete-At": "soon"}, 400), ({"X-Delete-At": "1"}, 400),
            ({"Content-Length": "-1"}, 400), ({"Content-Type": ""}, 201),
            ({"If-None-Match": "abc"}, 400)):
        assert account.ask("PUT", container + "/o", headers, data=b"").status_code == status, \
            headers
    assert raw(api, put_request(account, container + "/p", "X-Long: " + "a" * 100000)) in (
        400, 431, None)
    assert raw(api, put_request(
        account, container + "/p", *("X-%d: a" % n for n in range(5000)))) in (400, 431, None)
    assert account.ask("HEAD", container + "/p").status_code == 404
    assert account.ask("POST", container, {
        "X-Container-Meta-%d" % n: "b" for n in range(100)}).status_code == 400


def test_bodies_that_are_not_what_was_announced(api, account):
    container = account.new_container()
    path = container + "/o"
    account.made(path, data=b"before")
    right = hashlib.md5(b"x" * 10).hexdigest()
    for etag, status in (("0" * 32, 422), ("nonsense", 422), (right, 201)):
        answer = account.ask("PUT", container + "/e", {"ETag": etag}, data=b"x" * 10)
        assert answer.status_code == status
    for length, sent in ((10, 5), (9 * MIB, 5 * MIB)):
        status = raw(api, put_request(account, path, "Content-Length: %d" % length),
                     b"x" * sent, then_close=True)
        assert status in (499, 408, None)
    assert raw(api, put_request(account, path, "Transfer-Encoding: chunked"),
               b"5\r\nabc", then_close=True) in (499, 408, None)
    assert raw(api, put_request(account, path, "Transfer-Encoding: chunked"),
               b"nonsense\r\nabc", then_close=True) in (400, 499, 408, None)
    assert raw(api, put_request(account, path)) == 411
    assert raw(api, put_request(account, path, "Content-Length: 5368709123")) == 413
    # What is too long is cut off, and is no second request either.
    assert raw(api, put_request(account, container + "/long", "Content-Length: 3"),
               b"abcdefgh") == 201
    assert account.ask("GET", container + "/long").content == b"abc"
    assert account.ask("GET", path).content == b"before"
    assert account.ask("HEAD", container).headers["X-Container-Object-Count"] == "3"


def test_ranges(account):
    container = account.new_container()
    small, large = bytes(range(200)), bytes(range(256)) * 4096 * 5
    for name, data in (("small", small), ("large", large)):
        path = "%s/%s" % (container, name)
        account.made(path, data=data)
        for text, expected in (
                ("0-0", data[:1]), ("5-9", data[5:10]), ("-7", data[-7:]), ("3-", data[3:]),
                ("0-999999999999999999999", data), ("-99999999999", data)):
            answer = account.ask("GET", path, {"Range": "bytes=" + text})
            assert (answer.status_code, answer.content) == (206, expected), text
        for text in ("bytes=%d-" % len(data), "bytes=-0"):
            assert account.ask("GET", path, {"Range": text}).status_code == 416
        for text in ("bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=", "bytes=--5", "\u00fc"):
            answer = account.ask("GET", path, {"Range": text.encode()})
            assert (answer.status_code, answer.content) == (200, data), text
        answer = account.ask("GET", path, {"Range": "bytes=0-1,5-6"})
        assert answer.status_code == 206
        assert answer.headers["Content-Type"].startswith("multipart/byteranges")
        assert data[5:7] in answer.content
        many = "bytes=" + ",".join("%d-%d" % (n, n) for n in range(0, 200, 2))
        assert account.ask("GET", path, {"Range": many}).status_code == 416


def test_listings_that_cannot_be(account):
    container = account.new_container()
    assert account.ask("GET", container + "?limit=100000").status_code == 412
    for query in ("limit=-1", "limit=x", "marker=%00", "delimiter=%F0%9F%98%80", "path=a/../b",
                  "end_marker=%C3%BC", "reverse=perhaps", "format=none"):
        assert account.ask("GET", container + "?" + query).status_code in (200, 204, 400)
    for query in ("marker=%FF", "prefix=%C3", "delimiter=%FF"):
        assert account.ask("GET", container + "?" + query).status_code in (400, 412), query


@pytest.fixture
def many_files():
    """Room for a crowd of connections in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.timeout(400)
def test_a_crowd_of_slow_clients_does_not_keep_others_waiting(
        make_api, sheep, many_files):
    # It sees itself to having as many files as it needs.
    api = make_api(sheep.addresses, pipeline=USUAL_PIPELINE, client_timeout=_TIMEOUT,
                   wrapper=("prlimit", "--nofile=%d:" % (_CLIENTS // 10)))
    account = Account(api.url)
    container = account.new_container()
    account.made(container + "/before", data=b"x")
    before = api.peak()
    crowd, dropped = [], 0
    begun = put_request(account, container + "/slow", "Content-Length: 1000000")
    for _ in range(_CLIENTS):
        sock = socket.create_connection((HOST, api.port), timeout=30)
        crowd.append(sock)
        sock.sendall(begun + b"x" * 1000)
    done = threading.Event()

    def trickle():
        while not done.wait(0.5):
            for sock in crowd[:_TRICKLING]:
                try:
                    sock.sendall(b"x")
                except OSError:
                    pass
    trickler = threading.Thread(target=trickle)
    trickler.start()
    try:
        put = account.ask("PUT", container + "/o", data=b"served", timeout=200)
        assert put.status_code == 201
        assert account.ask("GET", container + "/o", timeout=200).content == b"served"
        # Who says nothing for longer than the time-out is told so, and let go.
        for sock in crowd[_TRICKLING:]:
            sock.settimeout(120)
            try:
                dropped += b" 408 " in sock.recv(1000)[:20]
            except ConnectionError:
                dropped += 1
        assert dropped == _CLIENTS - _TRICKLING
    finally:
        done.set()
        trickler.join(10)
        for sock in crowd:
            sock.close()
    growth = api.peak() - before
    print("%d clients: the worker grew by %d MiB" % (_CLIENTS, growth // MIB))
    assert growth < _GROWTH
    assert account.ask("HEAD", container + "/slow").status_code == 404
    assert account.ask("GET", container + "/o").content == b"served"


def test_who_is_slow_but_never_silent_is_served(api, account):
    """An upload may take longer than the time-out, and so may all that one connection asks for."""
    container = account.new_container()
    pieces, piece = 12, b"x" * (MIB // 4)
    with socket.create_connection((HOST, api.port), timeout=60) as sock:
        sock.sendall(put_request(
            account, container + "/o", "Content-Length: %d" % (pieces * len(piece))))
        for _ in range(pieces):
            time.sleep(_SILENCE)
            sock.sendall(piece)
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        for _ in range(pieces):
            time.sleep(_SILENCE)
            sock.sendall(put_request(account, container + "/p", "Content-Length: 1") + b"x")
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 201 "), answer
    assert account.ask("GET", container + "/o").content == pieces * piece
