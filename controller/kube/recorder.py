"""Events (``events.k8s.io/v1``): what happened to an object, for whoever looks at it with ``kubectl describe``.

Follows client-go's ``tools/events``. An event that repeats (same type, reason, action, regarding and related object) is not
written again but counted: its second occurrence makes it a series, whose count is written then, every half hour, and once
more when it has been quiet for six minutes. The words of an event cannot be changed on the server, so a repetition in other
words begins an event of its own.

Telling never holds up the teller. :meth:`EventRecorder.event` does no I/O; one task writes, at its own pace and beside the
client's other requests (:mod:`controller.kube.eventwriter`). What is too much is lost and counted: more about one object
than its token bucket lets through, and more in all than the writer's lanes hold.
"""

from collections import OrderedDict
from typing import Final

from controller.api.event import EventType, ObjectReference
from controller.kube.client import Client
from controller.kube.errors import escape
from controller.kube.eventwriter import Event, EventWriter, Key, RecorderMetrics
from controller.kube.ratelimiters import SpamFilter, TokenBucket

FINISH_SECONDS: Final = 360.0
REFRESH_SECONDS: Final = 1800.0
MAX_CACHED: Final = 4096
_MAX_NAME: Final = 200
_MAX_INSTANCE: Final = 128


class NoRecorderMetrics:
    """Counts nothing."""

    def event(self, outcome: str) -> None:
        """Ignore it."""


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
        qps: float = 10.0,
        burst: int = 25,
        object_qps: float = 1 / 60,
        object_burst: int = 50,
        queue: int = 2000,
        metrics: RecorderMetrics | None = None,
    ) -> None:
        self._client = client
        self._spam = SpamFilter(object_qps, object_burst)
        self._metrics = metrics or NoRecorderMetrics()
        source = {"reportingController": controller, "reportingInstance": instance[:_MAX_INSTANCE] or controller}
        paced = client.paced_by(TokenBucket(qps, burst))
        self._writer = EventWriter(paced, source, queue, self._metrics, self._given_up)
        # Events that may still repeat, the longest quiet first.
        self._cache: OrderedDict[Key, Event] = OrderedDict()
        self._names = 0

    def event(
        self,
        regarding: ObjectReference,
        type: EventType,  # noqa: A002 - its name in the API
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
        fresh = self._cache[key] = Event(key, name, note, now, now)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        self._writer.put(fresh)

    async def run(self) -> None:
        """Write until cancelled; what still waits then is dropped and counted."""
        try:
            while True:
                self._finish_quiet()
                if event := self._writer.take():
                    await self._writer.write(event)
                else:
                    await self._writer.wait(self._quiet_in())
        finally:
            self._cache.clear()
            self._writer.drop()

    def _repeat(self, known: Event, now: float) -> None:
        known.count += 1
        known.last = now
        self._cache.move_to_end(known.key)
        self._metrics.event("counted")
        if known.told == 1 or (known.told and now - known.told_at >= REFRESH_SECONDS):
            self._writer.put(known)

    def _finish(self, known: Event) -> None:
        """No more repetitions: the server is told the last count."""
        del self._cache[known.key]
        if known.told and known.count > known.told:
            self._writer.put(known)

    def _finish_quiet(self) -> None:
        now = self._client.now()
        while (oldest := next(iter(self._cache.values()), None)) and oldest.last + FINISH_SECONDS <= now:
            self._finish(oldest)

    def _quiet_in(self) -> float | None:
        """Seconds until the longest quiet series is over; None where there is none."""
        oldest = next(iter(self._cache.values()), None)
        return max(1.0, oldest.last + FINISH_SECONDS - self._client.now()) if oldest else None

    def _given_up(self, event: Event) -> None:
        """An event was not written. Where it happens again it is told as new."""
        if not event.told and self._cache.get(event.key) is event:
            del self._cache[event.key]
