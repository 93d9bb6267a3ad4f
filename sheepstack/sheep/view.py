"""What this sheep knows of the cluster at a moment: one immutable value, swapped whole."""

from typing import NamedTuple, Optional, Tuple

from sheepstack.placement.cluster_map import ClusterMap
from sheepstack.placement.ring import Ring


class View(NamedTuple):
    """``index`` is this sheep's position in the map's nodes, -1 where it is not in the map.

    ``links`` has the :class:`~sheepstack.sheep.peer_link.PeerLink` of each node, None for this
    one.  ``serving`` is true while the map is settled and this sheep is in it.  ``open``: every
    node has ended the writes that an earlier revision left, so clients are served.
    ``complete``: every node said at this revision that it holds all it should.  ``bereft``:
    all holders of some objects are away, and perhaps of some that nobody here knows of.
    ``leader`` is the position of the sheep that leads, -1 where it is not in the map.
    """

    map: Optional[ClusterMap] = None
    ring: Optional[Ring] = None
    index: int = -1
    links: Tuple = ()
    serving: bool = False
    open: bool = False
    complete: bool = False
    bereft: bool = False
    leader: int = -1

    @property
    def revision(self) -> int:
        return self.map.revision if self.map else 0

    @property
    def epoch(self) -> int:
        return self.map.epoch if self.map else 0


def is_still_served(present: View, view: View) -> bool:
    """True while the map of ``view`` is the one that counts, and this sheep serves at it."""
    return present.revision == view.revision and present.serving
