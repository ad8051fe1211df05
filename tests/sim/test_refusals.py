"""Writes that the API server refuses: told as the reason, tried again in due time, and nobody else's delay."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import orjson
import pytest

from tests.sim.apiserver import Answer, Call, RefusedError
from tests.sim.harness import Run, simulate_with
from tests.sim.mutants import swapped
from tests.sim.objects import Obj, labels
from tests.sim.world import POLICY, STATE, Also, Plan, World

BAD = "n00"
OFED_STATE = "nvidia.com/ofed-driver-upgrade-state"
SECONDS = 300.0
FREEZE = 'admission webhook "freeze" denied the request: no changes in this week'
BROKEN = 'Internal error occurred: failed calling webhook "freeze": connection refused'
TRIES = 20
"""More than the back-off lets through in these seconds: 0.1 s, doubled each time, at most a minute."""


def refuse(world: World, error: RefusedError, concerned: Callable[[Call], bool]) -> list[float]:
    """Answer some writes of the controller with an error; returns when they came."""
    handle, came = world.server.handle, list[float]()

    def refusing(call: Call) -> Answer:
        if call.actor.startswith("controller") and call.method != "GET" and concerned(call):
            came.append(world.loop.time())
            return error.answer(world.server)
        return handle(call)

    setattr(world.server, "handle", refusing)  # noqa: B010 - a method is replaced
    return came


def grant_of_bad(call: Call) -> bool:
    return call.route is not None and (call.route.kind, call.route.name) == ("nodes", BAD) and _cordons(call)


def any_grant(call: Call) -> bool:
    return call.route is not None and call.route.kind == "nodes" and _cordons(call)


def mark_of_bad(call: Call) -> bool:
    return call.route is not None and (call.route.kind, call.route.name) == ("nodes", BAD)


def deletion(call: Call) -> bool:
    return call.route is not None and call.route.kind == "pods" and call.method == "DELETE"


def _cordons(call: Call) -> bool:
    return b"cordon-required" in (call.body if isinstance(call.body, bytes) else orjson.dumps(call.body))


def played(error: RefusedError, concerned: Callable[[Call], bool]) -> tuple[dict[str, str], Obj, list[float]]:
    """States of the nodes and the policy's status after five minutes of refusals, and when the refusals were sent."""
    plan = Plan(nodes=4, policy={"autoUpgrade": True, "maxParallelUpgrades": 1}, may_fail=True)
    found: dict[str, str] = {}
    status: Obj = {}
    refused: list[float] = []

    async def play(run: Run) -> None:
        run.world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        came = refuse(run.world, error, concerned)
        run.world.roll()
        await asyncio.sleep(SECONDS)
        refused.extend(came)
        status.update((run.world.server.get("driverupgradepolicies", POLICY) or {})["status"])
        found.update({n["metadata"]["name"]: labels(n)[STATE] for n in run.world.server.store.objects("nodes")})

    simulate_with(plan, play)
    return found, status, refused


def test_a_mark_that_is_refused_is_sent_again_ever_later():
    """A mark waits for its turn before each try: that its node was looked at meanwhile is no success."""
    states, _, refused = played(RefusedError(403, "Forbidden", FREEZE), mark_of_bad)
    assert 3 < len(refused) <= TRIES, [round(at - refused[0], 1) for at in refused]
    assert {state for name, state in states.items() if name != BAD} == {"upgrade-done"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RefusedError(403, "Forbidden", FREEZE), "Forbidden"),
        (RefusedError(422, "Invalid", FREEZE), "Forbidden"),
        (RefusedError(500, "InternalError", BROKEN), "ApiUnavailable"),
    ],
    ids=["forbidden", "invalid", "webhook down"],
)
def test_a_node_that_may_not_be_written_delays_no_other(error: RefusedError, reason: str):
    states, status, refused = played(error, grant_of_bad)
    assert states == {BAD: "upgrade-required", "n01": "upgrade-done", "n02": "upgrade-done", "n03": "upgrade-done"}
    assert status["blocked"] == [{"reason": reason, "nodes": 1, "example": BAD}]
    assert 2 <= len(refused) <= TRIES


def test_a_defect_met_in_one_nodes_grant_stops_no_other():
    defect = ("upgrade.idle:grant", "view = turn.view", f"view = turn.view\n    assert view.node.name != {BAD!r}")
    with swapped([defect]):
        states, _, _ = played(RefusedError(403, "Forbidden", FREEZE), lambda _: False)
    assert states == {BAD: "upgrade-required", "n01": "upgrade-done", "n02": "upgrade-done", "n03": "upgrade-done"}


def test_a_server_that_asks_for_less_is_left_alone():
    states, status, refused = played(RefusedError(429, "TooManyRequests", "slow down", retry_after=20), any_grant)
    assert set(states.values()) == {"upgrade-required"}
    assert "ApiThrottled" in {found["reason"] for found in status["blocked"]}
    assert 2 <= len(refused) <= TRIES
    assert min(b - a for a, b in pairwise(refused)) >= 20


def test_a_deletion_that_is_refused_is_the_reason():
    states, status, _ = played(RefusedError(403, "Forbidden", "pods is forbidden"), deletion)
    (active,) = status["active"]
    assert states[active["node"]] == "pod-restart-required"
    assert active["reason"] == "Forbidden"
    assert "pods is forbidden" in active["message"]


def test_one_drivers_refusal_leaves_the_other_driver_of_the_node_alone():
    """Its policy is deleted meanwhile: its marks must go from a node whose first driver fails at every look."""
    upgrade = {"autoUpgrade": True, "maxParallelUpgrades": 1, "podRestart": {"timeoutSeconds": 0}}
    other = Also("ofed", "ofed", upgrade=upgrade)
    plan = Plan(nodes=1, policy=upgrade, also=[other], order=("gpu", "ofed"), may_fail=True)
    marks: list[str | None] = []

    async def play(run: Run) -> None:
        run.world.build()
        run.world.label_node(BAD, other.driver, "true")
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        marks.append(labels(run.world.server.get("nodes", BAD) or {}).get(OFED_STATE))
        assert refuse(run.world, RefusedError(403, "Forbidden", "pods is forbidden"), deletion) == []
        run.world.set_version("v2")
        await asyncio.sleep(60)
        run.world.server.delete("admin", "driverupgradepolicies", f"drivers/{other.policy}")
        await asyncio.sleep(60)
        marks.append(labels(run.world.server.get("nodes", BAD) or {}).get(OFED_STATE))

    simulate_with(plan, play)
    assert marks == ["upgrade-done", None]
