"""Following a resource by one watch after another, whatever ends them.

A watch ends regularly after 5 to 10 minutes (random, so that those who follow do not reconnect together). What must not
happen is that it ends without our noticing: a load balancer that has lost the server, or a server that is stuck, keeps a
connection alive on which nothing will ever come, and TCP's keepalive only asks the next hop. But the API server is never
silent for long. To whoever allows bookmarks it sends one about each minute (``defaultBookmarkFrequency`` of its cacher), so
three minutes without a byte end the watch, and the next one goes on where it was.

That may be a false alarm. The server has no bookmark to send where the resource's version has not moved since the watch
began: nothing of it was written, and etcd has not told its progress meanwhile (every 10 minutes if nobody asks; in kubeadm's
clusters every 5 seconds); nor has it any for a resource that it serves without its watch cache. So silence is not an error:
nothing is told, nothing waits, nothing is listed; the price is a watch each three minutes in place of one in five to ten.
"""

import logging
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final, Generic, TypeVar

from controller.api.meta import KubeObject
from controller.kube import watch
from controller.kube.client import Client
from controller.kube.listoptions import ListOptions
from controller.kube.metrics import NoMetrics, ReflectorMetrics
from controller.kube.ratelimiters import Backoff
from controller.kube.resources import Resource
from controller.kube.transport import Stream
from controller.kube.watch import Event, Silent

T = TypeVar("T", bound=KubeObject)
WATCH_SECONDS: Final = (300, 600)
WATCH_GRACE: Final = 30.0
"""Seconds that the client waits longer than the server promised to watch."""
SHORT_WATCH: Final = 1.0
SILENCE: Final = 180.0
"""Seconds without a byte after which a watch is taken for dead: by then two bookmarks have certainly not come."""

logger = logging.getLogger(__name__)


class Follower(Generic[T]):
    """Opens the watches of one resource, one after another.

    Args:
        client: The API server.
        resource: What to follow.
        options: Which of its objects.
        rng: Jitter.
        metrics: Told of watches.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        options: ListOptions,
        *,
        rng: random.Random,
        metrics: ReflectorMetrics | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._options = options
        self._rng = rng
        self._metrics = metrics or NoMetrics()
        self._backoff = Backoff(client.clock.monotonic, rng)
        # Of the last watch: how many events it brought, and whether it ended at once without any.
        self._events = 0
        self._short = False

    @asynccontextmanager
    async def watch(self, params: dict[str, str]) -> AsyncIterator[AsyncIterator[Event[T]]]:
        """Open a watch and hand out its events, until its regular end or a silence that is too long.

        Args:
            params: Where it begins: ``resourceVersion``, or what a WatchList takes.

        Raises:
            ApiError: It was refused; also from the events, as :class:`Gone`.
            LineTooLong: An event is too long to be read from a watch.
            NetworkError: It could not be opened, or was cut off.
        """
        seconds = self._lifetime()
        asked = {**params, **self._options.selectors(), "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        started, self._events = self._now(), 0
        opened = self._client.watch(self._resource, self._options.namespace, params=asked, timeout=seconds + WATCH_GRACE)
        try:
            async with opened as stream, aclosing(self._counted(stream)) as events:  # type: ignore[type-var]
                yield events
        finally:
            lasted = self._now() - started
            self._short = self._events == 0 and lasted < SHORT_WATCH
            self._metrics.watched(str(self._resource), self._events, lasted, short=self._short)

    def pause(self, error: Exception | None = None) -> float:
        """Return the seconds to wait before the next watch: none, but after one that failed, or was short and empty.

        What ends every watch at once is something between us and the server that does not let watches through.
        """
        if error is None:
            return self._backoff.step() if self._short else 0.0
        return max(self._backoff.step(), getattr(error, "retry_after", None) or 0.0)

    def _lifetime(self) -> int:
        return self._rng.randint(*WATCH_SECONDS)

    async def _counted(self, stream: Stream) -> AsyncIterator[Event[T]]:
        """The events of a stream, until it ends or is silent for too long."""
        async with aclosing(watch.events(stream, self._resource, silence=SILENCE)) as events:  # type: ignore[type-var]
            try:
                async for event in events:
                    self._events += 1
                    yield event
            except Silent:
                logger.debug("watch fell silent", extra={"resource": str(self._resource), "seconds": SILENCE})

    def _now(self) -> float:
        return self._client.clock.monotonic()
