"""The lock on a VDI that is open for writing.

The gateway holds it for us, so it goes when the gateway does.  Each connection of the pool
tells by its generation whether it leads to what took the lock; where it does not, the lock
is taken again before anything else is sent.  Others may have had it for a moment then, so
what was known of the VDI counts no more: ``takes`` tells.

Our own sheep know us by a random number, through whichever gateway: the one that has the lock
gives it up for another one that we ask, and nobody's but ours is released.  A C sheep knows
whoever asks the gateway.
"""

import logging
import secrets
import threading
import time

from sheepstack.client import vdi_requests
from sheepstack.client.caller import RETRIED
from sheepstack.client.errors import (
    Closed, ClusterUnreachable, ConnectionLost, SheepError, VdiLocked, error_for)
from sheepstack.wire.admin import (
    MAX_NODES, NODE_SIZE, VDI_STATE_SIZE, unpack_nodes, unpack_vdi_states)
from sheepstack.wire.header import Header, version_of
from sheepstack.wire.opcodes import LockType, Op
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_PAUSE = 0.2
_RELEASE_SECONDS = 5.0
#: So often what could not be released is tried again, for as long as there are connections.
_LATER_SECONDS = 1.0
_NODES_ROOM = MAX_NODES * NODE_SIZE
_STATES_ROOM = 16384 * VDI_STATE_SIZE

#: Share of a request's time that we wait for a dead gateway's lock to expire before we look
#: whether the gateway lives after all.
_WAIT_SHARE = 0.6


def _question(opcode, room):
    return Header(version_of(opcode), opcode, 0, 0, 0, room).pack()


