"""The work queue's promises, in virtual time; client-go's own tests gave the cases."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kube.workqueue import QueueShutDown, WorkQueue

pytestmark = pytest.mark.looptime


class Recorder:
    """Queue metrics that remember."""

    def __init__(self) -> None:
        self.depths: list[int] = []
        self.adds = self.retries = 0
        self.waits: list[float] = []
        self.work: list[float] = []

    def depth(self, value: int) -> None:
        self.depths.append(value)

    def added(self) -> None:
        self.adds += 1

    def queued(self, seconds: float) -> None:
        self.waits.append(seconds)

    def worked(self, seconds: float) -> None:
        self.work.append(seconds)

    def retried(self) -> None:
        self.retries += 1


async def test_items_come_out_in_order_and_once() -> None:
    queue = WorkQueue[str]()
    for item in "abacab":
        queue.add(item)
    assert len(queue) == 3
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0


async def test_an_item_added_while_it_is_processed_waits_until_it_is_done() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_done_for_what_is_not_processed_does_nothing() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    queue.done("a")
    assert len(queue) == 1


async def test_delayed_items_come_in_the_order_of_their_times(looptime) -> None:
    queue = WorkQueue[str]()
    queue.add_after("late", 10)
    queue.add_after("early", 1)
    queue.add_after("now", 0)
    queue.add_after("before", -1)
    got = []
    for _ in range(4):
        item = await queue.get()
        got.append((item, float(looptime)))
        queue.done(item)
    assert got == [("now", 0), ("before", 0), ("early", 1), ("late", 10)]


@pytest.mark.parametrize(("first", "second"), [(5, 50), (50, 5)])
async def test_of_two_waits_the_earlier_counts_and_counts_once(first: float, second: float, looptime) -> None:
    queue = WorkQueue[str]()
    queue.add_after("a", first)
    queue.add_after("a", second)
    assert await queue.get() == "a"
    assert looptime == 5
    queue.done("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            await queue.get()


async def test_a_wait_that_was_overtaken_does_not_end_a_later_one(looptime) -> None:
    queue = WorkQueue[str]()
    queue.add_after("a", 50)
    queue.add_after("a", 5)
    queue.done(await queue.get())
    queue.add_after("a", 60)
    assert await queue.get() == "a"
    assert looptime == 65


async def test_many_renewed_waits_leave_nothing_behind() -> None:
    queue = WorkQueue[str]()
    for seconds in range(10_000, 0, -1):
        queue.add_after("a", seconds)
    assert len(queue._delayed._heap) < 100
    assert await queue.get() == "a"
    assert len(queue._delayed._due) == 0


async def test_failures_back_off_and_success_forgets(looptime) -> None:
    queue = WorkQueue[str]()
    for _ in range(3):
        queue.add_rate_limited("a")
        assert await queue.get() == "a"
        queue.done("a")
    assert looptime == pytest.approx(0.005 + 0.01 + 0.02)
    assert queue.num_requeues("a") == 3
    queue.forget("a")
    assert queue.num_requeues("a") == 0


async def test_a_waiting_worker_is_woken_by_one_item_each() -> None:
    queue = WorkQueue[str]()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for item in "ab":
        queue.add(item)
    await asyncio.sleep(1)
    assert [worker.done() for worker in workers] == [True, True, False]
    queue.shut_down()
    with pytest.raises(QueueShutDown):
        await workers[2]


async def test_a_worker_cancelled_at_the_moment_it_is_woken_loses_nothing() -> None:
    queue = WorkQueue[str]()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    assert first.cancelled()


async def test_shut_down_hands_out_what_is_queued_and_drops_what_waits() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    queue.add_after("b", 5)
    queue.shut_down()
    queue.add("c")
    queue.add_after("d", 1)
    assert queue.shutting_down
    assert queue._delayed._timer is None
    assert await queue.get() == "a"
    with pytest.raises(QueueShutDown):
        await queue.get()
    await asyncio.sleep(10)
    assert len(queue) == 0


async def test_drain_waits_for_the_work_under_way_and_its_second_round(looptime) -> None:
    queue = WorkQueue[str]()
    rounds = []

    async def work() -> None:
        while True:
            try:
                item = await queue.get()
            except QueueShutDown:
                return
            rounds.append(item)
            await asyncio.sleep(10)
            queue.done(item)

    queue.add("a")
    queue.add("b")
    worker = asyncio.create_task(work())
    await asyncio.sleep(1)
    queue.add("a")
    await queue.shut_down_with_drain()
    assert rounds == ["a", "b", "a"]
    assert looptime == 30
    await worker


async def test_draining_an_idle_queue_returns_at_once(looptime) -> None:
    queue = WorkQueue[str]()
    await queue.shut_down_with_drain()
    await queue.shut_down_with_drain()
    assert looptime == 0


async def test_metrics_have_client_go_meaning() -> None:
    recorder = Recorder()
    queue = WorkQueue[str](metrics=recorder)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(2)
    await queue.get()
    await asyncio.sleep(3)
    await queue.get()
    await asyncio.sleep(1)
    assert queue.unfinished_work_seconds() == pytest.approx(4 + 1)
    assert queue.longest_running_processor_seconds() == pytest.approx(4)
    queue.done("a")
    queue.add_after("a", 5)
    assert recorder.depths == [1, 2, 1, 0]
    assert (recorder.adds, recorder.retries) == (2, 1)
    assert recorder.waits == pytest.approx([2, 5])
    assert recorder.work == pytest.approx([4])
    queue.done("b")
    assert queue.longest_running_processor_seconds() == 0


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "after", "limited", "pause", "cancel"]), st.sampled_from("abcd"), st.integers(0, 20)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS, st.integers(1, 4))
def test_never_processed_twice_at_once_and_nothing_lost(operations: list[tuple[str, str, int]], workers: int) -> None:
    """Whatever is added is processed after it was added, and never by two workers at the same time."""
    import looptime  # noqa: PLC0415 - its loop is needed here only, the plugin's does not reach into hypothesis

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(_simulate(operations, workers))


async def _simulate(operations: list[tuple[str, str, int]], count: int) -> None:
    queue = WorkQueue[str]()
    active: set[str] = set()
    # Items added since they were last handed out.
    owed: set[str] = set()

    async def work() -> None:
        while True:
            item = await queue.get()
            assert item not in active
            active.add(item)
            owed.discard(item)
            try:
                await asyncio.sleep(3)
            finally:
                active.discard(item)
                queue.done(item)

    workers = [asyncio.create_task(work()) for _ in range(count)]
    for name, item, number in operations:
        match name:
            case "pause":
                await asyncio.sleep(number / 4)
            case "cancel":
                workers[0].cancel()
                workers = [*workers[1:], asyncio.create_task(work())]
            case _:
                owed.add(item)
                {"add": queue.add, "limited": queue.add_rate_limited}.get(
                    name, lambda item, seconds=number: queue.add_after(item, seconds)
                )(item)
    await asyncio.sleep(1000)
    assert not owed
    assert not active
    assert len(queue) == 0
    assert [worker.done() for worker in workers] == [False] * count
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
