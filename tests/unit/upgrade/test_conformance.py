"""Where other systems err or differ: each case by name, with the test that shows what we do.

`CASES` are the places that are worth a test according to a study of k8s-operator-libs, kubectl drain and others, `ERRORS`
what its reading showed of k8s-operator-libs alone; each names tests elsewhere, which must be there. What no other test
says in a few words, and the eight counter-examples P1 to P8, follow as tests of their own.
"""

import importlib
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
from msgspec.structs import replace

from controller.upgrade.actions import DeletePod, EvictPod, merge_body
from controller.upgrade.admission import admit
from controller.upgrade.decide import decide, grant
from controller.upgrade.facts import facts_of
from controller.upgrade.fleet import Fleet
from controller.upgrade.reasons import Reason
from controller.upgrade.revision import Standing, standing
from controller.upgrade.states import IN_PROGRESS, State
from tests.unit.upgrade.builders import (
    KEYS,
    NEW,
    NOW,
    OLD,
    at,
    driver_pod,
    driver_set,
    node,
    patched,
    policy,
    view,
    workload,
)
from tests.unit.upgrade.cases import Case
from tests.unit.upgrade.test_path import World

S, R = State, Reason
ROW, DRAIN, FATE = "unit.upgrade.test_states:test_row", "unit.upgrade.test_drain", "unit.upgrade.test_drain:test_fate"
ADMISSION, ANSWER = "unit.upgrade.test_admission:test_table", "unit.operate.test_answers:test_each_answer_has_one_meaning"
FACTS, ATTEMPT, CLUSTER = "unit.upgrade.test_facts", "unit.upgrade.test_attempt", "cluster.test_"
ALONE = "sim.test_isolation:test_a_bad_node_delays_no_other"

