"""Requests that must wait because their VDI has limits, see :mod:`sheepstack.wire.limits`.

What limits a VDI has the leader knows.  It is asked when a VDI is first used through this sheep,
and again after the map has changed; it tells all sheep when it changes some.
"""

import collections
import heapq
import itertools
import threading
import time

from sheepstack.sheep.bucket import Bucket
from sheepstack.wire import limits

_MOST_KNOWN = 4096


class _Gate:
    """``revision``: of the map at which the limits were asked for.  Reads wait in one queue,
    writes in another."""

    __slots__ = ("revision", "bucket", "queues", "asked")

    def __init__(self):
        self.revision = 0
        self.bucket = None
        self.queues = (collections.deque(), collections.deque())
        self.asked = None


class Limiter:
    """``ask_leader(question)`` has the leader answer a call, however long it takes; ``workers``
    run what may wait, and the requests whose time has come."""

    def __init__(self, state, ask_leader, workers, clock=time.monotonic):
        self._state = state
        self._ask_leader = ask_leader
        self._workers = workers
        self._clock = clock
        self._gates = {}
        self._due = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread = None

    def admit(self, vid, is_write, length, begin, *args) -> bool:
        """True: go on now.  False: ``begin(*args)`` will be called by a worker.  Never waits."""
        gate = self._gates.get(vid)
        if gate is None or gate.revision != self._state.view.revision:
            gate = self._look_up(vid)
        if gate.bucket is None and not gate.queues[is_write]:
            return True
        with self._changed:
            queue = gate.queues[is_write]
            wait = 0
            if not queue:
                wait = gate.bucket.take(self._clock(), is_write, length) if gate.bucket else 0
                if not wait:
                    return True
                self._wake_at(self._clock() + wait, gate, is_write)
            queue.append((length, begin, args))
            return False

    def _look_up(self, vid):
        with self._changed:
            revision = self._state.view.revision
            if len(self._gates) > _MOST_KNOWN:
                self._gates = {known: gate for known, gate in self._gates.items()
                               if any(gate.queues)}
            gate = self._gates.setdefault(vid, _Gate())
            if gate.revision != revision:
                gate.revision = revision
                gate.asked = token = object()
                self._workers.submit(self._ask, vid, gate, token)
            return gate

    def _ask(self, vid, gate, token):
        text = self._ask_leader({"call": "limits", "vid": vid})
        with self._changed:
            # What the leader told us meanwhile is newer.
            if text is not None and gate.asked is token:
                self._change(gate, text)

    def change(self, vid, text):
        """The leader says what the limits of a VDI are now."""
        with self._changed:
            gate = self._gates.get(vid)
            if gate is not None:
                gate.asked = None
                self._change(gate, text)

    def _change(self, gate, text):
        found = limits.parse(text)
        gate.bucket = Bucket(found) if any(found) else None
        for is_write in (False, True):
            if gate.queues[is_write]:
                self._wake_at(self._clock(), gate, is_write)

    # -- the queues

    def _wake_at(self, when, gate, is_write):
        heapq.heappush(self._due, (when, next(self._numbers), gate, is_write))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="limiter")
            self._thread.start()
        self._changed.notify()

    def _run(self):
        with self._changed:
            while not self._state.stopping.is_set():
                now = self._clock()
                if not self._due or self._due[0][0] > now:
                    self._changed.wait(self._due[0][0] - now if self._due else None)
                    continue
                _, _, gate, is_write = heapq.heappop(self._due)
                self._let_through(gate, is_write, now)

    def _let_through(self, gate, is_write, now):
        queue = gate.queues[is_write]
        while queue:
            length, begin, args = queue[0]
            wait = gate.bucket.take(now, is_write, length) if gate.bucket else 0
            if wait:
                self._wake_at(now + wait, gate, is_write)
                return
            queue.popleft()
            self._workers.submit(begin, *args)
