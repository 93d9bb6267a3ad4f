"""Work in a process of its own that is killed in the middle of it.

A step is a request to the sheep.  By default one step is tried of whatever it is, another each
time; with ``KILLS=all`` in the environment all.
"""

import os
import random
import signal
import threading
import traceback

from sheepstack.client.caller import Caller


def chosen(steps, repeatable=True) -> list:
    """What to try of something with so many steps: (step, whether it is then done again)."""
    everything = [(step, repeated) for repeated in ((False, True) if repeatable else (False,))
                  for step in range(1, steps + 1)]
    return everything if os.environ.get("KILLS") == "all" else [random.choice(everything)]


def steps_of(begin, work, last=None) -> int:
    """Have ``work(begin())`` done by another process, which kills itself before the request
    number ``last`` (None: never) of ``work``; how many requests that made.

    AssertionError where the process ends in another way; its traceback is on our stderr.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            begun = begin()
            counted = _count_requests(last)
            work(begun)
            os.write(writing, b"%d" % counted())
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if last is not None:
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
        return last - 1
    assert status == 0, status
    return int(told)


def _count_requests(last):
    """Count what is asked of sheep from now on, in whatever thread; how to get the number."""
    perform, lock, number = Caller.perform, threading.Lock(), 0

    def counting(*args, **keywords):
        nonlocal number
        with lock:
            number += 1
            if number == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return perform(*args, **keywords)

    # In this process alone, which ends soon.
    Caller.perform = counting
    return lambda: number
