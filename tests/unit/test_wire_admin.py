"""Administration structs: golden bytes of the public headers, round trips, garbage."""

import unittest

from hypothesis import given, strategies as st

from sheepstack.wire import admin
from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
# 0.0.0.0/8 cannot be told from IPv6, as in the C project.
IPV4 = st.ip_addresses(v=4).filter(lambda a: a.packed[0])
IPV6 = st.ip_addresses(v=6).filter(lambda a: int(a) >> 32)
ADDRESSES = st.one_of(IPV4, IPV6).map(str)
NODE_IDS = st.builds(admin.NodeId, ADDRESSES, U16, st.one_of(st.just(""), ADDRESSES), U16)
NODES = st.builds(admin.NodeRecord, NODE_IDS, U16, U32, U64)
NODE_TUPLES = st.lists(NODES, max_size=5).map(tuple)
STORES = st.sampled_from(("", "plain", "tree", "fifteen-letters"))

ANY = {
    admin.NodeId: NODE_IDS,
    admin.NodeRecord: NODES,
    admin.ClusterInfo: st.builds(
        admin.ClusterInfo, U32, U64, U16, U8, U8, U8, U8, STORES, NODE_TUPLES, st.booleans(),
        U8),
    admin.RecoveryState: st.builds(admin.RecoveryState, st.booleans(), U32, U64, U64),
    admin.RecoveryThrottling: st.builds(admin.RecoveryThrottling, U32, U64, st.booleans()),
    admin.SheepStat: st.builds(admin.SheepStat, *[U64] * 15),
    admin.VdiState: st.builds(
        admin.VdiState, U32, U8, st.booleans(), st.booleans(), U8, U8, U32, U32,
        st.one_of(st.none(), NODE_IDS),
        st.lists(st.tuples(U32, NODE_IDS), max_size=31).map(tuple)),
}
EPOCH_LOGS = st.builds(admin.EpochLog, U32, U64, NODE_TUPLES, U64, st.booleans(), U8, U8, U16,
                       STORES)

NODE_ID = admin.NodeId("10.1.2.3", 7001, "2021:2223:2425:2627:2829:2a2b:2c2d:2e2f", 7002)
NODE = admin.NodeRecord(NODE_ID, 128, 0x0302010A, 0x1122334455667788)

# Made by a C compiler from the public protocol headers.
NODE_ID_HEX = ("0000000000000000000000000a010203591b"
               "202122232425262728292a2b2c2d2e2f5a1b00000000")
NODE_HEX = "00" * 24 + NODE_ID_HEX + "800000000a0102038877665544332211"
GOLDEN = (
    (NODE_ID, NODE_ID_HEX),
    (NODE, NODE_HEX),
    (admin.ClusterInfo(
        epoch=0x21222324, ctime=0x0102030405060708, flags=0x0405, nr_copies=3,
        copy_policy=0x22, status=admin.ClusterStatus.OK, block_size_shift=22, store="plain",
        nodes=(NODE,), disable_recovery=True),
     "0a010100242322210807060504030201050403220116000000706c61696e" + "00" * 18 + NODE_HEX),
    (admin.RecoveryState(True, admin.RecoveryPhase.NOTIFY_COMPLETION, 0x0102030405060708,
                         0x1112131415161718),
     "010000000200000008070605040302011817161514131211"),
    (admin.RecoveryThrottling(0x01020304, 0x1112131415161718, True),
     "040302010000000018171615141312110100000000000000"),
    (admin.SheepStat(
        gway_active_nr=1, peer_active_nr=2, gway_total_nr=3, peer_total_nr=4, gway_total_rx=5,
        gway_total_tx=6, peer_total_rx=7, peer_total_tx=8, gway_total_remove_nr=9,
        gway_total_read_nr=10, gway_total_write_nr=11, gway_total_flush_nr=12,
        peer_total_remove_nr=13, peer_total_read_nr=14, peer_total_write_nr=15),
     "".join("%02x" % i + "00" * 7 for i in range(1, 16))),
    (admin.VdiState(
        vid=0x01020304, nr_copies=3, snapshot=True, deleted=True, copy_policy=0x22,
        block_size_shift=22, parent_vid=0x11121314, lock_state=admin.LockState.SHARED,
        lock_owner=NODE_ID,
        participants=((admin.SharedLockState.SHARED, NODE_ID),
                      (admin.SharedLockState.INVALIDATED, NODE_ID._replace(port=7009)))),
     "0403020103010122160000001413121103000000" + NODE_ID_HEX + "02000000"
     + "0200000003000000" + "00" * 116
     + NODE_ID_HEX + NODE_ID_HEX.replace("591b", "611b") + "00" * 1160),
)
EPOCH_LOG = admin.EpochLog(
    epoch=0x21222324, time=0x1112131415161718, nodes=(NODE,), ctime=0x0102030405060708,
    disable_recovery=True, nr_copies=3, copy_policy=0x22, flags=0x0405, store="plain")
