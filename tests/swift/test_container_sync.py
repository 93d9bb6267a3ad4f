"""A container of Swift's moves over here with Swift's own container-sync daemon."""

import random

import pytest

from tests.functional.harness import free_port
from tests.swift.real_swift import RealSwift
from tests.swift.service import USUAL_PIPELINE, Account, Memcached, ObjectApi

MIB = 1 << 20

_REALMS = """\
[realm]
key = of the realm
cluster_here = %s/v1/
"""


@pytest.fixture
def here(tmp_path, sheep, memcached):
    api = ObjectApi(tmp_path / "here", sheep.addresses, memcached, pipeline=USUAL_PIPELINE)
    (api.directory / "container-sync-realms.conf").write_text(_REALMS % api.url)
    yield api.start()
    api.stop()


@pytest.fixture
def swift(tmp_path, here):
    memcached = Memcached()
    port = free_port()
    conf = ObjectApi(tmp_path / "swift", [], memcached, port=port, pipeline=USUAL_PIPELINE)
    (conf.directory / "container-sync-realms.conf").write_text(_REALMS % here.url)
    swift = RealSwift(conf.config)
    swift.url = conf.url
    try:
        yield swift.start(port)
    finally:
        swift.stop()
        memcached.close()


@pytest.mark.timeout(400)
def test_a_container_comes_over_with_its_timestamps(here, swift):
    source, target = Account(swift.url), Account(here.url)
    target.made("/moved", {"X-Container-Sync-Key": "secret"})
    source.made("/moved", {"X-Container-Sync-Key": "secret",
                           "X-Container-Sync-To": "//realm/here/AUTH_test/moved"})
    rand = random.Random(1)
    contents = {"small": rand.randbytes(1000), "empty": b"",
                "\u00fc/large": rand.randbytes(6 * MIB)}
    for name, data in contents.items():
        source.made("/moved/" + name, {"X-Object-Meta-Word": name.upper().encode(),
                                       "Content-Type": "a/b"}, data)
    said = swift.container_sync()

    def same():
        for name, data in contents.items():
            there = source.ask("HEAD", "/moved/" + name).headers
            answer = target.ask("GET", "/moved/" + name)
            assert (answer.status_code, answer.content) == (200, data), said
            for header in ("ETag", "X-Timestamp", "Content-Type", "X-Object-Meta-Word"):
                assert answer.headers[header] == there[header], header
        assert target.ask("GET", "/moved").text == source.ask("GET", "/moved").text
    same()
    # What happens there after that comes, too; what happens here later is left alone.
    contents["small"] = b"another"
    source.made("/moved/small", {"X-Object-Meta-Word": "new"}, contents["small"])
    assert source.ask("DELETE", "/moved/empty").status_code == 204
    del contents["empty"]
    said = swift.container_sync()
    same()
    assert target.ask("GET", "/moved/empty").status_code == 404
    source.made("/moved/late", data=b"theirs")
    target.made("/moved/late", data=b"ours")
    swift.container_sync()
    assert target.ask("GET", "/moved/late").content == b"ours"


def test_who_does_not_know_the_key_of_the_realm_is_refused(here):
    target = Account(here.url)
    target.made("/kept", {"X-Container-Sync-Key": "secret"})
    answer = target.session.put(
        target.url + "/kept/o", data=b"x", timeout=60,
        headers={"X-Container-Sync-Auth": "realm nonce " + 40 * "0", "X-Timestamp": "1.0"})
    assert answer.status_code == 401
    assert target.ask("GET", "/kept/o").status_code == 404
