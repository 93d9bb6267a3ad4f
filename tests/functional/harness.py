"""Clusters of real sheep processes on this host.

A :class:`SheepCluster` starts daemons on loopback, waits for what a test needs to be true by
asking them, breaks them on request and ends those that it started, and no others.
"""

import concurrent.futures
import itertools
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

from sheepstack.client import Cluster
from sheepstack.client.errors import SheepError
from sheepstack.wire import admin, oid as oids
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import ClusterRequest, version_of
from sheepstack.wire.opcodes import Op

HOST = "127.0.0.1"
START_TIMEOUT = 30
POLL_INTERVAL = 0.03

#: Below the kernel's range for outgoing connections, so that none takes a port which a
#: sheep that is down for a moment will want again.
_PORTS = range(20000, 32000)
_ports = itertools.islice(itertools.cycle(_PORTS), random.choice(range(len(_PORTS))), None)

# The kernel ends a daemon when the *thread* that started it is gone, so all are started by
# one thread that lives as long as the test run does.
_starter = concurrent.futures.ThreadPoolExecutor(1, "starter")
_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def free_port() -> int:
    """A TCP port of loopback on which nobody listens, different with each call."""
    for port in itertools.islice(_ports, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no TCP port is free")


def start(argv, **options) -> subprocess.Popen:
    """Start a process that does not outlive this one, however this one ends."""
    return _starter.submit(
        subprocess.Popen, [*_WITH_US, *map(str, argv)],
        stdin=subprocess.DEVNULL, **options).result()


def wait_until(condition, timeout, what, interval=POLL_INTERVAL):
    """Ask ``condition()`` every ``interval`` seconds until it returns something true, and
    return that.

    ``what`` says what is waited for; a callable is asked once it is too late.  Raises
    AssertionError after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                "waited %g s in vain for %s" % (timeout, what() if callable(what) else what))
        time.sleep(interval)


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list:
        return self.text.splitlines()


class Sheep:
    """One daemon: its directory, its address, and its process while it runs."""

    def __init__(self, index, directory, log, port, options, runtime):
        self.index = index
        self.directory = directory
        self.log = log
        self.port = port
        self.options = options
        self.runtime = runtime
        self.process = None
        self.stopped = False
        self.expected_to_end = False
        self.complaints = []

    @property
    def address(self) -> str:
        return "%s:%d" % (HOST, self.port)

    @property
    def socket(self) -> pathlib.Path:
        """The Unix socket on which it also listens."""
        return self.directory / "sock"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def argv(self) -> list:
        return [sys.executable, "-m", "sheepstack.cmd.sheep", "-f",
                "--runtime", self.runtime, "-p", self.port, "-l", "level=info,dst=stdout",
                *self.options, self.directory]

    def start(self, *more_options):
        assert not self.running, "sheep %d runs already" % self.index
        self.complain_if_ended()
        argv = self.argv
        argv[-1:-1] = more_options
        self.stopped = self.expected_to_end = False
        with self.log.open("ab") as log:
            self.process = start(argv, stdout=log, stderr=subprocess.STDOUT)

    def is_listening(self) -> bool:
        """Raises AssertionError where it has ended instead."""
        if not self.running:
            raise AssertionError("sheep %d ended with status %s while it started:\n%s" % (
                self.index, self.process.returncode, self.log_tail()))
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def signal(self, number):
        """Raises AssertionError where the process is not there any more."""
        assert self.running, "sheep %d does not run" % self.index
        self.process.send_signal(number)

    def end(self, number, timeout=20):
        self.expected_to_end = True
        self.signal(number)
        if self.stopped and number != signal.SIGKILL:
            self.process.send_signal(signal.SIGCONT)
        return self.wait_ended(timeout)

    def wait_ended(self, timeout) -> int:
        """The exit status, negative for a signal."""
        self.expected_to_end = True
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                "sheep %d did not end within %g s" % (self.index, timeout)) from None
        self.stopped = False
        return status

    def complain_if_ended(self):
        """Note it where the daemon has ended and nobody asked it to."""
        if self.process is not None and not self.running and not self.expected_to_end:
            self.expected_to_end = True
            self.complaints.append("sheep %d ended by itself with status %d" % (
                self.index, self.process.returncode))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines=40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    @property
    def state(self) -> str:
        if self.process is None:
            return "never started"
        if not self.running:
            return "ended with status %d" % self.process.returncode
        return "stopped" if self.stopped else "running"


class SheepCluster:
    """Sheep in directories below ``root``, with one cluster driver and runtime.

    ``coordination`` is the value of ``-c``.  ``sync`` False gives ``-n``.  ``options`` are
    added to every sheep's command line.  ``auth_key`` (bytes) is a secret shared by all.
    """

    def __init__(self, root, coordination, runtime="threading", *, sync=True, options=(),
                 auth_key=None):
        self.root = pathlib.Path(root)
        self.coordination = coordination
        self.runtime = runtime
        self.sync = sync
        self.options = tuple(options)
        self.auth_key = auth_key
        self.sheep = []
        self._clients = []
        self._askers = {}
        self.root.mkdir(parents=True, exist_ok=True)
        if auth_key is not None:
            self.auth_key_file = self.root / "auth-key"
            self.auth_key_file.write_bytes(auth_key)
            self.auth_key_file.chmod(0o600)

    # -- starting and breaking ------------------------------------------------------------

    def start(self, nodes=3, copies=3, *, zones=None, vnodes=None, gateways=(),
              format_options=()):
        """Start ``nodes`` sheep and format the cluster; ``copies`` None leaves that out.

        ``zones`` and ``vnodes`` have a value for each sheep (None in it: the default, which
        makes each sheep a zone of its own);
        ``gateways`` are the indexes of those that store nothing.  ``format_options`` go to
        ``dog cluster format``.
        """
        for index in range(nodes):
            self.add(zone=zones[index] if zones else None,
                     vnodes=vnodes[index] if vnodes else None,
                     gateway=index in gateways, wait=False)
        self.wait_listening()
        self.wait_members()
        if copies is not None:
            self.format(copies, *format_options)

    def add(self, *, zone=None, vnodes=None, gateway=False, options=(), directory=None,
            port=None, wait=True) -> int:
        """Start one more sheep and return its index; its zone is index + 1 by default.

        With ``wait`` it returns once all members know of it; its recovery goes on.
        """
        index = len(self.sheep)
        argv = ["-c", self.coordination]
        argv += ["-z", index + 1 if zone is None else zone]
        argv += ["-V", vnodes] if vnodes is not None else []
        argv += ["-g"] if gateway else []
        argv += [] if self.sync else ["-n"]
        argv += ["--auth-key-file", self.auth_key_file] if self.auth_key is not None else []
        sheep = Sheep(
            index, pathlib.Path(directory or self.root / ("sheep%d" % index)),
            self.root / ("sheep%d.log" % index), port or free_port(),
            [*argv, *self.options, *options], self.runtime)
        self.sheep.append(sheep)
        sheep.start()
        if wait:
            self.wait_listening()
            self.wait_members()
        return index

    def kill(self, index, sig=signal.SIGKILL) -> int:
        """End a sheep; returns its exit status once it is gone."""
        return self.sheep[index].end(sig)

    def terminate(self, index) -> int:
        """Ask a sheep to end in good order; returns its exit status."""
        return self.kill(index, signal.SIGTERM)

    def stop(self, index):
        """Freeze a sheep (SIGSTOP): it holds its connections and answers nothing."""
        self.sheep[index].signal(signal.SIGSTOP)
        self.sheep[index].stopped = True

    def cont(self, index):
        """Let a frozen sheep go on."""
        self.sheep[index].signal(signal.SIGCONT)
        self.sheep[index].stopped = False

    def restart(self, index, *more_options, wait=True):
        """Start a sheep again in the same directory, after ending it where it still runs."""
        sheep = self.sheep[index]
        if sheep.running:
            self.terminate(index)
        sheep.start(*more_options)
        if wait:
            wait_until(sheep.is_listening, START_TIMEOUT, "sheep %d to listen" % index)

    def restart_all(self, *more_options):
        """Cold start: every sheep that does not run is started."""
        for sheep in self.sheep:
            if not sheep.running:
                sheep.start(*more_options)
        self.wait_listening()

    def kill_all(self, sig=signal.SIGKILL):
        """A signal to all sheep at the same moment, as when the power goes."""
        for sheep in self.sheep:
            if sheep.running:
                sheep.expected_to_end = True
                sheep.signal(sig)
        self.wait_ended()

    def wait_ended(self, timeout=30):
        """Wait until every sheep has ended, as after ``dog cluster shutdown``."""
        for sheep in self.sheep:
            sheep.wait_ended(timeout)

    # -- what is where --------------------------------------------------------------------

    @property
    def addresses(self) -> list:
        """``host:port`` of every sheep, dead ones too."""
        return [sheep.address for sheep in self.sheep]

    @property
    def dirs(self) -> list:
        return [sheep.directory for sheep in self.sheep]

    @property
    def pids(self) -> list:
        return [sheep.process.pid for sheep in self.sheep]

    @property
    def live(self) -> list:
        """Sheep that run and are not frozen."""
        return [sheep for sheep in self.sheep if sheep.running and not sheep.stopped]

    def index_of(self, address) -> int:
        return self.addresses.index(str(address))

    def logs(self, index) -> str:
        return self.sheep[index].log_text()

    def object_files(self, oid) -> list:
        """Paths of the current copies of an object (id or its 16 digits) on all sheep."""
        name = oid if isinstance(oid, str) else oids.name_of(oid)
        paths = [sheep.directory / "obj" / name for sheep in self.sheep]
        return [path for path in paths if path.exists()]

    def index_of_path(self, path) -> int:
        """Index of the sheep in whose directory ``path`` lies."""
        return next(sheep.index for sheep in self.sheep if sheep.directory in path.parents)

    def objects(self, index) -> set:
        """Names of the current objects on a sheep."""
        return {path.name for path in (self.sheep[index].directory / "obj").iterdir()}

    # -- talking to it --------------------------------------------------------------------

    def client(self, sheep=None, **options) -> Cluster:
        """A client of all sheep, or of the one with this index alone.

        It is closed with the cluster.
        """
        addresses = self.addresses if sheep is None else [self.sheep[sheep].address]
        options.setdefault("auth_key", self.auth_key)
        client = Cluster(addresses, **options)
        self._clients.append(client)
        return client

    def dog(self, *args, input=None, check=True, sheep=None, timeout=60) -> Ran:
        """Run dog against a live sheep, or the one with this index.

        ``input`` is bytes for its standard input.  Raises AssertionError where it fails,
        unless ``check`` is False.
        """
        target = self.live[0] if sheep is None else self.sheep[sheep]
        argv = [sys.executable, "-m", "sheepstack.dog", *map(str, args),
                "-a", HOST, "-p", str(target.port)]
        if self.auth_key is not None:
            argv += ["--auth-key-file", str(self.auth_key_file)]
        done = subprocess.run(
            argv, input=b"" if input is None else input, capture_output=True, timeout=timeout)
        ran = Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
        if check and ran.status:
            raise AssertionError("dog %s ended with status %d:\n%s%s" % (
                " ".join(map(str, args)), ran.status, ran.err,
                ran.out[:2000].decode(errors="replace")))
        return ran

    def format(self, copies, *options):
        """Format the cluster and wait until all of its members know."""
        self.dog("cluster", "format", "-c", copies, *options)
        self.wait_members(status=admin.ClusterStatus.OK)

    def info(self, index) -> admin.ClusterInfo:
        """What a sheep says of the cluster.  Raises SheepError."""
        payload = self._ask(self.sheep[index], Op.CLUSTER_INFO, admin.MAX_CLUSTER_INFO_SIZE)
        return admin.ClusterInfo.unpack(payload)

    def recovery(self, index) -> admin.RecoveryState:
        """How far a sheep's recovery is.  Raises SheepError."""
        payload = self._ask(self.sheep[index], Op.STAT_RECOVERY, admin.RECOVERY_STATE_SIZE)
        return admin.RecoveryState.unpack(payload)

    def _ask(self, sheep, opcode, room):
        # A process that was started anew gets a client that remembers no failure.
        key = (sheep.index, sheep.process.pid)
        asker = self._askers.get(key)
        if asker is None:
            asker = self._askers[key] = self.client(sheep.index, timeout=5)
        request = ClusterRequest(opcode, data_length=room, proto_ver=version_of(opcode))
        return asker.execute(request)[1]

    # -- waiting --------------------------------------------------------------------------

    def wait_listening(self, timeout=START_TIMEOUT):
        for sheep in self.sheep:
            if sheep.running:
                wait_until(sheep.is_listening, timeout, "sheep %d to listen" % sheep.index)

    def wait_members(self, members=None, status=None, timeout=START_TIMEOUT):
        """Wait until the live sheep agree that they (or ``members``, indexes) are the cluster.

        Where ``status`` is given they must all be in it.  Returns the epoch.
        """
        if members is None:
            members = [sheep.index for sheep in self.live]
        wanted = sorted(self.sheep[index].address for index in members)

        def agreed():
            infos = self._infos()
            if all(info is not None and self._names(info) == wanted and
                   status in (None, info.status) for info in infos.values()):
                epochs = {info.epoch for info in infos.values()}
                return [epochs.pop()] if len(epochs) == 1 else None

        return wait_until(agreed, timeout, lambda: "the cluster to be %s%s; %s" % (
            ", ".join(wanted), "" if status is None else " with status %d" % status,
            self._describe()))[0]

    def wait_epoch(self, epoch, timeout=START_TIMEOUT):
        """Wait until every live sheep is at ``epoch`` or beyond."""
        wait_until(
            lambda: all(info is not None and info.epoch >= epoch
                        for info in self._infos().values()),
            timeout, lambda: "epoch %d; %s" % (epoch, self._describe()))

    def wait_status(self, status, timeout=START_TIMEOUT):
        """Wait until every live sheep reports this :class:`admin.ClusterStatus`."""
        wait_until(
            lambda: all(info is not None and info.status == status
                        for info in self._infos().values()),
            timeout, lambda: "status %d; %s" % (status, self._describe()))

    def wait_recovered(self, timeout=90):
        """Wait until the live sheep are the members and none of them has objects to move."""
        deadline = time.monotonic() + timeout
        while True:
            epoch = self.wait_members(
                status=admin.ClusterStatus.OK, timeout=max(0, deadline - time.monotonic()))
            wait_until(self._is_recovered, max(0, deadline - time.monotonic()),
                       lambda: "recovery to end; %s" % self._describe())
            if self.wait_members() == epoch:
                return

    def wait_log(self, index, text, timeout=START_TIMEOUT):
        """Wait until a sheep's log holds ``text``."""
        wait_until(lambda: text in self.logs(index), timeout,
                   "'%s' in the log of sheep %d" % (text, index))

    def _infos(self):
        return {sheep.index: self._attempt(self.info, sheep) for sheep in self.live}

    def _is_recovered(self):
        states = [self._attempt(self.recovery, sheep) for sheep in self.live]
        return all(state is not None and not state.in_recovery for state in states)

    def _attempt(self, question, sheep):
        try:
            return question(sheep.index)
        except (SheepError, RemoteProtocolError):
            return None

    @staticmethod
    def _names(info):
        return sorted(str(node.nid) for node in info.nodes)

    def _describe(self):
        parts = []
        for sheep in self.sheep:
            part = "sheep %d (%s) %s" % (sheep.index, sheep.address, sheep.state)
            if sheep.running and not sheep.stopped:
                info = self._attempt(self.info, sheep)
                state = self._attempt(self.recovery, sheep)
                if info is None:
                    part += ", does not answer"
                else:
                    part += ", epoch %d, status %d, nodes %s" % (
                        info.epoch, info.status, " ".join(self._names(info)))
                if state is not None and state.in_recovery:
                    part += ", recovered %d of %d" % (state.nr_finished, state.nr_total)
            parts.append(part)
        return "; ".join(parts)

    # -- the end --------------------------------------------------------------------------

    def close(self):
        """End what runs, at once.  The directories stay."""
        for client in self._clients:
            client.close()
        for sheep in self.sheep:
            if sheep.running:
                sheep.process.kill()
        for sheep in self.sheep:
            if sheep.process is not None:
                sheep.process.wait()

    def complaints(self) -> list:
        """What a test must not cause: sheep that ended by themselves, errors nobody handled."""
        found = []
        for sheep in self.sheep:
            sheep.complain_if_ended()
            found += sheep.complaints
            if "Traceback (most recent call last)" in sheep.log_text():
                found.append("sheep %d logged a traceback" % sheep.index)
        return found

    def report(self) -> str:
        """The state of each sheep and the end of its log, for a failure's report."""
        return "\n".join(
            "--- sheep %d, %s, %s\n%s" % (
                sheep.index, sheep.address, sheep.state,
                sheep.log_tail(15 if sheep.running else 60))
            for sheep in self.sheep)
