"""The largest object that there may be goes in and out in little memory, and leaves no space
behind.

``make conformance`` moves 5 GiB, ``make swift`` three times of what a worker may buffer.
"""

import hashlib
import http.client
import os
import random
from urllib.parse import urlsplit

import pytest

from swift_middleware.storage.volumes import SLOT_SIZE
from tests.swift.service import USUAL_PIPELINE, Account

ALL = bool(os.environ.get("CONFORMANCE"))
MIB = 1 << 20
SIZE = (5 << 30) if ALL else 768 * MIB

#: What a worker may buffer of objects by its options, and what its memory may grow by.
BUFFERS = 64 * MIB
GROWTH = BUFFERS + 96 * MIB

OPTIONS = ("buffer_memory = %d" % BUFFERS, "grace = 0", "sweep_interval = 86400")


def _body(md5):
    """The object, a MiB at a time: no two of them are the same."""
    rand = random.Random(5)
    noise = rand.randbytes(2 * MIB)
    for _ in range(SIZE // MIB):
        start = rand.randrange(MIB)
        piece = noise[start:start + MIB]
        md5.update(piece)
        yield piece


@pytest.mark.timeout(1500 if ALL else 300)
def test_the_largest_object(make_api, sheep):
    api = make_api(sheep.addresses, options=OPTIONS, workers=1, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    path = account.new_container() + "/large"
    account.made(path + "-first", data=b"x" * 8 * MIB)
    assert len(account.ask("GET", path + "-first").content) == 8 * MIB
    workers = api.workers
    before = api.peak()

    sent = hashlib.md5()
    with account.session.put(
            account.url + path, data=_Sized(_body(sent)), timeout=600,
            headers={"X-Auth-Token": account.token}) as answer:
        assert answer.status_code == 201, answer.text
        assert answer.headers["ETag"] == sent.hexdigest()

    address = urlsplit(account.url)
    client = http.client.HTTPConnection(address.netloc, timeout=600)
    client.request("GET", address.path + path, headers={"X-Auth-Token": account.token})
    answer = client.getresponse()
    assert (answer.status, answer.length) == (200, SIZE)
    received = hashlib.md5()
    while piece := answer.read(MIB):
        received.update(piece)
    client.close()
    assert received.hexdigest() == sent.hexdigest()

    assert api.workers == workers
    growth = api.peak() - before
    print("%d MiB in and out: the worker grew by %d MiB" % (SIZE // MIB, growth // MIB))
    assert growth < GROWTH

    assert account.ask("DELETE", path).status_code == 204
    said = api.run("sweep").stdout
    assert int(said.split()[2]) >= SIZE // SLOT_SIZE, said


class _Sized:
    """Bytes of a generator as requests wants them, to be sent with a Content-Length."""

    def __init__(self, pieces):
        self._pieces = pieces

    def __iter__(self):
        return self._pieces

    def __len__(self):
        return SIZE
