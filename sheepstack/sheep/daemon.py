"""A sheep: its parts, put together, started and stopped."""

import logging
import os

from sheepstack.coordination.errors import CoordinationError
from sheepstack.placement.cluster_map import ClusterMap
from sheepstack.placement.ring import Ring
from sheepstack.sheep.admin import Admin
from sheepstack.sheep.connection import Admission
from sheepstack.sheep.direct_page import make_page
from sheepstack.sheep.direct_service import DirectService
from sheepstack.sheep.dispatch import Dispatcher
from sheepstack.sheep.gateway import Gateway
from sheepstack.sheep.limiter import Limiter
from sheepstack.sheep.listener import Listener
from sheepstack.sheep.membership import Membership, WrongCluster
from sheepstack.sheep.object_service import ObjectService
from sheepstack.sheep.options import Options, admits
from sheepstack.sheep.peer_service import PeerService
from sheepstack.sheep.reclaim import Reclaim
from sheepstack.sheep.receiver import make_receiver
from sheepstack.sheep.recovery import Recovery, Throttle
from sheepstack.sheep.replica import Replica
from sheepstack.sheep.settler import Settler
from sheepstack.sheep.socket_options import listen_tcp, listen_unix
from sheepstack.sheep.state import ClusterState
from sheepstack.sheep.stats import Stats
from sheepstack.sheep.strip_keeper import StripKeeper
from sheepstack.sheep.strip_reader import StripReader
from sheepstack.sheep.vdi_requests import VdiRequests
from sheepstack.sheep.vdi_service import VdiService
from sheepstack.sheep.vdi_table import VdiTable
from sheepstack.sheep.workers import Workers
from sheepstack.store.errors import StoreError
from sheepstack.store.objects import ObjectStore

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 20.0


class StartError(Exception):
    """The daemon cannot start; the message is one line for the operator."""


