"""Keystone, Glance and Cinder on loopback, on a cluster of sheep."""

import concurrent.futures
import json
import os
import subprocess

from tests.functional import sheepfs
from tests.openstack.cinder import Cinder
from tests.openstack.daemon import BIN
from tests.openstack.glance import Glance
from tests.openstack.infrastructure import Cache, Database, MessageQueue
from tests.openstack.keystone import Keystone

#: The type of the second Glance in the catalogue.
REMOTE_IMAGE = "image-remote"


class Cloud:
    """Everything lies below ``directory``; ``sheep`` and ``second`` are running SheepClusters.

    ``second``: where replicated volumes go.  ``glance``: more of its configuration, see
    :class:`~tests.openstack.glance.Glance`; ``remote_glance``: have a second one.
    ``openstack(...)`` runs the command of that name, ``connection`` is the SDK's.
    """

    def __init__(self, directory, sheep, second, glance=None, remote_glance=False):
        self.directory = directory
        self.sheep = sheep
        self.second = second
        (directory / "locks").mkdir()
        self._mount = None
        #: Where sheepfs is mounted, None where this host cannot do that.
        self.mount_point = None if sheepfs.MISSING else directory / "mnt"
        self.database = Database(directory)
        self.queue = MessageQueue(directory)
        self.cache = Cache(directory)
        self.keystone = Keystone(self)
        self.glance = Glance(self, "glance", glance)
        self.remote_glance = Glance(self, "remote-glance", glance) if remote_glance else None
        self.cinder = Cinder(self)
        self.connection = None

    @property
    def daemons(self) -> list:
        """In the order in which they need one another."""
        return [self.cache.daemon, self.database.daemon, self.queue.epmd, self.queue.daemon,
                self.keystone.daemon, *(each.daemon for each in self._glances),
                *self.cinder.daemons]

    @property
    def _glances(self):
        return [each for each in (self.glance, self.remote_glance) if each is not None]

    def start(self):
        if self.mount_point is not None:
            self._mount = sheepfs.Mount(self.mount_point, "-a", self.sheep.addresses[0])
        _at_once(lambda: self.database.start(("keystone", "glance", "cinder")),
                 self.queue.start, self.cache.start)
        _at_once(self.keystone.prepare, self.glance.prepare, self.cinder.prepare)
        if self.remote_glance is not None:
            self.remote_glance.configure()
        self.keystone.daemon.start()
        for glance in self._glances:
            glance.daemon.start()
        self.keystone.daemon.wait_ready()
        services = {"glance": ("image", self.glance.url),
                    "cinder": ("block-storage", self.cinder.url)}
        if self.remote_glance is not None:
            services["remote-glance"] = (REMOTE_IMAGE, self.remote_glance.url)
        project, users = self.keystone.introduce(self.keystone.connect().identity, services)
        self.cinder.start(project, users["cinder"])
        # This one's token comes with the catalogue of what was just introduced.
        self.connection = self.keystone.connect()
        for glance in self._glances:
            glance.daemon.wait_ready()
        self.cinder.make_ready(self.connection.block_storage)

    def close(self):
        """End everything.  What was written stays."""
        for daemon in reversed(self.daemons):
            if daemon.running:
                daemon.kill()
        if self._mount is not None:
            self._mount.end()

    def report(self) -> str:
        return "\n".join("--- %s, %s\n%s" % (
            daemon.name, "running" if daemon.running else "ended", daemon.log_tail(25))
            for daemon in self.daemons)

    # -- driving it

    def openstack(self, *words, check=True):
        """What an ``openstack`` command answers: its JSON where it has any, else its text.

        Raises AssertionError where it fails; without ``check`` the completed process.
        """
        argv = [BIN / "openstack", *map(str, words)]
        if words[-1] != "--help" and _answers(words):
            argv += ["-f", "json"]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180,
            env={**os.environ, **self.keystone.environment()})
        if not check:
            return done
        if done.returncode:
            raise AssertionError("openstack %s ended with status %d:\n%s" % (
                " ".join(map(str, words)), done.returncode, done.stderr or done.stdout))
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            return done.stdout
        # Some commands write id, others ID.
        return {name.lower(): value for name, value in answer.items()} \
            if isinstance(answer, dict) else answer


#: Commands that print something.
_ANSWERING = frozenset(("create", "show", "list", "export"))


def _answers(words):
    return any(word in _ANSWERING for word in words if not str(word).startswith("-"))


def _at_once(*functions):
    """Call them all in threads; raises what one of them raises."""
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()
