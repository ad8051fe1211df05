"""Writes events at its own pace: from two lanes, with patience, and no more than fits into them.

Warnings have a lane of their own and go first, so that no flood of good news drowns one. While one event is tried again the
others wait, and what does not fit into its lane any more is lost and counted.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from controller.api.event import EventType, ObjectReference
from controller.api.meta import KubeObject, micro_time
from controller.kube.client import Client
from controller.kube.errors import (
    ApiError,
    Conflict,
    KubeError,
    NetworkError,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from controller.kube.resources import Resource

EVENTS: Final = Resource("events.k8s.io", "v1", "events", True, KubeObject)
CLUSTER_NAMESPACE: Final = "default"
"""Where events about cluster-scoped objects go: the API server allows no other, and kubectl looks there."""
TRIES: Final = 12
RETRY_SECONDS: Final = 10.0
"""As client-go: a write is tried for about two minutes, then given up."""
_FIRST_RETRY: Final = 0.5

logger = logging.getLogger(__name__)

Key = tuple[EventType, str, str, ObjectReference, ObjectReference | None]
"""Type, reason, action, regarding, related: what is equal in all of them is one series."""


class RecorderMetrics(Protocol):
    """What the recorder tells."""

    def event(self, outcome: str) -> None:
        """One event came to this: written, counted, rate_limited, queue_full, refused or stopped."""


@dataclass(slots=True)
class Event:
    """One event, or the series that it has become. Times are server time in seconds."""

    key: Key
    name: str
    note: str
    first: float
    last: float
    count: int = 1
    told: int = 0
    """The count that the server knows; 0 while it does not know the event."""
    told_at: float = 0.0
    queued: bool = False

    @property
    def namespace(self) -> str:
        """Where it is written to."""
        return self.key[3].namespace or CLUSTER_NAMESPACE


class EventWriter:
    """Two lanes of events, and the hand that writes them.

    Args:
        client: The API server, and its time; paces the writes.
        source: The fields that say who speaks.
        bound: How many events of each type may wait.
        metrics: Told what became of each event.
        given_up: Called with each event that is not written, but for those that wait at the end.
    """

    def __init__(
        self,
        client: Client,
        source: Mapping[str, str],
        bound: int,
        metrics: RecorderMetrics,
        given_up: Callable[[Event], None],
    ) -> None:
        self._client = client
        self._source = source
        self._bound = bound
        self._metrics = metrics
        self._given_up = given_up
        self._lanes: dict[EventType, deque[Event]] = {"Warning": deque(), "Normal": deque()}
        self._news = asyncio.Event()
        self._complaint = ""

    def put(self, event: Event) -> None:
        """Have an event written, as it is when its turn comes."""
        if event.queued:
            return
        lane = self._lanes[event.key[0]]
        if len(lane) >= self._bound:
            self._lose(event, "queue_full")
            return
        event.queued = True
        lane.append(event)
        self._news.set()

    def take(self) -> Event | None:
        """Return the next event to be written; None where none waits."""
        for lane in self._lanes.values():
            if lane:
                event = lane.popleft()
                event.queued = False
                return event
        self._news.clear()
        return None

    async def wait(self, seconds: float | None) -> None:
        """Return when there is something to take, or after some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def write(self, event: Event) -> None:
        """Write one event, with patience."""
        for failures in range(TRIES):
            try:
                await self._send(event)
            except (NetworkError, ServerError, TooManyRequests, Unauthorized) as error:
                self._complain(event, error)
                asked = error.retry_after if isinstance(error, ApiError) else None
                await asyncio.sleep(asked or min(RETRY_SECONDS, _FIRST_RETRY * 2**failures))
            except KubeError as error:
                self._complain(event, error)
                break
            else:
                self._complaint = ""
                return
        self._lose(event, "refused")

    def drop(self) -> None:
        """Nobody writes any more: what waits is lost."""
        waiting = sum(map(len, self._lanes.values()))
        for lane in self._lanes.values():
            lane.clear()
        for _ in range(waiting):
            self._metrics.event("stopped")
        if waiting:
            logger.info("events dropped at the end", extra={"events": waiting})

    async def _send(self, event: Event) -> None:
        count = event.count
        if event.told:
            try:
                await self._client.patch(EVENTS, event.name, {"series": _series(event)}, namespace=event.namespace)
            except NotFound:  # it has outlived its time on the server
                await self._create(event)
        else:
            await self._create(event)
        event.told, event.told_at = count, self._client.now()
        self._metrics.event("written")

    async def _create(self, event: Event) -> None:
        # Conflict: an earlier try of ours was carried out although its answer was lost.
        with suppress(Conflict):
            await self._client.create(EVENTS, _body(event, self._source), event.namespace)

    def _complain(self, event: Event, error: KubeError) -> None:
        """Log a refusal, but not again while it only repeats."""
        if str(error) != self._complaint:
            fields = {"object": event.key[3].name, "reason": event.key[1], "error": str(error)}
            logger.warning("event not recorded", extra=fields)
        self._complaint = str(error)

    def _lose(self, event: Event, outcome: str) -> None:
        self._given_up(event)
        self._metrics.event(outcome)


def _body(event: Event, source: Mapping[str, str]) -> Mapping[str, Any]:
    type_, reason, action, regarding, related = event.key
    body: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": event.name, "namespace": event.namespace},
        "eventTime": micro_time(event.first),
        "type": type_,
        "reason": reason,
        "action": action,
        "note": event.note,
        "regarding": regarding,
        **source,
    }
    if related is not None:
        body["related"] = related
    if event.count > 1:
        body["series"] = _series(event)
    return body


def _series(event: Event) -> Mapping[str, Any]:
    return {"count": event.count, "lastObservedTime": micro_time(event.last)}
