"""Swift's own tests pass here as they pass on Swift.

Tests that cannot learn what the API is able to do are skipped and do not fail: so the numbers
are compared, too.  ``make conformance`` runs all of them, ``make swift`` those marked CI.
"""

import os

import pytest

from tests.swift import conformance
from tests.swift.conformance import FUNCTIONAL, S3, Counts

ALL = bool(os.environ.get("CONFORMANCE"))
everything = pytest.mark.skipif(not ALL, reason="make conformance runs it")


@pytest.fixture(scope="module", autouse=True)
def source():
    conformance.fetch()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests, options, expected", [
    pytest.param(FUNCTIONAL, (), Counts(846, 18, 0), marks=everything, id="functional"),
    pytest.param(S3, (), Counts(563, 20, 0), id="s3"),
])
def test_swifts_own_tests_on_sqlite(api, tmp_path, tests, options, expected):
    outcome = conformance.run(tmp_path, api.url, tests, *options)
    assert is_as_good(outcome.counts, expected), outcome


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests, options, expected", [
    pytest.param(FUNCTIONAL, (), Counts(846, 18, 0), marks=everything, id="functional"),
    pytest.param(S3, (), Counts(563, 20, 0), marks=everything, id="s3"),
])
def test_swifts_own_tests_on_postgresql(make_api, sheep, postgresql, tmp_path, tests, options,
                                        expected):
    url = postgresql.database("conformance_" + tests.rpartition("/")[2])
    api = make_api(sheep.addresses, options=["connection = " + url])
    outcome = conformance.run(tmp_path, api.url, tests, *options)
    assert is_as_good(outcome.counts, expected), outcome


def is_as_good(counts, expected):
    """A test that is skipped on Swift may pass here."""
    return counts.failed == expected.failed and counts.skipped <= expected.skipped and \
        sum(counts) == sum(expected)
