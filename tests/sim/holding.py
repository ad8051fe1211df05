"""A rollout that is held up in one state, on purpose and for as long as wanted, whatever anybody does meanwhile.

Most states are held by what holds them in a real cluster: a pause of each node, jobs that never end, budgets that allow
nothing, drivers and validators that never get ready. Those that a rollout only passes are held by the API server, which
answers every PATCH that would leave them with a 503.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.sim.apiserver import Call
from tests.sim.harness import Outcome, Run, simulate_with
from tests.sim.objects import Obj, controller_of, key_of, labels
from tests.sim.workloads import Workload, budget
from tests.sim.world import SKIP, STATE, Plan, World

TIMEOUT = 600
LONG = (1e6, 1e6)
SHORT = 10
SETTLED = 40.0
"""Seconds after which a rollout has got to where it is held up."""
MEANWHILE = 60.0
"""Seconds within which people put right again what they have done."""
POLICY: Obj = {
    "autoUpgrade": True,
    "maxParallelUpgrades": 2,
    "failureThreshold": 10,
    "waitForCompletion": {"podSelector": "job=true", "timeoutSeconds": TIMEOUT},
    "podDeletion": {"podSelector": "app=w1", "timeoutSeconds": TIMEOUT},
    "drain": {"enable": True, "timeoutSeconds": TIMEOUT, "deleteEmptyDir": True},
    "podRestart": {"timeoutSeconds": TIMEOUT, "maxRestarts": 10},
    "validation": {"podSelector": "app=validator", "timeoutSeconds": TIMEOUT},
}


class Hold(NamedTuple):
    """How one state is held: what is in the plan, what is done before the rollout, and whether it begins at all."""

    policy: Obj = POLICY
    guarded: str = ""
    """The workload that a budget lets nobody evict."""
    jobs: bool = False
    obstacle: Callable[[World], None] = lambda _: None
    refused: bool = False
    """Whether the API server refuses what would leave the state."""
    rolls: bool = True
    """Whether a new version is what brings nodes there."""


def _skip_all(world: World) -> None:
    for node in world.server.store.objects("nodes"):
        world.label_node(node["metadata"]["name"], SKIP, "true")


HOLDS: dict[str, Hold] = {
    "": Hold(refused=True, rolls=False),
    "upgrade-done": Hold(rolls=False),
    "upgrade-required": Hold(obstacle=_skip_all),
    "cordon-required": Hold(refused=True),
    "wait-for-jobs-required": Hold(jobs=True),
    "pod-deletion-required": Hold(guarded="w1"),
    "drain-required": Hold(guarded="w0"),
    "pod-restart-required": Hold(obstacle=lambda w: w.kubelets.behaviour.broken.add(("driver:v2", "*"))),
    "validation-required": Hold(obstacle=lambda w: w.kubelets.behaviour.broken.add(("validator:v1", "*"))),
    "uncordon-required": Hold(refused=True),
    "upgrade-failed": Hold(
        policy={**POLICY, "podRestart": {"timeoutSeconds": SHORT, "maxRestarts": 10}},
        obstacle=lambda w: w.kubelets.behaviour.broken.add(("driver:v2", "*")),
    ),
}
"""By state label; unknown is the absent one."""


def held_in(state: str) -> Plan:
    """A plan whose rollout is held up in a state."""
    hold = HOLDS[state]
    workloads = [Workload("w0", 4), Workload("w1", 4)]
    if hold.jobs:
        workloads.append(Workload("jobs", 6, job=True))
    budgets = [budget("b0", hold.guarded, maxUnavailable=0)] if hold.guarded else []
    plan = Plan(nodes=3, policy=hold.policy, workloads=workloads, budgets=budgets, validators=True, may_fail=True)
    plan.fault_seconds = MEANWHILE
    return plan


def leaves(world: World, state: str) -> Callable[[Call], bool]:
    """Whether a request would bring a node out of a state."""

    def would(call: Call) -> bool:
        if call.verb != "PATCH" or call.route is None or call.route.kind != "nodes":
            return False
        new = (call.body["metadata"].get("labels") or {}).get(STATE, state)
        return bool(world.states().get(call.route.name) == state != new)

    return would


def free(run: Run) -> None:
    """Take every obstacle away."""
    world = run.world
    run.faults.refuses = None
    world.kubelets.behaviour.broken.clear()
    for key in list(world.server.store.tables["poddisruptionbudgets"]):
        world.server.delete("admin", "poddisruptionbudgets", key)
    for node in world.server.store.objects("nodes"):
        world.label_node(node["metadata"]["name"], SKIP, None)
    for pod in world.server.store.objects("pods"):
        if (owner := controller_of(pod)) is not None and owner["kind"] == "Job":
            world.server.delete("admin", "pods", key_of(pod))


def hold(state: str, meanwhile: Callable[[Run], Awaitable[None]]) -> tuple[Outcome, set[str]]:
    """Hold a rollout in a state, let something happen meanwhile, and see it end; return what came of it.

    Returns:
        The outcome, and the states of all nodes at the end.
    """
    at_the_end: set[str] = set()

    async def play(run: Run) -> None:
        world, how = run.world, HOLDS[state]
        world.build()
        world.kubelets.behaviour.job_seconds = LONG
        await asyncio.sleep(5)
        if how.refused:
            run.faults.refuses = leaves(world, state)
        run.start()
        if state:
            await run.come_to_rest()
        how.obstacle(world)
        if how.rolls:
            world.roll()
        await asyncio.sleep(SETTLED)
        assert state in world.states().values(), f"held in {world.states()}, not in {state or 'unknown'}"
        await meanwhile(run)
        free(run)
        run.checker.disturb(run.loop.time())
        if not how.rolls:
            world.roll()
        await run.come_to_rest()
        run.checker.rest(run.loop.time())
        at_the_end.update(labels(n).get(STATE, "") for n in world.server.store.objects("nodes"))

    return simulate_with(held_in(state), play), at_the_end
