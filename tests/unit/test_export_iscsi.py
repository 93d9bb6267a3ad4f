"""Targets as values, on disk and in tgtadm's report."""

import os
import stat
import tempfile
import textwrap
import unittest

from sheepstack.export.iscsi import BadTarget, Chap, Target, TargetBusy
from sheepstack.export.iscsi.records import Records
from sheepstack.export.iscsi.target import backing_store, checked, identity
from sheepstack.export.iscsi.tgtd import Session, parse_targets

NAME = "iqn.2026-11.org.example:disk"

REPORT = textwrap.dedent("""\
    Target 1: iqn.2026-11.org.example:disk
        System information:
            Driver: iscsi
            State: ready
        I_T nexus information:
            I_T nexus: 3
                Initiator: iqn.1993-08.org.debian:01:a alias: host: a
                Connection: 0
                    IP Address: 192.0.2.7
        LUN information:
            LUN: 0
                Type: controller
                Backing store type: null
                Backing store path: None
            LUN: 1
                Type: disk
                Backing store type: sheepdog
                Backing store path: unix:/s:disk
        Account information:
            alice
        ACL information:
            192.0.2.0/24
            iqn.1993-08.org.debian:01:a
    Target 7: iqn.2026-11.org.example:other
        I_T nexus information:
        LUN information:
        Account information:
        ACL information:
    """)


class TargetTest(unittest.TestCase):

    def test_lists_are_in_order_and_without_doubles(self):
        made = checked(Target(NAME, "disk", initiators=("iqn.2001-01.b:x", "iqn.2001-01.a:x"),
                              addresses=("ALL", "10.0.0.0/8", "ALL")))
        self.assertEqual(("iqn.2001-01.a:x", "iqn.2001-01.b:x"), made.initiators)
        self.assertEqual(("10.0.0.0/8", "ALL"), made.addresses)

    def test_a_snapshot_of_a_vdi_that_tgt_cannot_name_can_be_exported(self):
        self.assertTrue(checked(Target(NAME, "a:b", "tag")).read_only)
        with self.assertRaises(BadTarget):
            checked(Target(NAME, "a:b"))

    def test_stores(self):
        self.assertEqual("unix:/run/sock:disk", backing_store("unix:/run/sock", "disk"))
        self.assertEqual("tcp:host:7000:disk", backing_store("host", "disk"))
        for gateway in ("[::1]:7000", "host:70000", "host:12345", "unix:/a:b", "unix:/a,b",
                        "unix:/" + "x" * 107, ""):
            with self.subTest(gateway), self.assertRaises(BadTarget):
                backing_store(gateway, "disk")

    def test_identity_is_of_the_content(self):
        disk = Target(NAME, "disk")
        others = [disk._replace(vdi="disc"), disk._replace(snapshot="1"),
                  disk._replace(snapshot=1)]
        self.assertEqual(identity(5, disk), identity(5, disk._replace(name=NAME + "2")))
        self.assertRegex(identity(5, disk), "^[0-9a-f]{32}$")
        self.assertEqual(5, len({identity(5, each) for each in [disk, *others]} |
                                {identity(6, disk)}))


class ReportTest(unittest.TestCase):

    def test_targets(self):
        disk, other = parse_targets(REPORT)
        self.assertEqual((1, NAME), disk[:2])
        self.assertEqual({0: ("null", "None"), 1: ("sheepdog", "unix:/s:disk")}, disk.units)
        self.assertEqual(("alice",), disk.accounts)
        self.assertEqual(("192.0.2.0/24", "iqn.1993-08.org.debian:01:a"), disk.acl)
        self.assertEqual((Session(3, "iqn.1993-08.org.debian:01:a", ("192.0.2.7",)),),
                         disk.sessions)
        self.assertEqual((7, NAME.replace("disk", "other"), {}, (), (), ()), other)
        self.assertEqual([], parse_targets(""))


class RecordsTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "targets")
        self.records = Records(self.path)

    def test_a_target_comes_back_as_it_was(self):
        target = checked(Target(NAME, "d\udce4sk ", "tag", Chap("a", "b"), ("iqn.2001-01.a:x",),
                                ("ALL",), True, "unix:/sock", "clone"))
        self.assertEqual([], self.records.all())
        self.assertIsNone(self.records.get(NAME))
        with self.records.locked(1):
            self.records.put(target)
        self.assertEqual([target], self.records.all())
        [mode] = [stat.S_IMODE(os.stat(os.path.join(self.path, name)).st_mode)
                  for name in os.listdir(self.path) if name.endswith(".json")]
        self.assertEqual(0o600, mode)
        self.records.remove(NAME)
        self.records.remove(NAME)
        self.assertEqual([], self.records.all())

    def test_damage_is_said(self):
        with self.records.locked(1):
            self.records.put(Target(NAME, "disk"))
        [file] = [name for name in os.listdir(self.path) if name.endswith(".json")]
        for content in ("", "[]", "{}", '{"name": "x"}', "null"):
            with open(os.path.join(self.path, file), "w") as damaged:
                damaged.write(content)
            with self.subTest(content), self.assertRaises(BadTarget):
                self.records.get(NAME)

    def test_one_at_a_time(self):
        with self.records.locked(1), self.assertRaises(TargetBusy):
            with Records(self.path).locked(0.05):
                self.fail("two at a time")
        with Records(self.path).locked(1):
            pass
