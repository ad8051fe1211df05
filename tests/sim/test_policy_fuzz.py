"""Every field of a policy to its least, its most, nothing, nonsense and away, in every state there is.

A rollout is held up in one state; meanwhile one field takes all its values in turn. No rule may be broken, and once the
policy and the obstacle are put right the rollout must come to its end.
"""

import asyncio
import random

import pytest

from controller.upgrade.states import State
from tests.sim.defaults import schema
from tests.sim.fuzz import ALL_FIELDS, Fuzzer
from tests.sim.harness import Run
from tests.sim.holding import HOLDS, hold
from tests.sim.objects import Obj

EACH = 4.0
"""Seconds that a value stays."""


@pytest.mark.parametrize("path", ALL_FIELDS, ids=".".join)
@pytest.mark.parametrize("state", HOLDS, ids=lambda state: state or "unknown")
def test_a_field_takes_every_value(state: str, path: tuple[str, ...]):
    async def fuzz(run: Run) -> None:
        fuzzer = Fuzzer(run.world, random.Random(0))
        for value in ALL_FIELDS[path]:
            fuzzer.set(path, value)
            await asyncio.sleep(EACH)
        fuzzer.restore()

    outcome, last = hold(state, fuzz)
    assert not outcome.violations, outcome.violations
    assert last <= {"upgrade-done", "upgrade-failed"}


def test_no_state_is_left_out():
    assert set(HOLDS) == set(State)


def fields(found: Obj, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every field of a schema, at any depth."""
    inner = found.get("properties") or {}
    return {(*path, name) for name in inner} | {f for name in inner for f in fields(inner[name], (*path, name))}


def test_no_field_is_left_out():
    driver = schema("driverupgradepolicies")["properties"]["spec"]["properties"]["driver"]
    assert fields(driver["properties"]["upgradePolicy"]) == set(ALL_FIELDS)
