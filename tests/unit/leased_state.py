"""What a sheep knows of the cluster, in a test where its session is not the matter."""

from sheepstack.sheep.state import ClusterState


class LeasedState(ClusterState):
    """Has its lease for ever."""

    def __init__(self):
        super().__init__("here", 1.0)

    def lease_valid(self):
        return True
