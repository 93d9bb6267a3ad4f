"""Speed of the store alone: ``python -m benchmarks.store [DIRECTORY]``.

Prints operations a second, for objects of 4 MiB: reads and writes at random places of 64
objects in the page cache, and creation of objects with that much data in them.  A durable
row with 8 threads shows what sharing flushes is worth.  Each figure is the median of three
runs; they are good for comparing two states of the source on an idle machine.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import threading
import time

from sheepstack.store import ObjectStore

OBJECT = 4 << 20
OBJECTS = 64
SIZES = (4 << 10, 64 << 10, 4 << 20)
THREADS = (1, 8)


class Bench:
    """One store; ``seconds`` is how long a single run takes."""

    def __init__(self, directory, durable, seconds):
        self.path = tempfile.mkdtemp(prefix="sheepstore-bench-", dir=directory)
        self.seconds = seconds
        self.store = ObjectStore(self.path, durable=durable)
        self._next = OBJECTS
        self._lock = threading.Lock()
        data = random.randbytes(OBJECT)
        for oid in range(1, OBJECTS + 1):
            self.wait(self.store.create, oid, OBJECT, 0, data)

    @staticmethod
    def wait(method, *arguments):
        """Calls a method that takes ``done``; waits only where it is not done at once."""
        errors = []
        finished = threading.Lock()
        finished.acquire()

        def done(error):
            errors.append(error)
            finished.release()

        method(*arguments, done)
        if not errors:
            finished.acquire()
        if errors[0] is not None:
            raise errors[0]

    def _place(self, rng, size):
        return rng.randrange(1, OBJECTS + 1), rng.randrange(OBJECT // size) * size

    def reads(self, size):
        """A function that does one operation, and can be used by one thread."""
        rng, read = random.Random(), self.store.read
        return lambda: read(*self._place(rng, size), size)

    def writes(self, size):
        rng, write, data = random.Random(), self.store.write, random.randbytes(size)
        return lambda: self.wait(write, *self._place(rng, size), data)

    def creations(self, size):
        create, data = self.store.create, random.randbytes(size)

        def one():
            with self._lock:
                self._next += 1
                oid = self._next
            self.wait(create, oid, OBJECT, 0, data)

        return one

    def clear(self):
        """Removes the objects that creations() made."""
        for oid in range(OBJECTS + 1, self._next + 1):
            self.wait(self.store.remove, oid)
        self._next = OBJECTS

    def rate(self, make, size, threads):
        """Operations a second of ``threads`` threads."""
        counts = [0] * threads
        begin = threading.Barrier(threads + 1)

        def run(which):
            operate = make(size)
            operate()
            begin.wait()
            count, end = 0, time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                operate()
                count += 1
            counts[which] = count

        workers = [threading.Thread(target=run, args=(which,)) for which in range(threads)]
        for worker in workers:
            worker.start()
        begin.wait()
        start = time.perf_counter()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - start)

    def close(self):
        self.store.close()
        shutil.rmtree(self.path)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", help="on the disk to use (default: /tmp)")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each run")
    options = parser.parse_args()
    print("%-12s %-8s %8s" % ("", "", "size")
          + "".join("%16s" % ("%d thread%s" % (count, "s" * (count > 1))) for count in THREADS))
    for durable in (False, True):
        bench = Bench(options.directory, durable, options.seconds)
        try:
            for kind in ("reads", "writes", "creations"):
                for size in SIZES:
                    rates = []
                    for threads in THREADS:
                        runs = []
                        for _ in range(3):
                            runs.append(bench.rate(getattr(bench, kind), size, threads))
                            bench.clear()
                        rates.append(statistics.median(runs))
                    print("%-12s %-8s %4d KiB" % (
                        kind, "durable" if durable else "", size >> 10)
                        + "".join("%14.0f/s" % rate for rate in rates), flush=True)
        finally:
            bench.close()


if __name__ == "__main__":
    main()
