"""Clocks that are set: deadlines are as long as they were meant to be, and nobody waits for an hour that was made up.

The server's clock is set in the middle of an upgrade, forward, back, or one after the other. As long as one process is
there to see it, nothing changes; what a new process makes of it is the limit that docs/states.md tells. Our own host's
clocks do nothing at all.
"""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from tests.sim.harness import Run, simulate_with
from tests.sim.leaderworld import Election, elect
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.network import FINE, Verdict, error_answer
from tests.sim.objects import Obj, labels
from tests.sim.workloads import Workload, budget
from tests.sim.world import STATE, Plan

HOUR = 3600.0
TIMEOUT = 200
LATE = 15.0
"""Seconds that it takes to come to the state with the deadline, and to say that it is over."""
STEPS = {"back": (-HOUR,), "forward": (HOUR,), "back and forward": (-HOUR, HOUR), "forward twice": (HOUR, HOUR)}


def blocked(**policy: object) -> Plan:
    """One node whose drain waits for a budget that allows nothing."""
    drain = {"enable": True, "timeoutSeconds": TIMEOUT}
    upgrade: Obj = {"autoUpgrade": True, "drain": drain, "podRestart": {"timeoutSeconds": 60}, **policy}
    guard = budget("b0", "w0", maxUnavailable=0)
    return Plan(nodes=1, policy=upgrade, workloads=[Workload("w0", 2)], budgets=[guard], may_fail=True)


def lasted(plan: Plan, state: str, set_clock: Callable[[Run], object] = lambda _: None) -> float:
    """Roll, set clocks after a minute, and again after two; return the true seconds until the node is in a state."""
    found: list[float] = []

    async def play(run: Run) -> None:
        run.world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        began = run.loop.time()
        run.world.roll()
        run.faults.begin()
        for after, act in plan.script:
            run.loop.call_later(after, act, run.world)
        run.loop.call_later(60, set_clock, run)
        await asyncio.sleep(30)
        there = asyncio.Event()
        run.world.server.audits.append(lambda _: there.set() if run.world.states()["n00"] == state else None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3 * HOUR):
                await there.wait()
        found.append(run.loop.time() - began)

    outcome = simulate_with(plan, play)
    assert not outcome.violations, outcome.violations
    return found[0]


def _setting(steps: tuple[float, ...]) -> Callable[[Run], None]:
    def set_clock(run: Run) -> None:
        for number, seconds in enumerate(steps):
            run.loop.call_later(30.0 * number, run.world.clock.step, seconds)

    return set_clock


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_drain_has_its_time_whatever_the_servers_clock_says(steps):
    assert TIMEOUT <= lasted(blocked(), "upgrade-failed", _setting(steps)) <= TIMEOUT + LATE


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_jobs_have_their_time_whatever_the_servers_clock_says(steps):
    plan = blocked(waitForCompletion={"podSelector": "app=w0", "timeoutSeconds": TIMEOUT})
    assert TIMEOUT <= lasted(plan, "drain-required", _setting(steps)) <= TIMEOUT + LATE


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_node_that_no_daemonset_wants_is_put_back_in_time(steps):
    def unwanted(run: Run) -> None:
        run.world.label_node("n00", "gpu", None)
        _setting(steps)(run)

    assert 60 + 120 <= lasted(blocked(), "", unwanted) <= 60 + 120 + LATE


ON_ITS_WAY = {"arrives late": Verdict(delay=10.0), "has no answer": Verdict(unanswered=True)}


