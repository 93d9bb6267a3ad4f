"""Fixtures of the functional tests: clusters on every runtime and coordination driver."""

import itertools
import os
import subprocess
from typing import NamedTuple

import pytest

from tests.functional.harness import SheepCluster
from tests.functional.tgt import tgtd  # noqa: F401 - a fixture
from tests.functional.zookeeper_server import zookeeper  # noqa: F401 - a fixture

RUNTIMES = ("eventlet", "threading")
DRIVERS = ("local", "zookeeper")

_CLUSTERS = pytest.StashKey()
_cluster_ids = itertools.count(1)


class Deployment(NamedTuple):
    """On what a cluster runs."""

    runtime: str
    driver: str

    def __str__(self):
        return "%s+%s" % self


EVERYWHERE = [Deployment(runtime, driver) for runtime in RUNTIMES for driver in DRIVERS]
USUALLY = [Deployment("eventlet", "local"), Deployment("threading", "zookeeper")]


def pytest_generate_tests(metafunc):
    if "deployment" not in metafunc.fixturenames:
        return
    chosen = metafunc.definition.get_closest_marker("deployment")
    if chosen is not None:
        deployments = [Deployment(*name.split("+")) for name in chosen.args]
        unknown = [str(d) for d in deployments if d not in EVERYWHERE]
        assert not unknown, "no such deployment: %s" % ", ".join(unknown)
    elif metafunc.definition.get_closest_marker("everywhere"):
        deployments = EVERYWHERE
    else:
        deployments = USUALLY
    metafunc.parametrize("deployment", deployments, ids=str)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for number, cluster in enumerate(item.stash.get(_CLUSTERS, ())):
            report.sections.append(("sheep of cluster %d" % number, cluster.report()))
    return report


@pytest.fixture
def coordination(deployment, request, tmp_path):
    """Function that returns the ``-c`` of a new cluster of the deployment's driver."""
    def specify():
        number = next(_cluster_ids)
        if deployment.driver == "local":
            return "local:%s" % (tmp_path / ("coordination%d" % number))
        server = request.getfixturevalue("zookeeper")
        return "%s,timeout=4000" % server.spec("test%d-%d" % (os.getpid(), number))
    return specify


@pytest.fixture
def make_cluster(deployment, coordination, request, tmp_path):
    """Function that starts a cluster; its options are those of :meth:`SheepCluster.start`,
    and as ``settings`` a dictionary of those of :class:`SheepCluster`.

    A sheep that ends by itself, or that logs a traceback, fails the test; where the former
    is what the test is about, it is marked ``may_die``.
    """
    # A new list: that of a first run which failed is no matter of the second.
    clusters = request.node.stash[_CLUSTERS] = []

    def make(nodes=3, copies=3, *, settings=None, **options):
        settings = {"coordination": coordination(), "runtime": deployment.runtime,
                    **(settings or {})}
        cluster = SheepCluster(tmp_path / ("c%d" % len(clusters)), **settings)
        clusters.append(cluster)
        cluster.start(nodes, copies, **options)
        return cluster

    yield make
    complaints = [line for cluster in clusters for line in cluster.complaints()]
    if request.node.get_closest_marker("may_die"):
        complaints = [line for line in complaints if "by itself" not in line]
    for cluster in clusters:
        cluster.close()
    assert not complaints, "; ".join(complaints)


@pytest.fixture
def cluster(make_cluster):
    """Three sheep that keep three copies."""
    return make_cluster()


@pytest.fixture
def small_disk(tmp_path):
    """Function that returns the path of a new, empty file system of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = []

    def mount(mib):
        path = tmp_path / ("disk%d" % len(mounted))
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % mib, "none", path], check=True)
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)
