"""The zookeeper driver.

zookeeper_names has what is kept where.  A map is kept as

    offset  size  what
         0    16  random bytes, new for each change: "was it mine?" after a lost answer
        16     *  the map

What can go wrong with a request, and with the session that kazoo may begin by itself, is the
matter of zookeeper_requests.  Here remains:

- *The answer to a change was lost.*  It is tried again in a way that can not do it twice, and
  looked up whether it was made the first time, for which every name has the session in it, and
  the map its random bytes.
- *A watch fires only once.*  It is set by the read, so nothing changes unseen between the two;
  and each look at things reads all of them again.
- *kazoo's threads must not wait.*  Its callbacks set an event, and threads of our own do the
  rest: one keeps the lease, one looks, one tells.
- *The session expired, or did not hear from the service for as long as that takes.*  The
  coordinator is LOST for good, and ends whatever kazoo may have begun meanwhile.
"""

import logging
import os
import threading

from kazoo.protocol.states import KazooState

from sheepstack.coordination.base import Event, SessionState
from sheepstack.coordination.driver import Driver, check_size
from sheepstack.coordination.errors import CoordinationError, SessionLost, Unreachable
from sheepstack.coordination.session import now
from sheepstack.coordination.zookeeper_client import ATTEMPTS, Client
from sheepstack.coordination.zookeeper_names import Lock, Names, Place, parsed
from sheepstack.coordination.zookeeper_requests import Rejected, Requests, Unsure

LOG = logging.getLogger(__name__)

_TOKEN_SIZE = 16

#: Heartbeats for each session timeout.
_HEARTBEATS = 10
#: Part of the session timeout by which the lease is shorter.  A heartbeat is a sync, which the
#: leader of the ensemble answers; but from a follower it learns that a session is active only
#: twice each tick.  So it may count from a heartbeat before the answered one (1/10 of the
#: timeout) and half a tick earlier (1/4, as a timeout has two ticks or more).
_MARGIN = 0.35
#: Part of the session timeout after which a connection without an answer is given up.
_PATIENCE = 1 / 3
#: Part of the time for connecting after which another server may greet us first.
_GREETING = 1 / 3
#: Seconds that close() waits for the service to confirm.
_FAREWELL = 1.0


