"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Whoever asks could make a counter of every word else.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Metrics:
    """Requests by route and status, how long they took, and how many photos can be found.

    Args:
        photos: says how many.
    """

    def __init__(self, photos: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("dolg_requests", "Answered requests.", labels, registry=self._registry)
        self._seconds = Histogram(
            "dolg_request_seconds", "Seconds from a request to its answer.", ("route",), registry=self._registry
        )
        self._running = Gauge("dolg_requests_running", "Requests being answered.", registry=self._registry)
        found = Gauge("dolg_library_photos", "Photos that can be found.", registry=self._registry)
        found.set_function(photos)

    def began(self) -> None:
        """Count a request that came."""
        self._running.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one that was answered."""
        self._running.dec()
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)
