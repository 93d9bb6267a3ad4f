"""Connections to the gateways of one cluster: several to one of them at a time.

The pool stays with a gateway until it fails, then goes on to the next.  Each time that it
has to connect anew its ``generation`` grows: what a gateway kept for us (locks) may be gone.
"""

import logging
import os
import threading
import time
import weakref

from sheepstack.client.connection import Connection
from sheepstack.client.errors import AuthenticationFailed, Closed, ClusterUnreachable
from sheepstack.client.handshake import prove
from sheepstack.wire.errors import RemoteProtocolError

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 3.0
_FIRST_PENALTY = 0.05
_LONGEST_PENALTY = 2.0

#: For a gateway that fell silent: it may well take connections, and then say nothing.
_SILENCE_PENALTY = 5.0

_monotonic = time.monotonic


class Gateway:
    """What the pool knows of one address.  Until ``shunned_until`` it is not tried again."""

    def __init__(self, address):
        self.address = address
        self.shunned_until = 0.0
        self.error = None
        self._penalty = _FIRST_PENALTY

    def punish(self, error, seconds=0.0):
        self.error = error
        self.shunned_until = _monotonic() + max(seconds, self._penalty)
        self._penalty = min(2 * self._penalty, _LONGEST_PENALTY)

    def forgive(self):
        self.error = None
        self.shunned_until = 0.0
        self._penalty = _FIRST_PENALTY


class Pool:
    """``addresses``: :class:`~sheepstack.client.address.GatewayAddress`, in order of
    preference.  ``key``: the cluster's secret or None.  ``timeout``: seconds, of a request.
    ``width``: most connections to a gateway."""

    def __init__(self, addresses, key, timeout, width):
        self.gateways = [Gateway(address) for address in addresses]
        self.generation = 0
        self._key = key
        self._timeout = timeout
        self._width = width
        self._reset()
        _pools.add(self)

    def _reset(self):
        self._connections = ()
        self._current = 0
        self._ever_connected = False
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def lead(self):
        """The first connection where there is a whole one, else None."""
        for connection in self._connections:
            if connection.broken is None:
                return connection
        return None

    def get(self, deadline):
        """A connection: an idle one, a new one, or the one with the fewest calls.

        Raises ClusterUnreachable: at once where no gateway could ever be reached, else at
        ``deadline`` (monotonic).  Raises AuthenticationFailed and Closed.
        """
        best = None
        connections = self._connections
        if any(connection.broken is not None for connection in connections):
            # Then the whole ones are as good as gone, see _leave_broken().
            return self._open(deadline)
        for connection in connections:
            load = len(connection.calls)
            if not load:
                return connection
            if best is None or load < len(best.calls):
                best = connection
        if best is not None and len(connections) >= self._width:
            return best
        return self._open(deadline)

    def _open(self, deadline):
        if not self._lock.acquire(timeout=max(0.0, deadline - _monotonic())):
            raise self._unreachable()
        try:
            if self._closed.is_set():
                raise Closed("the cluster object was closed")
            if _monotonic() >= deadline:
                raise self._unreachable()
            self._leave_useless()
            self._leave_broken()
            connections = [c for c in self._connections if c.broken is None]
            if len(connections) >= self._width:
                return min(connections, key=lambda c: len(c.calls))
            if connections:
                # One more to the same gateway; the others will do where that fails.
                try:
                    connection = self._connect(self.gateways[self._current], deadline)
                except (OSError, RemoteProtocolError, AuthenticationFailed):
                    return min(connections, key=lambda c: len(c.calls))
            else:
                connection = self._connect_any(deadline)
            self._connections = tuple(connections) + (connection,)
            return connection
        finally:
            self._lock.release()

    def _leave_useless(self):
        """Go on from a gateway that fell silent, or that takes connections and ends them, as one
        behind which nobody listens may do (a proxy): it would do so for ever."""
        for connection in self._connections:
            if connection.generation == self.generation and (
                    connection.was_silent or connection.gave_nothing):
                silent = connection.was_silent and len(self.gateways) > 1
                for each in self._move_on(connection.broken, _SILENCE_PENALTY if silent else 0.0):
                    each.fail(connection.broken)
                return

    def _leave_broken(self):
        """Where one connection broke the gateway may have dropped all: it has been out of the
        cluster perhaps, and what it kept for us is gone.  Others may just not have noticed,
        and one more made beside them would pass for one to what there was before."""
        error = next((c.broken for c in self._connections if c.broken is not None), None)
        if error is not None:
            gone, self._connections = self._connections, ()
            for each in gone:
                if each.broken is None:
                    each.fail(error)

    def _move_on(self, error, seconds=0.0):
        """Punish the present gateway; what is still connected to it is returned."""
        self.gateways[self._current].punish(error, seconds)
        self._current = (self._current + 1) % len(self.gateways)
        gone, self._connections = self._connections, ()
        return gone

    def _connect_any(self, deadline):
        count = len(self.gateways)
        while True:
            for step in range(count):
                index = (self._current + step) % count
                gateway = self.gateways[index]
                if gateway.shunned_until > _monotonic():
                    continue
                self.generation += 1
                try:
                    connection = self._connect(gateway, deadline)
                except (OSError, RemoteProtocolError) as error:
                    log.info("no connection to %s: %s", gateway.address, error)
                    gateway.punish(error)
                    continue
                gateway.forgive()
                self._current = index
                self._ever_connected = True
                return connection
            now = _monotonic()
            if not self._ever_connected or now >= deadline:
                raise self._unreachable()
            until = min(min(g.shunned_until for g in self.gateways), deadline)
            if self._closed.wait(max(0.0, until - now)):
                raise Closed("the cluster object was closed")

    def _connect(self, gateway, deadline):
        timeout = max(0.05, min(_CONNECT_TIMEOUT, deadline - _monotonic()))
        name = str(gateway.address)
        sock = gateway.address.connect(timeout)
        try:
            if self._key is not None:
                prove(sock, self._key, name)
            return Connection(sock, name, self._timeout, self.generation)
        except BaseException:
            sock.close()
            raise

    def _unreachable(self):
        unreachable = ClusterUnreachable("failed to connect to " + "; ".join(
            "%s: %s" % (gateway.address, _reason(gateway.error)) for gateway in self.gateways))
        unreachable.__cause__ = self.gateways[self._current].error
        return unreachable

    def turn_away(self, connection, error):
        """The gateway of ``connection`` cannot serve: go on to another one."""
        with self._lock:
            gateway = self.gateways[self._current]
            if connection.generation == self.generation and (
                    connection.name == str(gateway.address)):
                gone = self._move_on(error)
            else:
                gone = (connection,)
        for each in gone:
            each.fail(error)

    def pause(self, seconds):
        """Wait; raises Closed where the pool is closed meanwhile."""
        if self._closed.wait(seconds):
            raise Closed("the cluster object was closed")

    def close(self):
        self._closed.set()
        with self._lock:
            gone, self._connections = self._connections, ()
        for connection in gone:
            connection.close()


def _reason(error):
    if error is None:
        return "no answer"
    return getattr(error, "strerror", None) or str(error)


_pools = weakref.WeakSet()


def _after_fork():
    # The parent goes on using its connections; a child that wrote to them would garble them.
    for pool in list(_pools):
        pool._reset()


os.register_at_fork(after_in_child=_after_fork)