class ZooKeeperCoordinator(Driver):
    """``hosts`` as ``host:port``; ``timeout``, of the session, and ``connect_timeout`` in
    seconds; the latter is the session's unless given."""

    def __init__(self, hosts, cluster_id: str, timeout: float,
                 connect_timeout: "float | None" = None):
        super().__init__("ZooKeeper at %s" % ",".join(hosts), timeout, _MARGIN)
        self._connect_timeout = timeout if connect_timeout is None else connect_timeout
        self._names = Names(cluster_id)
        self._client = Client(hosts, timeout)
        self._requests = Requests(self._client, self._service, self._check, self._session.lose)
        #: The member's znode of this session and its entry; guarded by the place lock.
        self._own = None
        self._entry = None
        self._seen_members = ([], 0)
        self._seen_map = None
        self._opened = False
        self._closing = threading.Event()
        self._beat_now = threading.Event()
        self._look_now = threading.Event()

    # The session

    def open(self, on_event):
        self._check_new()
        if self._opened:
            raise CoordinationError("a coordinator can be opened only once")
        self._opened = True
        self._client.add_listener(self._on_kazoo_state)
        try:
            self._start_session()
            self._prepare()
        except SessionLost as error:
            self.close()
            raise Unreachable("%s does not answer" % self._service) from error
        except BaseException:
            self.close()
            raise
        self._pump.start(on_event)
        threading.Thread(target=self._keep_looking, name="coordination-look",
                         daemon=True).start()

    def _start_session(self):
        deadline = now() + self._connect_timeout
        started = self._client.start_async()
        threading.Thread(target=self._keep_lease, name="coordination-lease", daemon=True).start()
        client_id = None
        while client_id is None:
            started.wait(max(0.0, deadline - now()))
            client_id = self._client.client_id
            if client_id is None and now() >= deadline:
                raise Unreachable("%s does not answer (waited %g s)"
                                  % (self._service, self._connect_timeout))
        self._id = "%016x" % (client_id[0] & 0xffff_ffff_ffff_ffff)
        self._session.begin()
        while self._session.state is SessionState.SUSPENDED:
            self._requests.connected.wait(self._session.timeout / _HEARTBEATS)
            self._beat()

    def _prepare(self):
        names = self._names
        self._requests.make(names.sessions, names.members, names.history, names.locks)
        self._requests.make_fence(names.fence(self._id))
        self._look()

    def close(self):
        if self._closing.is_set():
            return
        self._closing.set()
        self._session.lose()
        self._look_now.set()
        self._beat_now.set()
        self._client.end_within(_FAREWELL)
        self._pump.stop()

    def _on_kazoo_state(self, state):
        # Runs in kazoo's thread, in the middle of things: it must not wait for anything.
        if state == KazooState.CONNECTED:
            self._requests.connected.set()
            self._look_now.set()
        else:
            self._requests.connected.clear()
            if state == KazooState.LOST:
                self._session.lose()
            else:
                self._session.suspend()
        self._beat_now.set()

    def _keep_lease(self):
        while self._session.state is not SessionState.LOST:
            self._beat()
            self._beat_now.wait(self._session.timeout / _HEARTBEATS)
            self._beat_now.clear()
        # kazoo would begin a new session.
        self._client.end()
        self._look_now.set()

    def _beat(self):
        round = self._session.round
        if not self._client.connected:
            # A new session takes a write to all of the ensemble, an old one next to nothing.
            self._client.drop_silent_connection(
                self._session.timeout / ATTEMPTS if self._id
                else self._connect_timeout * _GREETING)
            return
        sent = now()
        answer = self._client.sync_async(self._names.root)
        if not answer.wait(self._session.timeout * _PATIENCE):
            self._client.drop_connection()
        elif answer.successful():
            self._session.renew(sent, round, self._client.granted_timeout)

    # What is there

    def _keep_looking(self):
        while self._session.state is not SessionState.LOST:
            self._look_now.wait()
            # Cleared before the look: what changes meanwhile is looked at once more.
            self._look_now.clear()
            try:
                self._look()
            except SessionLost:
                break
            except CoordinationError as error:
                LOG.warning("%s", error)
                self._closing.wait(self._session.timeout / _HEARTBEATS)
                self._look_now.set()

    def _on_watch(self, event):
        self._look_now.set()

    def _look(self):
        """Take note of what changed, tell, and watch for the next change."""
        with self._view_lock:
            requests, names = self._requests, self._names
            listing, members, current = requests.read(
                requests.children(names.members, self._on_watch),
                requests.exists(names.members, self._on_watch),
                requests.exists(names.map, self._on_watch))
            places = _places(listing)
            seen_members = (places, members.version if members else 0)
            seen_map = current and current.mzxid
            if seen_members != self._seen_members:
                self._pump.post(Event.MEMBERS)
            if seen_map != self._seen_map:
                self._pump.post(Event.MAP)
            self._seen_members, self._seen_map = seen_members, seen_map
            self._saw_leader(places[0].session if places else None)

    def _read(self, request):
        """Result of a request that sees everything that was done before."""
        return self._requests.read(self._requests.sync(self._names.root), request)[1]

    def _children(self, path):
        """``(names, stat)``, ``([], None)`` where there is no such znode."""
        return self._read(self._requests.children(path)) or ([], None)

    # Members

    def _find_own(self):
        """The member's znode of this session, after an answer that was lost."""
        [listing] = self._requests.look_at_turn(self._requests.children(self._names.members))
        own = [place.znode for place in _places(listing) if place.session == self._id]
        self._own = own[0] if own else None

    def _make_member(self, transaction):
        transaction.create(self._names.new_member(self._id), self._entry, ephemeral=True,
                           sequence=True)

    def _delete_member(self, transaction):
        transaction.delete(self._names.member(self._own))

    def _replace_entry(self, transaction):
        transaction.set_data(self._names.member(self._own), self._entry)
        transaction.set_data(self._names.members, b"")

    def publish(self, entry):
        with self._place_lock:
            self._entry = check_size("a member's entry", entry)
            while not self._publish():
                self._find_own()
            self._look()

    def _publish(self):
        """Whether the entry is there for sure."""
        try:
            if self._own is None:
                self._own = _znode(self._requests.change(self._make_member, turn=True)[-1])
            else:
                self._requests.change(self._replace_entry)
            return True
        except (Unsure, Rejected):
            return False

    def withdraw(self):
        with self._place_lock:
            with self._leaving_place():
                while self._own is not None:
                    try:
                        self._requests.change(self._delete_member, turn=True)
                        self._own = None
                    except (Unsure, Rejected):
                        self._find_own()
            self._look()

    def resign(self):
        with self._place_lock:
            with self._leaving_place():
                old = self._own
                while old is not None and self._own == old:
                    try:
                        self._own = _znode(self._requests.change(
                            self._delete_member, self._make_member, turn=True)[-1])
                    except (Unsure, Rejected):
                        self._find_own()
            self._look()

    def members(self):
        entries, version = {}, None
        while True:
            listing = self._children(self._names.members)
            places = _places(listing)
            if places and listing[1].version != version:
                # An entry was replaced; which, this does not tell.
                entries, version = {}, listing[1].version
            missing = [place.znode for place in places if place.znode not in entries]
            # All entries were read before this listing, and none was replaced since.
            if not missing:
                return {place.session: entries[place.znode] for place in places}
            found = self._requests.read(
                *(self._requests.get(self._names.member(znode)) for znode in missing))
            entries.update((znode, result[0]) for znode, result in zip(missing, found) if result)

    # The map

    def _read_stored(self, path):
        """``(random bytes, map, version)`` at ``path``, version -1 where there is none."""
        found = self._read(self._requests.get(path))
        if found is None:
            return None, None, -1
        data, stat = found
        return data[:_TOKEN_SIZE], data[_TOKEN_SIZE:], stat.version

    def read_map(self):
        return self._read_stored(self._names.map)[1:]

    def replace_map(self, data, version, epoch):
        token = os.urandom(_TOKEN_SIZE)
        stored = token + check_size("a map", data)
        record = self._names.record(epoch)

        def put_map(transaction):
            if version < 0:
                transaction.create(self._names.map, stored)
            else:
                transaction.set_data(self._names.map, stored, version)

        def put_record(transaction):
            if has_record:
                transaction.set_data(record, stored)
            else:
                transaction.create(record, stored)

        def mine():
            # It is still there, or it was the last of its epoch.  Otherwise it does not matter
            # any more whether it was there for a moment.
            return token in (self._read_stored(path)[0] for path in (self._names.map, record))

        # A guess; wrong, it costs one more attempt.
        has_record = False
        unsure = False
        while True:
            try:
                result, _ = self._requests.change(put_map, put_record)
                return 0 if version < 0 else result.version
            except Rejected as rejected:
                if rejected.index == 0:
                    return version + 1 if unsure and mine() else None
                has_record = not has_record
            except Unsure:
                # Again: if it was made it is rejected then, and not by a server that is behind.
                unsure = True

    def history(self, epoch):
        return self._read_stored(self._names.record(epoch))[1]

    def epochs(self):
        return sorted(int(name) for name in self._children(self._names.history)[0]
                      if name.isdecimal())

    # Locks

    def _held(self, name):
        """Locks of that name, and the version of their bucket (None: there is no bucket)."""
        znodes, stat = self._children(self._names.bucket(name))
        held = [lock for lock in parsed(Lock, znodes) if lock.name == name]
        return held, stat and stat.version

    def _lock_path(self, lock):
        return "%s/%s" % (self._names.bucket(lock.name), lock.znode)

    def acquire(self, name, owner, shared=False):
        owner = check_size("the owner of a lock", owner)
        wanted = Lock(name, bool(shared), self._id)
        bucket = self._names.bucket(name)

        def nobody_else(transaction):
            transaction.set_data(bucket, b"", version)

        def take(transaction):
            transaction.create(self._lock_path(wanted), owner, ephemeral=True)

        while True:
            held, version = self._held(name)
            if any(lock.session == self._id for lock in held):
                return wanted in held
            if not all(shared and lock.shared for lock in held):
                return False
            if version is None:
                self._requests.make(bucket)
                continue
            try:
                self._requests.change(nobody_else, take)
                return True
            except (Unsure, Rejected):
                # Taken by us, or another lock of the bucket was taken, since it was read.
                continue

    def release(self, name):
        had = False
        while True:
            own = [lock for lock in self._held(name)[0] if lock.session == self._id]
            if not own:
                return had
            had = True
            try:
                self._requests.change(
                    lambda transaction: transaction.delete(self._lock_path(own[0])))
                return True
            except (Unsure, Rejected):
                continue

    def holders(self, name):
        locks, _ = self._held(name)
        found = self._requests.read(
            *(self._requests.get(self._lock_path(lock)) for lock in locks))
        taken = sorted((result[1].czxid, (lock.session, result[0], lock.shared))
                       for lock, result in zip(locks, found) if result)
        return [holder for _, holder in taken]

    def locks(self):
        buckets, _ = self._children(self._names.locks)
        listings = self._requests.read(
            *(self._requests.children("%s/%s" % (self._names.locks, bucket))
              for bucket in buckets))
        return sorted({lock.name for listing in listings if listing
                       for lock in parsed(Lock, listing[0])})


def _znode(path):
    return path.rpartition("/")[2]


def _places(listing):
    """The line, from the result of a read of the children of ``members``."""
    return sorted(parsed(Place, listing[0])) if listing else []
