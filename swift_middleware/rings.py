"""What Swift's proxy takes for rings: everything is in one place here."""


class Ring:
    """The face of a ring with one node, which is never connected to."""

    replica_count = 1
    next_part_power = None
    part_power = 0
    devs = ()

    _NODE = {"id": 0, "ip": "127.0.0.1", "port": 0, "device": "sheep", "region": 1, "zone": 1,
             "index": 0, "replication_ip": "127.0.0.1", "replication_port": 0}

    def get_part(self, *names):
        return 0

    def get_nodes(self, *names):
        return 0, [self._NODE]

    def get_part_nodes(self, part):
        return [self._NODE]

    def get_more_nodes(self, part):
        return iter(())
