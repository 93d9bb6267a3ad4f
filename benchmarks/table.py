"""The table of results."""

import statistics
from typing import NamedTuple


class Result(NamedTuple):
    """``values``: those of each repeat.  ``more_is_better`` decides which way a ratio goes."""

    name: str
    client: str
    unit: str
    more_is_better: bool
    values: list
    peer_values: list = ()

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def peer_median(self):
        return statistics.median(self.peer_values) if self.peer_values else None

    @property
    def ratio(self):
        """How many times better we are than the peer; None without one."""
        if not self.peer_values:
            return None
        ratio = self.median / self.peer_median
        return ratio if self.more_is_better else 1 / ratio


class Table:
    """Prints one line for each result as soon as it is there.

    ``peer`` is the name of what stands beside us, or None.
    """

    _FORMAT = "%-34s %-6s %12s %7s"
    _PEER_FORMAT = " %12s %7s %7s"

    def __init__(self, title, peer=None):
        self._peer = peer
        print()
        print(title if peer is None else "%s; peer: %s" % (title, peer))
        line = self._FORMAT % ("row", "client", "median", "spread")
        if peer is not None:
            line += self._PEER_FORMAT % ("peer", "spread", "ratio")
        print("%s\n%s" % (line, "-" * len(line)), flush=True)

    def add(self, result: Result):
        line = self._FORMAT % (result.name, result.client,
                               "%s %s" % (_number(result.median), result.unit),
                               _spread(result.values))
        if self._peer is not None and result.peer_values:
            line += self._PEER_FORMAT % (
                "%s %s" % (_number(result.peer_median), result.unit),
                _spread(result.peer_values), "%.2f" % result.ratio)
        print(line.rstrip(), flush=True)

    def say(self, text):
        print(text, flush=True)


def _number(value):
    if value >= 100:
        return "{:,.0f}".format(value)
    return "%.3g" % value


def _spread(values):
    """Half of the distance between the best and the worst, in parts of the median."""
    median = statistics.median(values)
    if len(values) < 2 or not median:
        return ""
    return "±%.0f%%" % (50 * (max(values) - min(values)) / median)
