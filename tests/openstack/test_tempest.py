"""What is made of what tempest prints."""

from tests.openstack import tempest

_COMPUTE = '  File "/lib/tempest/lib/services/compute/base_compute_client.py", line 47, in request'
_VOLUME = '  File "/lib/tempest/lib/services/volume/base_client.py", line 47, in request'
_NO_ENDPOINT = "tempest.lib.exceptions.EndpointNotFound: Endpoint not found"
_LINES = [
    "{0} tempest.api.volume.A.test_good [0.1s] ... ok",
    "setUpClass (tempest.api.volume.B) ... nonsense",
    "{1} setUpClass (tempest.api.volume.C) ... SKIPPED: Nova is not available",
    "{1} tempest.api.volume.A.test_server [0.2s] ... FAILED", _COMPUTE, _NO_ENDPOINT,
    "{0} tempest.api.volume.A.test_late [0.2s] ... FAILED", _COMPUTE, "AssertionError: 1 != 2",
    "{0} tempest.api.volume.A.test_lost [0.2s] ... FAILED", _VOLUME, _NO_ENDPOINT,
]


def test_failures_are_explained_by_their_tracebacks(capsys):
    outcomes = list(tempest.results(_LINES))
    assert [(name.rpartition(".")[2], outcome) for name, outcome, _ in outcomes] == [
        ("test_good", "ok"), ("C", "SKIPPED"), ("test_server", "FAILED"),
        ("test_late", "FAILED"), ("test_lost", "FAILED")]
    explained = tempest.without_nova(_LINES)
    assert explained == {"tempest.api.volume.A.test_server"}
    assert tempest.judge(outcomes, explained, whole=False) == [
        "failed: tempest.api.volume.A.test_late", "failed: tempest.api.volume.A.test_lost"]
    assert "volumes: 1 passed, 1 skipped, 3 failed" in capsys.readouterr().out
    assert len(tempest.judge(outcomes, explained, whole=True)) == 4
