"""A work queue with client-go's semantics (``k8s.io/client-go/util/workqueue``), for one event loop and many workers.

It promises:

* Fair: items come out in the order in which they were added.
* Stingy: an item is never processed twice at the same time, and one that is added several times before it is
  processed is processed once.
* Nothing is lost: an item that is added while it is processed is processed again afterwards.
* Waiting (:meth:`WorkQueue.add_after`) and failing (:meth:`WorkQueue.add_rate_limited`) cost no worker; of several
  waits for one item the earliest counts.
* Shutting down is explicit: what is queued is still handed out, then every worker's :meth:`WorkQueue.get` raises
  :class:`QueueShutDown`.

A worker::

    while True:
        key = await queue.get()      # QueueShutDown ends the worker
        try:
            ...
            queue.forget(key)        # success; else queue.add_rate_limited(key)
        finally:
            queue.done(key)
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from controller.kube.metrics import NoMetrics, QueueMetrics
from controller.kube.ratelimiters import (
    BucketRateLimiter,
    ItemExponentialFailureRateLimiter,
    ItemRateLimiter,
    MaxOfRateLimiter,
)

K = TypeVar("K", bound=Hashable)
_STALE: Final = 64


class QueueShutDown(Exception):  # noqa: N818 - an event, not an error
    """The queue is shut down and empty: the worker's cue to end."""


class WorkQueue(Generic[K]):
    """Hands out keys to workers. To be created inside the running loop."""

    def __init__(self, *, limiter: ItemRateLimiter[K] | None = None, metrics: QueueMetrics | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._limiter = limiter or MaxOfRateLimiter(ItemExponentialFailureRateLimiter[K](), BucketRateLimiter[K]())
        self._metrics = metrics or NoMetrics()
        # Items to hand out, in order. Each is in _dirty and not in _processing.
        self._queue: deque[K] = deque()
        # Items that need processing, and since when.
        self._dirty: dict[K, float] = {}
        # Items that a worker has now, and since when. They may be in _dirty as well: they are queued again when done.
        self._processing: dict[K, float] = {}
        self._delayed = _Delayed[K](self._loop, self.add)
        # Workers that wait for an item, each woken by one item.
        self._getters: deque[asyncio.Future[None]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._shutting_down = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def shutting_down(self) -> bool:
        """Whether new items are refused."""
        return self._shutting_down

    def add(self, item: K) -> None:
        """Mark item as needing processing."""
        if self._shutting_down or item in self._dirty:
            return
        self._metrics.added()
        self._dirty[item] = self._loop.time()
        if item not in self._processing:
            self._enqueue(item)

    async def get(self) -> K:
        """Return the next item, which the caller then owns until :meth:`done`.

        Raises:
            QueueShutDown: There will be no more items.
        """
        while not self._queue:
            if self._shutting_down:
                raise QueueShutDown
            getter = self._loop.create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()  # it was woken for an item that it will not take
                raise
        return self._take(self._queue.popleft())

    def _take(self, item: K) -> K:
        now = self._loop.time()
        self._metrics.queued(now - self._dirty.pop(item))
        self._metrics.depth(len(self._queue))
        self._processing[item] = now
        return item

    def done(self, item: K) -> None:
        """End the processing of item; it is queued again if it was added meanwhile."""
        started = self._processing.pop(item, None)
        if started is None:
            return
        self._metrics.worked(self._loop.time() - started)
        if item in self._dirty:
            self._enqueue(item)
        self._check_drained()

    def add_after(self, item: K, seconds: float) -> None:
        """Add item after this many seconds; an earlier time that it already waits for stays."""
        if self._shutting_down:
            return
        self._metrics.retried()
        if seconds <= 0:
            self.add(item)
        else:
            self._delayed.put(item, self._loop.time() + seconds)

    def add_rate_limited(self, item: K) -> None:
        """Add item when the rate limiter allows its next try."""
        self.add_after(item, self._limiter.when(item))

    def forget(self, item: K) -> None:
        """Item succeeded: its next failure is its first."""
        self._limiter.forget(item)

    def num_requeues(self, item: K) -> int:
        """How often item was added rate-limited since it was last forgotten."""
        return self._limiter.num_requeues(item)

    def unfinished_work_seconds(self) -> float:
        """``workqueue_unfinished_work_seconds``: ages of all work under way, summed."""
        now = self._loop.time()
        return sum(now - started for started in self._processing.values())

    def longest_running_processor_seconds(self) -> float:
        """``workqueue_longest_running_processor_seconds``: age of the oldest work under way."""
        return self._loop.time() - min(self._processing.values(), default=self._loop.time())

    def shut_down(self) -> None:
        """Refuse new items, drop the delayed ones, hand out what is queued, then end the workers."""
        self._shutting_down = True
        self._delayed.clear()
        while self._getters:
            self._wake()

    async def shut_down_with_drain(self) -> None:
        """Shut down and return when all that was queued has been processed. There must be workers; bound it."""
        self.shut_down()
        if self._drained is None:
            self._drained = self._loop.create_future()
        self._check_drained()
        await asyncio.shield(self._drained)

    def _check_drained(self) -> None:
        if self._drained and not self._drained.done() and not self._queue and not self._processing:
            self._drained.set_result(None)

    def _enqueue(self, item: K) -> None:
        self._queue.append(item)
        self._metrics.depth(len(self._queue))
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return


class _Delayed(Generic[K]):
    """Items that wait for a time: a heap, and one timer for its first entry."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: Callable[[K], None]) -> None:
        self._loop = loop
        self._ready = ready
        # When each item is due. An entry of the heap that does not agree with it is stale.
        self._due: dict[K, float] = {}
        # (due, sequence, item); the sequence keeps items themselves from being compared.
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, item: K, due: float) -> None:
        """Let item wait until due, or for its earlier time."""
        if self._due.get(item, due + 1) <= due:
            return
        self._due[item] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, item))
        if len(self._heap) > 2 * len(self._due) + _STALE:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        if self._timer is None or due < self._timer.when():
            self._arm()

    def clear(self) -> None:
        """Forget everything."""
        self._due.clear()
        self._heap.clear()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heap[0][0], self._fire) if self._heap else None

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            due, _, item = heapq.heappop(self._heap)
            if self._due.get(item) == due:
                del self._due[item]
                self._ready(item)
        self._arm()
