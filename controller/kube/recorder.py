"""Events (``events.k8s.io/v1``): what happened to an object, for whoever looks at it with ``kubectl describe``.

Follows client-go's ``tools/events``. An event that repeats (same type, reason, action, regarding and related object) is not
written again but counted: its second occurrence makes it a series, whose count is written then, every half hour, and once
more when it has been quiet for six minutes. The words of an event cannot be changed on the server, so a repetition in other
words begins an event of its own.

Telling never holds up the teller. :meth:`EventRecorder.event` does no I/O; one task writes, at its own pace and beside the
client's other requests. What is too much is lost and counted: more about one object than its token bucket lets through, and
more in all than the queue holds. Warnings have a queue of their own and go first, so that no flood of good news drowns one.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import msgspec

from controller.api.meta import KubeObject
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
    escape,
)
from controller.kube.ratelimiters import TokenBucket
from controller.kube.resources import Resource

EVENTS: Final = Resource("events.k8s.io", "v1", "events", True, KubeObject)
CLUSTER_NAMESPACE: Final = "default"
"""Where events about cluster-scoped objects go: the API server allows no other, and kubectl looks there."""
FINISH_SECONDS: Final = 360.0
REFRESH_SECONDS: Final = 1800.0
TRIES: Final = 12
RETRY_SECONDS: Final = 10.0
"""As client-go: a write is tried for about two minutes, then given up."""
MAX_CACHED: Final = 4096
_MAX_NAME: Final = 200
_MAX_INSTANCE: Final = 128

Type = Literal["Normal", "Warning"]

logger = logging.getLogger(__name__)


class ObjectReference(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The object that an event is about, or that has to do with it."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


def reference(obj: KubeObject, kind: str, api_version: str = "v1") -> ObjectReference:
    """Return the reference to an object, which does not know its own kind."""
    return ObjectReference(kind, obj.name, obj.namespace, obj.uid, api_version)


class RecorderMetrics(Protocol):
    """What the recorder tells."""

    def event(self, outcome: str) -> None:
        """One event came to this: written, counted, rate_limited, queue_full, refused or stopped."""


class NoRecorderMetrics:
    """Counts nothing."""

    def event(self, outcome: str) -> None:
        """Ignore it."""


Key = tuple[Type, str, str, ObjectReference, ObjectReference | None]


@dataclass(slots=True)
class _Event:
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
        return self.key[3].namespace or CLUSTER_NAMESPACE


class SpamFilter:
    """A token bucket per object, or whatever else is told of: ``burst`` events at once, one more each ``1 / qps`` seconds.

    client-go's ``EventSourceObjectSpamFilter``. Of an object whose bucket is full nothing need be remembered.
    """

    def __init__(self, qps: float, burst: int) -> None:
        self._interval = 1 / qps
        self._slack = (burst - 1) * self._interval
        # When each object's bucket is full again.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def accepts(self, obj: Hashable, now: float) -> bool:
        """Whether one more event about an object may be written; takes its token."""
        full_at = max(self._full_at.get(obj, now), now)
        if full_at > now + self._slack:
            return False
        self._full_at[obj] = full_at + self._interval
        self._full_at.move_to_end(obj)
        while len(self._full_at) > MAX_CACHED or next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)
        return True


class EventRecorder:
    """Records events of one controller. :meth:`run` writes them; without it they wait, up to the queue's bound.

    Args:
        client: The API server, and its time.
        controller: ``reportingController``: a qualified name such as ``example.com/controller``.
        instance: ``reportingInstance``: which of the replicas speaks.
        qps: Requests a second, of the recorder alone.
        burst: Requests at once after a rest.
        object_qps: New events a second about one object, in the long run.
        object_burst: New events at once about one object.
        queue: How many events of each type may wait to be written.
        metrics: Told what became of each event.
    """

    def __init__(
        self,
        client: Client,
        controller: str,
        instance: str,
        *,
        qps: float = 20.0,
        burst: int = 100,
        object_qps: float = 1 / 60,
        object_burst: int = 50,
        queue: int = 2000,
        metrics: RecorderMetrics | None = None,
    ) -> None:
        self._client = client.paced_by(TokenBucket(qps, burst))
        self._source = {"reportingController": controller, "reportingInstance": instance[:_MAX_INSTANCE] or controller}
        self._spam = SpamFilter(object_qps, object_burst)
        self._bound = queue
        self._metrics = metrics or NoRecorderMetrics()
        self._lanes: dict[Type, deque[_Event]] = {"Warning": deque(), "Normal": deque()}
        # Events that may still repeat, the longest quiet first.
        self._cache: OrderedDict[Key, _Event] = OrderedDict()
        self._news = asyncio.Event()
        self._names = 0
        self._complaint = ""

    def event(
        self,
        regarding: ObjectReference,
        type: Type,  # noqa: A002 - its name in the API
        reason: str,
        action: str,
        note: str,
        related: ObjectReference | None = None,
    ) -> None:
        """Tell of something. Never blocks, never fails.

        Args:
            regarding: The object that it is about.
            type: ``Normal``, or ``Warning`` where a person may have to act.
            reason: Why, in one CamelCase word that scripts may match.
            action: What was being done, in one such word.
            note: The same for people; control characters are escaped, and it is cut to 1 KiB.
            related: Another object that has to do with it.
        """
        now, key, note = self._client.now(), (type, reason, action, regarding, related), escape(note)
        known = self._cache.get(key)
        if known is not None and known.note == note:
            self._repeat(known, now)
            return
        if not self._spam.accepts(regarding, self._client.clock.monotonic()):
            self._metrics.event("rate_limited")
            return
        if known is not None:
            self._finish(known)
        self._names += 1
        name = f"{regarding.name[:_MAX_NAME]}.{int(now * 1e9) + self._names:x}"
        fresh = self._cache[key] = _Event(key, name, note, now, now)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        self._queue(fresh)

    async def run(self) -> None:
        """Write until cancelled; what still waits then is dropped and counted."""
        try:
            while True:
                await self._write(await self._next())
        finally:
            self._drop()

    def _repeat(self, known: _Event, now: float) -> None:
        known.count += 1
        known.last = now
        self._cache.move_to_end(known.key)
        self._metrics.event("counted")
        if known.told == 1 or (known.told and now - known.told_at >= REFRESH_SECONDS):
            self._queue(known)

    def _finish(self, known: _Event) -> None:
        """No more repetitions: the server is told the last count."""
        del self._cache[known.key]
        if known.told and known.count > known.told:
            self._queue(known)

    def _queue(self, event: _Event) -> None:
        if event.queued:
            return
        lane = self._lanes[event.key[0]]
        if len(lane) >= self._bound:
            self._lose(event, "queue_full")
            return
        event.queued = True
        lane.append(event)
        self._news.set()

    async def _next(self) -> _Event:
        while True:
            self._finish_quiet()
            for lane in self._lanes.values():
                if lane:
                    event = lane.popleft()
                    event.queued = False
                    return event
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._quiet_in()):
                    await self._news.wait()

    def _finish_quiet(self) -> None:
        now = self._client.now()
        while (oldest := next(iter(self._cache.values()), None)) and oldest.last + FINISH_SECONDS <= now:
            self._finish(oldest)

    def _quiet_in(self) -> float | None:
        """Seconds until the longest quiet series is over; None where there is none."""
        oldest = next(iter(self._cache.values()), None)
        return max(1.0, oldest.last + FINISH_SECONDS - self._client.now()) if oldest else None

    async def _write(self, event: _Event) -> None:
        """Write one event, with patience: meanwhile the others wait, and beyond the bound they are lost."""
        for failures in range(TRIES):
            try:
                await self._send(event)
            except (NetworkError, ServerError, TooManyRequests, Unauthorized) as error:
                self._complain(event, error)
                asked = error.retry_after if isinstance(error, ApiError) else None
                await asyncio.sleep(asked or min(RETRY_SECONDS, 0.5 * 2**failures))
            except KubeError as error:
                self._complain(event, error)
                break
            else:
                self._complaint = ""
                return
        self._lose(event, "refused")

    async def _send(self, event: _Event) -> None:
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

    async def _create(self, event: _Event) -> None:
        # Conflict: an earlier try of ours was carried out although its answer was lost.
        with suppress(Conflict):
            await self._client.create(EVENTS, self._body(event), event.namespace)

    def _body(self, event: _Event) -> Mapping[str, Any]:
        type_, reason, action, regarding, related = event.key
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event.name, "namespace": event.namespace},
            "eventTime": _micro_time(event.first),
            "type": type_,
            "reason": reason,
            "action": action,
            "note": event.note,
            "regarding": regarding,
            **self._source,
        }
        if related is not None:
            body["related"] = related
        if event.count > 1:
            body["series"] = _series(event)
        return body

    def _complain(self, event: _Event, error: KubeError) -> None:
        """Log a refusal, but not again while it only repeats."""
        if str(error) != self._complaint:
            fields = {"object": event.key[3].name, "reason": event.key[1], "error": str(error)}
            logger.warning("event not recorded", extra=fields)
        self._complaint = str(error)

    def _lose(self, event: _Event, outcome: str) -> None:
        """Give an event up. Where it happens again it is told as new."""
        if not event.told and self._cache.get(event.key) is event:
            del self._cache[event.key]
        self._metrics.event(outcome)

    def _drop(self) -> None:
        waiting = sum(map(len, self._lanes.values()))
        for lane in self._lanes.values():
            lane.clear()
        self._cache.clear()
        for _ in range(waiting):
            self._metrics.event("stopped")
        if waiting:
            logger.info("events dropped at the end", extra={"events": waiting})


def _series(event: _Event) -> Mapping[str, Any]:
    return {"count": event.count, "lastObservedTime": _micro_time(event.last)}


def _micro_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
