"""A worker that was stopped for so long that it counts as dead goes on with what it was doing:
nobody sees any of it, and the space of it comes back once more."""

import contextlib
import os
import signal
import socket
import sqlite3
from urllib.parse import urlsplit

import pytest

from sheepstack.wire import oid as oids
from tests.functional.harness import wait_until
from tests.swift.service import USUAL_PIPELINE, Account
from tests.swift.test_faults import unnamed

MIB = 1 << 20
SLOT = 4 * MIB
OPTIONS = ("sweep_interval = 3600", "grace = 0", "lease = 4")


def _slots(cluster, kind):
    """(vid, index) of the data objects of volumes of a kind that sheep have, named or not."""
    with cluster.client() as client:
        vids = {info.vdi_id for info in client.list_vdis()
                if info.name.startswith("swift-%s-" % kind)}
    return {(oids.vid_of(oid), oids.index_of(oid))
            for oid in (int(name, 16) for name in cluster.objects(0))
            if oids.is_data(oid) and oids.vid_of(oid) in vids}


class _Upload:
    """A PUT of ``size`` bytes that come when they are told to."""

    def __init__(self, account, path, size):
        parts = urlsplit(account.url + path)
        self._socket = socket.create_connection((parts.hostname, parts.port), 60)
        self._socket.sendall((
            "PUT %s HTTP/1.1\r\nHost: %s\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n" % (
                parts.path, parts.netloc, account.token, size)).encode())

    def send(self, size):
        self._socket.sendall(os.urandom(size))

    def status(self):
        with self._socket.makefile("rb") as answer:
            return int(answer.readline().split()[1])

    def close(self):
        self._socket.close()


def _sweep_until(api, condition, what):
    def swept():
        api.run("sweep")
        return condition()
    wait_until(swept, 90, what)


@pytest.mark.timeout(300)
def test_what_a_worker_writes_after_it_was_taken_for_dead_is_given_back(make_api, lone):
    api = make_api(lone.addresses, options=OPTIONS, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()
    account.made(container + "/kept", data=b"kept")
    with contextlib.closing(_Upload(account, container + "/large", 10 * SLOT)) as upload:
        upload.send(3 * SLOT)
        wait_until(lambda: len(_slots(lone, "bulk")) >= 2, 60, "the upload to begin")
        packs = _slots(lone, "log")

        worker, = api.workers
        os.kill(worker, signal.SIGSTOP)
        _sweep_until(api, lambda: not _slots(lone, "bulk") and not packs & _slots(lone, "log"),
                     "what the worker has written to be given back")
        assert "agree" in api.run("check").stdout
        os.kill(worker, signal.SIGCONT)

        upload.send(3 * SLOT)
        wait_until(lambda: len(_slots(lone, "bulk")) >= 2, 60, "the upload to go on")
        assert account.ask("PUT", container + "/late", data=b"late").status_code == 503
        # It goes on with a volume of its own.
        account.made(container + "/later", data=b"later")
        assert packs & _slots(lone, "log")
        api.kill()
    checked = api.run("check", check=False)
    assert checked.returncode == 1 and "slots belong to nothing" in checked.stdout

    _sweep_until(api, lambda: not _slots(lone, "bulk") and not packs & _slots(lone, "log"),
                 "what the worker has written late to be given back")
    assert not unnamed(lone)
    assert "agree" in api.run("check").stdout
    api.start()
    account = Account(api.url)
    assert account.ask("GET", container).text.split() == ["kept", "later"]
    assert account.ask("GET", container + "/kept").content == b"kept"


@pytest.mark.timeout(300)
def test_what_an_upload_under_way_has_is_left_alone(make_api, lone):
    api = make_api(lone.addresses, options=OPTIONS, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()
    with contextlib.closing(_Upload(account, container + "/large", 4 * SLOT)) as upload:
        upload.send(3 * SLOT)
        wait_until(lambda: len(_slots(lone, "bulk")) == 3, 60, "the upload to begin")
        assert "gave back 0 slots" in api.run("sweep").stdout
        assert "agree" in api.run("check", "--repair").stdout
        api.run("sweep")
        assert len(_slots(lone, "bulk")) == 3
        upload.send(SLOT)
        assert upload.status() == 201
    assert len(account.ask("GET", container + "/large").content) == 4 * SLOT


def test_a_check_finds_what_no_map_names_and_volumes_that_never_were(make_api, lone):
    api = make_api(lone.addresses, options=OPTIONS, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()
    for name in "/one", "/other":
        account.made(container + name, data=bytes(3 * SLOT))
    assert account.ask("DELETE", container + "/one").ok
    api.stop()
    wait_until(lambda: "gave back 0 slots" not in api.run("sweep").stdout, 60,
               "the slots of what was deleted to be given back")
    with lone.client() as client:
        bulk, = (info.name for info in client.list_vdis() if "-bulk-" in info.name)
        with client.open_vdi(bulk) as vdi:
            # An object that was made before its maker died, and not entered in the map.
            vdi._inode.write_entries = lambda entries: 0
            vdi.pwrite(SLOT, b"left over")
        # And a volume whose maker had not yet said what it is.
        client.create_vdi("swift-bulk-unfinished", 8 * SLOT)
    assert len(_slots(lone, "bulk")) == 4

    checked = api.run("check", check=False)
    assert "1 slots belong to nothing" in checked.stdout
    assert "1 VDIs are not in the database: swift-bulk-unfinished" in checked.stdout

    def repaired():
        return "agree" in api.run("check", "--repair", check=False).stdout
    # Not before its maker counts as dead.
    _sweep_until(api, repaired, "all of it to be given back")
    assert not unnamed(lone)
    assert len(_slots(lone, "bulk")) == 3
    with lone.client() as client:
        assert "swift-bulk-unfinished" not in [info.name for info in client.list_vdis()]


def test_a_database_of_the_first_version_is_brought_up_to_date(make_api, lone):
    api = make_api(lone.addresses, options=OPTIONS, pipeline=USUAL_PIPELINE)
    container = Account(api.url).new_container()
    api.stop()
    with contextlib.closing(sqlite3.connect(api.directory / "state" / "objects.db")) as database:
        database.execute("DROP TABLE stray")
        database.execute("UPDATE alembic_version SET version_num = '0001'")
        database.commit()
    api.start()
    assert Account(api.url).ask("HEAD", container).ok
    with contextlib.closing(sqlite3.connect(api.directory / "state" / "objects.db")) as database:
        assert database.execute("SELECT count(*) FROM stray").fetchone() == (0,)
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [
            ("0002",)]