def on_its_way(fate: Verdict, steps: tuple[float, ...]) -> Plan:
    """The record with which the drain begins is sent before, and seen after, others' answers tell that the clock was set."""
    plan = blocked()
    plan.verdicts, plan.lags = {("PATCH", "nodes"): [FINE, FINE, fate]}, {"nodes": 20.0}
    told = [(6.0 + n, lambda w, n=n: w.edit_policy(maxParallelUpgrades=n)) for n in (2, 3, 4)]
    plan.script = [*((5.0 + 30.0 * n, lambda w, s=s: w.clock.step(s)) for n, s in enumerate(steps)), *told]
    return plan


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("fate", ON_ITS_WAY.values(), ids=ON_ITS_WAY)
def test_a_record_on_its_way_is_as_old_as_those_that_stand(fate, steps):
    """It was not in the cache when the step was learnt, and counted as written after it: jobs were not waited for."""
    assert TIMEOUT <= lasted(on_its_way(fate, steps), "upgrade-failed") <= TIMEOUT + LATE


def refused() -> Plan:
    """Both pods' evictions fail until after the clock was set; each is to be tried again when its back-off is over."""
    no = Verdict(answer=error_answer(503, "ServiceUnavailable", "no"))
    plan = blocked()
    plan.budgets, plan.verdicts = [], {("EVICT", "pods"): [no] * 14}
    return plan


def test_evictions_are_tried_again_when_the_clock_was_set_back():
    calm = lasted(refused(), "upgrade-done")
    assert 90 < calm < TIMEOUT
    assert lasted(refused(), "upgrade-done", _setting((-HOUR,))) <= calm + 45.0


MUTANTS: dict[str, tuple[Plan, str, Edit]] = {
    "records are not moved with the clock": (
        blocked(),
        "upgrade-failed",
        ("operate.clocksteps:ClockSteps._stepped", "self._moved = moved", "pass"),
    ),
    "records on their way are not moved with the clock": (
        on_its_way(ON_ITS_WAY["arrives late"], (-HOUR,)),
        "upgrade-failed",
        ("operate.clocksteps:ClockSteps._standing", "self._sent.get(node.name, ())", "()"),
    ),
    "evictions are not moved with the clock": (
        refused(),
        "upgrade-done",
        ("operate.evictees:Evictees.clock_set", "self._by_uid.values()", "()"),
    ),
    "steps are not told": (
        blocked(),
        "upgrade-failed",
        ("kube.clock:ServerClock._learn", "if taught and", "if False and"),
    ),
}


@pytest.mark.parametrize(("plan", "state", "edit"), MUTANTS.values(), ids=MUTANTS)
def test_mutants_are_seen(plan: Plan, state: str, edit: Edit):
    with swapped([edit]):
        assert lasted(plan, state, _setting((-HOUR,))) > 2 * TIMEOUT


@pytest.mark.parametrize(("seconds", "longest"), [(-HOUR, HOUR + TIMEOUT), (HOUR, 120.0)])
def test_a_process_that_was_not_there_goes_by_the_record(seconds, longest):
    """The limit: who starts after the clock was set takes the record by its word, and is wrong by as much."""

    def set_clock(run: Run) -> None:
        run.world.clock.step(seconds)
        run.crashed()

    took = lasted(blocked(), "upgrade-failed", set_clock)
    assert longest - 60 <= took <= longest + LATE


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_our_own_wall_clock_does_nothing(skew):
    def set_clock(run: Run) -> None:
        run.world.wall_skew = skew

    assert TIMEOUT <= lasted(blocked(), "upgrade-failed", set_clock) <= TIMEOUT + LATE


@pytest.mark.parametrize("rate", [1.2, 1.0, 1 / 1.2])
def test_our_own_clock_may_run_at_a_wrong_speed(rate):
    """The server's answers tell what time it is, all the time.

    It is put right by a second or two at a time, and by as much an eviction may be tried again too early (S15).
    """
    cluster = elect(Election(blocked(), replicas=1, rates={1: rate}))
    assert not [v for v in cluster.checker.violations if " S15 " not in v], cluster.checker.violations
    entered = {labels(e.new).get(STATE): e.at for e in cluster.ours if e.kind == "nodes" and e.new is not None}
    assert TIMEOUT - 3 <= entered["upgrade-failed"] - entered["drain-required"] <= TIMEOUT + 3
