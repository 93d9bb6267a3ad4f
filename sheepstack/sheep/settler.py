"""Small regular duties: telling that writes settled, trying again, coming to rest."""

import logging
import threading
import time

from sheepstack.sheep.reminder import Reminder
from sheepstack.store.errors import StoreError
from sheepstack.wire.peer import PeerOp, make_stamp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.004
#: What somebody missed is told again so soon.
_REPEAT_SECONDS = 0.1
#: Not all holders are sent all writes, so now and then each is told.
_MOST_ROUNDS = 5
_UNPARK_SECONDS = 0.05
_REST_SECONDS = 0.5


class Settler:
    """Three threads, one for each duty."""

    def __init__(self, state, replica, gateway):
        self._state = state
        self._replica = replica
        self._gateway = gateway
        self._missed = False
        self._oldest = self._reminder = None

    def start(self):
        for duty in (self._tell, self._try_again, self._rest):
            threading.Thread(target=duty, daemon=True, name=duty.__name__).start()

    def _tell(self):
        """Tell the others which of our writes settled; they may let them be read then."""
        told = 0, 0
        while not self._state.stopping.is_set():
            missed = self._missed
            if not self._state.wait_settling(_REPEAT_SECONDS if missed else 1.0) and not missed:
                continue
            # While writes go on, each carries the news of those before it.
            for _ in range(_MOST_ROUNDS):
                before = self._gateway.issued
                self._state.stopping.wait(_GATHER_SECONDS)
                if self._gateway.issued == before:
                    break
            view = self._state.view
            if not view.serving:
                # Perhaps for a moment only, and at the same map.
                self._missed = True
                continue
            upto = self._gateway.settled_upto()
            if (view.revision, upto) == told and not missed or not upto:
                continue
            told = view.revision, upto
            self._missed = False
            for link in view.links:
                if link is not None:
                    link.submit(PeerOp.SETTLE, view.revision, self._told,
                                stamp=make_stamp(0, view.index), settled=upto)

    def _told(self, answer, batch):
        # A link was down, or the other one without a lease for a moment.  It would wait for
        # the news for as long as we have no others.
        if answer.result != Result.SUCCESS:
            self._missed = True

    def _try_again(self):
        while not self._state.stopping.is_set():
            self._state.wait_kick(_UNPARK_SECONDS if self._gateway.has_parked() else 1.0)
            self._gateway.unpark()

    def _rest(self):
        while not self._state.stopping.wait(_REST_SECONDS):
            try:
                self._replica.settle_quiet()
            except StoreError as error:
                log.warning("cannot note stamps: %s", error)
            self._look_at_oldest(time.monotonic())

    def _look_at_oldest(self, now):
        """What others have of our writes is not read there before those before it are done."""
        oldest = self._gateway.oldest()
        if oldest is not self._oldest:
            self._oldest, self._reminder = oldest, Reminder(now)
        elif oldest is not None and self._reminder.is_due(now):
            log.warning("a write does not come to its end, and is tried again: %s", oldest)
