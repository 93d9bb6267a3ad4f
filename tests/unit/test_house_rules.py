"""Rules about the source itself that no reader should have to check by eye."""

import ast
import pathlib
import re
import sys
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = TOP / "sheepstack"

#: From the top down; a package may import those that come later.
LAYERS = ("cmd", "export", "dog", "sheep", "client", "store", "coordination", "placement",
          "redundancy", "wire")
PURE = ("wire", "placement", "redundancy")
IMPURE = {"socket", "threading", "queue", "time", "select", "subprocess"}
#: Imported where they are there, done without otherwise.
OPTIONAL = {"crc32c", "google_crc32c", "mfusepy"}
#: Given by the program that loads a module.
GIVEN = {"nbdkit"}
IMPORT_NAMES = {"oslo.config": "oslo_config", "oslo.log": "oslo_log"}


def sources(top):
    return sorted(top.rglob("*.py"))


def imports(path):
    """Dotted names of all that a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            for alias in node.names:
                yield "%s.%s" % (node.module, alias.name)


class SourceTest(unittest.TestCase):

    def test_imports_point_down(self):
        wrong = []
        for path in sources(PACKAGE):
            layer = path.relative_to(PACKAGE).parts[0]
            if layer not in LAYERS:
                continue
            for name in imports(path):
                parts = name.split(".")
                if parts[0] == "sheepstack" and len(parts) > 1 and parts[1] in LAYERS and \
                        LAYERS.index(parts[1]) < LAYERS.index(layer):
                    wrong.append("%s imports %s" % (path.relative_to(TOP), name))
        self.assertEqual([], wrong)

    def test_client_and_faces_do_not_import_the_daemon(self):
        wrong = ["%s imports %s" % (path.relative_to(TOP), name)
                 for layer in ("client", "dog", "export") for path in sources(PACKAGE / layer)
                 for name in imports(path)
                 if re.match(r"sheepstack\.(sheep|store|coordination)\b", name)]
        self.assertEqual([], wrong)

    def test_pure_packages_do_no_io(self):
        wrong = ["%s imports %s" % (path.relative_to(TOP), name)
                 for layer in PURE for path in sources(PACKAGE / layer)
                 for name in imports(path) if name in IMPURE]
        self.assertEqual([], wrong)

    def test_only_the_runtime_knows_eventlet(self):
        users = {str(path.relative_to(PACKAGE)) for path in sources(PACKAGE)
                 for name in imports(path) if name.split(".")[0] == "eventlet"}
        self.assertEqual({"runtime.py", "green.py"}, users)

    def test_requirements_name_what_is_imported_and_nothing_else(self):
        required = set()
        for line in (TOP / "requirements.txt").read_text().splitlines():
            name = re.match(r"[\w.-]*", line).group()
            if name:
                required.add(IMPORT_NAMES.get(name, name.replace("-", "_")))
        imported = {name.split(".")[0] for path in sources(PACKAGE) for name in imports(path)}
        outside = imported - set(sys.stdlib_module_names) - {"sheepstack"} - OPTIONAL \
            - GIVEN
        self.assertEqual(required, outside)

    def test_nothing_is_left_unfinished(self):
        marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b")
        wrong = ["%s:%d" % (path.relative_to(TOP), number)
                 for top in (PACKAGE, TOP / "tests") for path in sources(top)
                 for number, line in enumerate(path.read_text().splitlines(), 1)
                 if marks.search(line)]
        self.assertEqual([], wrong)


class UnitTestsTest(unittest.TestCase):
    """stestr finds methods of unittest.TestCase only: anything else would never be run."""

    def test_every_test_is_found(self):
        lost = []
        for path in (TOP / "tests" / "unit").rglob("test_*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                    lost.append("%s: %s" % (path.name, node.name))
                if isinstance(node, ast.ClassDef) and not node.bases and any(
                        isinstance(part, ast.FunctionDef) and part.name.startswith("test")
                        for part in node.body) and not node.name.endswith("Mixin"):
                    lost.append("%s: %s" % (path.name, node.name))
        self.assertEqual([], lost)
