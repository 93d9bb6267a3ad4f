"""Names on the wire, numbers of opcodes and results."""

import unittest

from hypothesis import given, strategies as st

from sheepstack.wire import auth
from sheepstack.wire.errors import LocalProtocolError, RemoteProtocolError, WireError
from sheepstack.wire.opcodes import AttrFlag, ClusterFlag, Flag, Op
from sheepstack.wire.results import Result, describe
from sheepstack.wire.text import pad, unpad


class Names(unittest.TestCase):

    @given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]),
                   max_size=60))
    def test_round_trip(self, text):
        raw = pad(text, 256)
        self.assertEqual(len(raw), 256)
        self.assertEqual(unpad(raw), text)

    @given(st.binary(max_size=255).map(lambda raw: raw.replace(b"\0", b"")))
    def test_bytes_that_are_not_utf8_survive(self, raw):
        self.assertEqual(pad(unpad(raw), 256).rstrip(b"\0"), raw)

    def test_what_follows_a_nul_is_ignored(self):
        self.assertEqual(unpad(b"alice\0bob"), "alice")
        self.assertEqual(unpad(memoryview(b"alice\0bob")), "alice")

    def test_one_byte_is_kept_for_the_nul(self):
        self.assertEqual(pad("x" * 255, 256)[-1:], b"\0")
        with self.assertRaises(LocalProtocolError):
            pad("x" * 256, 256)
        with self.assertRaises(LocalProtocolError):
            pad("é" * 128, 256)

    def test_a_nul_within_a_name_is_refused(self):
        with self.assertRaises(LocalProtocolError):
            pad("a\0b", 256)


class Numbers(unittest.TestCase):

    def test_client_opcodes(self):
        names = ("CREATE_AND_WRITE_OBJ READ_OBJ WRITE_OBJ REMOVE_OBJ DISCARD_OBJ NEW_VDI "
                 "LOCK_VDI RELEASE_VDI GET_VDI_INFO READ_VDIS FLUSH_VDI DEL_VDI "
                 "GET_CLUSTER_DEFAULT").split()
        self.assertEqual([Op[name] for name in names],
                         [1, 2, 3, 4, 5, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18])

    def test_administration_opcodes(self):
        expected = dict(
            GET_NODE_LIST=0x82, MAKE_FS=0x84, SHUTDOWN=0x85, STAT_SHEEP=0x86, STAT_CLUSTER=0x87,
            GET_VDI_ATTR=0x89, FORCE_RECOVER=0x8A, GET_STORE_LIST=0x90, STAT_RECOVERY=0x97,
            KILL_NODE=0x9A, ENABLE_RECOVER=0xA8, DISABLE_RECOVER=0xA9, GET_VDI_COPIES=0xAB,
            MD_INFO=0xB1, GET_HASH=0xB4, REWEIGHT=0xB5, STAT=0xB8, GET_LOGLEVEL=0xB9,
            SET_LOGLEVEL=0xBA, EXIST=0xBD, CLUSTER_INFO=0xBE, ALTER_CLUSTER_COPY=0xBF,
            ALTER_VDI_COPY=0xC0, REPAIR_REPLICA=0xC5, OIDS_EXIST=0xC6, READ_DEL_VDIS=0xC9,
            GET_RECOVERY=0xCA, SET_RECOVERY=0xCB, SET_VNODES=0xCC, GET_VNODES=0xCD)
        self.assertEqual({name: int(Op[name]) for name in expected}, expected)

    def test_flags(self):
        self.assertEqual([int(f) for f in Flag], [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100])
        self.assertEqual([int(f) for f in AttrFlag], [0x100, 0x200, 0x400])
        self.assertEqual([int(f) for f in ClusterFlag], [1, 2, 4, 8, 0x10, 0x20])

    def test_results(self):
        expected = dict(
            SUCCESS=0, NO_OBJ=2, VDI_EXIST=4, INVALID_PARMS=5, VDI_LOCKED=7, NO_VDI=8,
            NO_TAG=0x0E, FULL_VDI=0x13, VER_MISMATCH=0x14, NO_SPACE=0x15, WAIT_FOR_FORMAT=0x16,
            WAIT_FOR_JOIN=0x17, HALT=0x19, READONLY=0x1A, INODE_INVALIDATED=0x1D,
            OLD_NODE_VER=0x81, NEW_NODE_VER=0x82, BUFFER_SMALL=0x88, FORCE_RECOVER=0x89,
            NO_STORE=0x8A, NO_SUPPORT=0x8B, KILLED=0x8D, STALE_OBJ=0x90)
        self.assertEqual({name: int(Result[name]) for name in expected}, expected)

    def test_every_result_has_a_text(self):
        for result in Result:
            self.assertNotIn("Invalid error code", describe(result), result)

    @given(st.integers(0, 0xFFFFFFFF))
    def test_every_number_has_a_text(self, number):
        self.assertTrue(describe(number))


class Errors(unittest.TestCase):

    def test_whose_fault_it_is_can_be_told(self):
        self.assertTrue(issubclass(LocalProtocolError, WireError))
        self.assertTrue(issubclass(RemoteProtocolError, WireError))
        self.assertFalse(issubclass(LocalProtocolError, RemoteProtocolError))
        self.assertFalse(issubclass(RemoteProtocolError, LocalProtocolError))


class Proofs(unittest.TestCase):

    KEY = b"0123456789abcdef"

    def test_a_proof_depends_on_side_key_and_both_nonces(self):
        one, two = bytes(32), bytes(31) + b"\1"
        proofs = [auth.server_proof(self.KEY, one, one), auth.client_proof(self.KEY, one, one),
                  auth.server_proof(self.KEY[::-1], one, one),
                  auth.server_proof(self.KEY, two, one), auth.server_proof(self.KEY, one, two)]
        self.assertEqual(len(set(proofs)), 5)
        self.assertTrue(all(len(proof) == auth.PROOF_SIZE for proof in proofs))

    def test_proofs_are_compared(self):
        nonce = auth.new_nonce()
        proof = auth.client_proof(self.KEY, nonce, nonce)
        self.assertTrue(auth.matches(proof, auth.client_proof(self.KEY, nonce, nonce)))
        self.assertFalse(auth.matches(proof[:-1], proof))

    def test_nonces_differ(self):
        self.assertNotEqual(auth.new_nonce(), auth.new_nonce())

    def test_keys_are_stripped_and_long_enough(self):
        self.assertEqual(auth.check_key(b" 0123456789abcdef\n"), self.KEY)
        with self.assertRaises(LocalProtocolError):
            auth.check_key(b"secret\n")


if __name__ == "__main__":
    unittest.main()
