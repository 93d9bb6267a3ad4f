"""How much is done: enough for figures, or only enough to see that all works."""

from typing import NamedTuple

MIB = 1 << 20


class Settings(NamedTuple):
    """``seconds``: of one run of a data row.  ``span``: bytes of the VDI they run on.
    ``fill``: bytes of the sequential rows, of recovery and below a snapshot.
    ``snapshots``: how many are taken in a run.
    ``growth``: VDIs, objects and the length of a chain of snapshots in the growth rows."""

    repeats: int
    seconds: float
    span: int
    fill: int
    snapshots: int
    growth_vdis: int
    growth_objects: int
    growth_chain: int


FULL = Settings(5, 1.0, 512 * MIB, 1024 * MIB, 10, 10_000, 1_000_000, 100)
QUICK = Settings(3, 0.2, 64 * MIB, 64 * MIB, 3, 300, 2_000, 20)
