"""What the record remembers of an attempt: clocks that nothing prolongs, the pod to replace, and why it failed."""

from typing import Any

import pytest
from msgspec.structs import replace

from controller.upgrade.decide import decide, grant, grant_validation
from controller.upgrade.reasons import Reason
from controller.upgrade.record import MAX_MESSAGE, Failure, Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import (
    ENTERED,
    KEYS,
    NEW,
    NOW,
    OLD,
    PLAIN,
    STARTING,
    at,
    driver_pod,
    driver_set,
    node,
    orphan,
    patched,
    policy,
    record,
    view,
    workload,
)

S, R = State, Reason


def after(seen: NodeView, now: float = NOW) -> NodeView:
    decision = decide(seen, now)
    assert decision.patch is not None
    return patched(seen, decision.patch)


def written(seen: NodeView) -> Record:
    assert seen.written is not None
    return seen.written


def test_the_first_entry_counts_also_after_going_back():
    drained = policy(drain={"enable": True}, podRestart={"timeoutSeconds": 100})
    back = at(
        S.POD_RESTART_REQUIRED,
        OLD,
        policy=drained,
        workload=(workload(),),
        rec={"entered": {S.DRAIN_REQUIRED: NOW - 290, S.POD_RESTART_REQUIRED: NOW - 90}},
    )
    draining = after(back)
    assert decide(draining, NOW).deadline == NOW + 10
    again = after(replace(draining, workload=()))
    assert (written(again).since, decide(again, NOW).deadline) == (NOW, NOW + 10)


def test_90_percent_used_before_a_restart_are_90_percent_after():
    seen = at(
        S.DRAIN_REQUIRED,
        OLD,
        policy=policy(drain={"enable": True}),
        workload=(workload(),),
        rec={"entered": {S.DRAIN_REQUIRED: NOW - 270}},
    )
    assert decide(seen, NOW).deadline == NOW + 30
    assert decide(seen, NOW + 30).state is S.UPGRADE_FAILED


def test_a_cordon_taken_again_does_not_prolong():
    seen = after(at(S.DRAIN_REQUIRED, OLD, policy=policy(drain={"enable": True}), cordoned=False, workload=(workload(),)))
    assert (written(seen).recordons, written(seen).since) == (1, ENTERED)
    assert decide(seen, NOW).deadline == ENTERED + 300


def test_a_person_who_relabels_starts_the_clock():
    seen = after(
        view(node(S.DRAIN_REQUIRED, record(S.POD_RESTART_REQUIRED, entered={S.DRAIN_REQUIRED: 1.0}), cordoned=True), OLD)
    )
    assert (written(seen).since, written(seen).entered[S.DRAIN_REQUIRED]) == (NOW, NOW)


def granted(seen: NodeView) -> Record:
    patch = grant(seen, PLAIN, NOW).patch
    assert patch is not None
    assert patch.record is not None
    return patch.record


def test_a_grant_begins_an_attempt():
    old = {"entered": {S.DRAIN_REQUIRED: 1.0}, "recordons": 4, "attempt": 2, "target": "ds@1", "policy": "x/y", "gone": 7.0}
    begun = granted(at(S.UPGRADE_REQUIRED, OLD, rec=old))
    assert (begun.attempt, begun.recordons, begun.gone, begun.entered) == (3, 0, 0.0, {S.CORDON_REQUIRED: NOW})
    assert (begun.target, begun.replace, begun.policy, begun.namespace) == (
        "ds@2",
        "drv-old",
        "DriverUpgradePolicy/gpu",
        "ops",
    )
    assert begun.restart_only


REQUESTED: dict[str, Any] = {"notes": {KEYS.requested: "true"}}


@pytest.mark.parametrize(
    ("situation", "seen", "replaced", "restart_only"),
    [
        ("safe load", at(S.UPGRADE_REQUIRED, STARTING, notes={KEYS.safe_load: ""}), "", False),
        ("requested, current", at(S.UPGRADE_REQUIRED, NEW, **REQUESTED), "drv-new", False),
        ("requested, outdated", at(S.UPGRADE_REQUIRED, OLD, **REQUESTED), "drv-old", False),
        ("requested, orphan", at(S.UPGRADE_REQUIRED, orphan(), **REQUESTED), "drv-orphan", False),
        ("requested, orphan beside a current pod", at(S.UPGRADE_REQUIRED, NEW, orphan("z"), **REQUESTED), "z", False),
        ("outdated beside an orphan", at(S.UPGRADE_REQUIRED, OLD, orphan()), "drv-old", False),
    ],
)
def test_the_grant_notes_the_pod_to_replace(situation: str, seen: NodeView, replaced: str, restart_only: bool):
    begun = granted(seen)
    assert (begun.replace, begun.restart_only) == (replaced, restart_only)


def failure_of(seen: NodeView, now: float = NOW) -> Failure:
    failure = written(after(seen, now)).failure
    assert failure is not None
    return failure


