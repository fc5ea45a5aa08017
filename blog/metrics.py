"""What Prometheus reads: how many requests there were, how long they took and how they ended.

Several workers write into one folder, which the process that starts them names in
`PROMETHEUS_MULTIPROC_DIR`, and whichever is asked answers for all.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MEDIA_TYPE = CONTENT_TYPE_LATEST

_requests = Histogram(
    "blog_request_duration_seconds",
    "How long requests took, by method, by the route's path and by the answer's status.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. The names are of methods and routes that are known, else anybody could make more of them."""
    _requests.labels(method, route, str(status)).observe(seconds)


def exposition() -> bytes:
    """All figures, in Prometheus' text format."""
    if FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


@contextmanager
def shared() -> Iterator[None]:
    """Within this, processes that this one starts count together."""
    with tempfile.TemporaryDirectory(prefix="blog-metrics-") as folder:
        os.environ[FOLDER] = folder
        yield
        del os.environ[FOLDER]