class VdiLock:
    """``shared``: others may hold it at the same time, as sharers.

    ``generation``: of the connections that lead to it.  ``takes``: how often it was taken.
    """

    def __init__(self, caller, name, shared):
        self.generation = None
        self.takes = 0
        self._caller = caller
        self._name = name
        self._type = LockType.SHARED if shared else LockType.NORMAL
        # Sharers of one gateway are not told apart.
        self._token = 0 if shared else secrets.randbits(63) + 1
        # Whether our own sheep have the lock, and whether on more than ``_vids`` perhaps.
        self._is_ours = False
        self._unsure = False
        self._mutex = threading.Lock()
        self._gateway = None
        self._vids = []
        self._lost = False

    def acquire(self) -> int:
        """Take the lock; the id of the VDI that it is on.

        Raises VdiLocked, NoSuchVdi and what :meth:`Caller.perform` raises.
        """
        try:
            self._ask("cannot lock VDI '%s'")
        except SheepError:
            if self._unsure:
                self._release_later()
            raise
        return self._vids[-1]

    def _ask(self, failure):
        call = vdi_requests.lock(self._name, self._type, self._token)
        try:
            self._caller.perform((call,))
        except ClusterUnreachable:
            # A gateway may have it for us all the same.
            self._unsure = True
            raise
        self._unsure = self._unsure or call.status in RETRIED
        if call.status:
            self._lost = call.status == Result.VDI_LOCKED
            raise error_for(call.status, failure % self._name)
        self._taken(call)

    def _taken(self, call):
        vid = vdi_requests.answer_of(call).vdi_id
        self._is_ours = vdi_requests.is_ours(call)
        if self.generation != call.connection.generation and not self._is_ours:
            # What was locked through another gateway is not to be released through this one.
            self._vids = []
        if vid not in self._vids:
            self._vids.append(vid)
        self._gateway = call.connection.name
        self.takes += 1
        self.generation = call.connection.generation
        self._lost = False

    def guard(self, connection, deadline):
        """``connection``, or another one, of a gateway that holds the lock for us.

        Raises VdiLocked where somebody else has it by ``deadline`` (monotonic).
        """
        if connection.generation == self.generation:
            return connection
        if not self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise VdiLocked("the lock on VDI '%s' could not be taken again" % self._name)
        try:
            while connection.generation != self.generation:
                connection = self._renew(connection, deadline)
            return connection
        finally:
            self._mutex.release()

    def _renew(self, connection, deadline):
        turn_at = time.monotonic() + _WAIT_SHARE * self._caller.timeout
        while True:
            call = vdi_requests.lock(self._name, self._type, self._token)
            call.deadline = deadline
            try:
                connection.submit(call)
                connection.wait(call, deadline)
            except ConnectionLost as error:
                call.error = error
            if call.error is not None:
                if time.monotonic() >= deadline:
                    raise call.error
                return self._caller.pool.get(deadline)
            if call.status == Result.SUCCESS:
                self._taken(call)
                return connection
            if call.status == Result.VDI_LOCKED:
                if connection.name == self._gateway and not self._is_elsewhere(connection):
                    # It was our connection that broke, not the gateway; the lock is ours.
                    self.generation = connection.generation
                    return connection
            elif call.status not in RETRIED:
                raise error_for(
                    call.status, "cannot lock VDI '%s' again" % self._name)
            now = time.monotonic()
            if now + _PAUSE > deadline:
                self._lost = call.status == Result.VDI_LOCKED
                raise error_for(call.status, "the lock on VDI '%s' was lost with gateway %s"
                                % (self._name, self._gateway))
            if now > turn_at and len(self._caller.pool.gateways) > 1:
                # Perhaps our gateway is alive, still holds the lock, and can be reached.
                self._caller.pool.turn_away(connection, ConnectionLost(
                    "%s does not hold the lock on VDI '%s'" % (connection.name, self._name)))
                return self._caller.pool.get(deadline)
            self._caller.pool.pause(_PAUSE)

    def _is_elsewhere(self, connection) -> bool:
        """Whether another sheep than the gateway of ``connection`` holds the lock."""
        nodes = self._caller.control(_question(Op.GET_NODE_LIST, _NODES_ROOM)).data
        states = self._caller.control(_question(Op.GET_VDI_COPIES, _STATES_ROOM)).data
        here = connection.peer
        if here not in [str(node.nid) for node in unpack_nodes(nodes)]:
            # The sheep know the gateway by another name than we do.
            return False
        return any(state.vid == self._vids[-1] and state.lock_owner is not None
                   and str(state.lock_owner) != here for state in unpack_vdi_states(states))

    def follow(self, vid):
        """A snapshot gave the VDI the id ``vid``, and locks are on ids: have that one, too.

        Raises VdiLocked where somebody was faster.
        """
        with self._mutex:
            if vid in self._vids:
                return
            self._ask("cannot keep the lock on VDI '%s'")

    def release(self):
        """Let the lock go where we have it; what we lost is not ours to release.

        Where no gateway can do it now it is tried again in the background.
        """
        if self._lost and not self._is_ours:
            return
        deadline = time.monotonic() + min(self._caller.timeout, _RELEASE_SECONDS)
        try:
            self._release_by(deadline)
        except SheepError as error:
            log.warning("the lock on VDI '%s' is not released%s: %s", self._name,
                        " yet" if self._is_ours else "", error)
            if self._is_ours:
                self._release_later()

    def _release_later(self):
        threading.Thread(target=self._keep_releasing, daemon=True, name="unlock").start()

    def _keep_releasing(self):
        try:
            while True:
                self._caller.pool.pause(_LATER_SECONDS)
                try:
                    self._release_by(time.monotonic() + self._caller.timeout)
                    return
                except Closed:
                    raise
                except SheepError as error:
                    log.info("the lock on VDI '%s' is still not released: %s", self._name, error)
        except Closed:
            log.info("the lock on VDI '%s' may stay", self._name)

    def _release_by(self, deadline):
        while True:
            try:
                self._release_once(deadline)
                return
            except Closed:
                raise
            except SheepError:
                if time.monotonic() + _PAUSE > deadline:
                    raise
            self._caller.pool.pause(_PAUSE)

    def _release_once(self, deadline):
        connection = self._caller.pool.get(deadline)
        if self._unsure:
            found = self._get(connection, vdi_requests.look_up(self._name), deadline)
            self._is_ours = vdi_requests.is_ours(found)
            vid = vdi_requests.answer_of(found).vdi_id
            if found.status == Result.SUCCESS and self._is_ours and vid not in self._vids:
                self._vids.append(vid)
        if not self._is_ours and self._vids:
            connection = self.guard(connection, deadline)
        for vid in self._vids:
            self._get(connection, vdi_requests.release(vid, self._type, self._token), deadline)

    @staticmethod
    def _get(connection, call, deadline):
        call.deadline = deadline
        connection.submit(call)
        connection.wait(call, deadline)
        if call.error is not None:
            raise call.error
        if call.status in RETRIED:
            raise error_for(call.status, connection.name)
        return call
