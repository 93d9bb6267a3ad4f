"""Carries calls through: connects, sends, waits, and tries again what may be tried again."""

import time

from sheepstack.client.call import ControlCall
from sheepstack.client.errors import ClusterUnreachable, ConnectionLost, OutcomeUnknown, error_for
from sheepstack.wire.header import Header
from sheepstack.wire.opcodes import PROTO_VER, Op
from sheepstack.wire.results import Result

_monotonic = time.monotonic

_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5

#: So often a lost connection is made anew without a pause.
_QUICK_RETRIES = 3

#: So often a gateway may say that it cannot serve before it is believed, by a client that it
#: has never served.
_UNABLE_LIMIT = 2

#: The sheep ask for patience.
TRANSIENT = frozenset((
    Result.STARTUP, Result.AGAIN, Result.COLLECTING_CINFO, Result.OLD_NODE_VER,
    Result.NEW_NODE_VER))

#: This gateway cannot serve now; another one perhaps can, or this one when it has started.
UNABLE = frozenset((
    Result.SHUTDOWN, Result.KILLED, Result.WAIT_FOR_FORMAT, Result.WAIT_FOR_JOIN,
    Result.JOIN_FAILED, Result.NETWORK_ERROR, Result.CLUSTER_ERROR))

RETRIED = TRANSIENT | UNABLE

#: The few of them that say for certain that the request was not executed.
_UNTOUCHED = frozenset((
    Result.STARTUP, Result.COLLECTING_CINFO, Result.SHUTDOWN, Result.KILLED,
    Result.WAIT_FOR_FORMAT, Result.WAIT_FOR_JOIN))
_PROBE = Header(PROTO_VER, Op.GET_CLUSTER_DEFAULT, 0, 0, 0, 0).pack()


class Caller:
    """``timeout``: seconds that a call may take, all attempts together."""

    def __init__(self, pool, timeout):
        self.pool = pool
        self.timeout = timeout
        self._served = False

    def perform(self, calls, guard=None, retried=RETRIED):
        """Return when every call of the sequence has its result.

        Results are for the caller to judge; those in ``retried`` are only left where trying
        again was of no use.  ``guard(connection, deadline)`` is called before anything is sent
        on a connection and returns the one to be used.

        Raises ClusterUnreachable, AuthenticationFailed, Closed, and OutcomeUnknown for a call
        that must not be sent twice.
        """
        deadline = _monotonic() + self.timeout
        pause = _SHORTEST_PAUSE
        unable = {}
        losses = 0
        while True:
            self._attempt(calls, deadline, guard)
            again = [call for call in calls
                     if call.error is not None or call.status in retried]
            if not again:
                self._served = True
                return
            rest = self._sift(again, unable)
            if not rest:
                return
            if _monotonic() + pause > deadline:
                for call in rest:
                    if call.error is not None:
                        raise ClusterUnreachable(
                            "no answer within %g seconds: %s" % (self.timeout, call.error))
                return
            losses += 1
            if losses > _QUICK_RETRIES or any(call.error is None for call in rest):
                self.pool.pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            for call in rest:
                call.reset()
            calls = rest

    def control(self, header, payload=None, limit=None, resendable=True, what="request"):
        """Perform one :class:`ControlCall` and return it; raises the error of its result."""
        call = ControlCall(header, payload, resendable=resendable)
        if limit is not None:
            call.limit = limit
        self.perform((call,))
        if call.status:
            raise error_for(call.status, what)
        return call

    def _attempt(self, calls, deadline, guard):
        try:
            for call in calls:
                call.deadline = deadline
                connection = self.pool.get(deadline)
                if not call.resendable:
                    connection = self._tested(connection, deadline)
                if guard is not None:
                    connection = guard(connection, deadline)
                try:
                    connection.submit(call)
                except ConnectionLost as error:
                    call.error = error
        finally:
            # Also before an error is raised: buffers of the caller are in use.
            for call in calls:
                if call.connection is not None:
                    call.connection.wait(call, deadline)

    def _tested(self, connection, deadline):
        """A connection on which an answer came just now.

        So a connection that the gateway closed long ago is not taken for one that was lost in
        the middle of the request.
        """
        while True:
            probe = ControlCall(_PROBE)
            probe.deadline = deadline
            try:
                connection.submit(probe)
                connection.wait(probe, deadline)
            except ConnectionLost as error:
                probe.error = error
            if probe.error is None:
                if probe.status == Result.NOT_AUTHENTICATED:
                    raise error_for(probe.status, connection.name)
                return connection
            if _monotonic() > deadline:
                raise ClusterUnreachable(str(probe.error))
            connection = self.pool.get(deadline)

    def _sift(self, calls, unable):
        """Those of the failed calls that are worth another attempt."""
        rest = []
        for call in calls:
            if call.error is not None:
                if call.sent and not call.resendable:
                    raise OutcomeUnknown(
                        "%s: the request may have been executed or not" % call.error)
                rest.append(call)
            elif not call.resendable and call.status not in _UNTOUCHED:
                raise OutcomeUnknown("%s; the request may have been executed or not" % error_for(
                    call.status, call.connection.name), call.status)
            elif call.status in TRANSIENT:
                rest.append(call)
            else:
                name = call.connection.name
                unable[name] = unable.get(name, 0) + 1
                alone = len(self.pool.gateways) == 1
                if not self._served and (alone or len(unable) == len(self.pool.gateways)
                                         or unable[name] == _UNABLE_LIMIT):
                    continue
                if not alone:
                    self.pool.turn_away(
                        call.connection, error_for(call.status, call.connection.name))
                rest.append(call)
        return rest
