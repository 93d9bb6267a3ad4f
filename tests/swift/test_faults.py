"""What was acknowledged is there, what was not is not there by halves, and space comes back."""

import concurrent.futures
import hashlib
import random
import signal
import threading
import time

import pytest
import requests
from swift.common.utils import Timestamp

from sheepstack.wire import oid as oids
from swift_middleware.storage.volumes import SLOT_SHIFT, SLOT_SIZE
from tests.functional.harness import wait_until
from tests.swift.service import USUAL_PIPELINE, Account, ObjectApi

MIB = 1 << 20
WRITERS = 100
OPTIONS = ("sweep_interval = 3600", "grace = 0", "lease = 4")


class Traffic:
    """PUTs of new names and overwrites from many threads; knows what was acknowledged.

    ``known``: {path: list of the MD5s that may be there}; the last acknowledged, and what was
    being written since.
    """

    def __init__(self, account, container, names=400):
        self.account = account
        self.container = container
        self.names = names
        self.known = {}
        self.acknowledged = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,))
                         for number in range(WRITERS)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def _run(self, number):
        rand = random.Random(number)
        session = requests.Session()
        while not self._stop.is_set():
            # Each name belongs to one thread, so that its last acknowledged PUT is known.
            path = "%s/%d" % (self.container, rand.randrange(self.names // WRITERS) * WRITERS
                              + number)
            size = rand.choice((0, 100, 4000, 60000, 300000, 5 * MIB if number == 0 else 9000))
            data = rand.randbytes(size)
            digest = hashlib.md5(data).hexdigest()
            with self._lock:
                self.known.setdefault(path, [None]).append(digest)
            try:
                answer = session.put(
                    self.account.url + path, data=data, timeout=60,
                    headers={"X-Auth-Token": self.account.token})
                good = answer.status_code == 201
            except requests.RequestException:
                good = False
                session = requests.Session()
            if good:
                with self._lock:
                    self.known[path] = [digest]
                    self.acknowledged += 1
            elif self._stop.wait(0.2):
                return

    def check(self, account):
        """All names have one of the contents that they may have, and the listing agrees."""
        listed = {}
        marker = ""
        while True:
            page = account.ask("GET", "%s?format=json&limit=50&marker=%s" % (
                self.container, marker)).json()
            if not page:
                break
            listed.update((self.container + "/" + entry["name"], entry) for entry in page)
            marker = page[-1]["name"]
        for path, allowed in self.known.items():
            answer = account.ask("GET", path)
            if answer.status_code == 404:
                assert None in allowed, "%s is lost" % path
                assert path not in listed
                continue
            assert answer.status_code == 200
            digest = hashlib.md5(answer.content).hexdigest()
            assert digest == answer.headers["Etag"].strip('"')
            assert digest in allowed, "%s has what nobody may see" % path
            assert listed[path]["hash"] == digest
            assert listed[path]["bytes"] == len(answer.content)
        head = account.ask("HEAD", self.container).headers
        assert int(head["X-Container-Object-Count"]) == len(listed)
        assert int(head["X-Container-Bytes-Used"]) == sum(
            entry["bytes"] for entry in listed.values())


def finish(api, traffic, sheep):
    """Check all, the space too, with the API running anew and then at rest."""
    account = Account(api.url)
    traffic.check(account)
    api.stop()
    time.sleep(5)
    api.run("sweep")
    checked = api.run("check", check=False)
    assert "agree" in checked.stdout, checked.stdout
    assert not unnamed(sheep)


def unnamed(sheep):
    """Data objects that no map names: nobody would ever give them back."""
    there = {int(name, 16) for index in range(len(sheep.sheep)) for name in sheep.objects(index)}
    left = []
    with sheep.client() as client:
        for info in client.list_vdis():
            with client.open_vdi(info.name, read_only=True) as vdi:
                for oid in there:
                    if oids.is_data(oid) and oids.vid_of(oid) == vdi.vdi_id:
                        (_, _, is_data), = vdi.extents(
                            oids.index_of(oid) << SLOT_SHIFT, SLOT_SIZE)
                        left += [] if is_data else ["%016x" % oid]
    return left


@pytest.mark.timeout(400)
def test_the_api_is_killed_in_the_middle_of_many_puts(make_api, make_cluster_of_its_own):
    sheep = make_cluster_of_its_own()
    api = make_api(sheep.addresses, options=OPTIONS, pipeline=USUAL_PIPELINE, workers=2)
    account = Account(api.url)
    traffic = Traffic(account, account.new_container()).start()
    for _ in range(3):
        enough = traffic.acknowledged + 60
        wait_until(lambda: traffic.acknowledged >= enough, 100, "PUTs to be acknowledged")
        api.kill()
        api.start()
    traffic.stop()
    finish(api, traffic, sheep)


@pytest.mark.timeout(400)
def test_a_sheep_is_killed_in_the_middle_of_many_puts(make_api, make_cluster_of_its_own):
    sheep = make_cluster_of_its_own()
    api = make_api(sheep.addresses, options=OPTIONS, pipeline=USUAL_PIPELINE, workers=2)
    account = Account(api.url)
    traffic = Traffic(account, account.new_container()).start()
    for index in (0, 1):
        enough = traffic.acknowledged + 60
        wait_until(lambda: traffic.acknowledged >= enough, 100, "PUTs to be acknowledged")
        sheep.kill(index)
        enough = traffic.acknowledged + 60
        wait_until(lambda: traffic.acknowledged >= enough, 100, "PUTs to go on without a sheep")
        sheep.restart(index)
        sheep.wait_recovered()
    traffic.stop()
    finish(api, traffic, sheep)


@pytest.mark.timeout(400)
def test_the_database_is_restarted_in_the_middle_of_many_puts(
        make_api, make_cluster_of_its_own, postgresql):
    sheep = make_cluster_of_its_own()
    url = postgresql.database("restarted")
    api = make_api(sheep.addresses, options=[*OPTIONS, "connection = " + url],
                   pipeline=USUAL_PIPELINE, workers=2)
    account = Account(api.url)
    traffic = Traffic(account, account.new_container()).start()
    for how in (signal.SIGINT, signal.SIGQUIT):
        enough = traffic.acknowledged + 60
        wait_until(lambda: traffic.acknowledged >= enough, 100, "PUTs to be acknowledged")
        postgresql.stop(how)
        postgresql.start()
    enough = traffic.acknowledged + 60
    wait_until(lambda: traffic.acknowledged >= enough, 100, "PUTs to go on")
    traffic.stop()
    finish(api, traffic, sheep)


def _url(request, tmp_path, database, name):
    """Of a new database that several processes may share."""
    if database == "sqlite":
        return "sqlite:///%s/shared/objects.db" % tmp_path
    return request.getfixturevalue(database).database(name)


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_two_processes_race_on_the_same_names(make_api, sheep, request, tmp_path, database):
    url = _url(request, tmp_path, database, "race")
    options = ["connection = " + url, "sweep_interval = 0.5", "grace = 0"]
    apis = [make_api(sheep.addresses, options=options, pipeline=USUAL_PIPELINE)
            for _ in range(2)]
    accounts = [Account(api.url) for api in apis]
    container = accounts[0].new_container()
    contents = [random.Random(n).randbytes(1000 + n) for n in range(8)]
    names = ["%s/%d" % (container, n) for n in range(20)]

    def work(number):
        account = accounts[number % 2]
        rand = random.Random(number)
        statuses = []
        for _ in range(25):
            path = rand.choice(names)
            if rand.random() < 0.2:
                statuses.append(account.ask("DELETE", path).status_code)
            elif rand.random() < 0.2:
                statuses.append(account.ask(
                    "PUT", path, {"If-None-Match": "*"}, data=contents[number]).status_code)
            else:
                statuses.append(account.ask("PUT", path, data=contents[number]).status_code)
        return statuses

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = {status for found in pool.map(work, range(8)) for status in found}
    assert statuses <= {201, 202, 204, 404, 409, 412}
    shown = []
    for account in accounts:
        found = {}
        for path in names:
            answer = account.ask("GET", path)
            if answer.status_code == 200:
                assert answer.content in contents
                assert hashlib.md5(answer.content).hexdigest() == \
                    answer.headers["Etag"].strip('"')
                found[path] = answer.content
        listing = account.ask("GET", container).text.split()
        assert sorted(container + "/" + name for name in listing) == sorted(found)
        shown.append(found)
    assert shown[0] == shown[1]
    head = accounts[1].ask("HEAD", container).headers
    assert int(head["X-Container-Object-Count"]) == len(shown[0])
    assert int(head["X-Container-Bytes-Used"]) == sum(map(len, shown[0].values()))

    # Of many who want to make one name, one does.
    def make(number):
        return accounts[number % 2].ask("PUT", container + "/only", {"If-None-Match": "*"},
                                        data=contents[number]).status_code
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert sorted(made) == [201] + 7 * [412]
    assert accounts[0].ask("GET", container + "/only").content == contents[made.index(201)]


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_of_writes_that_race_the_newest_is_left(sheep, memcached, request, tmp_path, database):
    """The one with the newest timestamp; clients' own are let in for once."""
    url = _url(request, tmp_path, database, "newest")
    apis = [ObjectApi(tmp_path / name, sheep.addresses, memcached, pipeline=USUAL_PIPELINE,
                      options=["connection = " + url]) for name in ("one", "other")]
    try:
        for api in apis:
            api.config.write_text(api.config.read_text().replace(
                "egg:swift#gatekeeper",
                "egg:swift#gatekeeper\nshunt_inbound_x_timestamp = false"))
            api.start()
        race_by_timestamps([Account(api.url) for api in apis])
    finally:
        for api in apis:
            api.stop()


def race_by_timestamps(accounts):
    """PUTs and DELETEs of ten names, in any order; only the newest of each counts."""
    container = accounts[0].new_container()
    first = int(time.time())
    last = {}
    work = []
    for name in range(10):
        rand = random.Random(name)
        for turn in range(24):
            method = rand.choice(("PUT", "PUT", "DELETE"))
            work.append((method, "%s/%d" % (container, name), first + turn, turn))
            last[work[-1][1]] = method, turn
    random.Random(11).shuffle(work)

    def do(each):
        number, (method, path, seconds, turn) = each
        answer = accounts[number % 2].ask(
            method, path, {"X-Timestamp": Timestamp(seconds).internal},
            data=b"%d" % turn if method == "PUT" else None)
        return answer.status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(do, enumerate(work)))
    assert statuses <= {201, 202, 204, 404, 409}
    left = {path: b"%d" % turn for path, (method, turn) in last.items() if method == "PUT"}
    assert 0 < len(left) < len(last)
    for account in accounts:
        for path in last:
            answer = account.ask("GET", path)
            assert answer.status_code == (200 if path in left else 404), path
            assert path not in left or answer.content == left[path]
        names = account.ask("GET", container).text.split()
        assert sorted(container + "/" + name for name in names) == sorted(left)
    head = accounts[0].ask("HEAD", container).headers
    assert int(head["X-Container-Object-Count"]) == len(left)
    assert int(head["X-Container-Bytes-Used"]) == sum(map(len, left.values()))
