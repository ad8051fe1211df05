"""People and other controllers at work in every state there is: each of their acts, while a rollout is held up there.

What vanishes comes back, or does not. Nobody may be wronged by what is done then, and once all is put right the rollout
must come to its end.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from tests.sim.harness import Run
from tests.sim.holding import HOLDS, MEANWHILE, hold
from tests.sim.meddling import ACTS, LABELS, Meddler
from tests.sim.objects import annotations, key_of, labels, node_of
from tests.sim.world import RECORD, STATE, World

Act = Callable[[Run, str], None]
APART = 5.0
RECORDS = {"lost": None, "cut off": "{", "of nonsense": '{"state":"drain-required","since":"x"}', "of odd types": "[[]]"}


def relabel(value: str | None) -> Act:
    return lambda run, node: run.world.label_node(node, STATE, value)


def note(value: str | None) -> Act:
    return lambda run, node: run.world.annotate_node(node, RECORD, value)


def node_gone(world: World, node: str) -> None:
    world.server.delete("autoscaler", "nodes", node)


def node_replaced(world: World, node: str) -> None:
    """Another machine of that name, at once."""
    node_gone(world, node)
    world.add_node(node)


def node_restored(world: World, node: str) -> None:
    """Another machine of that name, with the labels and annotations of the first one."""
    old = world.server.get("nodes", node)
    assert old is not None
    node_gone(world, node)
    meta = {"name": node, "labels": labels(old), "annotations": annotations(old)}
    world.server.apply("admin", "nodes", {**old, "metadata": meta, "spec": {}})


def node_back_later(world: World, node: str) -> None:
    node_gone(world, node)
    world.loop.call_later(APART, world.add_node, node)


def pods_gone(world: World, node: str) -> None:
    """Every pod of the node, whoever's it is."""
    for pod in world.server.store.objects("pods"):
        if node_of(pod) == node:
            world.server.delete("admin", "pods", key_of(pod), 0)


def cordon_to_and_fro(world: World, node: str) -> None:
    for number, on in enumerate((False, True, False, True, False)):
        world.loop.call_later(APART * number, partial(world.cordon, node, on=on))


def on(act: Callable[[World, str], None]) -> Act:
    return lambda run, node: act(run.world, node)


def meddle(name: str) -> Act:
    """What the meddler of random worlds does."""
    return lambda run, node: Meddler(run.world, run.faults, run.trace).do(name, node)


DONE: dict[str, Act] = {
    **{name.replace("_", " "): meddle(name) for name in ACTS if name not in {"relabel", "lose_record"}},
    **{f"relabel {value or 'nothing'}": relabel(value) for value in LABELS},
    **{f"record {name}": note(value) for name, value in RECORDS.items()},
    **{act.__name__.replace("_", " "): on(act) for act in (node_gone, node_replaced, node_restored, node_back_later)},
    **{act.__name__.replace("_", " "): on(act) for act in (pods_gone, cordon_to_and_fro)},
}


@pytest.mark.parametrize("name", DONE)
@pytest.mark.parametrize("state", HOLDS, ids=lambda state: state or "unknown")
def test_whatever_others_do(state: str, name: str):
    async def act(run: Run) -> None:
        world = run.world
        node = min(name for name, found in world.states().items() if found == state)
        DONE[name](run, node)
        await asyncio.sleep(MEANWHILE)
        if world.states().get(node) == "nonsense":
            world.label_node(node, STATE, None)

    outcome, last = hold(state, act)
    assert not outcome.violations, outcome.violations
    assert last <= {"upgrade-done", "upgrade-failed"}
