"""Numbers for Prometheus, at /metrics: requests, jobs, pictures, the queue, live frames."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..guard import App, Receive, Scope, Send
from .status import StatusSeen

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")


class Metrics:
    """The counters of one server; `queued` and `running` are asked when somebody reads."""

    def __init__(self, queued: Callable[[], float], running: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        name, kept, labels = "stable_diffusion", self.registry, ("method", "route", "status")
        self.requests = Counter(f"{name}_requests", "Requests answered.", labels, registry=kept)
        self.seconds = Histogram(
            f"{name}_request_seconds", "Seconds to the end of an answer.", ("route",), buckets=BUCKETS, registry=kept
        )
        self.jobs = Counter(f"{name}_jobs", "Jobs that ended, by how.", ("state",), registry=kept)
        self.pictures = Counter(f"{name}_pictures", "Pictures made.", registry=kept)
        self.frames = Counter(f"{name}_live_frames", "Frames of live pictures.", ("end",), registry=kept)
        Gauge(f"{name}_jobs_queued", "Jobs that wait.", registry=kept).set_function(queued)
        Gauge(f"{name}_jobs_running", "Jobs that run.", registry=kept).set_function(running)

    def text(self) -> bytes:
        """All of them in Prometheus' form."""
        return generate_latest(self.registry)


class Measured:
    """An ASGI application around another one that counts and times requests by the pattern of their route."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, seen = time.perf_counter(), StatusSeen(send, 500)
        try:
            await self.app(scope, receive, seen)
        finally:
            # The pattern and never the address: a label for each address that a client makes up would fill the memory.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(method, route, str(seen.status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
