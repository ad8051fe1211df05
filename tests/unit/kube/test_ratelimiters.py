"""Rate limiters and back-off, in virtual time."""

import asyncio
import random

import pytest

from controller.kube.ratelimiters import (
    MAX_REMEMBERED,
    Backoff,
    BucketRateLimiter,
    ItemExponentialFailureRateLimiter,
    MaxOfRateLimiter,
    SpamFilter,
    TokenBucket,
    default_controller_rate_limiter,
)

pytestmark = pytest.mark.looptime


async def test_a_burst_passes_at_once_and_then_the_rate_holds_without_drift(looptime) -> None:
    bucket = TokenBucket(qps=10, burst=3)
    times = []
    for _ in range(1003):
        await bucket.wait()
        times.append(float(looptime))
    assert times[:3] == [0, 0, 0]
    assert times[3] == pytest.approx(0.1)
    assert times[-1] == pytest.approx(100.0)


async def test_an_idle_bucket_fills_to_its_burst_and_no_further(looptime) -> None:
    bucket = TokenBucket(qps=10, burst=3)
    await asyncio.sleep(1000)
    for _ in range(4):
        await bucket.wait()
    assert looptime == pytest.approx(1000.1)


async def test_first_come_first_served() -> None:
    bucket = TokenBucket(qps=1, burst=1)
    order: list[int] = []

    async def take(number: int) -> None:
        await bucket.wait()
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(take(number))
    assert order == [0, 1, 2, 3, 4]


async def test_cancelled_waiters_take_nothing(looptime) -> None:
    bucket = TokenBucket(qps=1, burst=1)
    await bucket.wait()
    doomed = [asyncio.create_task(bucket.wait()) for _ in range(10)]
    await asyncio.sleep(0.5)
    last = asyncio.create_task(bucket.wait())
    await asyncio.sleep(0)
    for task in doomed:
        task.cancel()
    await last
    assert looptime == pytest.approx(1.0)
    await asyncio.gather(*doomed, return_exceptions=True)
    assert all(task.cancelled() for task in doomed)


async def test_a_waiter_cancelled_after_its_release_hands_its_turn_on(looptime) -> None:
    bucket = TokenBucket(qps=1, burst=1)
    await bucket.wait()
    first, second = asyncio.create_task(bucket.wait()), asyncio.create_task(bucket.wait())
    # Runs in the same iteration of the loop as the bucket's own timer, before the released waiter does.
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(1.0, first.cancel)
    await second
    assert first.cancelled()
    assert looptime == pytest.approx(1.0)


@pytest.mark.parametrize(("qps", "burst"), [(0, 1), (-1, 1), (1, 0)])
async def test_senseless_rates_are_refused(qps: float, burst: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenBucket(qps, burst)


async def test_exponential_failures_per_item() -> None:
    limiter = ItemExponentialFailureRateLimiter[str](base=0.005, cap=1000)
    assert [limiter.when("a") for _ in range(4)] == [0.005, 0.01, 0.02, 0.04]
    assert limiter.when("b") == 0.005
    assert limiter.num_requeues("a") == 4
    assert max(limiter.when("a") for _ in range(2000)) == 1000
    limiter.forget("a")
    limiter.forget("never seen")
    assert (limiter.num_requeues("a"), limiter.when("a")) == (0, 0.005)


async def test_the_bucket_reserves_tokens_ahead() -> None:
    limiter = BucketRateLimiter[str](qps=10, burst=2)
    assert [limiter.when("a") for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    await asyncio.sleep(0.2)
    assert limiter.when("b") == pytest.approx(0.1)


async def test_the_longest_wait_counts() -> None:
    bucket = BucketRateLimiter[str](qps=10, burst=1)
    limiter = MaxOfRateLimiter(ItemExponentialFailureRateLimiter[str](base=0.06), bucket)
    assert [limiter.when("a") for _ in range(4)] == pytest.approx([0.06, 0.12, 0.24, 0.48])
    assert limiter.when("b") == pytest.approx(0.4)
    assert limiter.num_requeues("a") == 4
    limiter.forget("a")
    assert limiter.num_requeues("a") == 0


async def test_the_default_is_that_of_client_go() -> None:
    limiter = default_controller_rate_limiter()
    assert [limiter.when("a") for _ in range(3)] == [0.005, 0.01, 0.02]


async def test_backoff_doubles_with_full_jitter_and_resets_after_two_healthy_minutes() -> None:
    class Most(random.Random):
        def uniform(self, a: float, b: float) -> float:
            assert a == 0
            return b

    backoff = Backoff(asyncio.get_running_loop().time, Most())
    steps = [backoff.step() for _ in range(8)]
    assert steps == pytest.approx([0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
    await asyncio.sleep(30 + 119)
    assert backoff.step() == 30
    await asyncio.sleep(30 + 120)
    assert backoff.step() == pytest.approx(0.8)


async def test_the_spam_filter_forgets_the_longest_quiet() -> None:
    spam = SpamFilter(qps=1.0, burst=2)
    first = "first"
    assert [spam.accepts(first, 0.0) for _ in range(3)] == [True, True, False]
    for n in range(10_000):
        spam.accepts(f"n{n}", 0.0)
    assert len(spam._full_at) <= MAX_REMEMBERED
    assert [spam.accepts(first, 1.0) for _ in range(2)] == [True, True]


async def test_the_spam_filter_remembers_nobody_who_has_been_quiet_for_long() -> None:
    spam = SpamFilter(qps=1.0, burst=2)
    for n in range(1000):
        assert spam.accepts(f"n{n}", 10.0 * n)
    assert len(spam._full_at) == 1
