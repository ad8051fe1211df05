"""The status as it stands in the end, whatever became of writes and watches on the way, and how often it is written."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.checker import Event
from tests.sim.harness import Run, simulate_with
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.network import Verdict, error_answer
from tests.sim.objects import Obj
from tests.sim.scenes import scene
from tests.sim.world import DRIVERS, POLICY, Plan

KIND = "driverupgradepolicies"
ROLLING = {"active", "waitingFor", "startedAt", "estimatedCompletion", "blocked"}
"""What a status must not hold while nothing is under way."""


def status_of(run: Run, key: str = POLICY) -> Obj:
    policy = run.world.server.get(KIND, key)
    assert policy is not None
    return policy.get("status") or {}


def playing(plan: Plan, act: Callable[[Run], Awaitable[None]]) -> list[str]:
    """Bring a world to rest, then act; returns what was wrong."""

    async def play(run: Run) -> None:
        run.world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        await act(run)

    return simulate_with(plan, play).violations


def expect_at_rest(status: Obj) -> None:
    assert status["state"] == "Idle", status
    assert not {key for key, value in status.items() if key in ROLLING and value}, status
    assert status["states"] == {"upgrade-done": status["nodes"]["total"]}, status


@pytest.mark.parametrize("lag", [0.0, 30.0])
def test_nothing_of_a_rollout_stays_in_the_status_however_late_the_watch_of_policies_is(lag: float):
    """What to clear was taken from a cache that did not know what was written last: it stayed for good."""
    found: list[Obj] = []

    async def act(run: Run) -> None:
        run.world.roll()
        await run.come_to_rest()
        await asyncio.sleep(60)
        found.append(status_of(run))

    assert not playing(replace(scene("drain two at a time"), lags={KIND: lag}), act)
    expect_at_rest(found[0])


LOST = {
    "no answer": Verdict(unanswered=True),
    "an answer that cannot be read": Verdict(garble="truncated"),
    "a gateway's time-out": Verdict(answer=error_answer(504, "Timeout", "injected", 0), applied=True),
}


@pytest.mark.parametrize("lag", [0.0, 60.0])
@pytest.mark.parametrize("verdict", LOST.values(), ids=LOST)
def test_a_write_that_was_carried_out_and_not_answered_does_not_stay(verdict: Verdict, lag: float):
    """The next status was what had been told before it: it was not written, and what nobody had heard of stayed."""
    found: list[Obj] = []

    async def act(run: Run) -> None:
        run.world.network.lags[KIND] = lag
        run.faults._given = {("PATCH", KIND): [verdict]}
        run.faults.active = True
        found.append(status_of(run))
        run.world.set_ready("n00", ready=False)
        await asyncio.sleep(0.5)
        found.append(status_of(run))
        run.world.set_ready("n00", ready=True)
        await asyncio.sleep(40)
        found.append(status_of(run))

    assert not playing(scene("restart"), act)
    assert [status["nodes"]["unavailable"] for status in found] == [0, 1, 0]
    assert found[0] == found[2]


def test_what_somebody_else_writes_into_the_status_does_not_stay():
    found: list[Obj] = []

    async def act(run: Run) -> None:
        found.append(status_of(run))
        run.world.server.edit("admin", KIND, POLICY, ("status", "state"), "Mine")
        run.world.server.edit("admin", KIND, POLICY, ("status", "mine"), {"a": 1})
        await asyncio.sleep(5)
        found.append(status_of(run))

    assert not playing(scene("restart"), act)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("namespace", "driver", "said"),
    [("elsewhere", "gpu", "NamespaceNotAllowed"), (DRIVERS, "Not_Legal", "PolicyInvalid")],
)
def test_a_policy_that_counts_for_nothing_is_told_so_on_a_quiet_cluster(namespace: str, driver: str, said: str):
    """Nothing of such a policy reached the writer, which slept until something else changed."""
    found: list[Obj] = []

    async def act(run: Run) -> None:
        await asyncio.sleep(600)
        told = run.world.server.get(KIND, POLICY) or {}
        spec = {"driver": {**told["spec"]["driver"], "name": driver}}
        meta = {"name": "late", "namespace": namespace}
        made = {"kind": "DriverUpgradePolicy", "apiVersion": "nvidia.com/v1", "metadata": meta, "spec": spec}
        run.world.server.apply("admin", KIND, made)
        await asyncio.sleep(3)
        found.append(status_of(run, f"{namespace}/late"))

    assert not playing(scene("restart"), act)
    valid = next(c for c in found[0]["conditions"] if c["type"] == "Valid")
    assert (found[0]["state"], valid["status"], valid["reason"]) == (said, "False", said)


CHANGES = 100


def of_many_changes() -> tuple[list[Event], Obj, list[str]]:
    """Change a policy a hundred times within a second; returns the writes of its status, its end, and what was wrong."""
    writes: list[Event] = []
    found: list[Obj] = []

    def note(entry: Event) -> None:
        if entry.kind == KIND and entry.sub == "status":
            writes.append(entry)

    async def act(run: Run) -> None:
        run.world.server.audits.append(note)
        for number in range(CHANGES):
            run.world.edit_policy(failureThreshold=1 + number)
            await asyncio.sleep(0.99 / CHANGES)
        await asyncio.sleep(0.01)
        within = len(writes)
        await asyncio.sleep(5)
        policy = run.world.server.get(KIND, POLICY) or {}
        found.append({**policy["metadata"], "told": status_of(run)["observedGeneration"], "within": within})

    violations = playing(scene("restart"), act)
    return writes, found[0], violations


def test_a_hundred_changes_within_a_second_are_two_writes_and_the_last_is_told():
    writes, end, violations = of_many_changes()
    assert not violations
    assert end["within"] <= 2
    assert len(writes) <= 3
    assert end["told"] == end["generation"] > CHANGES


HASTY: Edit = ("operate.status:StatusWriter.run", "asyncio.sleep(INTERVAL)", "asyncio.sleep(0)")


def test_a_writer_without_an_interval_is_noticed():
    with swapped([HASTY]):
        _, end, _ = of_many_changes()
    assert end["within"] > 2
