"""Two drivers hold one cordon, and a person asks for it to be kept (key 5): whoever ends first, it stays.

Key 5 has a driver in its name: it is about that driver's end (design, section 3). Where another driver still claims the
cordon when that end comes, the request goes on to it. A driver that claims nothing has no cordon to keep.
"""

import asyncio
from collections.abc import Callable

import pytest

from tests.checker import Event
from tests.sim.harness import Run, simulate_with
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.objects import Obj, annotations, labels
from tests.sim.world import KEEP, STATE, Also, Plan, World

NODE = "n01"
OFED = "nvidia.com/ofed-driver-upgrade"
OFED_KEEP = f"{OFED}.node-initial-state.unschedulable"
OFED_STATE = f"{OFED}-state"
UPGRADE: Obj = {"autoUpgrade": True, "maxParallelUpgrades": 1, "podRestart": {"timeoutSeconds": 20, "maxRestarts": 10}}
LONG_ENOUGH = 600.0


def shared() -> Plan:
    """On one node the first driver fails, and keeps its claim while the second one is upgraded; a new version heals it."""
    also = Also("ofed", "ofed", upgrade=UPGRADE)
    plan = Plan(nodes=2, policy={**UPGRADE, "failureThreshold": 5}, also=[also], order=("gpu", "ofed"), may_fail=True)
    plan.broken = [NODE]
    return plan


def state(world: World, key: str) -> str:
    node = world.server.get("nodes", NODE)
    assert node is not None
    return labels(node).get(key, "")


async def until(world: World, what: Callable[[], bool]) -> None:
    """Wait for a moment of the story."""
    reached = asyncio.Event()

    def look(_: Event) -> None:
        if what():
            reached.set()

    world.server.audits.append(look)
    async with asyncio.timeout(LONG_ENOUGH):
        await reached.wait()
    world.server.audits.remove(look)


def play(key: str, *, alone: bool = False) -> tuple[list[str], bool, bool]:
    """Ask one driver to keep the cordon while both hold it, or one that does not; then let all end.

    Returns:
        Violations, whether the node is cordoned at the end, and whether any request is left on it.
    """
    found: list[Obj] = []

    async def story(run: Run) -> None:
        world = run.world
        world.build()
        await asyncio.sleep(5)
        run.start()
        await run.come_to_rest()
        if alone:
            world.kubelets.behaviour.broken.add(("driver:v2", NODE))
            world.set_version("v2")
            world.version = 2
            await until(world, lambda: state(world, STATE) == "pod-restart-required")
        else:
            world.roll()
            both = ("upgrade-failed", "pod-restart-required")
            await until(world, lambda: (state(world, STATE), state(world, OFED_STATE)) == both)
        world.annotate_node(NODE, key, "true")
        await run.come_to_rest()
        world.roll()
        run.checker.disturb(run.loop.time())
        await run.come_to_rest()
        run.checker.rest(run.loop.time())
        node = world.server.get("nodes", NODE)
        assert node is not None
        found.append(node)
        assert state(world, STATE) == state(world, OFED_STATE) == "upgrade-done"

    violations = simulate_with(shared(), story).violations
    (node,) = found
    return violations, bool(node["spec"].get("unschedulable")), bool({KEEP, OFED_KEEP} & annotations(node).keys())


@pytest.mark.parametrize("key", [KEEP, OFED_KEEP])
def test_a_shared_cordon_is_kept_whoever_was_asked(key: str):
    violations, cordoned, left = play(key)
    assert not violations, violations
    assert cordoned
    assert not left, "the request was used up"


def test_a_driver_without_a_claim_keeps_nothing():
    """What is asked of the driver that is done is about a cordon of its own; the other one lifts the one it has set."""
    violations, cordoned, _ = play(OFED_KEEP, alone=True)
    assert not violations, violations
    assert not cordoned


MUTANTS: dict[str, tuple[Edit, ...]] = {
    "the request does not go on to the other driver": (
        ("upgrade.cordon:release", "next((o for o in view.others if o.claim and not o.keeps_cordon), None)", "None"),
    ),
    "a request is not looked at": (("upgrade.cordon:lifts", "and not view.annotated(view.keys.initial_unschedulable)", ""),),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name: str):
    with swapped(MUTANTS[name]):
        violations, _, _ = play(OFED_KEEP)
    assert any(" S5 " in violation for violation in violations), violations