EPOCH_LOG_HEX = ("08070605040302011817161514131211242322210100000001032200000005047"
                 "06c61696e" + "00" * 11 + NODE_HEX + "00" * 80)


class GoldenBytes(unittest.TestCase):

    def test_structs_pack_to_the_bytes_of_the_c_structs(self):
        for value, expected in GOLDEN:
            with self.subTest(kind=type(value).__name__):
                self.assertEqual(value.pack().hex(), expected)

    def test_structs_unpack_from_the_bytes_of_the_c_structs(self):
        for value, raw in GOLDEN:
            with self.subTest(kind=type(value).__name__):
                self.assertEqual(type(value).unpack(bytes.fromhex(raw)), value)

    def test_epoch_log_with_room_for_two_nodes(self):
        self.assertEqual(EPOCH_LOG.pack(2).hex(), EPOCH_LOG_HEX)
        self.assertEqual(admin.EpochLog.unpack(bytes.fromhex(EPOCH_LOG_HEX), 2), EPOCH_LOG)

    def test_disks(self):
        disks = [admin.DiskInfo("/a"),
                 admin.DiskInfo("/b", 0x0102030405060708, 0x1112131415161718)]
        raw = admin.pack_disks(disks)
        where = {i: byte for i, byte in enumerate(raw) if byte}
        expected = {24: 0x2F, 25: 0x61, 4120: 0x01, 4144: 0x2F, 4145: 0x62, 263680: 0x02}
        expected.update({4128 + i: 8 - i for i in range(8)})
        expected.update({4136 + i: 0x18 - i for i in range(8)})
        self.assertEqual(where, expected)
        self.assertEqual(admin.unpack_disks(raw), disks)

    def test_sizes(self):
        self.assertEqual(
            (admin.NODE_ID_SIZE, admin.NODE_SIZE, admin.EPOCH_LOG_SIZE,
             admin.MAX_CLUSTER_INFO_SIZE, admin.RECOVERY_STATE_SIZE, admin.THROTTLING_SIZE,
             admin.STAT_SIZE, admin.VDI_STATE_SIZE, admin.DISK_SIZE, admin.DISKS_SIZE),
            (40, 80, 48, 491568, 24, 24, 120, 1428, 4120, 263688))


class RoundTrips(unittest.TestCase):

    @given(st.sampled_from(list(ANY)).flatmap(ANY.get))
    def test_unpack_reverses_pack(self, value):
        self.assertEqual(type(value).unpack(value.pack()), value)

    @given(st.lists(EPOCH_LOGS, max_size=4), st.integers(5, 8))
    def test_epoch_logs(self, logs, nodes_nr):
        raw = b"".join(log.pack(nodes_nr) for log in logs)
        self.assertEqual(len(raw), len(logs) * admin.EpochLog.size(nodes_nr))
        self.assertEqual(admin.unpack_epoch_logs(raw, nodes_nr), logs)

    @given(EPOCH_LOGS)
    def test_an_epoch_log_without_room_leaves_the_nodes_out(self, log):
        raw = log.pack(0)
        self.assertEqual(len(raw), 48)
        self.assertEqual(admin.EpochLog.unpack(raw, 0), log._replace(nodes=()))

    @given(NODE_TUPLES)
    def test_node_lists(self, nodes):
        self.assertEqual(tuple(admin.unpack_nodes(admin.pack_nodes(nodes))), nodes)


