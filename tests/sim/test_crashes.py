"""The process is killed at every write of every scene, at three moments each, and everything still ends well."""

import pytest

from tests.sim.conftest import CRASHES
from tests.sim.faults import MOMENTS
from tests.sim.harness import simulate
from tests.sim.pairs import CRASHED, crash_points
from tests.sim.scenes import SCENES, scene


@pytest.mark.parametrize("name", SCENES)
def test_scene_without_faults(name):
    outcome = simulate(scene(name))
    assert not outcome.violations, outcome.violations
    assert outcome.upgrades > 0 or name in {"paused", "disabled meanwhile"}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CRASHED)
def test_crash_at_every_write(name, moment, record_property):
    _, writes = crash_points(name)
    assert writes > 2
    for index in range(1, writes + 1):
        plan = scene(name)
        plan.crashes = {index: moment}
        outcome = simulate(plan)
        assert not outcome.violations, (index, outcome.violations)
        assert outcome.faults == 1, index
    record_property(CRASHES, writes)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CRASHED)
def test_crash_at_every_write_before_the_rollout(name, moment, record_property):
    """While every node is looked at for the first time."""
    writes, _ = crash_points(name)
    assert writes > 0
    for index in range(1, writes + 1):
        plan = scene(name)
        plan.early = {index: moment}
        outcome = simulate(plan)
        assert not outcome.violations, (index, outcome.violations)
        assert outcome.faults == 1, index
    record_property(CRASHES, writes)
