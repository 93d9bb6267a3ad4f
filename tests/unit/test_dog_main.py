"""Words and options of dog, as far as they need no cluster."""

import contextlib
import io
import unittest
from unittest import mock

from sheepstack.dog import main as dog_main
from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.options import BadOption, parse
from sheepstack.dog.vdi import VdiSettings, parse_snapshot


def run(*argv, stdin="", environment=()):
    """Exit code, standard output and standard error of ``dog argv``."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "oe")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
            mock.patch.dict("os.environ", dict(environment), clear=True), \
            mock.patch("sys.stdin", io.StringIO(stdin)):
        code = dog_main.main(argv)
    return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()


def every_command():
    for group in dog_main.GROUPS:
        for command in group.commands:
            yield group, [command]
            for sub in command.subcommands:
                yield group, [command, sub]


class Overview(unittest.TestCase):

    def test_no_words_and_words_for_help(self):
        texts = {run(*argv) for argv in ((), ("help",), ("--help",), ("-h",))}
        self.assertEqual(len(texts), 1)
        code, out, err = texts.pop()
        self.assertEqual((code, err), (0, ""))
        for group, path in every_command():
            if len(path) == 1:
                self.assertIn("\n  %s %s " % (group.name, path[0].name), out)

    def test_sheepdogs_commands_are_there(self):
        expected = {
            "cluster": "format info shutdown recover check alter-copy reweight snapshot",
            "node": "list info kill recovery stat log md vnodes",
            "vdi": "create list tree graph snapshot clone delete rollback read write resize check "
                   "object lock setattr getattr backup restore alter-copy track"}
        ours = {"vdi": {"limit"}}
        for group in dog_main.GROUPS:
            self.assertEqual({command.name for command in group.commands},
                             set(expected[group.name].split()) | ours.get(group.name, set()))

    def test_every_command_has_a_help(self):
        for group, path in every_command():
            words = [group.name] + [step.name for step in path]
            code, out, err = run(*words, "--help")
            with self.subTest(words=words):
                self.assertEqual((code, err), (0, ""))
                self.assertTrue(out.startswith("Usage: dog %s" % " ".join(words)))
                self.assertIn("-h, --help", out)
                self.assertIn("--auth-key-file", out)

    def test_usage_line(self):
        _, out, _ = run("vdi", "create", "-h")
        self.assertEqual(
            out.partition("\n")[0],
            "Usage: dog vdi create [-P] [-y] [-c copies] [-a address] [-p port] [-h] [-r] [-v] "
            "[-z block_size_shift] [-T] [--auth-key-file FILE] <vdiname> <size>")
        _, out, _ = run("vdi", "object", "-h")
        self.assertTrue(out.startswith(
            "Usage: dog vdi object {location|map|dump-inode} [-i index]"))


class WrongWords(unittest.TestCase):

    def test_an_unknown_group(self):
        self.assertEqual(run("bogus"), (
            64, "", "Invalid command 'bogus'\nTry 'dog --help' for more information.\n"))

    def test_an_unknown_command_lists_those_there_are(self):
        code, out, err = run("node", "bogus")
        self.assertEqual((code, out), (64, ""))
        self.assertTrue(err.startswith(
            "Invalid command 'node bogus'\nAvailable node commands:\n  node kill\n"))

    def test_a_group_alone(self):
        code, out, err = run("cluster")
        self.assertEqual((code, out), (64, ""))
        self.assertTrue(err.startswith("Available cluster commands:\n  cluster info\n"))

    def test_commands_that_need_an_argument_show_their_usage(self):
        for group, path in every_command():
            if path[-1].needs_argument or path[-1].run is None:
                words = [group.name] + [step.name for step in path]
                code, out, err = run(*words)
                with self.subTest(words=words):
                    self.assertEqual((code, err), (64, ""))
                    self.assertTrue(out.startswith("Usage: dog "))

    def test_an_unknown_subcommand(self):
        code, out, err = run("vdi", "object", "bogus")
        self.assertEqual(code, 1)
        self.assertEqual(err, "Invalid subcommand 'bogus'\n")
        self.assertTrue(out.startswith("Usage: dog vdi object {"))

    def test_what_sheepdog_has_and_we_have_not_is_said_in_one_line(self):
        for words in (("node", "format", "/tmp"),
                      ("upgrade", "inode-convert"), ("benchmark", "io")):
            code, out, err = run(*words)
            with self.subTest(words=words):
                self.assertEqual((code, out), (1, ""))
                self.assertEqual(err.count("\n"), 1)
                self.assertIn("is not supported: ", err)


class WrongOptions(unittest.TestCase):

    def complaint(self, *argv):
        code, out, err = run(*argv)
        self.assertEqual(out, "")
        first, _, rest = err.partition("\n")
        return code, first, rest

    def test_in_the_words_of_getopt(self):
        try_help = "Try 'dog --help' for more information.\n"
        for argv, words in (
                (("-Z",), "invalid option -- 'Z'"),
                (("--bogus",), "unrecognized option '--bogus'"),
                (("-p",), "option requires an argument -- 'p'"),
                (("--port",), "option '--port' requires an argument"),
                (("--raw=1",), "option '--raw' doesn't allow an argument"),
                (("-v",), "invalid option -- 'v'"),
                (("--a",), "option '--a' is ambiguous; possibilities: "
                           "'--address' '--auth-key-file'")):
            with self.subTest(argv=argv):
                self.assertEqual(self.complaint("vdi", "list", *argv),
                                 (64, "dog: " + words, try_help))

    def test_ports(self):
        for text in ("abc", "0", "70000", "7100x", "-1", "", "٣"):
            self.assertEqual(self.complaint("vdi", "list", "-p", text),
                             (64, "Invalid port number '%s'" % text, ""))

    def test_addresses(self):
        self.assertEqual(self.complaint("vdi", "list", "-a", "no.such.host.invalid"),
                         (1, "Invalid ip address no.such.host.invalid", ""))

    def test_bad_environment(self):
        self.assertEqual(run("node", "list", environment={"SHEEPDOG_DOG_PORT": "x"}.items()),
                         (64, "", "Invalid port number 'x'\n"))

    def test_copies(self):
        for text in ("0", "32", "abc", "-1", "3:1", "2:0", "2:16", "2:", ":1", "2:1:1", ""):
            code, first, rest = self.complaint("vdi", "create", "-c", text, "x", "1M")
            with self.subTest(text=text):
                self.assertEqual((code, rest), (1, ""))
                self.assertTrue(first.startswith("Invalid parameter %s: " % text))

    def test_block_size_shifts(self):
        for text in ("19", "32", "256", "abc", ""):
            code, first, rest = self.complaint("cluster", "format", "-z", text)
            self.assertEqual((code, rest), (1, ""))
            self.assertTrue(first.startswith("Invalid block size shift '%s'" % text))

    def test_snapshot_ids(self):
        self.assertEqual(self.complaint("vdi", "read", "-s", "0", "x"),
                         (1, "The snapshot id must be larger than zero", ""))

    def test_sizes(self):
        code, out, err = run("vdi", "create", "x", "10MB")
        self.assertEqual(code, 64)
        self.assertTrue(err.startswith("Invalid size '10MB'\nYou may use B, K, M, G, T or P "))
        self.assertTrue(out.startswith("Usage: dog vdi create"))

    def test_missing_arguments(self):
        for argv, words in (
                (("vdi", "create", "x"), "Please specify the VDI size"),
                (("vdi", "clone", "x"), "Destination VDI name must be specified"),
                (("vdi", "clone", "x", "y"), "Only snapshot VDIs can be cloned"),
                (("vdi", "rollback", "x"), "Please specify the '-s' option"),
                (("vdi", "resize", "x"), "Please specify the new size for the VDI"),
                (("vdi", "setattr", "x"), "Please specify the attribute key"),
                (("vdi", "backup", "-s", "a", "x"),
                 "Please specify snapshots with '-F' and '-s' options"),
                (("vdi", "restore", "x"), "We can restore a backup file only to snapshots"),
                (("vdi", "snapshot", "-s", "5", "x"),
                 "Please specify a non-integer value for a snapshot tag name")):
            code, out, err = run(*argv)
            with self.subTest(argv=argv):
                self.assertEqual(code, 64)
                self.assertEqual(err.partition("\n")[0], words)
                self.assertTrue(out.startswith("Usage: dog vdi %s" % argv[1]))

    def test_node_settings(self):
        for argv, code, words in (
                (("kill",), 64, "please specify -l option or node id"),
                (("kill", "abc"), 64,
                 "Invalid node id 'abc', please specify a numeric value"),
                (("kill", "1", "-l"), 64,
                 "don't use -l option and specify node id at the same time"),
                (("recovery", "set-throttle", "abc", "10"), 64, "Invalid max (abc)"),
                (("recovery", "set-throttle", "10", "abc"), 64, "Invalid interval (abc)"),
                (("recovery", "set-throttle", "0", "10"), 64,
                 "Invalid interval max (0), interval (10)"),
                (("vnodes", "set", "70000"), 64, "Invalid number of vnodes '70000': must be an "
                                                 "integer between 1 and 65535"),
                (("log", "level", "set", "bogus"), 255, "invalid loglevel: bogus")):
            found, out, err = run("node", *argv)
            with self.subTest(argv=argv):
                self.assertEqual((found, out), (code, ""))
                self.assertEqual(err.partition("\n")[0], words)

    def test_secrets_that_cannot_be_read(self):
        code, out, err = run("node", "list", "--auth-key-file", "/no/such/file")
        self.assertEqual((code, out), (2, ""))
        self.assertEqual(
            err, "Cannot read the secret in '/no/such/file': No such file or directory\n")

    def test_nobody_listens(self):
        code, out, err = run("node", "list", "-a", "unix:/no/such/socket")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("/no/such/socket", err)
        self.assertTrue(err.endswith("\nFailed to get node list\n"))


class Parsing(unittest.TestCase):

    def settings(self, *argv, letters="sPnaphrvT"):
        group = dog_main.GROUPS[0]
        table = {option.letter: option
                 for option in dog_main.COMMON_OPTIONS + group.options}
        settings = VdiSettings()
        arguments = parse([table[letter] for letter in letters], argv, settings)
        return settings, arguments

    def test_options_and_arguments_in_any_order(self):
        for argv in (("-s", "tag", "a", "b"), ("a", "-stag", "b"), ("a", "b", "--snapshot=tag"),
                     ("a", "b", "--snap", "tag")):
            settings, arguments = self.settings(*argv)
            self.assertEqual((settings.snapshot.tag, arguments), ("tag", ["a", "b"]))

    def test_letters_can_be_joined(self):
        settings, _ = self.settings("-Pnrv", "a")
        self.assertTrue(settings.prealloc and settings.no_share and settings.raw
                        and settings.verbose)

    def test_what_follows_two_dashes_is_no_option(self):
        _, arguments = self.settings("--", "-s", "a")
        self.assertEqual(arguments, ["-s", "a"])

    def test_defaults(self):
        settings, _ = self.settings()
        self.assertEqual(settings.gateway, "127.0.0.1:7000")

    def test_gateways(self):
        for argv, gateway in (
                (("-a", "10.0.0.1", "-p", "7001"), "10.0.0.1:7001"),
                (("-a", "::1"), "[::1]:7000"),
                (("-a", "unix:/run/sheep/sock", "-p", "1"), "unix:/run/sheep/sock")):
            self.assertEqual(self.settings(*argv)[0].gateway, gateway)

    def test_the_environment_comes_before_options(self):
        settings = VdiSettings()
        settings.read_environment({"SHEEPDOG_DOG_ADDR": "10.0.0.1", "SHEEPDOG_DOG_PORT": "7009",
                                   "SHEEPSTACK_AUTH_KEY_FILE": "/key"})
        self.assertEqual((settings.gateway, settings.auth_key_file), ("10.0.0.1:7009", "/key"))

    def test_snapshots_are_ids_or_tags(self):
        self.assertEqual(parse_snapshot("5"), (5, ""))
        self.assertEqual(parse_snapshot("5a"), (0, "5a"))
        self.assertEqual(parse_snapshot("-5"), (0, "-5"))
        self.assertFalse(parse_snapshot(""))
        with self.assertRaises(Failure):
            parse_snapshot("4294967296")

    def test_indexes(self):
        for argv, index in ((("-i", "10"), 10), (("-i", "0x10"), 16)):
            self.assertEqual(self.settings(*argv, letters="i")[0].index, index)
        for text in ("abc", "-1", "0xzz", "4294967296"):
            with self.assertRaises(Failure):
                self.settings("-i", text, letters="i")

    def test_an_option_of_another_command_is_refused(self):
        with self.assertRaises(BadOption):
            self.settings("-P", letters="aph")


class Codes(unittest.TestCase):

    def test_numbers_are_sheepdogs(self):
        self.assertEqual(
            [int(code) for code in (Exit.SUCCESS, Exit.FAILURE, Exit.SYSFAIL, Exit.EXISTS,
                                    Exit.FULL, Exit.MISSING, Exit.USAGE)],
            [0, 1, 2, 3, 4, 5, 64])


if __name__ == "__main__":
    unittest.main()
