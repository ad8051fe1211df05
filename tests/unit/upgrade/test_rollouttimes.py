"""When a rollout began is kept over restarts, and a new version of the driver begins a new one."""

from typing import Any

import pytest

from controller.api.meta import timestamp
from controller.upgrade.rollouttimes import RolloutTimes
from tests.unit.upgrade.builders import NOW, policy
from tests.unit.upgrade.test_pace import BUSY, DONE, GOING, WAITING, fleet

REST = fleet(DONE)
V1, V2 = ({"targets": [{"uid": "ds", "revision": n}]} for n in (1, 2))
PARALLEL = policy(maxParallelUpgrades=1)


def told(times: RolloutTimes, now: float, status: dict[str, Any], earlier: dict[str, Any]) -> dict[str, str]:
    return times.told(PARALLEL, GOING, status, earlier, now)


def test_it_began_when_a_node_was_first_seen_to_need_it():
    times = RolloutTimes()
    times.look(PARALLEL, fleet(WAITING, BUSY), NOW - 5)
    times.look(PARALLEL, fleet(WAITING, BUSY), NOW)
    assert told(times, NOW, V1, {})["startedAt"] == timestamp(NOW - 5)


def test_one_that_was_over_before_it_was_told_is_not_the_next():
    times = RolloutTimes()
    times.look(PARALLEL, GOING, NOW - 500)
    times.look(PARALLEL, REST, NOW - 400)
    assert told(times, NOW, V1, {})["startedAt"] == timestamp(NOW)


@pytest.mark.parametrize(("status", "began"), [(V1, NOW - 100), (V2, NOW)])
def test_what_was_told_holds_after_a_restart_until_there_is_another_version(status: dict[str, Any], began: float):
    earlier = {**V1, "startedAt": timestamp(NOW - 100), "estimatedCompletion": timestamp(NOW + 70)}
    assert told(RolloutTimes(), NOW, status, earlier)["startedAt"] == timestamp(began)


def test_the_estimate_passes_when_it_says_and_goes_with_the_rollout():
    times = RolloutTimes()
    found = told(times, NOW, V1, {**V1, "startedAt": timestamp(NOW - 100)})
    assert times.passes is not None
    assert found["estimatedCompletion"] == timestamp(times.passes)
    assert times.told(PARALLEL, REST, V1, {**V1, **found}, NOW + 1) == {}
    assert times.passes is None


@pytest.mark.parametrize("text", ["soon", None, 7, {}])
def test_what_a_person_made_of_a_time_is_none(text: object):
    assert told(RolloutTimes(), NOW, V1, {**V1, "startedAt": text})["startedAt"] == timestamp(NOW)
