"""Judges a history: which reads no correct cluster could have answered so.

Every sector of a volume is a register.  Its history must be linearizable: each write that
was acknowledged takes effect at one moment between its start and its end, one that failed
at one moment after its start or never, and each read gives what the last of them before a
moment between its start and its end wrote.  So a read gives the last acknowledged write or
one under way or failed later, and what was read once never goes back.

All writes to a sector have different values, which makes the question a simple one (Gibbons
and Korach, "Testing shared memories", 1997).  A value's *cluster* is its write and the reads
that gave it.  It has the *zone* between the first end and the last start among them.  Where
the first end comes first, the zone runs forward: the register held that value all the time.
The history is linearizable where no two forward zones overlap, where none has another
value's backward zone within it, and where no read ended before its write began.  A write
that failed and was never read is left out.

A write that its client sent again, through another gateway after the first was lost, may
have taken effect each time, if somebody else wrote there in between, who must share the VDI.
That is called by a name of its own, "twice".

Zeros may be written many times, by discards; of them the checker only demands that some
zeros could have been there, and that an acknowledged discard hides what was there before.

A snapshot reads all sectors of its volume at one moment, and so, what is read of it later
was read then; the same value each time.  No write may be in it while one is missing that
had ended before that began.  A volume that was made from a snapshot begins with that.
"""

from collections import defaultdict
from typing import NamedTuple

from tests.thrash.history import NEVER, Origin, Read, Write
from tests.thrash.sectors import GARBAGE

#: Value of what was there in the beginning.
_INITIAL = "initial"

#: Violations of one rule that are told apart in a volume.
_MOST = 8


class Violation(NamedTuple):
    """``rule`` is a word for it, ``text`` tells all."""

    rule: str
    volume: str
    sector: int
    text: str

    def __str__(self):
        return "%s: %s, sector %d: %s" % (self.rule, self.volume, self.sector, self.text)


class _Access(NamedTuple):
    """One write or read of one sector."""

    value: int
    start: float
    end: float
    client: str
    again: bool = False


def check(events) -> list:
    """All :class:`Violation` s of a history, an iterable of its events."""
    return _Check(events).run()


