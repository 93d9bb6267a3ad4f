"""Swift's own functional and S3 tests, from its source distribution, against the object API.

Nothing of them is kept here: they are fetched by pip when they are to be run.
"""

import os
import pathlib
import subprocess
import sys
import tarfile
import xml.etree.ElementTree
from typing import NamedTuple
from urllib.parse import urlsplit

TOP = pathlib.Path(__file__).resolve().parents[2]
VERSION = "2.38.3"
SOURCE = TOP / "build" / "swift" / ("swift-" + VERSION)

FUNCTIONAL, S3 = "test/functional", "test/s3api"

_TEST_CONF = """\
[func_test]
auth_uri = %(url)s/auth/v1.0
s3_storage_url = %(url)s/
s3_region = us-east-1
account = test
username = tester
password = testing
s3_access_key = test:tester
s3_secret_key = testing
account2 = test2
username2 = tester2
password2 = testing2
username3 = tester3
password3 = testing3
s3_access_key2 = test:tester2
s3_secret_key2 = testing2
s3_access_key3 = test:tester3
s3_secret_key3 = testing3
account5 = test5
username5 = tester5
password5 = testing5
service_prefix = SERVICE
account6 = admin
username6 = admin
password6 = admin
collate = C
insecure = no
storage_domain = example.net
[s3api_test]
endpoint = http://%(address)s
region = us-east-1
access_key1 = test:tester
secret_key1 = testing
access_key2 = test:tester2
secret_key2 = testing2
access_key3 = test:tester3
secret_key3 = testing3
s3_acl_tests_enabled = True
"""


class Counts(NamedTuple):
    passed: int
    skipped: int
    failed: int


class Outcome(NamedTuple):
    """``failures``: the tests that failed, and the end of what was printed."""

    counts: Counts
    failures: list
    output: str

    def __str__(self):
        return "%s; failed: %s\n%s" % (self.counts, ", ".join(self.failures), self.output)


def fetch():
    """Have the tests in :data:`SOURCE`."""
    if (SOURCE / FUNCTIONAL).is_dir():
        return
    SOURCE.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-binary", "swift", "-d", SOURCE.parent,
         "swift==" + VERSION], check=True)
    with tarfile.open(SOURCE.parent / ("swift-%s.tar.gz" % VERSION)) as archive:
        archive.extractall(SOURCE.parent, filter="data")


def run(directory, url, *tests, timeout=1500) -> Outcome:
    """Run ``tests``, paths in :data:`SOURCE` and options of pytest, against the API at ``url``."""
    directory = pathlib.Path(directory)
    config, report = directory / "test.conf", directory / "report.xml"
    config.write_text(_TEST_CONF % {"url": url, "address": urlsplit(url).netloc})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:requests_mock", "-p", "no:rerunfailures",
         "-p", "no:cacheprovider", "-o", "addopts=", "-q", "--tb=short", "-W", "ignore",
         "--junit-xml", report, *tests],
        cwd=SOURCE, timeout=timeout, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "SWIFT_TEST_CONFIG_FILE": str(config), "SWIFT_TEST_IN_PROCESS": "0"})
    output = done.stdout[-6000:]
    assert report.exists(), output
    # The suite's own totals would count subtests, too.
    cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    failures = ["%s.%s" % (case.get("classname"), case.get("name")) for case in cases
                if case.find("failure") is not None or case.find("error") is not None]
    return Outcome(Counts(len(cases) - skipped - len(failures), skipped, len(failures)), failures,
                   output)
