"""The whole controller, as others see it: every step is told by an Event, and the status is written on change only."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from controller.upgrade.reasons import Reason
from controller.upgrade.remedies import REMEDIES
from tests.checker import Event
from tests.sim.apiserver import Answer, Call, RefusedError
from tests.sim.harness import Run, simulate, simulate_with
from tests.sim.objects import Obj, labels
from tests.sim.scenes import SCENES, scene
from tests.sim.world import POLICY, STATE, Plan, World
from tests.unit.upgrade.test_narration import STEPS

RATE, BURST = 10, 25


def watched(plan: Plan, *more: Callable[[World], None]) -> tuple[list[Event], list[str]]:
    """Carries a plan out; returns all writes since the rollout began, and what was wrong."""
    seen: list[Event] = []
    script = [(0.0, lambda world: world.server.audits.append(seen.append)), *((0.0, act) for act in more), *plan.script]
    outcome = simulate(replace(plan, script=script))
    return seen, outcome.violations


def state(obj: Obj | None) -> str:
    return str(labels(obj).get(STATE, "")) if obj else ""


def told(seen: list[Event]) -> set[tuple[str, str]]:
    created = [e.new for e in seen if e.kind == "events" and e.verb == "POST" and e.new is not None]
    return {(str(e["regarding"]["name"]), str(e["reason"])) for e in created}


@pytest.mark.parametrize(
    "name", ["drain two at a time", "jobs that take too long", "budget that allows nothing", "pod deletion"]
)
def test_every_step_of_every_node_is_told(name):
    seen, violations = watched(scene(name))
    assert not violations
    moves = {
        (e.key, STEPS[state(e.new)])  # type: ignore[index]
        for e in seen
        if e.kind == "nodes" and e.ours and e.code < 400 and e.old is not None and state(e.old) != state(e.new)
    }
    moves = {(node, str(reason)) for node, reason in moves}
    assert len(moves) >= 5
    assert moves <= told(seen)


def test_a_rollout_without_trouble_tells_its_steps_and_nothing_else():
    """Pods take their seconds to end and to come: whoever is warned of that soon reads no warning any more."""
    seen, _ = watched(scene("drain two at a time"))
    kinds = {(e.new["reason"], e.new["type"]) for e in seen if e.kind == "events" and e.new is not None}
    assert {reason for reason, _ in kinds} <= {*map(str, STEPS.values()), "RolloutStarted", "RolloutFinished"}
    assert {kind for _, kind in kinds} == {"Normal"}


def test_what_holds_a_node_up_is_told_and_how_the_rollout_went():
    seen, _ = watched(scene("budget that allows nothing"))
    reasons = {reason for _, reason in told(seen)}
    assert reasons >= {"PodDisruptionBudget", "UpgradeFailed", "RolloutStarted", "RolloutHalted", "NodesFailed"}


def test_a_rollout_that_max_unavailable_stops_is_told_once_of_its_policy_with_the_remedy():
    """It was told nowhere: a status, where there is one, said that nodes are being upgraded, and no Event said anything."""
    policy: Any = {"autoUpgrade": True, "maxParallelUpgrades": 2, "maxUnavailable": 0}
    seen, violations = watched(Plan(nodes=3, policy=policy))
    assert not violations
    (event,) = [e.new for e in seen if e.kind == "events" and e.new is not None and e.new["reason"] == "RolloutBlocked"]
    assert (event["regarding"]["name"], event["type"]) == ("gpu", "Warning")
    assert "3 MaxUnavailable: 0 of 3 nodes are unavailable, maxUnavailable is 0." in event["note"]
    assert REMEDIES[Reason.MAX_UNAVAILABLE] in event["note"]
    assert not any(reason == "MaxUnavailable" for _, reason in told(seen)), "not of each node as well"


@pytest.mark.parametrize("name", sorted(SCENES)[::4])
def test_the_status_is_written_on_change_only_and_at_most_once_a_second(name):
    seen, _ = watched(scene(name))
    writes = [e for e in seen if e.kind == "driverupgradepolicies" and e.sub == "status" and e.code < 400]
    assert writes
    assert all(e.old is not e.new for e in writes)
    by_actor: dict[str, list[float]] = {}
    for e in writes:
        by_actor.setdefault(e.actor, []).append(e.sent)
    for sent in by_actor.values():
        assert all(b - a >= 0.999 for a, b in pairwise(sent))


def refuse_events(world: World) -> None:
    handle = world.server.handle

    def refusing(call: Call) -> Answer:
        if call.route and call.route.kind == "events":
            return RefusedError(403, "Forbidden", "events are not for you").answer(world.server)
        return handle(call)

    world.server.handle = refusing  # type: ignore[method-assign]


def test_a_controller_that_may_not_tell_works_all_the_same():
    seen, violations = watched(scene("drain two at a time"), refuse_events)
    assert not violations
    assert not told(seen)


def test_a_fleet_that_moves_at_once_does_not_flood_the_server():
    policy: Any = {"autoUpgrade": True, "maxParallelUpgrades": 0}
    seen, violations = watched(Plan(nodes=150, policy=policy))
    assert not violations
    sent = [e.sent for e in seen if e.kind == "events"]
    assert len(sent) > BURST
    for number, at in enumerate(sent):
        within = sum(1 for other in sent[number:] if other < at + 5)
        assert within <= BURST + RATE * 5 + 1


def test_a_policy_that_is_made_anew_is_told_how_it_stands():
    """What its predecessor of the same name was told last was taken for its own: its status stayed empty, or too old."""
    found: list[Obj] = []

    async def play(run: Run) -> None:
        run.world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        run.world.server.delete("admin", "driverupgradepolicies", POLICY)
        run.world.create_policy(run.world.plan.policy)
        await run.come_to_rest()
        policy = run.world.server.get("driverupgradepolicies", POLICY)
        assert policy is not None
        found.append(policy)

    outcome = simulate_with(scene("restart"), play)
    assert not outcome.violations, outcome.violations
    status, made = found[0].get("status") or {}, found[0]["metadata"]["creationTimestamp"]
    assert status.get("nodes", {}).get("upToDate") == 3, status
    assert all(condition["lastTransitionTime"] >= made for condition in status["conditions"]), status
