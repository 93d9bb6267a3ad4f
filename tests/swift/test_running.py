"""Running the API: the command, what it tells of itself, and what its processes share."""

import re
import signal
import socket
import subprocess
import sys

import pytest
import requests

from tests.functional.harness import HOST, SheepCluster, free_port, start, wait_until
from tests.functional.zookeeper_server import ZooKeeperServer
from tests.swift.service import START_TIMEOUT, USUAL_PIPELINE, Account, Memcached, ObjectApi

_STATUS = USUAL_PIPELINE.replace("healthcheck", "healthcheck status")
_COMMAND = [sys.executable, "-m", "swift_middleware.cmd.main"]


def _health(api):
    """(status code, {what: "ok" or what is wrong})."""
    answer = requests.get(api.url + "/health", timeout=60)
    return answer.status_code, answer.json()


def test_serve_needs_no_configuration(sheep, tmp_path):
    port = free_port()
    log = tmp_path / "log"

    def serve(*more):
        with log.open("ab") as file:
            process = start([*_COMMAND, "serve", "--state-dir", tmp_path / "state", *more],
                            stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

        def ready():
            assert process.poll() is None, log.read_text()
            try:
                return requests.get("http://%s:%d/healthcheck" % (HOST, port), timeout=10).ok
            except requests.RequestException:
                return False
        wait_until(ready, START_TIMEOUT, "sheep-swift to answer")
        return process

    process = serve("--port", port, "--workers", 1, "--sheep", ",".join(sheep.addresses))
    try:
        url, user, password = re.search(
            r"log in at (\S+)/auth/v1.0 as (\S+) with (\S+)", log.read_text()).groups()
        account = Account(url, user, password)
        container = account.new_container()
        account.made(container + "/o", data=b"kept")
        assert requests.get(url + "/health", timeout=60).json() == {
            "database": "ok", "cluster": "ok"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    # The second time it is the file that counts.
    process = serve()
    try:
        account = Account(url, user, password)
        assert account.ask("GET", container + "/o").content == b"kept"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert (tmp_path / "state" / "proxy-server.conf").stat().st_mode & 0o077 == 0


def test_the_sample_with_its_users_in_it_is_served(sheep, memcached, tmp_path):
    api = ObjectApi(tmp_path / "api", sheep.addresses, memcached)
    api.take_sample("swift-proxy-tempauth.conf.sample", sheep.addresses, memcached,
                    ("CHANGE_ME", "changed"))
    api.start()
    try:
        account = Account(api.url, "admin:admin", "changed")
        container = account.new_container()
        account.made(container + "/o", data=b"kept")
        assert account.ask("GET", container + "/o").content == b"kept"
        assert account.ask("HEAD", container).headers["X-Storage-Policy"] == "standard"
        assert _health(api) == (200, {"database": "ok", "cluster": "ok"})
    finally:
        api.stop()


def test_what_has_no_configuration_says_so(tmp_path):
    done = subprocess.run([*_COMMAND, "check", "--state-dir", tmp_path], capture_output=True,
                          text=True)
    assert done.returncode == 1 and "--config" in done.stderr


@pytest.mark.parametrize("action", ["serve", "check"])
@pytest.mark.parametrize("option, said", [
    ("connection = nonsense", "is no URL of a database"),
    ("connection = mysql+nosuch://swift:secret@127.0.0.1/swift", "'mysql+nosuch'"),
    ("connection = postgresql+pg8000://swift:secret@127.0.0.1/swift", "is not installed"),
    ("copy_policies = gold=9x", "'9x' is no copy policy"),
    ("copy_policies = none=3", "no storage policy 'none'")])
def test_a_mistake_in_the_configuration_is_named(memcached, tmp_path, action, option, said):
    api = ObjectApi(tmp_path, ["127.0.0.1:1"], memcached, options=[option])
    _is_refused([action, "-c", api.config], said)


def test_what_is_no_configuration_is_refused(tmp_path):
    (tmp_path / "text").write_text("no section\n")
    _is_refused(["check", "-c", tmp_path / "text"], "no section headers")
    _is_refused(["check", "-c", tmp_path / "absent"], "there is no file")


def test_a_port_that_is_taken_is_named(memcached, tmp_path):
    with socket.create_server((HOST, 0)) as other:
        api = ObjectApi(tmp_path, ["127.0.0.1:1"], memcached, port=other.getsockname()[1])
        api.config.write_text(api.config.read_text().replace(
            "[DEFAULT]", "[DEFAULT]\nbind_timeout = 1"))
        _is_refused(["serve", "-c", api.config], "Could not bind to %s:%d" % (HOST, api.port))


def _is_refused(arguments, said):
    """In a line that people can read, and without the secret that is in some of them."""
    done = subprocess.run([*_COMMAND, *map(str, arguments)], capture_output=True, text=True,
                          timeout=60)
    told = done.stderr + done.stdout
    assert done.returncode == 1, told
    assert said in told and "sheep-swift: " in told
    assert "Traceback" not in told and "secret" not in told


@pytest.mark.timeout(300)
def test_health_tells_database_cluster_and_zookeeper_apart(make_api, postgresql, tmp_path):
    with ZooKeeperServer() as zookeeper:
        cluster = SheepCluster(tmp_path / "sheep", zookeeper.spec("swift"))
        try:
            cluster.start(3, 3)
            api = make_api(
                cluster.addresses, pipeline=_STATUS,
                options=["connection = " + postgresql.database("health"),
                         "zookeeper = " + zookeeper.address, "sheep_timeout = 3",
                         "database_patience = 1"])
            well = {"database": "ok", "cluster": "ok", "zookeeper": "ok"}
            assert _health(api) == (200, well)

            def only(wrong):
                status, told = _health(api)
                return status == 503 and {what for what in told if told[what] != "ok"} == {wrong}

            def recovered():
                return _health(api) == (200, well)

            postgresql.stop()
            try:
                wait_until(lambda: only("database"), 60, lambda: str(_health(api)))
            finally:
                postgresql.start()
            wait_until(recovered, 60, lambda: str(_health(api)))

            for index in range(3):
                cluster.stop(index)
            wait_until(lambda: only("cluster"), 60, lambda: str(_health(api)))
            for index in range(3):
                cluster.cont(index)
            wait_until(recovered, 60, lambda: str(_health(api)))

            zookeeper.stop()
            # Sheep without a session do not serve either; but what is missing is said.
            wait_until(lambda: _health(api)[1]["zookeeper"] != "ok", 60,
                       lambda: str(_health(api)))
            assert _health(api)[0] == 503 and _health(api)[1]["database"] == "ok"
            zookeeper.start()
            wait_until(recovered, 90, lambda: str(_health(api)))
        finally:
            cluster.close()


def _metrics(api):
    """{name with labels: value}."""
    found = {}
    for line in requests.get(api.url + "/metrics", timeout=60).text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_metrics_count_what_all_workers_do(make_api, sheep):
    api = make_api(sheep.addresses, pipeline=_STATUS, workers=2)
    account = Account(api.url)
    container = account.new_container()
    before = _metrics(api)
    for number in range(12):
        # A new connection each time, so that both workers get some.
        account.session.close()
        account.made("%s/%d" % (container, number), data=b"x" * 1000)
        assert account.ask("GET", "%s/%d" % (container, number)).ok
    account.ask("GET", container + "/none")
    after = _metrics(api)

    def grown(name):
        return after.get(name, 0) - before.get(name, 0)
    made = 'sheep_swift_requests_total{method="%s",status="%d",type="object"}'
    assert grown(made % ("PUT", 201)) == 12
    assert grown(made % ("GET", 200)) == 12
    assert grown(made % ("GET", 404)) == 1
    assert grown("sheep_swift_received_bytes_total") == 12000
    assert grown("sheep_swift_sent_bytes_total") == 12000
    assert grown('sheep_swift_request_seconds_count{method="PUT",type="object"}') == 12
    assert grown('sheep_swift_changes_total{outcome="made"}') == 12


def test_processes_share_tokens_and_what_is_cached_of_containers(make_api, sheep, tmp_path):
    memcached = Memcached()
    try:
        url = "connection = sqlite:///%s/shared.db" % tmp_path
        apis = [make_api(sheep.addresses, pipeline=USUAL_PIPELINE, options=[url],
                         memcached=memcached) for _ in range(2)]
        account = Account(apis[0].url)
        container = account.new_container()
        account.made(container + "/o", data=b"x")
        # A token of one is good at the other.
        account.url = account.url.replace(apis[0].url, apis[1].url)
        assert account.ask("GET", container + "/o").content == b"x"
        stranger = requests.get(account.url + container + "/o", timeout=60)
        assert stranger.status_code == 401
        # What one process changes the other one's cache does not hide.
        account.url = account.url.replace(apis[1].url, apis[0].url)
        assert account.ask("POST", container, {"X-Container-Read": ".r:*"}).ok
        other = account.url.replace(apis[0].url, apis[1].url)
        assert requests.get(other + container + "/o", timeout=60).content == b"x"
    finally:
        memcached.close()
