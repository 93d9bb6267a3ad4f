"""How fast objects may come that nobody waits for, while clients are served.

No clock and no threads: moments, in seconds, come in and go out.
"""

#: Bytes per second that recovery leaves it at.  What is slower anyway, because the machine, its
#: disk or the network is, is not made slower still: copies that are missing are a danger, too.
GENTLE = 200 << 20

#: So long after a client's request they are still taken for being served.
_QUIET_SECONDS = 0.2


class Pace:
    """Who calls it holds a lock."""

    def __init__(self):
        self._seen = {}
        self._served = float("-inf")
        self._free = 0.0
        #: Bytes that the last object took on its way.
        self.size = 0

    def note(self, node, number, now):
        """``number`` grows while ``node`` serves clients."""
        known = self._seen.get(node)
        if known is not None and known != number:
            self._served = now
        self._seen[node] = number

    def next(self, now) -> float:
        """The moment at which the next object may be asked for; each call is for one."""
        if now - self._served > _QUIET_SECONDS:
            return now
        begin = max(now, self._free)
        self._free = begin + self.size / GENTLE
        return begin
