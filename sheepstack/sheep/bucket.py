"""At what time requests may go on so that limits are kept.  Pure: the time comes from outside."""

#: Seconds of a limit that may be used at once after a time of rest.
BURST = 0.1
#: Less than this nobody waits; sums of floats may be so far off.
_TICK = 1e-6


class Bucket:
    """Of one VDI.  ``limits``: :class:`sheepstack.wire.limits.Limits`.

    Each limit has a time up to which what was let through has used it up.  A request goes on as
    soon as that is at most :data:`BURST` ahead; one that is larger than the burst so has to wait
    for those before it only, and those after it wait for it.
    """

    def __init__(self, limits):
        # For reads, then for writes: (key, requests a second, bytes a second).
        self._rates = tuple(
            tuple((key, rate, per_byte) for key, rate, per_byte in (
                ("total requests", limits.total_iops_sec, False),
                ("total bytes", limits.total_bytes_sec, True),
                ("requests", own_requests, False),
                ("bytes", own_bytes, True)) if rate)
            for own_requests, own_bytes in (
                (limits.read_iops_sec, limits.read_bytes_sec),
                (limits.write_iops_sec, limits.write_bytes_sec)))
        self._used_up = {}

    def take(self, now, is_write, length) -> float:
        """Let a request of ``length`` bytes through, and return 0; or the seconds after which
        it is worth to ask again, and nothing is taken."""
        keys = [(key if key.startswith("total") else (key, is_write), rate, per_byte)
                for key, rate, per_byte in self._rates[is_write]]
        wait = max((self._used_up.get(key, now) - now - BURST for key, _, _ in keys), default=0)
        if wait > _TICK:
            return wait
        for key, rate, per_byte in keys:
            self._used_up[key] = max(self._used_up.get(key, now), now) + (
                length if per_byte else 1) / rate
        return 0
