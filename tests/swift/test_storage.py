"""Where the bytes are: packing, giving back, checking, and rebuilding the database."""

import contextlib
import hashlib
import random
import sqlite3
import time

from tests.functional.harness import wait_until
from tests.swift.service import USUAL_PIPELINE, Account

MIB = 1 << 20

#: Sweep at once, so that a test sees it.
EAGER = ("sweep_interval = 3600", "grace = 0", "lease = 4")


def tree(account, containers):
    """Everything that an account shows: {path: (etag, headers that clients set)}."""
    found = {}
    for container in containers:
        head = account.ask("HEAD", container)
        found[container] = {name: value for name, value in head.headers.items()
                            if name.startswith("X-Container-")}
        for entry in account.ask("GET", container + "?format=json").json():
            path = "%s/%s" % (container, entry["name"])
            answer = account.ask("GET", path)
            assert hashlib.md5(answer.content).hexdigest() == answer.headers["Etag"].strip('"')
            found[path] = (
                entry["bytes"], entry["hash"], entry["content_type"], entry["last_modified"],
                {name: value for name, value in answer.headers.items()
                 if name.startswith("X-Object-Meta-")})
    return found


def slots(cluster):
    """Names of the data objects that a cluster of one sheep has."""
    return {name for name in cluster.objects(0) if name.startswith("00")}


