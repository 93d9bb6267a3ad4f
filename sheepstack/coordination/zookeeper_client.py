"""kazoo's client with the three things that a lease needs and that it lacks.

- The session timeout that the service granted; asked for is something else, and servers
  have limits of their own.
- An end to each attempt to connect, well before the session ends, so that a server that is
  switched off does not cost the session while the others of its ensemble would serve it.
- A way to give up a connection on which nothing comes back.  kazoo pings only when it has
  nothing else to send, so it notices late; and for the answer to its greeting, which a server
  that is just starting may swallow, it waits for the whole session timeout.

kazoo's own threads run the callbacks; under eventlet they are green threads, because the
handler uses only what is patched.  Only the select of eventlet needs help, see there.
"""

import contextlib
import socket
import threading
import time

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler

from sheepstack.coordination.session import now

#: For each session timeout: how many servers that do not answer can be tried.
ATTEMPTS = 6


class _Handler(SequentialThreadingHandler):
    """``attempt``: seconds that a connection may take to be made."""

    def __init__(self, attempt: float):
        super().__init__()
        self._attempt = attempt
        self._connection = None
        #: When the connection was made, as of :func:`session.now`.
        self.connected_at = 0.0

    def select(self, *args, **kwargs):
        ready = super().select(*args, **kwargs)
        # Where several files are ready at once, eventlet wakes the caller for each: once from
        # the select, and then from whatever it blocks in next.  Let that be here.
        time.sleep(0)
        return ready

    def create_connection(self, *args, **kwargs):
        kwargs["timeout"] = min(kwargs.get("timeout") or self._attempt, self._attempt)
        connection = super().create_connection(*args, **kwargs)
        # In this order, so that a new connection is not taken for an old one.
        self.connected_at = now()
        self._connection = connection
        return connection

    def drop_connection(self):
        if self._connection is not None:
            # The thread that reads from it wakes up and goes on to the next server.
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)


class Client(KazooClient):
    """``hosts`` as ``host:port``; ``timeout``: the session timeout to ask for, in seconds."""

    def __init__(self, hosts, timeout: float):
        handler = _Handler(timeout / ATTEMPTS)
        super().__init__(
            hosts=",".join(hosts), timeout=timeout, handler=handler,
            connection_retry={"max_tries": -1, "delay": 0.05, "backoff": 2, "max_jitter": 0.4,
                              "max_delay": min(1.0, timeout / 10),
                              "sleep_func": handler.sleep_func})
        #: Seconds; None before the first session.
        self.granted_timeout = None
        connect = self._connection._connect

        def negotiate(*args):
            # kazoo keeps what was granted to itself, but it derives these from it.
            read_timeout, connect_timeout = connect(*args)
            self.granted_timeout = connect_timeout * len(self.hosts) / 1000
            return read_timeout, connect_timeout

        self._connection._connect = negotiate

    def drop_connection(self) -> None:
        """Give up the connection in use, for one that may work better."""
        self.handler.drop_connection()

    def drop_silent_connection(self, patience: float) -> None:
        """Give it up where the server has not greeted us for that many seconds."""
        if not self.connected and now() - self.handler.connected_at > patience:
            self.handler.drop_connection()

    def end(self) -> None:
        """End the session and all threads.  Blocks while the service does not answer."""
        # kazoo raises where a thread did not end in time; they are all daemons.
        with contextlib.suppress(Exception):
            self.stop()
            self.close()

    def end_within(self, seconds: float) -> None:
        """Like :meth:`end`, but leaves it to a thread where that takes longer."""
        thread = threading.Thread(target=self.end, name="coordination-end", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self.drop_connection()
