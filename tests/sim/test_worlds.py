"""Random worlds, each kind of faults: no violation. A failing seed says how to see it again."""

import pytest

from tests.sim.harness import simulate
from tests.sim.world import KINDS, PROFILES, random_plan

SEEDS = 12


@pytest.mark.parametrize("faults", [*PROFILES, *KINDS, "answers+gaps"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_world(seed, faults):
    outcome = simulate(random_plan(seed, faults))
    again = f"python -m tests.sim --seed {seed} --faults {faults} --trace"
    assert not outcome.violations, "\n".join([again, *outcome.violations[:20]])
    assert outcome.upgrades > 0 or faults in {"meddle", "all", "fuzz", "gaps", "answers+gaps"}