CASES: dict[str, tuple[str, ...]] = {
    "1 ended pod of a DaemonSet": (f"{FATE}[kubectl evicts an ended pod of a DaemonSet; we leave it]",),
    "1 pod of a DaemonSet, which is never asked for, so gone or forbidden refuses no drain": (f"{FATE}[of a DaemonSet]",),
    "2 pod of a Kruise DaemonSet": (f"{FATE}[of a Kruise DaemonSet]",),
    "3 ended pod with emptyDir": (f"{FATE}[ended, with emptyDir]",),
    "3 only emptyDir holds data, not hostPath": ("unit.upgrade.test_pods:test_empty_dir",),
    "4 ended bare pod": (f"{FATE}[ended and bare]",),
    "4 pod whose ReplicaSet was deleted": (f"{FATE}[of a controller that is gone]",),
    "5 a pod that finishes meanwhile is no failure": (f"{ROW}[device user that just finished is no failure]",),
    "6 429 by a budget": (
        f"{ANSWER}[budget refuses]",
        f"{CLUSTER}blockers:test_a_budget_that_allows_it_again_is_seen_on_the_watch",
    ),
    "6 429 by a throttling server": (f"{ANSWER}[server throttles]",),
    "6 403 NamespaceTerminating": (
        f"{ANSWER}[namespace goes]",
        f"{CLUSTER}blockers:test_a_namespace_that_is_being_deleted_is_waited_for",
    ),
    "6 404": (f"{ANSWER}[pod is gone]",),
    "6 500 by two budgets": (
        f"{ANSWER}[two budgets known]",
        f"{ANSWER}[two budgets by the text]",
        f"{CLUSTER}blockers:test_one_budget_less_of_two_is_seen_on_the_watch",
        f"{ALONE}[two_budgets]",
    ),
    "6 503 and a connection reset": (f"{ANSWER}[server error]", f"{ANSWER}[no answer]"),
    "6 a webhook that refuses": (
        f"{ANSWER}[webhook denies]",
        f"{CLUSTER}blockers:test_a_refusal_of_the_admission_is_told_in_its_own_words",
        f"{ALONE}[eviction_denied]",
    ),
    "6 none ends a drain but its deadline": (f"{ROW}[drain out of time]", f"{ROW}[drain, all blocked]"),
    "7 StatefulSet pod of the same name elsewhere": (
        f"{DRAIN}:test_attempts_belong_to_a_uid",
        f"{CLUSTER}interventions:test_a_stateful_set_s_pod_that_returns_under_its_name_elsewhere_is_another_pod",
    ),
    "7 StatefulSet pod of the same name on the same node": (
        f"{CLUSTER}blockers:test_a_stateful_set_s_pod_that_returns_under_its_name_to_the_same_node_is_another_pod",
    ),
    "8 restarted at 90 % of a deadline": (
        f"{ATTEMPT}:test_90_percent_used_before_a_restart_are_90_percent_after",
        f"{CLUSTER}restarts:test_the_time_used_before_a_restart_counts",
    ),
    "8 the deadline passes in the middle of a wait": (
        f"{ROW}[drain, its time is up before the blocked pod may be tried again]",
    ),
    "8 going back prolongs nothing": (f"{ATTEMPT}:test_the_first_entry_counts_also_after_going_back",),
    "9 cordons before, during and after": (
        f"{CLUSTER}cordons:test_every_cordon_ends_as_its_owner_wants",
        f"{CLUSTER}cordons:test_a_failed_node_uncordoned_by_hand_is_theirs",
        f"{CLUSTER}cordons:test_of_two_drivers_on_a_node_the_last_one_lifts_the_cordon",
    ),
    "10 node deleted": (
        f"{CLUSTER}interventions:test_a_node_deleted_in_the_middle_gives_its_slot_to_the_next",
        f"{CLUSTER}failures:test_a_node_deleted_and_made_again_in_the_middle_begins_anew",
    ),
    "10 node not ready": (
        f"{CLUSTER}failures:test_a_node_that_is_lost_in_the_middle_says_so_and_delays_nobody",
        f"{ALONE}[not_ready]",
    ),
    "10 driver pod Pending": (
        f"{ROW}[pending]",
        f"{CLUSTER}failures:test_a_driver_pod_that_no_room_is_left_for_fails_with_the_schedulers_words",
        f"{ALONE}[driver_pending]",
    ),
    "10 driver pod ImagePullBackOff": (
        f"{CLUSTER}driver:test_an_image_that_cannot_be_pulled_fails_the_node_with_this_reason",
        f"{ALONE}[image_cannot_be_pulled]",
    ),
    "10 driver pod Terminating for ever": (
        f"{ROW}[old pod held for too long]",
        f"{CLUSTER}isolation:test_an_old_driver_pod_that_never_ends_fails_its_node_alone",
        f"{ALONE}[old_driver_stuck_terminating]",
    ),
    "10 driver pod never ready, crashing, or never made": (
        f"{ALONE}[driver_never_ready]",
        f"{ALONE}[crash_loop]",
        f"{ALONE}[no_driver_pod]",
    ),
    "10 workload that does not leave": (
        f"{ALONE}[bare_pod]",
        f"{ALONE}[empty_dir]",
        f"{ALONE}[budget_that_never_allows]",
        f"{ALONE}[job_for_ever]",
        f"{ALONE}[stuck_terminating]",
    ),
    "11 new target while half done": (
        f"{ROW}[new target half-way]",
        f"{CLUSTER}driver:test_a_second_version_in_the_middle_of_the_first_one",
    ),
    "11 target reverted while half done": (
        f"{ROW}[drain, no longer wanted: nothing is evicted]",
        f"{CLUSTER}targets:test_put_back_half_way_only_the_nodes_that_had_the_new_version_go_back",
    ),
    "11 observedGeneration behind": (f"{ROW}[DaemonSet not observed]", f"{ROW}[done, DaemonSet not observed]"),
    "11 two DaemonSets with a common prefix": (
        f"{CLUSTER}targets:test_two_daemon_sets_whose_names_share_a_prefix_are_not_confused",
    ),
    "12 validation fails, driver ready": (
        f"{ROW}[failed, same pod ready, not valid]",
        f"{CLUSTER}failures:test_a_validation_that_failed_is_not_skipped_by_a_new_driver_pod",
    ),
    "12 validator absent": (
        f"{ROW}[none in time (P6)]",
        f"{ROW}[failed, same pod ready, no validation pod]",
        f"{ALONE}[no_validation_pod]",
    ),
    "13 policy disabled or gone in every state": tuple(
        f"{ROW}[{how}, {state}]"
        for how in ("policy disabled", "policy gone", "policy no longer selects the node")
        for state in set(State) - {State.UNKNOWN, State.UPGRADE_FAILED}
    ),
    "13 disabled, failed": (f"{ROW}[disabled, failed: stays]",),
    "13 paused and skipped, in progress": (f"{ROW}[drain, paused and skipped: goes on]",),
    "13 paused or skipped, waiting": (f"{ADMISSION}[paused]", f"{ADMISSION}[skipped delays nobody]"),
    "13 policy edited": (f"{ROW}[drain, switched off]", f"{ROW}[validation taken out of the policy]"),
    "14 two replicas": (
        "unit.kube.test_leaderelection:test_never_two_leaders_whatever_fails",
        "sim.test_leader:test_never_two_that_act",
    ),
    "15 maxUnavailable 0": (f"{ADMISSION}[maxUnavailable 0]", f"{ADMISSION}[maxUnavailable 0, a node down anyway]"),
    "15 maxUnavailable 1 %": (f"{ADMISSION}[maxUnavailable 1 % of 3]",),
    "15 maxUnavailable 100 %": (f"{ADMISSION}[maxUnavailable 100 %]",),
    "15 maxUnavailable unset": (f"{ADMISSION}[maxUnavailable unset]",),
    "15 maxUnavailable beyond the total": (f"{ADMISSION}[maxUnavailable beyond total]",),
    "15 maxParallel 0": (f"{ADMISSION}[no limit]",),
    "15 failed nodes as many as maxParallel": (f"{ADMISSION}[a failed node holds no slot]",),
}
"""By number and situation: the tests."""

