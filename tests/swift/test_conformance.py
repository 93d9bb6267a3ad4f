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

#: The functional tests that CI runs: once, not what the S3 tests see as well, and not the
#: longest.
PART = ("-k", "not UTF8 and not s3api and not versi and not staticweb and not test_protocol "
        "and not test_symlink")

#: Some tests look at what has expired; on Swift they run without its expirer.
OPTIONS = ("expirer_interval = 86400",)


@pytest.fixture(scope="module", autouse=True)
def source():
    conformance.fetch()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests, options, expected", [
    pytest.param(FUNCTIONAL, (), Counts(846, 18, 0), marks=everything, id="functional"),
    pytest.param(FUNCTIONAL, PART, Counts(196, 13, 0), marks=a_part, id="functional-part"),
    pytest.param(S3, (), Counts(563, 20, 0), id="s3"),
])
def test_swifts_own_tests_on_sqlite(make_api, sheep, tmp_path, tests, options, expected):
    check(make_api(sheep.addresses, options=OPTIONS), tmp_path, tests, options, expected)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests, options, expected", [
    pytest.param(FUNCTIONAL, (), Counts(846, 18, 0), marks=everything, id="functional"),
    pytest.param(S3, (), Counts(563, 20, 0), marks=everything, id="s3"),
])
def test_swifts_own_tests_on_postgresql(make_api, sheep, postgresql, tmp_path, tests, options,
                                        expected):
    url = postgresql.database("conformance_" + tests.rpartition("/")[2])
    api = make_api(sheep.addresses, options=[*OPTIONS, "connection = " + url])
    check(api, tmp_path, tests, options, expected)


def check(api, directory, tests, options, expected):
    # Some tests take it for granted that others have used the account before.
    account = Account(api.url)
    account.ask("DELETE", account.new_container())
    outcome = conformance.run(directory, api.url, tests, *options)
    counts = outcome.counts
    # What is skipped on Swift may pass here.
    assert counts.failed == expected.failed and counts.skipped <= expected.skipped and \
        sum(counts) == sum(expected), outcome