class Addresses(unittest.TestCase):

    def test_ipv4_stands_behind_twelve_zeros(self):
        self.assertEqual(admin.pack_address("127.0.0.1"), bytes(12) + b"\x7f\0\0\1")

    def test_loopback_of_ipv6_is_not_taken_for_ipv4(self):
        self.assertEqual(admin.unpack_address(bytes(15) + b"\1"), "::1")

    def test_no_address_is_zeros(self):
        self.assertEqual(admin.pack_address(""), bytes(16))
        self.assertEqual(admin.unpack_address(bytes(16)), "")

    def test_names_are_refused(self):
        for text in ("localhost", "10.0.0", "1.2.3.4:7000", "::g"):
            with self.subTest(text=text), self.assertRaises(LocalProtocolError):
                admin.pack_address(text)

    def test_nodes_sort_by_the_bytes_of_their_address(self):
        ids = [admin.NodeId(a, p) for a, p in (
            ("10.0.0.9", 7000), ("10.0.0.10", 7000), ("10.0.0.9", 80), ("9.0.0.1", 7000))]
        self.assertEqual([str(nid) for nid in sorted(ids, key=lambda nid: nid.sort_key)],
                         ["9.0.0.1:7000", "10.0.0.9:80", "10.0.0.9:7000", "10.0.0.10:7000"])


class Garbage(unittest.TestCase):

    UNPACKERS = [kind.unpack for kind in ANY] + [
        admin.unpack_nodes, admin.unpack_vdi_states, admin.unpack_disks,
        lambda raw: admin.unpack_epoch_logs(raw, 2), lambda raw: admin.EpochLog.unpack(raw, 2)]

    @given(st.sampled_from(UNPACKERS), st.binary(max_size=600))
    def test_random_bytes_unpack_or_are_the_peers_fault(self, unpack, raw):
        try:
            unpack(raw)
        except RemoteProtocolError:
            pass

    @given(st.sampled_from(list(ANY)).flatmap(ANY.get), st.data())
    def test_every_truncation_is_noticed(self, value, data):
        raw = value.pack()
        length = data.draw(st.integers(0, len(raw) - 1))
        with self.assertRaises(RemoteProtocolError):
            type(value).unpack(raw[:length])

    def test_counts_that_do_not_fit_are_refused(self):
        info = bytearray(admin.ClusterInfo().pack())
        info[2:4] = b"\xff\xff"
        log = bytearray(EPOCH_LOG.pack(1))
        log[20:24] = b"\xff\xff\xff\x7f"
        state = bytearray(admin.VdiState(1).pack())
        state[60] = 32
        disks = bytearray(admin.pack_disks([]))
        disks[-8:-4] = b"\xff\xff\xff\xff"
        for unpack, raw in ((admin.ClusterInfo.unpack, info),
                            (lambda raw: admin.EpochLog.unpack(raw, 1), log),
                            (admin.VdiState.unpack, state), (admin.unpack_disks, disks)):
            with self.subTest(unpack=unpack), self.assertRaises(RemoteProtocolError):
                unpack(raw)

    def test_lists_that_end_within_an_entry_are_refused(self):
        for unpack in (admin.unpack_nodes, admin.unpack_vdi_states,
                       lambda raw: admin.unpack_epoch_logs(raw, 1)):
            with self.subTest(unpack=unpack), self.assertRaises(RemoteProtocolError):
                unpack(bytes(79))

    def test_what_does_not_fit_is_our_fault(self):
        for pack in (
                lambda: admin.NodeId("10.0.0.1", 65536).pack(),
                lambda: EPOCH_LOG._replace(nodes=(NODE, NODE)).pack(1),
                lambda: admin.ClusterInfo(store="x" * 16).pack(),
                lambda: admin.VdiState(1, participants=((1, NODE_ID),) * 32).pack(),
                lambda: admin.pack_disks([admin.DiskInfo("/a")] * 65),
                lambda: admin.pack_disks([admin.DiskInfo("/" * 4096)])):
            with self.assertRaises(LocalProtocolError):
                pack()


if __name__ == "__main__":
    unittest.main()