LATE: dict[str, Any] = {"entered": {S.POD_RESTART_REQUIRED: 1.0}}


def test_a_failure_says_where_why_for_what_and_with_which_pod():
    failure = failure_of(at(S.POD_RESTART_REQUIRED, driver_pod("drv-new", 2, phase="Pending"), rec=LATE))
    assert (failure.reason, failure.state, failure.target, failure.pod) == (
        R.DRIVER_POD_PENDING,
        S.POD_RESTART_REQUIRED,
        "ds@2",
        "drv-new",
    )
    assert failure.message
    assert not failure.earlier


@pytest.mark.parametrize(
    ("before", "earlier"),
    [
        (Failure(R.FAILED, target="ds@2"), False),
        (Failure(R.FAILED, target="ds@1"), True),
        (Failure(R.FAILED, target="ds@2", earlier=True), True),
    ],
)
def test_a_node_that_had_failed_for_its_previous_target_is_marked(before: Failure, earlier: bool):
    assert failure_of(at(S.POD_RESTART_REQUIRED, STARTING, rec={**LATE, "failure": before})).earlier is earlier


def test_a_long_message_is_cut():
    names = tuple(workload(f"{'w' * 200}-{i}") for i in range(3))
    late = {"entered": {S.DRAIN_REQUIRED: 1.0}}
    assert (
        len(failure_of(at(S.DRAIN_REQUIRED, OLD, policy=policy(drain={"enable": True}), workload=names, rec=late)).message)
        == MAX_MESSAGE
    )


def test_failing_keeps_the_claim_of_a_cordoned_node_only():
    assert written(after(at(S.POD_RESTART_REQUIRED, STARTING, rec=LATE))).claim
    assert not written(after(at(S.DRAIN_REQUIRED, OLD, cordoned=False, rec={"recordons": 5}))).claim


def test_a_validation_of_a_failed_node_is_the_new_policys_and_has_all_its_time():
    seen = at(
        S.UPGRADE_FAILED,
        NEW,
        rec={"entered": {S.VALIDATION_REQUIRED: 1.0}, "policy": "x/y", "target": "ds@1", "recordons": 5},
    )
    patch = grant_validation(seen, policy(validation={"podSelector": "a"}), NOW).patch
    assert patch is not None
    assert patch.record is not None
    assert (patch.record.entered, patch.record.policy, patch.record.recordons) == (
        {S.VALIDATION_REQUIRED: NOW},
        "DriverUpgradePolicy/gpu",
        0,
    )
    assert (patch.record.target, patch.record.claim) == ("ds@2", True)


def test_done_leaves_a_clean_record():
    seen = after(at(S.UNCORDON_REQUIRED, NEW, rec={"failure": Failure(R.FAILED), "recordons": 3, "gone": 0.0}))
    assert written(seen) == Record(S.UPGRADE_DONE, NOW, "node-uid", "DriverUpgradePolicy/gpu", "ops", "ds@2", attempt=1)
    assert not seen.node.unschedulable


@pytest.mark.parametrize(
    ("clock", "entered"),
    [
        (str(int(NOW) - 50), NOW - 50),
        (str(int(NOW) + 50), NOW),
        ("soon", NOW),
        ("", NOW),
        ("-5", NOW),
        ("٣", NOW),
        ("9" * 30, NOW),
    ],
)
def test_the_peers_clock_is_read_where_it_is_a_time_in_the_past(clock: str, entered: float):
    notes = {KEYS.jobs_start: clock}
    seen = after(view(node(S.WAIT_FOR_JOBS_REQUIRED, cordoned=True, notes=notes), OLD))
    assert written(seen).entered == {S.WAIT_FOR_JOBS_REQUIRED: entered}
    assert (written(seen).replace, written(seen).attempt, written(seen).target) == ("drv-old", 1, "ds@2")
    assert KEYS.jobs_start not in seen.node.annotations


def test_a_failed_node_taken_over_does_not_loop():
    seen = after(view(node(S.UPGRADE_FAILED, cordoned=True), STARTING))
    failure = written(seen).failure
    assert failure is not None
    assert (failure.target, failure.pod) == ("ds@2", "drv-new")
    assert decide(seen, NOW).patch is None


def test_an_upgrade_begun_by_hand_is_the_policys_that_has_the_node_now():
    label = view(node(S.DRAIN_REQUIRED, record(S.UPGRADE_DONE, policy="x/y", namespace="z")), OLD)
    assert (written(after(label)).policy, written(after(label)).namespace) == ("DriverUpgradePolicy/gpu", "ops")


def test_the_daemonsets_absence_is_noted_once_and_forgotten():
    gone = after(at(S.DRAIN_REQUIRED, OLD, sets=(driver_set(wants=False),)))
    assert written(gone).gone == NOW
    assert decide(gone, NOW + 60).patch is None
    assert written(after(replace(gone, sets=(driver_set(),)))).gone == 0.0