ERRORS: dict[str, tuple[str, ...]] = {
    "2.2 one node without a driver pod stops all": (
        f"{CLUSTER}bad_policies:test_a_node_whose_driver_pod_cannot_be_made_is_told_and_delays_nobody",
    ),
    "2.3 revisions by a name's prefix": (
        "unit.upgrade.test_revision:test_revisions_are_those_the_daemonset_controls_not_those_that_share_its_prefix",
    ),
    "2.4 a failed node holds its slot": (f"{ADMISSION}[a failed node holds no slot]",),
    "2.5 a mark is older than the cordon": (f"{CLUSTER}cordons:test_every_cordon_ends_as_its_owner_wants",),
    "2.6 the cordon is never looked at again": (f"{ROW}[cordon lifted in drain-required]",),
    "2.6 deleted pods pass over the drain": (f"{ROW}[device users gone, drain]",),
    "2.6 init containers hold no devices": (f"{ROW}[device user by init container]",),
    "2.7 a node that failed validation is uncordoned": (f"{ROW}[failed, same pod ready, not valid]",),
    "2.8 a drain cannot be ended": (f"{CLUSTER}interventions:test_switched_off_in_the_middle_the_node_is_put_back",),
    "2.9 a driver pod may be Pending for ever": (f"{ROW}[not ready in time]", f"{ROW}[no pod in time]"),
    "2.10 validators reset each other's time": (f"{ROW}[not ready in time]",),
    "2.11 switched off, cordons stay": (f"{ROW}[policy disabled, drain-required]",),
    "2.12 unknown labels are passed over in silence": (f"{ROW}[unknown label]",),
    "2.12 nodes of its requestor mode are stuck": (
        f"{CLUSTER}takeover:test_a_node_left_in_this_state_is_finished_and_open_again",
    ),
    "2.13 slots are not counted in requestor mode": (f"{ROW}[node-maintenance-required, key 9 still there]",),
}
"""By section of the study: what k8s-operator-libs does, and the tests that show that we do not."""

REFERENCE = re.compile(r"(?P<module>[\w.]+):(?P<function>test_\w+)(\[(?P<row>.+)\])?")


def rows(function: FunctionType) -> Iterator[str]:
    """The names of a test's rows: said in a row, or given as its id."""
    for mark in getattr(function, "pytestmark", ()):
        if mark.name == "parametrize":
            ids = mark.kwargs.get("ids")
            yield from ids if isinstance(ids, list) else ()
            yield from (name for row in mark.args[1] for name in _names(row))


def _names(row: Any) -> Iterator[str]:
    for value in row if isinstance(row, tuple) else (row,):
        if isinstance(value, Case):
            yield value.name
        elif isinstance(value, str):
            yield value


@pytest.mark.parametrize("case", [*CASES, *(f"k8s-operator-libs {error}" for error in ERRORS)])
def test_case(case: str):
    for reference in CASES.get(case) or ERRORS[case.removeprefix("k8s-operator-libs ")]:
        assert exists(reference), reference


def exists(reference: str) -> bool:
    """Whether there is a test, and a row in it where one is named."""
    parts = REFERENCE.fullmatch(reference)
    assert parts, reference
    function = getattr(importlib.import_module(f"tests.{parts['module']}"), parts["function"], None)
    return isinstance(function, FunctionType) and (parts["row"] is None or parts["row"] in rows(function))


@pytest.mark.parametrize("nowhere", [f"{ROW}[no such row]", "unit.upgrade.test_states:test_no_such_test"])
def test_a_test_that_is_not_there_is_missed(nowhere: str):
    assert not exists(nowhere)


def test_every_case_has_a_name():
    assert {int(name.split()[0]) for name in CASES} == set(range(1, 16))


def test_15_no_nodes_and_only_cordoned_nodes():
    nobody = Fleet().tally("gpu", "p")
    assert admit(policy(maxParallelUpgrades=0), nobody).upgrades == ()
    fleet = Fleet()
    for name in ("a", "b"):
        cordoned = view(node(S.UPGRADE_REQUIRED, name=name, cordoned=True), OLD)
        fleet.update("gpu", name, facts_of(cordoned, NOW))
    tally = fleet.tally("gpu", policy().full_name)
    assert admit(policy(maxUnavailable=0, maxParallelUpgrades=1), tally).upgrades == ("a",), "within the limit, as any other"


@pytest.mark.parametrize("state", sorted(IN_PROGRESS | {S.UPGRADE_FAILED}))
def test_13_pause_and_skip_change_nothing_of_what_was_granted(state: State):
    fields: dict[str, Any] = {"drain": {"enable": True}, "waitForCompletion": {"podSelector": "app=job"}}
    for pods in ((OLD,), (NEW,), ()):
        plain = at(state, *pods, policy=policy(**fields), workload=(workload(),))
        held = at(state, *pods, policy=policy(paused=True, **fields), workload=(workload(),), labels={KEYS.skip: "true"})
        assert decide(held, NOW) == decide(plain, NOW)
        assert (facts_of(held, NOW).in_progress, facts_of(held, NOW).ask) == (
            plain.state in IN_PROGRESS,
            facts_of(plain, NOW).ask,
        )


@pytest.mark.parametrize("state", sorted(IN_PROGRESS | {S.UPGRADE_FAILED}))
def test_10_a_node_that_is_not_ready_goes_on_as_far_as_it_can(state: State):
    fields: dict[str, Any] = {"drain": {"enable": True}, "waitForCompletion": {"podSelector": "app=job"}}
    for pods in ((OLD,), (NEW,), ()):
        seen = at(state, *pods, policy=policy(**fields), workload=(workload(),))
        lost = at(state, *pods, policy=policy(**fields), workload=(workload(),), ready=False)
        plain, now = decide(seen, NOW), decide(lost, NOW)
        assert (now.state, now.actions, now.reason, now.deadline) == (
            plain.state,
            plain.actions,
            plain.reason,
            plain.deadline,
        )


def test_13_an_edited_deadline_holds_at_once_and_counts_from_the_entry():
    for state, fields in (
        (S.DRAIN_REQUIRED, {"drain": {"enable": True, "timeoutSeconds": 20}}),
        (S.POD_RESTART_REQUIRED, {"podRestart": {"timeoutSeconds": 20}}),
        (S.VALIDATION_REQUIRED, {"validation": {"podSelector": "app=check", "timeoutSeconds": 20}}),
    ):
        driver = driver_pod("drv-new", 2, ready=state is S.VALIDATION_REQUIRED)
        seen = at(state, OLD if state is S.DRAIN_REQUIRED else driver, policy=policy(**fields), workload=(workload(),))
        assert decide(seen, NOW).deadline == NOW + 10


def test_p1_a_cordon_placed_while_a_node_waits_stays_unlike_k8s_operator_libs():
    waiting = at(S.UPGRADE_REQUIRED, OLD, cordoned=True)
    world = World(waiting)
    world.run(policy())
    assert (world.view.label, world.view.node.unschedulable) == (S.UPGRADE_DONE, True)


def test_p1_a_cordoned_node_is_not_granted_beyond_the_limit_unlike_k8s_operator_libs():
    fleet = Fleet()
    for name, seen in {"a": at(S.DRAIN_REQUIRED, OLD), "b": at(S.UPGRADE_REQUIRED, OLD, cordoned=True)}.items():
        fleet.update("gpu", name, facts_of(seen, NOW))
    assert admit(policy(), fleet.tally("gpu", policy().full_name)).upgrades == ()


def test_p2_the_mark_that_a_crash_left_behind_keeps_no_later_cordon_unlike_k8s_operator_libs():
    world = World(view(node(S.UPGRADE_DONE, notes={KEYS.initial_unschedulable: "true"}), OLD))
    world.run(policy())
    assert (world.view.label, world.view.node.unschedulable) == (S.UPGRADE_DONE, False)
    assert KEYS.initial_unschedulable not in world.view.node.annotations


def test_p3_the_clock_that_a_crash_left_behind_shortens_no_later_wait_unlike_k8s_operator_libs():
    jobs = policy(waitForCompletion={"podSelector": "app=job", "timeoutSeconds": 100})
    job = workload("job", labels={"app": "job"})
    seen = view(node(S.UPGRADE_REQUIRED, notes={KEYS.jobs_start: "1"}), OLD, policy=jobs, workload=(job,))
    begun = grant(seen, jobs, NOW).patch
    assert begun
    cordoned = decide(patched(seen, begun), NOW).patch
    assert cordoned
    waits = decide(patched(patched(seen, begun), cordoned), NOW)
    assert (waits.state, waits.reason, waits.deadline) == (S.WAIT_FOR_JOBS_REQUIRED, R.JOBS_RUNNING, NOW + 100)


def test_p4_every_write_has_a_precondition_unlike_k8s_operator_libs():
    seen = at(S.POD_RESTART_REQUIRED, NEW)
    patch = decide(seen, NOW).patch
    assert patch
    body: Any = merge_body(patch, KEYS.state, KEYS.record, seen.node.metadata.resource_version)
    assert body["metadata"]["resourceVersion"] == "1"
    drain = at(S.DRAIN_REQUIRED, OLD, policy=policy(drain={"enable": True}), workload=(workload(),))
    for situation, pod in ((at(S.POD_RESTART_REQUIRED, OLD), OLD), (drain, workload())):
        (action,) = decide(situation, NOW).actions
        assert isinstance(action, DeletePod | EvictPod)
        assert action.uid == pod.uid


@pytest.mark.parametrize("clock", ["soon", "1e400", str(int(NOW) + 10**6)])
def test_p5_a_clock_that_is_wrong_or_no_number_ends_no_wait_unlike_k8s_operator_libs(clock: str):
    jobs = policy(waitForCompletion={"podSelector": "app=job", "timeoutSeconds": 100})
    job = workload("job", labels={"app": "job"})
    on = node(S.WAIT_FOR_JOBS_REQUIRED, cordoned=True, notes={KEYS.jobs_start: clock})
    seen = view(on, OLD, policy=jobs, workload=(job,))
    taken = decide(seen, NOW).patch
    assert taken
    assert decide(patched(seen, taken), NOW).deadline == NOW + 100


def test_p6_validation_without_pods_ends_unlike_k8s_operator_libs():
    checked = policy(validation={"podSelector": "app=check", "timeoutSeconds": 10})
    seen = at(S.VALIDATION_REQUIRED, NEW, policy=checked)
    assert (decide(seen, NOW - 1).state, decide(seen, NOW - 1).reason) == (S.VALIDATION_REQUIRED, R.VALIDATION_POD_MISSING)
    assert (decide(seen, NOW).state, decide(seen, NOW).reason) == (S.UPGRADE_FAILED, R.VALIDATION_POD_MISSING)


def test_p7_a_daemon_set_whose_name_begins_with_anothers_is_not_taken_for_it_unlike_k8s_operator_libs():
    """The longer name has the newer revision; each pod is judged by its owner's uid alone."""
    short, long = driver_set("drv", newest=2), driver_set("drv-x", newest=5)
    assert standing(driver_pod("a", 2, owner="drv"), (short, long)) is Standing.CURRENT
    assert standing(driver_pod("b", 2, owner="drv-x"), (short, long)) is Standing.OUTDATED


def test_p8_a_node_that_is_gone_frees_its_slot_and_stops_nobody_unlike_k8s_operator_libs():
    fleet, name = Fleet(), policy().full_name
    fleet.update("gpu", "a", facts_of(at(S.DRAIN_REQUIRED, OLD), NOW))
    other = at(S.UPGRADE_REQUIRED, replace(OLD, spec=replace(OLD.spec, node_name="b")))
    fleet.update("gpu", "b", facts_of(other, NOW))
    assert admit(policy(), fleet.tally("gpu", name)).upgrades == ()
    fleet.update("gpu", "a", None)
    assert admit(policy(), fleet.tally("gpu", name)).upgrades == ("b",)
