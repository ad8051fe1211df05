"""Metrics of the machinery, under client-go's names where it has them: client, reflectors, informers, queue, event loop.

Whoever knows the dashboards of other controllers reads these without a legend. How things are now (age of the last event,
objects held) is asked at scrape time. Labels are the resources that we watch and the verbs that we use, never a name that
somebody gave.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.kube.informer import Informer
from controller.kube.workqueue import WorkQueue

QUEUE = "nodes"
"""Name of the only work queue, as the label of its metrics."""
BEAT_SECONDS = 1.0
"""How often the event loop's lateness is measured."""
_QUEUE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)
_REQUEST_BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 5, 10, 30)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class MachineMetrics:
    """Implements the metrics protocols of ``controller.kube``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._client()
        self._reflector()
        self._queue()
        self._lag = Histogram(
            "driver_upgrade_event_loop_lag_seconds",
            "How late a timer of the event loop fired; measured once a second.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )

    def _client(self) -> None:
        self._requests = Counter(
            "rest_client_requests",
            "Requests to the API server by verb, resource and HTTP status; <error> where no answer came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "rest_client_request_duration_seconds",
            "How long requests to the API server took, watches apart.",
            ["verb"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._throttle_seconds = Histogram(
            "rest_client_rate_limiter_duration_seconds",
            "How long requests waited for the client's own rate limiter.",
            ["verb"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )

    def _reflector(self) -> None:
        labels, registry = ["resource"], self.registry
        self._lists = Counter("reflector_lists", "Complete lists taken over.", labels, registry=registry)
        self._list_seconds = Histogram(
            "reflector_list_duration_seconds",
            "How long it took to take a complete list over.",
            labels,
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._watches = Counter("reflector_watches", "Watches ended.", labels, registry=registry)
        self._short_watches = Counter(
            "reflector_short_watches",
            "Watches that ended at once without an event.",
            labels,
            registry=registry,
        )

    def _queue(self) -> None:
        name, labels, registry = QUEUE, ["name"], self.registry
        self._depth = Gauge("workqueue_depth", "Items that wait for a worker.", labels, registry=registry).labels(name)
        self._adds = Counter("workqueue_adds", "Items added.", labels, registry=registry).labels(name)
        self._retries = Counter("workqueue_retries", "Rate-limited or delayed adds.", labels, registry=registry).labels(name)
        self._queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "How long items waited for a worker.",
            labels,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        ).labels(name)
        self._work_seconds = Histogram(
            "workqueue_work_duration_seconds",
            "How long items were worked on.",
            labels,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        ).labels(name)

    def follow_informers(self, informers: Callable[[], Iterable[Informer[Any]]], now: Callable[[], float]) -> None:
        """Expose what the informers hold and how old their last news is; ``now`` is their client's monotonic clock."""
        self.registry.register(_InformerCollector(informers, now))

    def follow_queue(self, queue: WorkQueue[str]) -> None:
        """Expose how long the work under way has taken so far: where a worker is stuck, these grow."""
        unfinished = Gauge(
            "workqueue_unfinished_work_seconds",
            "Ages of the work under way, summed over all workers.",
            ["name"],
            registry=self.registry,
        )
        unfinished.labels(QUEUE).set_function(queue.unfinished_work_seconds)
        longest = Gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the longest running worker has been at its item.",
            ["name"],
            registry=self.registry,
        )
        longest.labels(QUEUE).set_function(queue.longest_running_processor_seconds)

    @asynccontextmanager
    async def watching_loop(self) -> AsyncIterator[None]:
        """Measure the event loop's lateness while the context is open."""
        beat = asyncio.create_task(self._beat(), name="event-loop lag")
        try:
            yield
        finally:
            beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beat

    async def _beat(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self.lagged(loop.time() - due)

    def lagged(self, seconds: float) -> None:
        """A timer of the event loop fired this late."""
        self._lag.observe(max(0.0, seconds))

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """One request ended."""
        self._requests.labels(verb, resource, code).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def throttled(self, verb: str, seconds: float) -> None:
        """One request waited for the client's rate limiter."""
        self._throttle_seconds.labels(verb).observe(seconds)

    def listed(self, resource: str, items: int, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        """One complete list was taken over."""
        self._lists.labels(resource).inc()
        self._list_seconds.labels(resource).observe(seconds)

    def watched(self, resource: str, events: int, seconds: float, *, short: bool) -> None:  # noqa: ARG002 - the protocol's
        """One watch ended."""
        self._watches.labels(resource).inc()
        if short:
            self._short_watches.labels(resource).inc()

    def depth(self, value: int) -> None:
        """Items that wait for a worker."""
        self._depth.set(value)

    def added(self) -> None:
        """One item was added to the queue."""
        self._adds.inc()

    def queued(self, seconds: float) -> None:
        """One item waited this long."""
        self._queue_seconds.observe(seconds)

    def worked(self, seconds: float) -> None:
        """One item was worked on this long."""
        self._work_seconds.observe(seconds)

    def retried(self) -> None:
        """One rate-limited or delayed add."""
        self._retries.inc()


class _InformerCollector(Collector):
    """Asks the informers at scrape time. Several of one resource (a namespace each) are one series: the worst of them."""

    def __init__(self, informers: Callable[[], Iterable[Informer[Any]]], now: Callable[[], float]) -> None:
        self._informers = informers
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read everything once."""
        now = self._now()
        by_resource: dict[str, list[Informer[Any]]] = {}
        for informer in self._informers():
            by_resource.setdefault(str(informer.resource), []).append(informer)
        labels = ["resource"]
        objects = GaugeMetricFamily("driver_upgrade_informer_objects", "Objects held in the caches.", labels=labels)
        current = GaugeMetricFamily(
            "driver_upgrade_informer_synced",
            "1 where the caches of a resource have been filled and are being kept up to date, else 0.",
            labels=labels,
        )
        age = GaugeMetricFamily(
            "driver_upgrade_informer_last_event_age_seconds",
            "Time since the API server last told anything of a resource, bookmarks included.",
            labels=labels,
        )
        for resource, found in sorted(by_resource.items()):
            objects.add_metric([resource], sum(len(i.store) for i in found))
            current.add_metric([resource], all(i.synced and not i.last_error for i in found))
            if heard := [i.reflector.heard for i in found if i.reflector.heard is not None]:
                age.add_metric([resource], max(0.0, now - min(heard)))
        yield from (objects, current, age)
