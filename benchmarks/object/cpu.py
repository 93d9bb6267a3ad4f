"""How much processor time servers have used: what a busy machine does not change."""

import os

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds(leaders) -> float:
    """Of all processes whose session, or who themselves, are among the ids ``leaders``."""
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name) as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        # From the third field on: state, ppid, pgrp, session, ... utime, stime.
        if int(fields[3]) in leaders or int(name) in leaders:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS
