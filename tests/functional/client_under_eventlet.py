"""Runs the client's behaviours in a process that eventlet has patched.

``python -m tests.functional.client_under_eventlet ADDRESS...``
"""

from sheepstack import runtime

runtime.choose("eventlet")


def main(addresses):
    import threading
    import time

    from sheepstack.client import Cluster
    from tests.functional.client_behaviour import BEHAVIOURS

    # A green thread that ticks shows that nothing blocks the others.
    ticks = []
    stopping = threading.Event()

    def tick():
        while not stopping.wait(0.01):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    with Cluster(addresses) as client:
        for behaviour in BEHAVIOURS:
            behaviour(client, "green-" + behaviour.__name__)
        client.create_vdi("green", 64 << 20)
        with client.open_vdi("green") as vdi:
            before = len(ticks)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                vdi.pwrite(0, b"x" * 4096)
                vdi.pread(0, 4096)
            during = len(ticks) - before
    stopping.set()
    ticker.join()
    assert during > 20, "others had %d turns in a second" % during


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
    print("all behaved")
