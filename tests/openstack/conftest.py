"""Fixtures of the OpenStack tests: real services on a cluster of three sheep with ZooKeeper."""

import os

import pytest

from tests.functional.conftest import small_disk  # noqa: F401 - a fixture
from tests.functional.harness import SheepCluster
from tests.functional.zookeeper_server import zookeeper  # noqa: F401 - a fixture
from tests.openstack.cloud import Cloud

_SHEEP = pytest.StashKey()
_CLOUD = pytest.StashKey()


def pytest_collection_modifyitems(items):
    """Whatever test comes first has to wait for all the services to start."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    sheep = item.session.stash.get(_SHEEP, None)
    if report.failed and sheep is not None:
        report.sections.append(("sheep", sheep.report()))
    cloud = item.session.stash.get(_CLOUD, None)
    if report.failed and cloud is not None:
        report.sections.append(("services", cloud.report()))
    return report


@pytest.fixture(scope="session")
def session_sheep(zookeeper, request, tmp_path_factory):  # noqa: F811 - the fixture above
    cluster = SheepCluster(
        tmp_path_factory.mktemp("sheep"),
        "%s,timeout=4000" % zookeeper.spec("openstack%d" % os.getpid()))
    request.session.stash[_SHEEP] = cluster
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def sheep(session_sheep):
    """Three sheep that keep three copies, shared by all tests.

    A test that ends one of them need not start it again.  Its failure where one ends by itself,
    or logs a traceback.
    """
    yield session_sheep
    complaints = session_sheep.complaints()
    session_sheep.restart_all()
    session_sheep.wait_recovered()
    assert not complaints, "; ".join(complaints)


@pytest.fixture(scope="session")
def session_second(tmp_path_factory):
    """Another cluster, of one sheep, to which volumes are replicated."""
    top = tmp_path_factory.mktemp("second")
    cluster = SheepCluster(top / "sheep", "local:%s" % (top / "coordination"))
    cluster.start(1, 1)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def session_cloud(session_sheep, session_second, request, tmp_path_factory):
    cloud = Cloud(tmp_path_factory.mktemp("cloud"), session_sheep, session_second)
    request.session.stash[_CLOUD] = cloud
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.close()


@pytest.fixture
def cloud(session_cloud, sheep):
    """Keystone, Glance and Cinder on the three sheep, shared by all tests."""
    return session_cloud


@pytest.fixture
def small_cluster(tmp_path, small_disk):  # noqa: F811 - the fixture above
    """A sheep with room for some 60 MiB."""
    cluster = SheepCluster(tmp_path / "small", "local:%s" % (tmp_path / "coordination"))
    cluster.add(directory=small_disk(64) / "store")
    cluster.format(1)
    yield cluster
    cluster.close()


# -- Cinder's library in the test's process

@pytest.fixture(scope="session")
def cinder(tmp_path_factory):
    """Cinder's configuration."""
    from tests.openstack import cinder_objects

    cinder_objects.prepare(tmp_path_factory.mktemp("cinder"))


@pytest.fixture(scope="session")
def tables(cinder, tmp_path_factory):
    """Cinder's tables as well."""
    from tests.openstack import cinder_objects

    cinder_objects.database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="session")
def group_type(tables):
    """The id of a type of groups with snapshots of one instant."""
    from cinder import context
    from cinder.volume import group_types

    return group_types.create(context.get_admin_context(), "consistent",
                              {"consistent_group_snapshot_enabled": "<is> True"}).id


@pytest.fixture
def backends(cinder):
    """Makes drivers, see :class:`~tests.openstack.cinder_objects.Backends`."""
    from tests.openstack import cinder_objects

    found = cinder_objects.Backends()
    yield found
    found.close()