class Sheep:
    """``start`` brings all up, ``wait`` returns the exit status when it is over."""

    def __init__(self, options: Options):
        self._status = 0
        self._stop_wanted = False
        self._listeners = []
        self._listening = False
        self._receiver = make_receiver()
        try:
            self._store = ObjectStore(options.store_dir, durable=options.durable)
            self._identity = self._store.identity
            self._epochs = self._store.epochs
        except StoreError as error:
            raise StartError(str(error)) from None
        # A sheep without a store has nothing to read.
        self._page = page = make_page(options.direct and options.vnodes != 0)
        self._store.watch(page.moved, page.all_moved)
        total, _ = self._store.space()
        options = options._replace(
            space=total, sock=os.path.join(options.store_dir, "sock"))
        self._options = options
        name = "[%s]:%d" if ":" in options.host else "%s:%d"
        self._state = state = ClusterState(
            name % (options.host, options.port), _PATIENCE_SECONDS, page)
        self._build(state, options)

    def _build(self, state, options):
        internal = Workers("internal", 64)
        clients = Workers("client", 64)
        peers = Workers("peer", 128)
        callers = Workers("call", 32)
        strips = Workers("strip", 32)
        keeping, keepers = Workers("keeping", 64), Workers("keeper", 64)
        leaders = Workers("leader", 128)
        store = self._store
        table = VdiTable(state, self._identity)
        throttle = Throttle(*options.throttle)
        recovery = Recovery(state, store, table, self._identity, throttle)
        replica = Replica(store, recovery.known_absent, self._page)
        stats = Stats()
        recovery.attach(replica, stats)
        gateway = Gateway(state, replica, internal, keeping, table, recovery)
        table.read = gateway.read
        service = VdiService(state, gateway, table)
        reclaim = Reclaim(state, service, gateway)
        service.reclaim = reclaim.kick
        self._membership = membership = Membership(
            options, state, store, self._identity, self._epochs, replica, gateway, table,
            recovery, service, self._receiver, self.fail)
        membership.on_leaving = self._drop_connections
        state.behind = membership.look_again
        vdis = VdiRequests(state, service, membership)
        peer_service = PeerService(
            state, store, replica, gateway, recovery, table, peers, callers, keepers,
            leaders, service)
        peer_service.forward = vdis.forwarded
        peer_service.break_lock = vdis.break_lock
        peer_service.space = membership.space
        reader = gateway.strips = StripReader(state, store, replica, recovery, strips)
        self._keeper = keeper = StripKeeper(
            state, store, replica, gateway, table, recovery, reader, options.strip_after)
        peer_service.strip_reader, peer_service.strip_keeper = reader, keeper
        limiter = peer_service.limiter = Limiter(state, self._ask_leader, clients)
        objects = ObjectService(
            state, gateway, table, clients, stats, self._ask_leader, limiter)
        direct = DirectService(self._page, state, store, table, stats, options)
        administration = Admin(
            state, store, membership, recovery, keeper, service, stats, options)
        administration.on_killed = self.kill
        self._dispatch = Dispatcher(
            state, objects, direct, vdis, administration, peer_service, clients)
        self._service = service
        self._settler = Settler(state, replica, gateway)
        self._reclaim = reclaim
        replica.on_damage = lambda oid: peers.submit(recovery.repair, oid, state.view.revision)
        replica.on_failure = self.fail
        self._resume(recovery)

    def _resume(self, recovery):
        """Where this store last was complete, from before the restart."""
        epoch = self._identity.get("recovered_epoch", 0)
        data = self._epochs.get(epoch) if epoch else None
        if data is not None:
            recovery.resume(Ring.of(ClusterMap.from_bytes(data)))

    def _drop_connections(self):
        for listener in self._listeners:
            listener.drop_connections()

    def _ask_leader(self, question):
        """The leader's answer to a call; asks until there is one."""
        while not self._state.stopping.is_set():
            view = self._state.wait_open()
            if view is None:
                return None
            if view.leader >= 0:
                answer = self._state.call_node(view.leader, question)
                if answer is not None:
                    return answer
            self._state.wait_view(view.revision, 0.05)
        return None

    # -- life ------------------------------------------------------------------------------

    def start(self):
        """Listen and join.  Raises StartError."""
        options = self._options
        admission = Admission(options.auth_key, admits(options))
        try:
            sockets = [listen_tcp(options.bind, options.port)]
            if options.io_host and (options.io_host, options.io_port) != (
                    options.bind, options.port):
                sockets.append(listen_tcp(options.io_host, options.io_port))
        except OSError as error:
            raise StartError("cannot listen on %s:%d: %s" % (
                options.bind, options.port, error.strerror)) from None
        try:
            sockets.append(listen_unix(options.sock))
        except OSError as error:
            raise StartError("cannot listen on %s: %s" % (options.sock, error)) from None
        for sock in sockets:
            self._listeners.append(Listener(sock, self._dispatch, admission, self._receiver))
        try:
            self._membership.start(self._may_wait)
        except (CoordinationError, WrongCluster) as error:
            self._close()
            raise StartError(str(error)) from None
        self._dispatch.ready = True
        self._listen()
        self._settler.start()
        self._reclaim.start()
        self._keeper.start()
        log.info("sheep %s runs on %s", self._state.name, options.store_dir)

    def _may_wait(self):
        # Clients and other sheep had better be refused meanwhile than kept waiting.
        self._listen()
        return not self._stop_wanted

    def _listen(self):
        if not self._listening:
            self._listening = True
            for listener in self._listeners:
                listener.start()

    def wait(self) -> int:
        """Wait for the end, clean up, and return the exit status."""
        while not (self._stop_wanted or self._state.stopping.is_set()):
            if self._membership.left.wait(0.25):
                break
        self._close()
        return self._status

    def stop(self):
        """Go away as if switched off: the others recover what was here.

        Only notes the wish: a signal handler must not take locks.
        """
        self._stop_wanted = True

    def kill(self):
        """Leave the cluster, then go away: ``dog node kill``."""
        log.info("told to leave the cluster")
        self._membership.leave()

    def fail(self, message):
        """Something is wrong that this daemon cannot mend."""
        log.critical("%s", message)
        self._status = 1
        self._state.stop()

    def _close(self):
        self._state.stop()
        # Others may count on our end as soon as the session is over.
        self._page.close()
        self._membership.stop()
        for listener in self._listeners:
            listener.stop()
        try:
            self._store.close()
        except StoreError as error:
            # What was acknowledged is in the journal, or on other sheep that work.
            log.critical("cannot close the store: %s", error)
            self._status = 1
        try:
            os.unlink(self._options.sock)
        except OSError:
            pass