class _Check:
    def __init__(self, events):
        self._writes = defaultdict(lambda: defaultdict(list))
        self._reads = defaultdict(lambda: defaultdict(list))
        self._origins = {}
        self._violations = []
        self._counts = defaultdict(int)
        for event in events:
            if isinstance(event, Write):
                sectors = self._writes[event.volume]
                for sector in range(event.first, event.first + event.count):
                    sectors[sector].append(
                        _Access(event.value, event.start, event.end, event.client, event.again))
            elif isinstance(event, Read):
                sectors = self._reads[event.volume]
                for sector, value in enumerate(event.values, event.first):
                    sectors[sector].append(
                        _Access(value, event.start, event.end, event.client))
            elif isinstance(event, Origin):
                self._origins[event.volume] = event

    def run(self):
        # The youngest first: what they read of their beginning was read of their source.
        for volume in self._youngest_first():
            for sector in sorted(set(self._reads[volume]) | set(self._writes[volume])):
                self._check_sector(volume, sector)
            self._check_cut(volume)
        return self._violations

    def _complain(self, rule, volume, sector, text, *values):
        self._counts[rule, volume] += 1
        if self._counts[rule, volume] <= _MOST:
            self._violations.append(Violation(rule, volume, sector, text % values))

    def _youngest_first(self):
        volumes = set(self._writes) | set(self._reads) | set(self._origins)

        def depth(volume):
            origin = self._origins.get(volume)
            return 0 if origin is None else 1 + depth(origin.source)

        return sorted(volumes, key=lambda volume: (-depth(volume), volume))

    # -- one sector ------------------------------------------------------------------------

    def _check_sector(self, volume, sector):
        writes = self._writes[volume][sector]
        reads = self._reads[volume][sector]
        mine = {write.value for write in writes if write.value}
        zeros = [write for write in writes if not write.value]
        clusters = {write.value: [write] for write in writes if write.value}
        beginning = []
        for read in reads:
            if read.value == GARBAGE:
                self._complain("garbage", volume, sector, "%s read what nobody wrote at %.3f",
                               read.client, read.start)
            elif read.value in mine:
                clusters[read.value].append(read)
            elif read.value == 0 and zeros:
                self._check_zero(volume, sector, read, writes)
            else:
                beginning.append(read)
        self._check_discards(volume, sector, zeros, reads, clusters)
        self._check_beginning(volume, sector, beginning)
        if beginning:
            clusters[_INITIAL] = [_Access(_INITIAL, -NEVER, -NEVER, "")] + beginning
        self._check_zones(volume, sector, clusters)

    def _check_beginning(self, volume, sector, reads):
        """These gave what the volume began with: one value, and that of its source."""
        if not reads:
            return
        origin = self._origins.get(volume)
        values = {read.value for read in reads}
        if origin is None:
            for read in reads:
                if read.value:
                    self._complain(
                        "foreign", volume, sector, "%s read write %s of another volume at %.3f",
                        read.client, read.value, read.start)
            return
        if len(values) > 1:
            self._complain(
                "changed", volume, sector, "it began with %s: %s", sorted(values), "; ".join(
                    "%s read %s at %.3f" % (read.client, read.value, read.start)
                    for read in sorted(reads, key=lambda read: read.start)[:6]))
            return
        first = min(reads, key=lambda read: read.end)
        self._reads[origin.source][sector].append(_Access(
            first.value, origin.start, min(origin.end, first.end), volume))

    def _check_zones(self, volume, sector, clusters):
        early, conflicts = _conflicts(clusters)
        if conflicts and _fits_if_sent_again(clusters):
            self._complain("twice", volume, sector, "took effect twice: %s", ", ".join(
                str(value) for value, (write, *_) in clusters.items() if write.again))
            return
        for value, read in early:
            self._complain(
                "future", volume, sector, "%s read write %s at %.3f, which began at %.3f",
                read.client, value, read.start, clusters[value][0].start)
        for one, other in conflicts:
            self._report_zones(volume, sector, clusters, one, other)

    def _report_zones(self, volume, sector, clusters, one, other):
        def story(value):
            write, *reads = clusters[value]
            told = [] if value == _INITIAL else ["written by %s from %.3f to %s" % (
                write.client, write.start, "?" if write.end == NEVER else "%.3f" % write.end)]
            reads.sort(key=lambda read: read.start)
            shown = reads if len(reads) < 3 else [reads[0], reads[-1]]
            told += ["read by %s from %.3f to %.3f" % (read.client, read.start, read.end)
                     for read in shown]
            return "%s %s" % (value, ", ".join(told))

        self._complain("went back", volume, sector, "%s; but %s", story(one), story(other))

    # -- zeros -----------------------------------------------------------------------------

    def _check_zero(self, volume, sector, read, writes):
        """Zeros where zeros were written: some of them must not have been overwritten."""
        sources = [write for write in writes if not write.value and write.start < read.end]
        sources.append(_Access(0, -NEVER, -NEVER, ""))
        for source in sources:
            if not any(write.value and source.end < write.start and write.end < read.start
                       for write in writes):
                return
        self._complain("lost", volume, sector, "%s read zeros at %.3f", read.client, read.start)

    def _check_discards(self, volume, sector, zeros, reads, clusters):
        for zero in zeros:
            for read in reads:
                write = clusters.get(read.value, [_Access(0, -NEVER, -NEVER, "")])[0]
                if (read.value not in (0, GARBAGE) and write.end < zero.start
                        and zero.end < read.start):
                    self._complain(
                        "went back", volume, sector, "%s read %s at %.3f, discarded till %.3f",
                        read.client, read.value, read.start, zero.end)

    # -- a snapshot as a whole -------------------------------------------------------------

    def _check_cut(self, volume):
        """All that a snapshot holds must have been there at one moment."""
        origin = self._origins.get(volume)
        if origin is None or any(self._writes[volume].values()):
            return
        held = {}
        for sector, reads in self._reads[volume].items():
            values = {read.value for read in reads}
            if len(values) == 1 and GARBAGE not in values:
                held[sector] = values.pop()
        source = self._writes[origin.source]
        beginning = _Access(0, -NEVER, -NEVER, "")
        newest = beginning
        for sector, value in held.items():
            for write in source[sector]:
                if value and write.value == value:
                    newest = max(newest, write, key=lambda write: write.start)
        for sector, value in sorted(held.items()):
            mine = [write for write in source[sector] if write.value == value]
            if not value or not mine:
                mine.append(beginning)
            missing = [self._missing(write, source[sector], newest) for write in mine]
            if all(missing):
                self._complain(
                    "cut", volume, sector,
                    "holds write %s of %.3f, but %s instead of %s, which ended at %.3f",
                    newest.value, newest.start, value, missing[0].value, missing[0].end)

    @staticmethod
    def _missing(held, writes, newest):
        """A write that hides ``held`` and ended before ``newest`` began, or None."""
        for write in writes:
            if (write.value != held.value and held.end < write.start
                    and write.end < newest.start):
                return write
        return None


def _conflicts(clusters):
    """(value, read) of reads that ended before their write began, and pairs of values whose
    zones do not go together."""
    early, pairs, zones = [], [], []
    for value, (write, *reads) in clusters.items():
        if not reads and write.end == NEVER:
            continue
        early += [(value, read) for read in reads if read.end < write.start]
        first_end = min([write.end] + [read.end for read in reads])
        last_start = max([write.start] + [read.start for read in reads])
        zones.append((first_end, last_start, value))
    forward = sorted((zone for zone in zones if zone[0] < zone[1]), key=lambda zone: zone[:2])
    pairs += [(zone[2], after[2]) for zone, after in zip(forward, forward[1:])
              if after[0] < zone[1]]
    for last, first, value in zones:
        if first <= last:
            pairs += [(zone[2], value) for zone in forward if zone[0] < first and last < zone[1]]
    return early, pairs


def _fits_if_sent_again(clusters) -> bool:
    """True where all is well if writes that were sent again took effect each time.

    One cluster after another is parted where that leaves the fewest conflicts.
    """
    early, pairs = _conflicts(clusters)
    while pairs and not early:
        parted = min(_partings(clusters), key=_number_of_conflicts, default=clusters)
        early, fewer = _conflicts(parted)
        if len(fewer) >= len(pairs):
            return False
        clusters, pairs = parted, fewer
    return not early


def _number_of_conflicts(clusters):
    return sum(map(len, _conflicts(clusters)))


def _partings(clusters):
    """Clusters as given, but one of a write that was sent again parted into two."""
    for value, (write, *reads) in clusters.items():
        if not write.again:
            continue
        reads.sort(key=lambda read: read.end)
        others = {key: cluster for key, cluster in clusters.items() if key != value}
        for position in range(1, len(reads)):
            yield {**others, (value, 1): [write] + reads[:position],
                   (value, 2): [write] + reads[position:]}
