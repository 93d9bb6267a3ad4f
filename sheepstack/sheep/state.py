"""What the parts of a sheep share: the present view, waiting for a better one, calls to peers."""

import json
import logging
import threading
import time

from sheepstack.coordination.session import now
from sheepstack.placement.cluster_map import ClusterMap
from sheepstack.placement.ring import Ring
from sheepstack.sheep.direct_page import NO_PAGE
from sheepstack.sheep.vdi_service import Failure
from sheepstack.sheep.view import View
from sheepstack.store.errors import StoreError
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_RINGS_KEPT = 16
#: Seconds between looks at the lease, whose return nobody announces.
_LOOK_SECONDS = 0.1


class ClusterState:
    """``name`` is this sheep's ``host:port``; ``patience`` how long a peer may be silent.

    ``answer_call(question)`` answers calls to ourselves, ``behind()`` is called when a peer
    turns out to have a newer map.  ``page``: a :class:`~sheepstack.sheep.direct_page.NoPage`.
    """

    def __init__(self, name, patience, page=NO_PAGE):
        self.name = name
        self.patience = patience
        self.view = View()
        self.stopping = threading.Event()
        self.answer_call = None
        self.behind = None
        self._page = page
        self._changed = threading.Condition()
        self._lease = lambda: False
        self._lease_lock = threading.Lock()
        self._session_until = self._map_until = 0.0
        self._history = None
        self._rings = {}
        self._joining_until = 0.0
        self._kicked = threading.Event()
        self._unsettled = threading.Event()

    # -- the view --------------------------------------------------------------------------

    def set_view(self, view: View):
        with self._changed:
            # Where clients are not served any more: before anybody acts on that.
            self._page.show(view)
            self.view = view
            self._changed.notify_all()
        self.kick()

    def change_view(self, revision=None, **fields):
        """Replace fields of the present view; does nothing where they are so already, or where
        the view is of another ``revision`` than is said here."""
        with self._changed:
            if revision in (None, self.view.revision):
                view = self.view._replace(**fields)
                if view != self.view:
                    self.set_view(view)

    def wait_view(self, revision, timeout):
        """Wait until the view has another revision than this, or the time is over."""
        with self._changed:
            if self.view.revision == revision:
                self._changed.wait(max(timeout, 0.001))

    def _wait_until(self, condition):
        with self._changed:
            while not self.stopping.is_set():
                if condition(self.view) and self.lease_valid():
                    return self.view
                self._changed.wait(_LOOK_SECONDS)
            return None

    def wait_serving(self):
        """The view once it serves under a valid lease; None when the daemon stops first."""
        return self._wait_until(lambda view: view.serving)

    def wait_open(self):
        """The view once clients are served under a valid lease; None when the daemon stops
        first."""
        return self._wait_until(lambda view: view.open)

    def stop(self):
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
        self.kick()

    # -- the session -----------------------------------------------------------------------

    def attach(self, coordinator):
        """Use this session from now on."""
        self._lease = coordinator.lease_valid
        coordinator.watch_lease(self._session_holds)
        self._history = coordinator.history

    def map_holds(self, until):
        """The view is that of the map as it was so little time ago that nobody goes on without
        a node that it names before ``until``, seconds of CLOCK_BOOTTIME.  See
        :func:`sheepstack.placement.succession.next_map`.
        """
        with self._lease_lock:
            self._map_until = until
            self._page.set_lease(min(until, self._session_until))

    def _session_holds(self, until):
        with self._lease_lock:
            self._session_until = until
            self._page.set_lease(min(until, self._map_until))

    def lease_valid(self) -> bool:
        """True while nobody can have thrown this sheep out of the map without its knowing."""
        return self._lease() and now() < self._map_until

    def maps_after(self, revision):
        """Past maps with a greater revision, newest first, without the present one."""
        maps = []
        for epoch in range(self.view.epoch - 1, 0, -1):
            data = self._history(epoch)
            if data is None:
                break
            past = ClusterMap.from_bytes(data)
            if past.uuid != self.view.map.uuid or past.revision <= revision:
                break
            maps.append(past)
        return maps

    def ring_of(self, cluster_map) -> Ring:
        ring = self._rings.get(cluster_map.revision)
        if ring is None:
            if len(self._rings) >= _RINGS_KEPT:
                self._rings.clear()
            ring = self._rings[cluster_map.revision] = Ring.of(cluster_map)
        return ring

    def joining(self, seconds):
        """A cluster that runs is about to take us in; clients may wait for so long."""
        self._joining_until = time.monotonic() + seconds

    def is_joining(self) -> bool:
        """True while it is worth a client's while to wait for us to become a member."""
        return time.monotonic() < self._joining_until

    # -- signals between threads -----------------------------------------------------------

    def kick(self):
        """Something that waits may go on."""
        self._kicked.set()

    def wait_kick(self, timeout):
        self._kicked.wait(timeout)
        self._kicked.clear()

    def settling(self):
        """Writes have settled that other holders do not know of yet."""
        if not self._unsettled.is_set():
            self._unsettled.set()

    def wait_settling(self, timeout) -> bool:
        found = self._unsettled.wait(timeout)
        self._unsettled.clear()
        return found

    def may_reclaim(self) -> bool:
        """True on the leader of a cluster of which all is known."""
        view = self.view
        return (view.open and not view.bereft and view.leader == view.index
                and view.index >= 0 and self.lease_valid())

    # -- calls -----------------------------------------------------------------------------

    def call_node(self, node, question, timeout=None):
        """Ask the node at this position of the map; None when there is no answer, or it fails."""
        view = self.view
        if node == view.index >= 0:
            try:
                return self.answer_call(question)
            except (Failure, StoreError):
                return None
        if not 0 <= node < len(view.links) or view.links[node] is None:
            return None
        payload = json.dumps(question).encode()
        answer = view.links[node].call(
            PeerOp.CALL, view.revision, timeout or self.patience, buffers=(payload,),
            data_length=len(payload))
        if answer.result != Result.SUCCESS:
            return None
        return json.loads(answer.payload)["answer"]

    def call_all(self, question):
        """Answers of all nodes in the map, asked at the same time; raises Failure(AGAIN)."""
        view = self.view
        if not view.serving:
            raise Failure(Result.AGAIN)
        payload = json.dumps(question).encode()
        pending = _Gathering(len(view.map.nodes))
        for node, link in enumerate(view.links):
            if link is not None:
                link.submit(PeerOp.CALL, view.revision, pending.collector(), buffers=(payload,),
                            data_length=len(payload))
        own = self.answer_call(question)
        answers = pending.wait(self.patience)
        if answers is None or own is None:
            raise Failure(Result.AGAIN)
        return answers + [own]


class _Gathering:
    def __init__(self, nodes):
        self._expected = nodes - 1
        self._answers = []
        self._condition = threading.Condition()

    def collector(self):
        def collect(answer, batch):
            with self._condition:
                self._answers.append(answer)
                self._condition.notify()
        return collect

    def wait(self, timeout):
        end = time.monotonic() + timeout
        with self._condition:
            while len(self._answers) < self._expected:
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._condition.wait(left)
        if any(answer.result != Result.SUCCESS for answer in self._answers):
            return None
        decoded = [json.loads(answer.payload)["answer"] for answer in self._answers]
        return None if any(answer is None for answer in decoded) else decoded
