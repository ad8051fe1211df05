"""Weeks of virtual time: nothing grows with what is behind it; and at rest next to nothing is asked for."""

import asyncio
from dataclasses import replace

import pytest

from tests.sim import loop
from tests.sim.endurance import EDGE, WEEKS, at_rest, complaints, growth, more_memory
from tests.sim.life import Week

DAY = 86_400.0


def test_nothing_grows():
    assert complaints(WEEKS, DAY, EDGE) == []


@pytest.mark.parametrize(("replicas", "bookmarks"), [(1, True), (2, True), (1, False)])
def test_at_rest_nothing_is_listed_and_little_is_asked(replicas: int, *, bookmarks: bool):
    """The Lease is renewed by the real elector, and read by the one that stands by; kubelets report that nothing is new.

    Without bookmarks every silence is a false alarm: it costs a watch, and never a list.
    """
    assert at_rest(replicas, bookmarks=bookmarks) == []


def _weeks(count: int, **grows: int) -> list[Week]:
    """Weeks of which each holds so much more than the one before."""
    first = Week(1, 9, 0.5, {}, tasks=20, held={"Store._objects": 30}, weight=100_000)
    things = grows.get("things", 0)
    return [
        replace(
            first,
            number=n + 1,
            tasks=first.tasks + n * grows.get("tasks", 0),
            held={"Store._objects": 30 + n * things},
            weight=first.weight + n * grows.get("weight", 0),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("grows", ["things", "tasks", "weight"])
def test_growth_is_told(grows: str):
    """One more each week is enough, or half a percent of the memory."""
    flat, growing = _weeks(40), _weeks(40, **{grows: 500 if grows == "weight" else 1})
    assert not [*growth(flat), *more_memory(flat)]
    assert [*growth(growing), *more_memory(growing)]


def test_virtual_time_goes_on_after_half_a_year():
    """From 2**24 seconds on a nanosecond vanished beside the time, and no timer was ever due: the loop ran in circles."""

    async def later() -> float:
        await asyncio.sleep(2.0**30)
        for _ in range(100):
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    assert loop.run(later()) == pytest.approx(2.0**30 + 10)
