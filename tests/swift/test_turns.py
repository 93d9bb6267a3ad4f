"""No request holds its worker: whatever it takes the processor, others are served meanwhile."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests

from benchmarks.object import names
from tests.swift.service import USUAL_PIPELINE, Account

MIB = 1 << 20
LARGE = 64 * MIB
NAMES = 10000
PACKS = 1000000

#: A body comes and goes in pieces of 1 MiB; who looks in between may see parts of two.
MOST_AT_ONCE = 2 * MIB

_WATCHED = {"X-Watch": "yes"}
_OPTIONS = ("[filter:turns]", "use = call:tests.swift.turns:filter_factory")


@pytest.fixture
def api(make_api, sheep):
    return make_api(
        sheep.addresses, workers=1, options=_OPTIONS,
        pipeline=USUAL_PIPELINE.replace("catch_errors", "catch_errors turns"))


def _turns(api):
    return requests.get(api.url + "/turns", timeout=60).json()


def _least_hold(api, request):
    """What was seen when ``request()`` was done three times, the time when least: the others may
    have met the garbage collector."""
    seen = []
    for _ in range(3):
        request()
        seen.append(_turns(api))
    return min(seen, key=lambda told: told["seconds"])


def _fetch(account, path):
    """GET through a socket with so much room that the worker never waits for it."""
    parts = urlsplit(account.url + path)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGE)
        client.settimeout(60)
        client.connect((parts.hostname, parts.port))
        client.sendall((
            "GET %s HTTP/1.1\r\nHost: %s\r\nX-Watch: yes\r\nConnection: close\r\n"
            "X-Auth-Token: %s\r\n\r\n" % (parts.path, parts.netloc, account.token)).encode())
        received = bytearray()
        while piece := client.recv(4 * MIB):
            received += piece
    return bytes(received).partition(b"\r\n\r\n")[2]


def test_large_bodies_leave_others_their_turn(api, account):
    path = account.new_container() + "/large"
    data = os.urandom(LARGE)
    started = time.thread_time()
    hashlib.md5(data)
    in_one_go = time.thread_time() - started

    told = _least_hold(api, lambda: account.made(path, _WATCHED, data=data))
    assert told["bytes"] <= MOST_AT_ONCE
    assert told["seconds"] < in_one_go / 4

    def fetch():
        assert _fetch(account, path) == data
    told = _least_hold(api, fetch)
    assert told["bytes"] <= MOST_AT_ONCE
    assert told["seconds"] < in_one_go / 4


def test_long_listings_leave_others_their_turn(api, account):
    container = account.new_container()
    names.fill_ours(
        "sqlite:///%s/state/objects.db" % api.directory, account.url.rpartition("/")[2],
        container[1:], ("d%03d/%07d" % (n % 1000, n) for n in range(NAMES)))
    page = account.ask("GET", container + "?limit=%d&format=json" % NAMES).json()
    assert [entry["name"] for entry in page] == sorted(
        "d%03d/%07d" % (n % 1000, n) for n in range(NAMES))
    started = time.thread_time()
    json.loads(json.dumps(page))
    in_one_go = time.thread_time() - started

    told = _least_hold(api, lambda: account.ask(
        "GET", container + "?limit=%d&format=json" % NAMES, _WATCHED))
    assert told["seconds"] < in_one_go


def test_a_long_manifest_leaves_others_their_turn(api, account):
    container = account.new_container()
    etag = account.made(container + "/segment", data=b"x" * 1000).headers["ETag"].strip('"')
    manifest = json.dumps(1000 * [
        {"path": container + "/segment", "etag": etag, "size_bytes": 1000}])
    account.made(container + "/slo?multipart-manifest=put", _WATCHED, data=manifest)
    assert _turns(api)["turns"] >= 100
    answer = account.ask("GET", container + "/slo?multipart-manifest=get", _WATCHED)
    assert len(answer.json()) == 1000


def test_a_sweeper_that_looks_through_many_slots_leaves_others_their_turn(make_api, sheep):
    api = make_api(
        sheep.addresses, workers=1, options=("sweep_interval = 0.1", "grace = 0", *_OPTIONS),
        pipeline=USUAL_PIPELINE.replace("catch_errors", "catch_errors turns"))
    account = Account(api.url)
    path = account.new_container() + "/large"
    with contextlib.closing(sqlite3.connect(api.directory / "state" / "objects.db")) as database:
        database.executemany(
            "INSERT INTO pack VALUES (0, ?, 1, 1, 4000000, 0, 0)",
            ((slot,) for slot in range(PACKS)))
        database.commit()
        started = time.thread_time()
        database.execute("SELECT count(live_bytes) FROM pack WHERE live_bytes < 1000").fetchone()
        in_one_go = time.thread_time() - started
    data = os.urandom(LARGE)
    held = []
    for _ in range(5):
        account.made(path, _WATCHED, data=data)
        held.append(_turns(api)["seconds"])
    assert max(held) < 4 * in_one_go


def test_small_requests_are_served_while_large_bodies_come_in(api, account):
    container = account.new_container()
    account.made(container + "/small", data=b"x")
    data = os.urandom(LARGE)
    answered = []
    over = threading.Event()

    def ask():
        mine = Account(api.url)
        while not over.is_set():
            answer = mine.ask("GET", container + "/small")
            assert (answer.status_code, answer.content) == (200, b"x")
            answered.append(answer)

    def put(number):
        mine = Account(api.url)
        before = len(answered)
        mine.made("%s/%d" % (container, number), data=data)
        return len(answered) - before

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        asking = pool.submit(ask)
        try:
            meanwhile = list(pool.map(put, range(4)))
        finally:
            over.set()
        asking.result()
    assert min(meanwhile) >= 5, meanwhile
