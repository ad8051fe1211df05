"""A refused pod is evicted within a second after its budget allows it: kubectl drain looks again every five seconds."""

import asyncio
from collections.abc import Callable

import pytest

from tests.checker.events import Event
from tests.sim.apiserver import Answer, Call
from tests.sim.harness import Run, simulate_with
from tests.sim.objects import Obj
from tests.sim.workloads import NAMESPACE, Workload, budget
from tests.sim.world import Plan, World

SECOND = 1.0
CREATED = 201
DRAIN: Obj = {"enable": True, "timeoutSeconds": 0}
SHUT, OPEN = {"maxUnavailable": 0}, {"maxUnavailable": 2}


def seconds_until_evicted(budgets: list[Obj], relent: Callable[[World], None]) -> float:
    """From when a budget's status allows one, or a budget is gone, after long refusals, until the first eviction."""
    plan = Plan(nodes=2, policy={"autoUpgrade": True, "drain": DRAIN}, workloads=[Workload("w0", 2)], budgets=budgets)
    allowed: list[float] = []
    evicted: list[float] = []

    async def play(run: Run) -> None:
        world = run.world
        world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        handle = world.server.handle

        def watching(call: Call) -> Answer:
            answer = handle(call)
            if call.route is not None and call.route.sub == "eviction" and answer.code == CREATED:
                evicted.append(run.loop.time())
            return answer

        def note(entry: Event) -> None:
            if entry.kind == "poddisruptionbudgets" and (entry.new is None or entry.new["status"].get("disruptionsAllowed")):
                allowed.append(entry.at)

        setattr(world.server, "handle", watching)  # noqa: B010 - a method is replaced
        world.server.audits.append(note)
        world.roll()
        await asyncio.sleep(97.3)
        assert not evicted
        assert not allowed
        relent(world)
        await asyncio.sleep(60)

    simulate_with(plan, play)
    return evicted[0] - allowed[0]


def opened(world: World) -> None:
    world.server.edit("admin", "poddisruptionbudgets", f"{NAMESPACE}/b0", ("spec",), budget("b0", "w0", **OPEN)["spec"])


def one_less(world: World) -> None:
    world.server.delete("admin", "poddisruptionbudgets", f"{NAMESPACE}/b1")


@pytest.mark.parametrize(
    ("budgets", "relent"),
    [
        ([budget("b0", "w0", **SHUT)], opened),
        ([budget("b0", "w0", **OPEN), budget("b1", "w0", **OPEN)], one_less),
    ],
    ids=["a budget opens", "one of two budgets goes"],
)
def test_a_pod_goes_within_a_second_after_its_budget_lets_it(budgets: list[Obj], relent: Callable[[World], None]):
    assert seconds_until_evicted(budgets, relent) <= SECOND
