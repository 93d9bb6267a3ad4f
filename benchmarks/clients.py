"""Those who send the requests of a data row: our own client, and QEMU's driver."""

import collections
import os
import re
import subprocess
import time

from benchmarks.cluster import BenchmarkFailed

_COMPLETED = re.compile(r"Run completed in ([0-9.]+) seconds")
#: QEMU writes this byte; zeros would be left out of answers.
_PATTERN = 165


class OwnClient:
    """sheepstack.client, in this process."""

    name = "own"

    def run(self, target, vdi_name, span, row, count) -> float:
        """Seconds that ``count`` requests of ``row`` take."""
        with target.client.open_vdi(vdi_name, read_only=not row.write) as vdi:
            # The map is read once for all: it is the requests that are measured.
            vdi.extents(0, span)
            vdi.pread(0, 1)
            work = _one_by_one if row.depth == 1 else _many_at_once
            data = os.urandom(row.size) if row.write else None
            offsets = list(row.offsets(span, count))
            begun = time.perf_counter()
            work(vdi, row, offsets, data)
            return time.perf_counter() - begun


def _one_by_one(vdi, row, offsets, data):
    if row.write:
        for offset in offsets:
            vdi.pwrite(offset, data)
    else:
        for offset in offsets:
            vdi.pread(offset, row.size)


def _many_at_once(vdi, row, offsets, data):
    under_way = collections.deque()
    for offset in offsets:
        if len(under_way) == row.depth:
            under_way.popleft().result()
        under_way.append(vdi.submit_pwrite(offset, data) if row.write
                         else vdi.submit_pread(offset, row.size))
    for future in under_way:
        future.result()


class QemuClient:
    """``qemu-img bench`` of a QEMU that has the sheepdog driver (up to 6.0)."""

    name = "qemu"

    def __init__(self, program):
        self._program = program

    def run(self, target, vdi_name, span, row, count) -> float:
        """Seconds that ``count`` requests of ``row`` take."""
        argv = [self._program, "bench", "-f", "raw", "-t", "none", "-c", str(count),
                "-d", str(row.depth), "-s", str(row.size), "-S", str(row.step),
                "sheepdog://%s/%s" % (target.address, vdi_name)]
        if row.write:
            argv[2:2] = ["-w", "--pattern=%d" % _PATTERN]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        completed = _COMPLETED.search(done.stdout)
        if done.returncode or not completed:
            raise BenchmarkFailed("%s: %s" % (
                self._program, done.stderr.strip() or "ended with status %d" % done.returncode))
        # It prints milliseconds.
        return max(float(completed[1]), 0.0005)
