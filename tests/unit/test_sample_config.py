"""The sample configuration says what the daemon understands, all of it."""

import pathlib
import re
import tempfile
import unittest

from sheepstack.sheep import options

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "etc" / "sheepstack" / "sheep.conf.sample"


class SampleTest(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def parse(self, text, *arguments):
        path = self.directory / "sheep.conf"
        path.write_text(text)
        return options.parse(["--config-file", str(path), *arguments])

    def test_as_it_is_it_changes_nothing(self):
        self.assertEqual(options.parse(["/store"]), self.parse(SAMPLE.read_text(), "/store"))

    def test_its_examples_are_understood(self):
        key = self.directory / "key"
        key.write_bytes(b"k" * 32)
        text = re.sub(r"(?m)^#(\w+ =)", r"\1", SAMPLE.read_text())
        text = text.replace("/etc/sheepstack/key", str(key))
        found = self.parse(text)
        self.assertEqual("/var/lib/sheepstack", found.store_dir)
        self.assertEqual("192.0.2.11", found.host)
        self.assertEqual(("198.51.100.11", 7001), (found.io_host, found.io_port))
        self.assertEqual(1, found.zone)
        self.assertEqual(128, found.vnodes)
        self.assertEqual((5, 1.0), found.throttle)
        self.assertEqual(("192.0.2.50/32", "198.51.100.0/28", "unix"), found.allow)
        self.assertEqual(b"k" * 32, found.auth_key)
        self.assertTrue(found.durable)

    def test_it_names_every_option_of_a_configuration_file(self):
        named = re.findall(r"(?m)^#(\w+) =", SAMPLE.read_text())
        self.assertEqual(sorted(options._FILE_OPTIONS), sorted(named))
