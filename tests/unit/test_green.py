"""The eventlet runtime, in a process of its own, as it cannot be undone."""

import subprocess
import sys
import textwrap
import unittest


def run(script):
    """Standard output of a script that has chosen eventlet."""
    head = "from sheepstack import runtime\nruntime.choose('eventlet')\n"
    done = subprocess.run([sys.executable, "-c", head + textwrap.dedent(script)],
                          capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.split()


class Offload(unittest.TestCase):
    def test_values_and_errors_come_back(self):
        self.assertEqual(["7", "OSError", "8"], run("""
            import os
            print(runtime.offload(max, 3, 7))
            try:
                runtime.offload(os.stat, "/nowhere")
            except OSError:
                print("OSError")
            print(runtime.offload(max, 3, 8))
        """))

    def test_others_go_on_and_many_are_under_way(self):
        """All calls wait for one another: so they run at the same time, as many as may."""
        self.assertEqual(["went", "on", "True"], run("""
            import threading
            from eventlet.patcher import original
            barrier = original("threading").Barrier(10)
            values = []

            def call(number):
                runtime.offload(barrier.wait, 60)
                values.append(number)

            threads = [threading.Thread(target=call, args=(each,)) for each in range(9)]
            for thread in threads:
                thread.start()

            def meanwhile():
                print("went on")
                runtime.offload(barrier.wait, 60)

            last = threading.Thread(target=meanwhile)
            last.start()
            for thread in threads + [last]:
                thread.join()
            print(sorted(values) == list(range(9)))
        """))

    def test_far_more_than_there_are_threads(self):
        self.assertEqual(["4950"], run("""
            import threading
            found = []
            threads = [threading.Thread(
                target=lambda each=each: found.append(runtime.offload(int, each)))
                for each in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(sum(found))
        """))


class Readable(unittest.TestCase):
    def test_it_waits_for_bytes_and_for_the_end(self):
        self.assertEqual(["one", "two", "end"], run("""
            import socket, threading
            ours, theirs = socket.socketpair()
            readable = runtime.Readable(ours)
            turn = threading.Event()

            def send():
                for word in (b"one", b"two"):
                    theirs.sendall(word)
                    turn.wait()
                    turn.clear()
                theirs.close()

            threading.Thread(target=send).start()
            while True:
                readable.wait()
                data = runtime.bare_socket(ours).recv(100, socket.MSG_DONTWAIT)
                print(data.decode() or "end")
                if not data:
                    break
                turn.set()
            readable.close()
            ours.close()
        """))

    def test_what_comes_while_it_does_not_wait_is_not_missed(self):
        self.assertEqual(["late"], run("""
            import socket, threading
            ours, theirs = socket.socketpair()
            readable = runtime.Readable(ours)
            theirs.sendall(b"early")
            readable.wait()
            # Not received, and the hub runs: it must not run wild, nor forget it.
            runtime.bare_socket(ours).recv(100)
            theirs.sendall(b"late")
            for _ in range(3):
                runtime.give_way()
            readable.wait()
            print(runtime.bare_socket(ours).recv(100, socket.MSG_DONTWAIT).decode())
        """))
