"""What the package reports about itself: protocols with client-go's names, and implementations that do nothing.

Whoever composes the program hands in an implementation over its metrics library; nothing here imports one.
"""

from typing import Protocol


class ClientMetrics(Protocol):
    """What a client tells.

    For ``rest_client_requests_total``, ``rest_client_request_duration_seconds`` and
    ``rest_client_rate_limiter_duration_seconds``.
    """

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """One request ended; code is the HTTP status, or ``<error>`` where no answer came (as in client-go)."""

    def throttled(self, verb: str, seconds: float) -> None:
        """One request waited this long for the client's own rate limiter."""


class ReflectorMetrics(Protocol):
    """What a reflector tells.

    For ``reflector_lists_total``, ``reflector_list_duration_seconds``, ``reflector_items_per_list``,
    ``reflector_watches_total``, ``reflector_watch_duration_seconds``, ``reflector_short_watches_total``.
    """

    def listed(self, resource: str, items: int, seconds: float) -> None:
        """One complete list (or initial stream) was taken over."""

    def watched(self, resource: str, events: int, seconds: float, *, short: bool) -> None:
        """One watch ended; short means at once and without any event."""


class QueueMetrics(Protocol):
    """client-go's ``workqueue_*``. The two gauges of work under way are methods of the queue, read at scrape time."""

    def depth(self, value: int) -> None:
        """``workqueue_depth``: items that wait for a worker."""

    def added(self) -> None:
        """``workqueue_adds_total``."""

    def queued(self, seconds: float) -> None:
        """``workqueue_queue_duration_seconds``: one item waited this long for a worker."""

    def worked(self, seconds: float) -> None:
        """``workqueue_work_duration_seconds``: one item was worked on this long."""

    def retried(self) -> None:
        """``workqueue_retries_total``: one rate-limited or delayed add."""


class NoMetrics:
    """Implements every protocol above by doing nothing."""

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """Do nothing."""

    def throttled(self, verb: str, seconds: float) -> None:
        """Do nothing."""

    def listed(self, resource: str, items: int, seconds: float) -> None:
        """Do nothing."""

    def watched(self, resource: str, events: int, seconds: float, *, short: bool) -> None:
        """Do nothing."""

    def depth(self, value: int) -> None:
        """Do nothing."""

    def added(self) -> None:
        """Do nothing."""

    def queued(self, seconds: float) -> None:
        """Do nothing."""

    def worked(self, seconds: float) -> None:
        """Do nothing."""

    def retried(self) -> None:
        """Do nothing."""
