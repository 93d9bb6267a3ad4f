"""A real ZooKeeper for tests: started from Debian's package, and made to fail on purpose.

    with ZooKeeperServer() as server:
        coordinator = connect(server.spec("a-cluster"))

The fixture ``zookeeper`` gives one that runs as long as the tests do; whoever stops, kills or
pauses a server starts one of his own.  :class:`Proxy` stands between one client and a server,
so that the network can fail for this client alone.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from kazoo.client import KazooClient

JAR = "/usr/share/java/zookeeper.jar"
#: Shows what ZooKeeper complains about; it runs without.
LOGGER_JAR = "/usr/share/java/slf4j-simple.jar"
START_DEADLINE = 30.0

_LOOPBACK = "127.0.0.1"
#: Below the ports that outgoing connections get: none of them must take the port of a server
#: that is down for a moment.
_PORTS = range(20000, 32000)

_JAVA = (
    "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
    "-Dzookeeper.admin.enableServer=false",
    # Survives SIGKILL as it is; the transaction log would have 64 MiB.
    "-Dzookeeper.forceSync=no", "-Dzookeeper.preAllocSize=1024",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as sock:
            with contextlib.suppress(OSError):
                sock.bind((_LOOPBACK, port))
                return port
    raise RuntimeError("no free port on %s" % _LOOPBACK)


class ZooKeeperServer:
    """One server on a loopback port, with its data in a temporary directory.

    ``tick`` in seconds: sessions expire up to that much late, and their timeout can not be
    shorter than two of it.  ``max_timeout`` in seconds: the longest that a session gets.
    ``host``: an address of this host to listen on instead.
    """

    def __init__(self, tick: float = 0.2, max_timeout: float = 60.0, host: str = _LOOPBACK):
        if not os.path.exists(JAR) or not shutil.which("java"):
            raise RuntimeError("these tests need the packages zookeeper and a Java runtime")
        self._directory = tempfile.mkdtemp(prefix="zookeeper-")
        self._tick = tick
        self._max_timeout = max_timeout
        self._process = None
        self._host = host
        self.port = free_port()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def address(self) -> str:
        return "%s:%d" % (self._host, self.port)

    @property
    def pid(self) -> int:
        return self._process.pid

    def spec(self, cluster_id: str) -> str:
        """What ``connect`` takes for a cluster of that id."""
        return "zookeeper:%s/%s" % (self.address, cluster_id)

    def start(self) -> None:
        """Returns once it serves.  After :meth:`stop` or :meth:`kill` with what it had."""
        config = os.path.join(self._directory, "zoo.cfg")
        with open(config, "w") as file:
            file.write("".join("%s=%s\n" % option for option in (
                ("dataDir", os.path.join(self._directory, "data")),
                ("clientPortAddress", self._host),
                ("clientPort", self.port),
                ("tickTime", round(self._tick * 1000)),
                ("minSessionTimeout", round(self._tick * 2000)),
                ("maxSessionTimeout", round(self._max_timeout * 1000)),
                ("maxClientCnxns", 0),
                ("admin.enableServer", "false"),
                ("4lw.commands.whitelist", "srvr"))))
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                ["java", *_JAVA, "-cp", "%s:%s" % (JAR, LOGGER_JAR),
                 "org.apache.zookeeper.server.ZooKeeperServerMain", config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._await_service()

    @property
    def _log(self):
        return os.path.join(self._directory, "log")

    def _await_service(self):
        deadline = time.monotonic() + START_DEADLINE
        while not self.serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                with open(self._log, errors="replace") as log:
                    raise RuntimeError("ZooKeeper did not start:\n%s" % log.read())
            time.sleep(0.02)

    def serves(self) -> bool:
        """Whether it answers now."""
        with contextlib.suppress(OSError):
            with socket.create_connection((self._host, self.port), 1.0) as sock:
                sock.sendall(b"srvr")
                with sock.makefile("rb") as answer:
                    return b"Mode: " in answer.read()
        return False

    def stop(self) -> None:
        """In good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number):
        if self._process is not None:
            self._process.send_signal(number)
            # A paused one takes note of it only then.
            self._process.send_signal(signal.SIGCONT)
            self._process.wait()

    def restart(self) -> None:
        """As after a crash: killed, and started with what it had."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Connections stay, and nothing comes through them; nor does anything expire."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it and removes its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    @contextlib.contextmanager
    def client(self):
        """A plain kazoo client, to look at what is there and to spoil it."""
        client = KazooClient(self.address, timeout=10.0)
        client.start()
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def expire(self, session_id: str) -> None:
        """End the session of another process, which learns it when it talks to us next.

        ``session_id``: 16 hexadecimal digits, as in ``Coordinator.session_id``.
        """
        number = int(session_id, 16)
        number -= (number >> 63) << 64
        client = KazooClient(self.address, client_id=(number, session_password(number)))
        client.start()
        taken = client.client_id[0]
        client.stop()
        client.close()
        if taken != number:
            raise RuntimeError("there is no session %s" % session_id)


def session_password(session_id: int) -> bytes:
    """The password that ZooKeeper gives a session (signed 64-bit id).

    It is 16 bytes of ``java.util.Random``, a linear congruential generator of 48 bits, seeded
    with the id and a number which all servers share.
    """
    multiplier, mask = 0x5DEECE66D, (1 << 48) - 1
    seed = (session_id ^ 0xB3415C00 ^ multiplier) & mask
    password = b""
    while len(password) < 16:
        seed = (seed * multiplier + 0xB) & mask
        password += (seed >> 16).to_bytes(4, "little")
    return password


class Proxy:
    """Forwards TCP connections to ``address`` until told otherwise."""

    def __init__(self, address: str):
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._sockets = set()
        self._flows = threading.Event()
        self._mute = False
        self._marker = None
        #: Bytes that were lost since it was made mute.
        self.lost = 0
        self._refuses = False
        self._closed = False
        self._listener = socket.create_server((_LOOPBACK, free_port()), backlog=16)
        self.heal()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def address(self) -> str:
        return "%s:%d" % self._listener.getsockname()

    def spec(self, cluster_id: str) -> str:
        """What ``connect`` takes for a cluster of that id, through this proxy."""
        return "zookeeper:%s/%s" % (self.address, cluster_id)

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        self._refuses = True
        self.drop()

    def drop(self) -> None:
        """Break all connections, and accept new ones."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Connections stay, also new ones are made, but nothing comes through."""
        self._flows.clear()

    def mute(self, marker: "bytes | None" = None) -> None:
        """What the server sends is lost; what the client sends arrives.

        With a marker, as soon as the client sends something that contains it.
        """
        self.lost = 0
        self._marker = marker
        self._mute = marker is None

    def heal(self) -> None:
        """Forward again.  What was lost stays lost."""
        self._mute, self._marker = False, None
        self._refuses = False
        self._flows.set()

    def close(self) -> None:
        self._closed = True
        # A close alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flows.set()

    def _accept(self):
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets.update((client, server))
            upward = threading.Thread(target=self._forward, args=(client, server, False))
            downward = threading.Thread(target=self._forward, args=(server, client, True))
            threading.Thread(target=self._attend, args=(client, server, upward, downward),
                             daemon=True).start()

    def _attend(self, client, server, *threads):
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _forward(self, source, sink, downward):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if not downward and self._marker and self._marker in data:
                    self._mute = True
                if downward and self._mute:
                    self.lost += len(data)
                else:
                    sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def zookeeper():
    """A server that nobody may stop; keep apart by cluster ids."""
    with ZooKeeperServer() as server:
        yield server
