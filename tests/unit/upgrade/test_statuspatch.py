"""From one status to the next: nothing is left behind, and conditions keep the time of their last transition."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.meta import timestamp
from controller.upgrade.statuspatch import keep_times, left_behind, replacing
from tests.sim.objects import merge_patch
from tests.unit.upgrade.builders import NOW

KEYS = st.sampled_from("abc")
STATUSES = st.dictionaries(KEYS, st.dictionaries(KEYS, st.integers()) | st.integers() | st.lists(st.integers()))


@given(STATUSES, STATUSES)
def test_the_patch_makes_of_the_old_status_the_new_one(status: dict[str, Any], old: dict[str, Any]):
    assert merge_patch(old, replacing(status, old)) == status


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ({"nodes": {"total": 1}, "state": "Idle"}, set()),
        ({"nodes": {"total": 2}}, set()),
        ({"nodes": {"total": 1, "old": 1}, "active": []}, {"nodes.old", "active"}),
        ({}, set()),
    ],
)
def test_what_is_left_behind_is_what_should_not_be_there(found: dict[str, Any], left: set[str]):
    assert left_behind({"nodes": {"total": 1}, "state": "Idle"}, found) == left


def test_a_condition_keeps_its_time_until_its_status_changes():
    conditions: list[dict[str, Any]] = [{"type": kind, "status": "True"} for kind in ("Same", "Other", "New")]
    earlier = [
        {"type": "Same", "status": "True", "lastTransitionTime": "then"},
        {"type": "Other", "status": "False", "lastTransitionTime": "then"},
    ]
    keep_times(conditions, earlier, NOW, 7)
    assert [c["lastTransitionTime"] for c in conditions] == ["then", timestamp(NOW), timestamp(NOW)]
    assert {c["observedGeneration"] for c in conditions} == {7}
