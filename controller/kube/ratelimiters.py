"""Rate limiters, with client-go's names and semantics (``util/workqueue/default_rate_limiters.go``, ``util/flowcontrol``).

Two kinds: a :class:`RateLimiter` is awaited before a request is sent; an :class:`ItemRateLimiter` says how long an item
of a work queue has to wait for its next try. :class:`Backoff` is for loops that reconnect, :class:`SpamFilter` for what is
told and may be lost. All take their clock from outside or from the running loop, so they live in virtual time as well.
"""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)
_EPSILON = 1e-9  # seconds: forgives the rounding of float times, so that a timer never fires just too early


MAX_REMEMBERED: Final = 4096
"""Objects whose buckets a spam filter remembers; of more the longest quiet is forgotten."""


class RateLimiter(Protocol):
    """Paces requests."""

    async def wait(self) -> None:
        """Return when the next request may be sent."""


class ItemRateLimiter(Protocol[K_contra]):
    """Paces the retries of a work queue's items."""

    def when(self, item: K_contra) -> float:
        """Count one more failure of item and return the seconds until its next try."""

    def forget(self, item: K_contra) -> None:
        """Item succeeded, or is given up: its failures no longer count."""

    def num_requeues(self, item: K_contra) -> int:
        """How many failures of item are counted."""


class _Schedule:
    """When the next event may happen: the generic cell rate algorithm.

    ``_next`` is when the bucket would be full again; it moves by one interval per event and never lags behind now by
    more than the burst. Times are computed from it, not from the last wake-up, so lateness does not add up.
    """

    def __init__(self, qps: float, burst: int) -> None:
        if qps <= 0 or burst < 1:
            raise ValueError(f"qps {qps} must be > 0 and burst {burst} >= 1")
        self._interval = 1 / qps
        self._slack = (burst - 1) * self._interval
        self._next = float("-inf")

    def earliest(self) -> float:
        """The time from which the next event is allowed."""
        return self._next - self._slack

    def take(self, now: float) -> None:
        """Let one event happen."""
        self._next = max(self._next, now) + self._interval


class TokenBucket:
    """Lets ``burst`` requests through at once and ``qps`` a second in the long run, first come, first served.

    A cancelled waiter takes nothing: those behind it move up.
    """

    def __init__(self, qps: float, burst: int) -> None:
        self._schedule = _Schedule(qps, burst)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Return when the next request may be sent."""
        loop = asyncio.get_running_loop()
        if not self._waiters and self._schedule.earliest() <= loop.time() + _EPSILON:
            self._schedule.take(loop.time())
            return
        waiter = loop.create_future()
        self._waiters.append(waiter)
        if self._timer is None:
            self._release()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.done():
                self._give_back()
            raise

    def _release(self) -> None:
        """Let go whoever may go now; leave one timer behind while others wait."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._waiters:
            if self._waiters[0].done():
                self._waiters.popleft()
            elif self._schedule.earliest() <= loop.time() + _EPSILON:
                self._schedule.take(loop.time())
                self._waiters.popleft().set_result(None)
            else:
                self._timer = loop.call_at(self._schedule.earliest(), self._release)
                return

    def _give_back(self) -> None:
        """A waiter was cancelled between its release and its wake-up: its turn goes to the next one."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Unlimited:
    """A rate limiter that never waits."""

    async def wait(self) -> None:
        """Return at once."""


class ItemExponentialFailureRateLimiter(Generic[K]):
    """``base * 2**failures`` seconds, at most ``cap``."""

    def __init__(self, base: float = 0.005, cap: float = 1000.0) -> None:
        self._base = base
        self._cap = cap
        self._failures: dict[K, int] = {}

    def when(self, item: K) -> float:
        """Count one more failure and return the wait that belongs to those before it."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        return min(self._base * 2.0 ** min(failures, 64), self._cap)

    def forget(self, item: K) -> None:
        """Start item afresh."""
        self._failures.pop(item, None)

    def num_requeues(self, item: K) -> int:
        """Failures counted for item."""
        return self._failures.get(item, 0)


class BucketRateLimiter(Generic[K]):
    """One token bucket for all items together; each ``when`` reserves the next free token."""

    def __init__(self, qps: float = 10.0, burst: int = 100, clock: Callable[[], float] | None = None) -> None:
        self._schedule = _Schedule(qps, burst)
        self._clock = clock

    def when(self, item: K) -> float:  # noqa: ARG002 - the bucket is everyone's
        """Reserve a token and return the seconds until it is there."""
        now = (self._clock or asyncio.get_running_loop().time)()
        at = max(self._schedule.earliest(), now)
        self._schedule.take(now)
        return at - now

    def forget(self, item: K) -> None:
        """Nothing is kept per item."""

    def num_requeues(self, item: K) -> int:  # noqa: ARG002
        """Nothing is counted per item."""
        return 0


class MaxOfRateLimiter(Generic[K]):
    """The longest wait of several limiters."""

    def __init__(self, *limiters: ItemRateLimiter[K]) -> None:
        self._limiters = limiters

    def when(self, item: K) -> float:
        """Ask all; the longest wait counts."""
        return max(limiter.when(item) for limiter in self._limiters)

    def forget(self, item: K) -> None:
        """Tell all."""
        for limiter in self._limiters:
            limiter.forget(item)

    def num_requeues(self, item: K) -> int:
        """The highest count of all."""
        return max(limiter.num_requeues(item) for limiter in self._limiters)


def default_controller_rate_limiter() -> MaxOfRateLimiter[str]:
    """client-go's default: 5 ms doubling to 1000 s per item, and 10 a second with a burst of 100 overall."""
    return MaxOfRateLimiter(ItemExponentialFailureRateLimiter[str](), BucketRateLimiter[str]())


class Backoff:
    """Waits of a loop that reconnects: doubling with full jitter, from the start again after a healthy while.

    Args:
        clock: Monotonic seconds.
        rng: Source of the jitter.
        base: First upper bound in seconds.
        cap: Last upper bound.
        reset_after: Seconds without a :meth:`step` after which the loop counts as healthy.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rng: random.Random,
        *,
        base: float = 0.8,
        cap: float = 30.0,
        reset_after: float = 120.0,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._base = base
        self._cap = cap
        self._reset_after = reset_after
        self._bound = base
        self._resume_at = float("-inf")

    def step(self) -> float:
        """Seconds to wait before the next try."""
        now = self._clock()
        if now - self._resume_at >= self._reset_after:
            self._bound = self._base
        wait = self._rng.uniform(0, self._bound)
        self._bound = min(self._bound * 2, self._cap)
        self._resume_at = now + wait
        return wait


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
        while len(self._full_at) > MAX_REMEMBERED or next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)
        return True
