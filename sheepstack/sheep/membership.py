"""Being in the cluster: publish, follow the map, lead, suspend, leave and come back.

One thread does it all, one event after another, so that maps are entered in order.  See
:mod:`sheepstack.placement.succession` for how a map changes in two steps.
"""

import json
import logging
import threading
import time
import uuid

from sheepstack import coordination
from sheepstack.coordination.base import SessionState
from sheepstack.coordination.errors import CoordinationError
from sheepstack.coordination.session import now
from sheepstack.placement import succession
from sheepstack.placement.cluster_map import ClusterMap, Node, Status
from sheepstack.placement.ring import Ring, changed_arcs, merged
from sheepstack.placement.succession import Member
from sheepstack.sheep.orphans import Orphans
from sheepstack.sheep.peer_link import PeerLink
from sheepstack.sheep.view import View
from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.vdi_table import UnknownVdi, entry_of
from sheepstack.store.errors import NoSpace, Rotten, StoreIOError
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.opcodes import ClusterFlag
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

#: How long a sheep goes on for the answer to the one who shuts the cluster down.
_TELL_SECONDS = 2.0
_TICK_SECONDS = 1.0
_REJOIN_SECONDS = 0.5
#: So many session timeouts may a member be silent whose session lives.
_SILENCE = 1.5
#: The part of a session timeout for which a sheep serves without another look at the map.
_MAP_HOLDS = 2 / 3
#: How long clients are kept waiting for a sheep that joins.
_JOIN_SECONDS = 15.0


class WrongCluster(Exception):
    """The store belongs to another cluster than the one that runs here."""


