"""Fixtures of the tests of the object API: one cluster of three sheep for all of them."""

import itertools
import tempfile

import pytest

from tests.functional.harness import SheepCluster
from tests.swift.mariadb import MariaDB
from tests.swift.postgresql import PostgreSQL
from tests.swift.service import Account, Memcached, ObjectApi

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sheep(tmp_path_factory):
    """A cluster for the tests that leave it whole."""
    root = tmp_path_factory.mktemp("sheep")
    cluster = SheepCluster(root, "local:%s" % (root / "coordination"))
    try:
        cluster.start(3, 3)
        yield cluster
        complaints = cluster.complaints()
    finally:
        cluster.close()
    assert not complaints, "; ".join(complaints)


@pytest.fixture(scope="session")
def memcached():
    server = Memcached()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgresql():
    # Where pytest has its directories another user may be locked out at any time: every run of
    # pytest sees to that anew.
    with tempfile.TemporaryDirectory(prefix="sheepstack-postgresql-") as directory:
        server = PostgreSQL(directory)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory):
    server = MariaDB(tmp_path_factory.mktemp("mariadb"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_api(tmp_path, memcached, request):
    """Function that starts an :class:`ObjectApi` on gateways; its options are those of that."""
    made = []

    def make(sheep, **options):
        name = options.pop("name", "api%d" % next(_numbers))
        api = ObjectApi(tmp_path / name, sheep, options.pop("memcached", memcached), **options)
        made.append(api)
        return api.start()

    yield make
    for api in made:
        api.stop()


@pytest.fixture
def api(make_api, sheep):
    return make_api(sheep.addresses)


@pytest.fixture
def account(api):
    return Account(api.url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for value in item.funcargs.values():
            if isinstance(value, ObjectApi):
                report.sections.append(("sheep-swift", value.tail(20)))
    return report


@pytest.fixture
def make_cluster_of_its_own(tmp_path):
    """Function that starts a cluster of three sheep for one test."""
    made = []

    def make(nodes=3, copies=3):
        root = tmp_path / ("cluster%d" % len(made))
        cluster = SheepCluster(root, "local:%s" % (root / "coordination"))
        made.append(cluster)
        cluster.start(nodes, copies)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def lone(make_cluster_of_its_own):
    """Three sheep, for one test."""
    return make_cluster_of_its_own()
