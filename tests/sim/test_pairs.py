"""Two crashes in one rollout: a sample of all pairs of writes and moments, which ``python -m tests.sim.pairs`` plays."""

import random

import pytest

from tests.sim.faults import MOMENTS
from tests.sim.harness import simulate
from tests.sim.pairs import CRASHED, crash_points
from tests.sim.scenes import scene

SAMPLED = 8


def pairs(name: str) -> list[dict[int, str]]:
    """A scene's pairs of crashes, the same ones each time: the second may be a write that only the first one caused."""
    rng = random.Random(f"{name} pairs")
    _, writes = crash_points(name)
    found = []
    for _ in range(SAMPLED):
        first = rng.randint(1, writes * 2 // 3)  # so that there are more to come
        found.append({first: rng.choice(MOMENTS), first + rng.randint(1, 6): rng.choice(MOMENTS)})
    return found


@pytest.mark.parametrize("name", CRASHED)
def test_two_crashes(name):
    crashed = 0
    for crashes in pairs(name):
        plan = scene(name)
        plan.crashes = crashes
        outcome = simulate(plan)
        assert not outcome.violations, (crashes, outcome.violations)
        crashed += outcome.faults
    assert crashed > SAMPLED, "some runs met both"


def test_the_sample_is_of_enough_scenes():
    assert len(CRASHED) >= 12
    assert len(MOMENTS) == 3
