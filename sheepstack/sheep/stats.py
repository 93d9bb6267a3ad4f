"""Counters of requests, as ``dog node stat`` shows them."""

from sheepstack.wire.admin import SheepStat
from sheepstack.wire.opcodes import Op

_REMOVALS = (int(Op.REMOVE_OBJ), int(Op.DISCARD_OBJ))


class Stats:
    """Plain integers; a lost increment under threads does no harm."""

    def __init__(self):
        self.gateway_total = self.gateway_rx = self.gateway_tx = 0
        self.gateway_reads = self.gateway_writes = self.gateway_removes = 0
        self.gateway_flushes = 0
        self.peer_total = self.peer_rx = self.peer_tx = 0
        self.peer_reads = self.peer_writes = self.peer_removes = 0

    def gateway_read(self, length):
        self.gateway_total += 1
        self.gateway_reads += 1
        self.gateway_tx += length

    def direct_reads(self, count, length):
        """A client says that it read so often, and so many bytes, by itself."""
        self.gateway_total += count
        self.gateway_reads += count
        self.gateway_tx += length

    def gateway_write(self, opcode, length):
        self.gateway_total += 1
        self.gateway_rx += length
        if opcode in _REMOVALS:
            self.gateway_removes += 1
        else:
            self.gateway_writes += 1

    def pack(self) -> bytes:
        return SheepStat(
            gway_total_nr=self.gateway_total, peer_total_nr=self.peer_total,
            gway_total_rx=self.gateway_rx, gway_total_tx=self.gateway_tx,
            peer_total_rx=self.peer_rx, peer_total_tx=self.peer_tx,
            gway_total_remove_nr=self.gateway_removes, gway_total_read_nr=self.gateway_reads,
            gway_total_write_nr=self.gateway_writes, gway_total_flush_nr=self.gateway_flushes,
            peer_total_remove_nr=self.peer_removes, peer_total_read_nr=self.peer_reads,
            peer_total_write_nr=self.peer_writes).pack()