class Membership:
    """``options`` has the node's settings; ``fatal(message)`` ends the daemon."""

    def __init__(self, options, state, store, identity, epochs, replica, gateway, table,
                 recovery, service, receiver, fatal):
        self._options = options
        self._state = state
        self._store = store
        self._identity = identity
        self._epochs = epochs
        self._replica = replica
        self._gateway = gateway
        self._table = table
        self.on_leaving = None
        self._recovery = recovery
        self._orphans = Orphans(state, replica, gateway, table)
        self._service = service
        self._receiver = receiver
        self._fatal = fatal
        self._be_born()
        self._coordinator = None
        self._links = {}
        self._published = None
        self._map_version = -1
        self._map = None
        self._members = {}
        #: Since when those are out of the map that may not know it, by CLOCK_BOOTTIME.
        self._left_out = {}
        self._acked = self._rolled = self._recovered = 0
        self._leaving = False
        self._suspects_left = True
        self._wake = threading.Event()
        self._work = threading.Event()
        self.left = threading.Event()
        #: Set while nobody waits to hear that the cluster is shut down.
        self.told = threading.Event()
        self.told.set()

    # -- life ------------------------------------------------------------------------------

    def start(self, may_wait):
        """Join.  Raises CoordinationError and WrongCluster.

        A node that was in a cluster before waits for a coordination service that is not there
        yet, for as long as ``may_wait()``, asked now and then, says so: after a power failure
        either may be up first.
        """
        while True:
            try:
                self._join()
                break
            except CoordinationError as error:
                if not self._identity.get("uuid"):
                    raise
                log.warning("cannot join yet: %s", error)
                if self._coordinator is not None:
                    self._coordinator.close()
                    self._coordinator = None
                if not may_wait():
                    raise
                self._be_born()
                self._state.stopping.wait(_REJOIN_SECONDS)
        threading.Thread(target=self._run, daemon=True, name="membership").start()
        threading.Thread(target=self._recover, daemon=True, name="recovery").start()
        threading.Thread(target=self._watch_links, daemon=True, name="links").start()

    def _join(self):
        self._connect()
        self._look()
        self._check_cluster()
        if self._map is not None:
            self._state.change_view(map=self._map)
            if _is_running(self._map, self._members):
                self._state.joining(_JOIN_SECONDS)
        self._publish()

    def _be_born(self):
        self._incarnation = uuid.uuid4().hex
        self._born = time.time_ns()

    def look_again(self):
        """A peer knows of a newer map than we do."""
        self._wake.set()

    def leave(self):
        """Leave the cluster for good: the map goes on without this node."""
        self._leaving = True
        self._wake.set()

    def stop(self):
        """End the session.  The others see a node that is gone."""
        coordinator = self._coordinator
        if coordinator is not None:
            coordinator.close()
        for link in list(self._links.values()):
            link.close()

    def _connect(self):
        coordinator = coordination.connect(self._options.cluster)
        coordinator.open(self._on_event)
        self._coordinator = coordinator
        self._published = None
        self._state.attach(coordinator)

    def _on_event(self, event):
        self._wake.set()

    def _run(self):
        while not self._state.stopping.is_set():
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()
            try:
                self._step()
            except CoordinationError as error:
                log.warning("coordination: %s", error)
                self._state.stopping.wait(0.2)
            except (WrongCluster, StoreIOError) as error:
                self._fatal(str(error))
                return
            except NoSpace as error:
                log.warning("waiting for space: %s", error)
                self._state.stopping.wait(0.2)
            except Exception:
                log.exception("membership")
                self._state.stopping.wait(0.2)

    def _step(self):
        condition = self._coordinator.state
        if condition is SessionState.LOST:
            if not self._state.stopping.is_set():
                self._rejoin()
            return
        if condition is SessionState.SUSPENDED:
            return
        looked = now()
        self._look()
        self._check_cluster()
        self._restore_map()
        self._lead()
        self._follow()
        self._state.map_holds(looked + _MAP_HOLDS * self._coordinator.session_timeout)
        self._publish()

    def _rejoin(self):
        log.warning("the session was lost: leaving, to come back as a joiner")
        self._leave_map()
        self._coordinator.close()
        self._be_born()
        while not self._state.stopping.is_set():
            try:
                self._connect()
                break
            except CoordinationError as error:
                log.warning("cannot rejoin yet: %s", error)
                self._state.stopping.wait(_REJOIN_SECONDS)
        self._wake.set()

    # -- what is known ---------------------------------------------------------------------

    def _look(self):
        self._map, self._map_version = self._read_map()
        self._members = self._read_members()

    def _read_map(self):
        data, version = self._coordinator.read_map()
        return ClusterMap.from_bytes(data) if data is not None else None, version

    def _read_members(self):
        members = {}
        for session, entry in self._coordinator.members().items():
            member = decode_member(entry)
            if member is not None:
                members[session] = member
        return members

    def _check_cluster(self):
        mine = self._identity.get("uuid", "")
        if self._map is None or not mine or self._map.uuid == mine:
            return
        if self._map.replaces == mine and self._incarnation in {
                member.node.incarnation for member in self._members.values()}:
            return
        raise WrongCluster(
            "this store belongs to cluster %s, but cluster %s runs here" % (mine, self._map.uuid))

    def _restore_map(self):
        """The coordination service lost its data, or has an older map than our store."""
        newest = self._epochs.get(self._identity.get("last_epoch", 0))
        if newest is None:
            return
        own = ClusterMap.from_bytes(newest)
        if own.uuid != self._identity.get("uuid", ""):
            return
        if self._map is not None and own.revision <= self._map.revision:
            return
        if self._map is not None and _is_running(self._map, self._members):
            return
        if any(member.last_revision > own.revision for member in self._members.values()):
            return
        log.warning("restoring the cluster map of epoch %d from this store", own.epoch)
        restored = own._replace(settled=False, last_settled=max(
            own.last_settled, own.revision if own.settled else 0))
        self._replace(restored, self._map_version)

    # -- leading ---------------------------------------------------------------------------

    def _lead(self):
        if not self._coordinator.is_leader():
            self._service.abdicate()
            return
        if self._map is None:
            return
        following = succession.next_map(
            self._map, self._members.values(), int(time.time()), self._fenced())
        if following is not None and self._coordinator.lease_valid():
            log.info("epoch %d, revision %d%s: %s", following.epoch, following.revision,
                     " begins" if not following.settled else
                     " is complete" if following.last_complete == following.revision else "",
                     " ".join(node.name for node in following.nodes))
            if self._replace(following, self._map_version):
                self._map = following

    def _fenced(self):
        """Members that have been out of the map for so long that they know it or are silent."""
        left_out = succession.left_out(self._map, self._members.values())
        moment = now()
        self._left_out = {
            incarnation: self._left_out.get(incarnation, moment) for incarnation in left_out}
        limit = moment - self._coordinator.session_timeout
        return {incarnation for incarnation, since in self._left_out.items() if since <= limit}

    def _replace(self, cluster_map, version) -> bool:
        """Make this the map, where that of ``version`` still is; False: somebody was first."""
        replaced = self._coordinator.replace_map(
            cluster_map.to_bytes(), version, cluster_map.epoch)
        self._wake.set()
        return replaced is not None

    def format(self, ctime, **settings) -> Result:
        """Make a cluster of all sheep that run, in place of the one there was."""
        former, version = self._read_map()
        members = [member for member in self._read_members().values() if not member.leaving]
        fresh = succession.first_map(members, uuid.uuid4().hex, ctime, **settings)
        fresh = fresh._replace(changed=int(time.time()))
        if former is not None:
            fresh = fresh._replace(revision=former.revision + 1, replaces=former.uuid)
        return Result.SUCCESS if self._replace(fresh, version) else Result.CLUSTER_ERROR

    def shut_down(self) -> Result:
        """Stop the whole cluster in good order; this node waits for :attr:`told`."""
        self.told.clear()
        result = self._alter(status=Status.SHUTDOWN)
        if result != Result.SUCCESS:
            self.told.set()
        return result

    def set_recovery(self, enabled) -> Result:
        return self._alter(recovery_enabled=enabled)

    def set_copies(self, copies) -> Result:
        return self._alter(copies=copies)

    def set_vnodes(self, vnodes) -> Result:
        """Give this node so many v-nodes, where they do not follow from its space."""
        if self._options.vnodes == 0:
            return Result.GATEWAY_MODE
        if self._state.view.map.flags & ClusterFlag.AUTO_VNODES:
            return Result.INVALID_VNODES_STRATEGY
        return self._change({(self._options.host, self._options.port): vnodes})

    def reweight(self) -> Result:
        """Let the v-nodes of all nodes follow their present space, unless they were given."""
        view = self._state.view
        if not view.map.flags & ClusterFlag.AUTO_VNODES:
            return Result.INVALID_VNODES_STRATEGY
        spaces = {(host, port): space
                  for host, port, space in self._state.call_all({"call": "space"})}
        automatic = [member.node.key for member in self._read_members().values()
                     if member.node.vnodes == succession.AUTO_VNODES]
        return self._change(succession.vnodes_by_space(view.map, spaces, automatic))

    def space(self):
        """This node's address, port, and the bytes of its file system."""
        return [self._options.host, self._options.port, self._store.space()[0]]

    def _change(self, vnodes):
        return self._edit(
            lambda present: succession.map_with_vnodes(present, vnodes, int(time.time())))

    def _alter(self, **fields):
        return self._edit(lambda present: present._replace(**fields))

    def _edit(self, change):
        for _ in range(20):
            present, version = self._read_map()
            if present is None:
                return Result.WAIT_FOR_FORMAT
            following = change(present)
            if following == present or self._replace(following, version):
                return Result.SUCCESS
        return Result.CLUSTER_ERROR

    def force(self) -> Result:
        """Go on with those present, without the nodes that are waited for."""
        present, version = self._read_map()
        members = self._read_members()
        if present is None or (_is_running(present, members) and not self._state.view.bereft):
            return Result.FORCE_RECOVER
        forced = succession.forced_map(present, members.values(), int(time.time()))
        return Result.SUCCESS if self._replace(forced, version) else Result.CLUSTER_ERROR

    # -- following -------------------------------------------------------------------------

    def _follow(self):
        cluster_map = self._map
        self._connect_links()
        if cluster_map is None:
            return
        view = self._state.view
        if cluster_map.status is Status.SHUTDOWN and view.map is not None and view.index >= 0:
            log.info("the cluster is shutting down")
            self.told.wait(_TELL_SECONDS)
            self._leave_map()
            self.left.set()
            return
        index = cluster_map.index_of(self._incarnation)
        if index < 0:
            if view.index >= 0:
                log.warning("epoch %d is without this node", cluster_map.epoch)
                self._leave_map()
                self._coordinator.resign()
            self._state.change_view(map=cluster_map, index=-1, serving=False, open=False)
            if self._leaving:
                self.left.set()
            return
        if cluster_map.revision != self._acked or view.index < 0:
            self._enter(cluster_map, index)
        elif cluster_map != view.map:
            self._state.change_view(map=cluster_map)
            self._record(cluster_map)
        if cluster_map.settled and not self._state.view.serving:
            self._serve()
        self._note_progress()

    def _enter(self, cluster_map, index):
        """Leave the former revision for good; from here on only the new one counts."""
        links = tuple(self._links.get(node.incarnation) if position != index else None
                      for position, node in enumerate(cluster_map.nodes))
        if any(link is None and position != index for position, link in enumerate(links)):
            # A node that is in the map but has no entry any more: the next map drops it.
            self._wake.set()
            return
        former = self._state.view
        ring = Ring.of(cluster_map)
        self._state.set_view(View(cluster_map, ring, index, links))
        self._replica.enter(cluster_map.revision, index)
        self._arrange_store(cluster_map, ring)
        self._table.forget()
        self._recovery.enter()
        self._record(cluster_map)
        self._identity.update(
            uuid=cluster_map.uuid, ctime=cluster_map.ctime, last_revision=cluster_map.revision,
            last_epoch=cluster_map.epoch)
        self._close_links(former.links, links)
        self._acked = cluster_map.revision
        log.info("entered epoch %d, revision %d", cluster_map.epoch, cluster_map.revision)

    def _record(self, cluster_map):
        try:
            self._epochs.put(cluster_map.epoch, cluster_map.to_bytes())
        except NoSpace as error:
            # The coordination service has it, too.
            log.warning("%s", error)

    def _arrange_store(self, cluster_map, ring):
        """Set aside the copies that may have missed a write, or that belong elsewhere now."""
        mine = self._identity.get("uuid", "")
        last = self._identity.get("last_revision", 0)
        if mine and mine != cluster_map.uuid:
            log.warning("the cluster was formatted anew: this store is emptied")
            self._service.abdicate()
            self._table.reset()
            self._replica.reset()
            self._store.retire_all(last)
            self._store.purge_stale()
            for epoch in self._epochs.list():
                self._epochs.drop(epoch)
            self._identity.update(recovered_epoch=None)
            self._recovery.resume(None)
            self._recovery.expect_all()
            return
        if not last:
            return
        if self._suspects_left:
            self._set_suspects_aside(last)
        if last < cluster_map.last_settled:
            log.info("away since revision %d: all copies here must be compared", last)
            self._store.retire_all(last)
            self._recovery.expect_all()
            return
        former = self._former_map()
        if former is None:
            log.warning("the map of our last epoch is lost: all copies here must be compared")
            self._store.retire_all(last)
            self._recovery.expect_all()
            return
        before = Ring.of(former)
        widths = range(1, max(len(former.nodes), len(cluster_map.nodes)) + 1)
        widths = [width for width in widths if width in self._table.widths_of(cluster_map)]
        arcs = merged([arc for width in widths for arc in changed_arcs(before, ring, width)])
        if not arcs:
            return
        index = cluster_map.index_of(self._incarnation)
        moved = []
        for oid in self._store.oids_in(arcs):
            policy = self._table.remembered_policy(oid, cluster_map)
            if policy is None or index not in ring.holders_of(oid, policy):
                moved.append(oid)
        if moved:
            self._store.retire(moved, last)
            self._recovery.expect(moved)
        for oid in moved:
            self._replica.forget(oid)

    def _former_map(self):
        """The map at which the store was arranged last."""
        epoch = self._identity.get("last_epoch", 0)
        for data in (self._epochs.get(epoch), self._coordinator.history(epoch)):
            if data is not None:
                found = ClusterMap.from_bytes(data)
                if found.uuid == self._identity.get("uuid"):
                    return found
        return None

    def _set_suspects_aside(self, last):
        """Objects that were being written to when the last process died: compare them."""
        suspects = [oid for oid in self._store.suspects if self._store.exists(oid)]
        self._recovery.expect(suspects)
        accepted = []
        try:
            for oid in suspects:
                try:
                    self._store.accept(oid)
                except Rotten as error:
                    # Whatever it was, it is none of use any more.
                    log.error("%s", error)
                accepted.append(oid)
        finally:
            # They are no suspects any more should there be a next time.
            if accepted:
                self._store.retire(accepted, last)
        self._suspects_left = False

    def _serve(self):
        self._state.change_view(serving=True)
        self._work.set()

    def _note_progress(self):
        view = self._state.view
        members = {member.node.incarnation: member for member in self._members.values()}
        in_map = [members.get(node.incarnation) for node in view.map.nodes]
        ended = view.serving and all(
            member is not None and member.rolled >= view.revision for member in in_map)
        # What the map says, and so all others will know: only then may copies go for good.
        complete = view.serving and view.map.last_complete >= view.revision
        leader = self._members.get(self._coordinator.leader())
        position = view.map.index_of(leader.node.incarnation) if leader else -1
        was_complete = view.complete
        self._state.change_view(
            open=view.open or ended, complete=view.complete or complete, leader=position)
        if complete and not was_complete:
            self._work.set()

    def _leave_map(self):
        view = self._state.view
        self._replica.leave()
        self._acked = self._rolled = self._recovered = 0
        self._state.set_view(View(map=view.map))
        self._gateway.leave()
        # A client may long have gone to another gateway, and have written there what the
        # requests that it sent here, perhaps still unread, would overwrite.
        self.on_leaving()
        self._service.abdicate()
        for link in self._links.values():
            link.close()
        self._links = {}

    # -- ending what was left, recovering --------------------------------------------------

    def _recover(self):
        done = learned = purged = 0
        complete = False
        while not self._state.stopping.is_set():
            self._work.wait(_TICK_SECONDS)
            self._work.clear()
            view = self._state.view
            if not view.serving:
                continue
            try:
                if self._rolled < view.revision:
                    self._recovery.take_stock(view)
                    if not self._orphans.end(view):
                        self._work.set()
                        continue
                    self._rolled = view.revision
                    self._wake.set()
                if done != view.revision and view.map.recovery_enabled:
                    complete = self._recovery.run(view)
                    done = view.revision
                if done == view.revision != learned:
                    self._learn_policies(view)
                    learned = view.revision
                    if complete:
                        self._recovered = view.revision
                    self._wake.set()
                if view.complete and purged != view.revision:
                    # Not what a new map has set aside meanwhile.
                    self._store.purge_stale(view.revision - 1)
                    purged = view.revision
                    self._service.reclaim()
            except Exception as error:
                if self._state.view.revision == view.revision:
                    log.warning("recovery is interrupted: %r", error)
                    self._state.wait_view(view.revision, 0.5)
                self._work.set()

    def _learn_policies(self, view):
        """Know the policies of all VDIs, so as to know at the next map what belongs where."""
        answered = threading.Event()
        inodes = []

        def ask():
            try:
                inodes.append(self._ask_for_inodes(view))
            except Failure as failure:
                log.info("the leader does not tell of its VDIs: result %s", failure.result)
            finally:
                answered.set()

        threading.Thread(target=ask, daemon=True, name="inodes").start()
        # The leader may be waiting for what only this thread ends, once the map has changed.
        while not answered.wait(0.05):
            if self._state.view.revision != view.revision or self._state.stopping.is_set():
                raise Failure(Result.AGAIN)
        if not inodes:
            raise Failure(Result.AGAIN)
        for inode in inodes[0]:
            try:
                self._table.remember(inode.vdi_id, entry_of(inode).policy)
            except UnknownVdi:
                pass

    def _ask_for_inodes(self, view):
        if view.leader == view.index:
            return self._service.inodes()
        answer = self._state.call_node(view.leader, {"call": "all_inodes"})
        if answer is None:
            raise Failure(Result.AGAIN)
        return [InodeHeader(*fields) for fields in answer]

    # -- links and publishing --------------------------------------------------------------

    def _connect_links(self):
        known = {member.node.incarnation: member.node for member in self._members.values()}
        if self._map is not None:
            for node in self._map.nodes:
                known.setdefault(node.incarnation, node)
        known.pop(self._incarnation, None)
        for incarnation, node in known.items():
            if incarnation not in self._links:
                self._links[incarnation] = PeerLink(
                    node.name, node.peer_address, self._receiver, self._options.auth_key)
        for incarnation in [key for key in self._links if key not in known]:
            self._links.pop(incarnation).close()

    def _close_links(self, former, present):
        """End what was asked of nodes that left the map; those that live are linked anew."""
        for link in former:
            if link is not None and link not in present:
                link.close()
                for incarnation, kept in list(self._links.items()):
                    if kept is link:
                        self._links[incarnation] = link.successor()

    def _watch_links(self):
        """Notice peers that do not answer though their session lives."""
        while not self._state.stopping.wait(_TICK_SECONDS):
            view = self._state.view
            for link in list(self._links.values()):
                link.ping(view.revision)
            if self._unreachable() != (self._published.unreachable if self._published else ()):
                self._wake.set()

    def _unreachable(self):
        # Who is dead is out by the end of its session, and no quarrel about it is wanted.
        limit = time.monotonic() - _SILENCE * self._coordinator.session_timeout
        names = {member.node.incarnation: member.node.name for member in self._members.values()}
        return tuple(sorted(names[incarnation] for incarnation, link in list(self._links.items())
                            if incarnation in names and link.last_heard < limit))

    def _publish(self):
        if self._coordinator.state is not SessionState.CONNECTED:
            return
        member = Member(
            node=self._node(), uuid=self._identity.get("uuid", ""),
            last_revision=self._identity.get("last_revision", 0), acked=self._acked,
            rolled=self._rolled, recovered=self._recovered, unreachable=self._unreachable(),
            leaving=self._leaving, born=self._born)
        if member != self._published:
            self._coordinator.publish(encode_member(member))
            self._published = member

    def _node(self):
        options = self._options
        return Node(
            host=options.host, port=options.port, zone=options.zone, vnodes=options.vnodes,
            space=options.space, incarnation=self._incarnation, io_host=options.io_host,
            io_port=options.io_port, host_id=options.host_id, sock=options.sock)

    def members(self):
        """Nodes that run, for listings before a cluster is formatted."""
        return [member.node for member in self._members.values()]

    def lock_service(self):
        """The coordinator, for named locks."""
        return self._coordinator


def _is_running(cluster_map, members):
    """True where some daemon that the map means is alive."""
    alive = {member.node.incarnation for member in succession.living(members.values())}
    return any(node.incarnation in alive for node in cluster_map.nodes)


def encode_member(member: Member) -> bytes:
    fields = member._asdict()
    fields["node"] = member.node._asdict()
    return json.dumps(fields).encode()


def decode_member(entry: bytes):
    """The member, or None for an entry that is none."""
    try:
        fields = json.loads(entry)
        fields["node"] = Node(**fields["node"])
        fields["unreachable"] = tuple(fields["unreachable"])
        return Member(**fields)
    except (ValueError, TypeError, KeyError):
        log.warning("an entry that is no member: %r", entry[:80])
        return None