def test_small_objects_share_slots_and_all_is_given_back(make_api, lone):
    api = make_api(lone.addresses, options=EAGER, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()
    for number in range(100):
        account.made("%s/%d" % (container, number), data=b"x" * 1000)
    account.made(container + "/large", data=bytes(9 * MIB))
    data = [info for info in lone.client().list_vdis()]
    assert len(data) == 2
    before = len(lone.objects(0))
    # The inode and the description of both volumes, one slot of the log, three of the other.
    assert before == 2 + 2 + 1 + 3
    for number in range(100):
        account.ask("DELETE", "%s/%d" % (container, number))
    account.ask("DELETE", container + "/large")
    assert account.ask("DELETE", container).status_code == 204
    api.stop()
    wait_until(lambda: "gave back 0 slots" not in (api.run("sweep").stdout), 60,
               "the slots of the bulk volume to be given back")
    checked = api.run("check")
    assert "agree" in checked.stdout


def test_slots_are_opened_ahead_and_those_never_used_are_forgotten(make_api, lone):
    api = make_api(lone.addresses, options=EAGER, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()

    def packs(which="1"):
        with contextlib.closing(sqlite3.connect(api.directory / "state" / "objects.db")) as made:
            return made.execute("SELECT count(*) FROM pack WHERE " + which).fetchone()[0]

    data = {"%s/%d" % (container, number): random.Random(number).randbytes(MIB)
            for number in range(20)}
    for path, content in data.items():
        account.made(path, data=content)
    used = len(slots(lone))
    assert used == packs("live > 0") == 7
    # 1, 2 and 4 at a time.
    assert packs() == 7
    account.made(container + "/more", data=bytes(MIB))
    account.made(container + "/most", data=bytes(MIB))
    assert packs() == 15
    api.kill()

    def forgotten():
        api.run("sweep")
        return packs("live = 0") == 0
    wait_until(forgotten, 60, "the slots that were opened in vain to be forgotten")
    assert "agree" in api.run("check").stdout
    api.start()
    account = Account(api.url)
    account.made(container + "/another", data=b"goes on")
    for path, content in data.items():
        assert account.ask("GET", path).content == content


def test_the_database_is_rebuilt_from_the_cluster(make_api, lone):
    api = make_api(lone.addresses, options=EAGER, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    first = account.new_container(X_Container_Read=".r:*", X_Container_Meta_Word="ü".encode())
    second = account.new_container(X_Storage_Policy="silver")
    rand = random.Random(7)
    for number in range(20):
        account.made("%s/small/%d" % (first, number), {"X-Object-Meta-N": str(number)},
                     rand.randbytes(rand.randrange(0, 3000)))
    account.made(first + "/empty", data=b"")
    account.made(second + "/large", {"Content-Type": "a/b"}, rand.randbytes(9 * MIB + 5))
    account.made(second + "/unknown", data=iter([rand.randbytes(MIB)] * 6))
    # Changed, overwritten and deleted ones must be as they were last.
    assert account.ask("POST", first + "/small/1", {"X-Object-Meta-N": "new"}).ok
    assert account.ask("POST", second + "/large", {"X-Object-Meta-N": "new"}).ok
    account.made(first + "/small/2", data=b"overwritten")
    for number in range(10, 20):
        assert account.ask("DELETE", "%s/small/%d" % (first, number)).ok
    gone = account.new_container()
    assert account.ask("DELETE", gone).ok
    before = tree(account, [first, second])
    assert len(before) == 2 + 10 + 3
    api.stop()
    # Also what the sweeper has moved is found.
    api.run("sweep")
    assert "agree" in api.run("check").stdout
    database = api.directory / "state" / "objects.db"
    for path in database.parent.glob("objects.db*"):
        path.unlink()

    assert "restored 1 accounts, 2 containers, 13 objects" in api.run("rebuild").stdout
    assert "agree" in api.run("check").stdout
    refused = api.run("rebuild", check=False)
    assert refused.returncode == 1 and "not empty" in refused.stderr
    api.start()
    account = Account(api.url)
    assert tree(account, [first, second]) == before
    assert account.ask("HEAD", gone).status_code == 404
    account.made(first + "/another", data=b"goes on")
    assert account.ask("GET", first + "/another").content == b"goes on"


def test_slots_that_are_mostly_garbage_are_emptied(make_api, lone):
    api = make_api(lone.addresses, options=EAGER, pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()
    for number in range(60):
        account.made("%s/%d" % (container, number), data=bytes([number]) * 200000)
    full = slots(lone)
    assert len(full) >= 3
    for number in range(60):
        if number % 10:
            account.ask("DELETE", "%s/%d" % (container, number))
    api.stop()
    api.run("sweep")
    # What is still used of them has gone to a slot of the sweeper's own.
    assert not full & slots(lone)
    assert "agree" in api.run("check").stdout
    api.start()
    account = Account(api.url)
    for number in range(0, 60, 10):
        answer = account.ask("GET", "%s/%d" % (container, number))
        assert answer.content == bytes([number]) * 200000


def test_a_reader_keeps_what_is_deleted_under_him(make_api, sheep):
    api = make_api(sheep.addresses, options=["sweep_interval = 0.2", "grace = 30"],
                   pipeline=USUAL_PIPELINE)
    account = Account(api.url)
    container = account.new_container()
    data = random.Random(3).randbytes(40 * MIB)
    account.made(container + "/o", data=data)
    with account.ask("GET", container + "/o", stream=True) as answer:
        reader = answer.iter_content(MIB)
        received = next(reader)
        account.made(container + "/o", data=b"another")
        time.sleep(1)
        received += b"".join(reader)
    assert received == data
    assert account.ask("GET", container + "/o").content == b"another"


def test_deleted_accounts_are_emptied(make_api, sheep):
    api = make_api(sheep.addresses, options=["sweep_interval = 0.5", "grace = 0"],
                   pipeline=USUAL_PIPELINE)
    account = Account(api.url, "admin:admin", "admin")
    container = account.new_container()
    account.made(container + "/o", data=b"x")
    url = api.url + "/v1/AUTH_doomed"
    account.url = url
    container = account.new_container()
    account.made(container + "/o", data=b"x")
    assert account.ask("DELETE").status_code == 204
    assert account.ask("HEAD").status_code in (404, 410)
    wait_until(lambda: account.ask("PUT").status_code == 201, 60, "the account to be forgotten")
    assert account.ask("HEAD").headers["X-Account-Container-Count"] == "0"
