"""Runs rounds, one after the other or several side by side."""

import functools
import logging
import multiprocessing
import signal
import sys
import threading
import time

from tests.thrash.campaign import thrash


def prepare(verbose):
    """Set up a process in which rounds run."""
    logging.basicConfig(
        level=logging.WARNING, format="%(relativeCreated)8d %(threadName)s: %(message)s")
    if verbose:
        logging.getLogger("tests.thrash").setLevel(logging.INFO)
    # A round that is told to end mends its network and unmounts its disks.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))


def run(plans, jobs, seconds, verbose, **how):
    """The verdicts on ``plans`` as they come, of ``jobs`` rounds at a time.

    No round begins when ``seconds`` have passed.  ``how`` goes to :func:`thrash`.
    """
    end = time.monotonic() + seconds
    thrash_so = functools.partial(thrash, **how)
    if jobs == 1:
        yield from map(thrash_so, _until(end, plans))
        return
    free, over = threading.Semaphore(jobs), threading.Event()
    # Processes, as the clients of a round keep one busy; none is used twice.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, prepare, (verbose,), maxtasksperchild=1) as pool:
        try:
            for verdict in pool.imap_unordered(
                    thrash_so, _until(end, _when_free(free, over, plans))):
                free.release()
                yield verdict
            pool.close()
            pool.join()
        finally:
            # The pool cannot end while one of its threads waits for a plan.
            over.set()
            free.release()


def _until(end, plans):
    for plan in plans:
        if time.monotonic() > end:
            return
        yield plan


def _when_free(free, over, plans):
    """No sooner than there is somebody to take them."""
    for plan in plans:
        free.acquire()
        if over.is_set():
            return
        yield plan
