"""Swift's own tests pass here as they pass on Swift.

Tests that cannot learn what the API is able to do are skipped and do not fail: so the numbers
are compared, too.  ``make conformance`` runs all of them, ``make swift`` those marked CI.
"""

import os

import pytest

from tests.swift import conformance
from tests.swift.conformance import FUNCTIONAL, S3, Counts
from tests.swift.service import Account

ALL = bool(os.environ.get("CONFORMANCE"))
a_part = pytest.mark.skipif(ALL, reason="make conformance runs more")
everything = pytest.mark.skipif(not ALL, reason="make conformance runs it")

#: CI runs two thirds of all, once: on SQLite the functional tests but for those that say the
#: same again in other words (in names beyond ASCII, over S3, which its own tests see to, and of
#: middlewares that ask for nothing but what others ask for, too); on PostgreSQL those of S3; and
#: on either the essential ones of the others.
PART = ("-k", "not UTF8 and not s3api and not staticweb and not test_protocol")
ESSENTIAL = tuple(FUNCTIONAL + "/test_%s.py" % name for name in ("account", "container", "object"))
ESSENTIAL_S3 = tuple(S3 + "/test_%s.py" % name for name in (
    "conditional_writes", "mpu", "service", "versioning"))

#: Some tests look at what has expired; on Swift they run without its expirer.
OPTIONS = ("expirer_interval = 86400",)


@pytest.fixture(scope="module", autouse=True)
def source():
    conformance.fetch()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests, expected", [
    pytest.param([FUNCTIONAL], Counts(846, 18, 0), marks=everything, id="functional"),
    pytest.param([S3], Counts(563, 20, 0), marks=everything, id="s3"),
    pytest.param([*PART, FUNCTIONAL], Counts(395, 13, 0), marks=a_part, id="functional-part"),
    pytest.param(ESSENTIAL_S3, Counts(56, 0, 0), marks=a_part, id="s3-essential"),
])
def test_swifts_own_tests_on_sqlite(make_api, sheep, tmp_path, tests, expected):
    check(make_api(sheep.addresses, options=OPTIONS), tmp_path, tests, expected)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests, expected", [
    pytest.param([FUNCTIONAL], Counts(846, 18, 0), marks=everything, id="functional"),
    pytest.param(ESSENTIAL, Counts(82, 8, 0), marks=a_part, id="functional-essential"),
    pytest.param([S3], Counts(563, 20, 0), id="s3"),
])
def test_swifts_own_tests_on_postgresql(make_api, sheep, postgresql, tmp_path, tests, expected):
    url = postgresql.database("conformance")
    api = make_api(sheep.addresses, options=[*OPTIONS, "connection = " + url])
    check(api, tmp_path, tests, expected)


def check(api, directory, tests, expected):
    # Some tests take it for granted that others have used the account before.
    account = Account(api.url)
    account.ask("DELETE", account.new_container())
    outcome = conformance.run(directory, api.url, *tests)
    counts = outcome.counts
    # What is skipped on Swift may pass here.
    assert counts.failed == expected.failed and counts.skipped <= expected.skipped and \
        sum(counts) == sum(expected), outcome
