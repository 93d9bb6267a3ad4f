"""A cloud outside of pytest: for tempest and the benchmarks."""

import contextlib
import pathlib
import tempfile

from tests.functional.harness import SheepCluster
from tests.functional.zookeeper_server import ZooKeeperServer
from tests.openstack.cloud import Cloud


@contextlib.contextmanager
def running_cloud(sheep_options=(), **details):
    """A :class:`Cloud` on three sheep with ZooKeeper, which ends with the block.

    ``sheep_options``: of each sheep's command line; ``details``: of the Cloud.
    """
    with contextlib.ExitStack() as stack:
        top = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="sheepstack-openstack-")))
        zookeeper = stack.enter_context(ZooKeeperServer())
        sheep = stack.enter_context(contextlib.closing(SheepCluster(
            top / "sheep", zookeeper.spec("openstack"), options=sheep_options)))
        sheep.start()
        second = stack.enter_context(contextlib.closing(SheepCluster(
            top / "second", "local:%s" % (top / "coordination"))))
        second.start(1, 1)
        directory = top / "cloud"
        directory.mkdir()
        cloud = stack.enter_context(contextlib.closing(Cloud(directory, sheep, second, **details)))
        cloud.start()
        yield cloud
