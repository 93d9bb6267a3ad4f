"""What is counted, in Prometheus's terms; :mod:`swift_middleware.status` shows it.

Where PROMETHEUS_MULTIPROC_DIR is set, as ``sheep-swift`` does, the numbers are those of all
worker processes together.
"""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, multiprocess)
from prometheus_client import REGISTRY

CONTENT_TYPE = CONTENT_TYPE_LATEST

requests = Counter(
    "sheep_swift_requests", "Requests answered, those of middlewares included.",
    ("type", "method", "status"))
seconds = Histogram(
    "sheep_swift_request_seconds", "Time until the headers of the answer were there.",
    ("type", "method"),
    buckets=(.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60))
received = Counter("sheep_swift_received_bytes", "Bytes of objects received.")
sent = Counter("sheep_swift_sent_bytes", "Bytes of objects read for clients.")
transactions = Counter("sheep_swift_transactions", "Transactions with changes to names.")
changes = Counter("sheep_swift_changes", "Changes to names.", ("outcome",))
swept = Counter("sheep_swift_swept", "What the sweeper has done.", ("what",))
expired = Counter("sheep_swift_expired", "Objects that were deleted as their time was over.")


def shown() -> bytes:
    """All of it in Prometheus's text format."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
