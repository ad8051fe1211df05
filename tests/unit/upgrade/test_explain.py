"""Explanations say what the decision and the counts say, and what to do about it."""

import pytest

from controller.upgrade.explain import Explanation, explain
from controller.upgrade.facts import facts_of
from controller.upgrade.fleet import Fleet, Tally
from controller.upgrade.plan import in_order, is_waiting, plan
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.remedies import REMEDIES, remedy
from controller.upgrade.snapshot import Attempt, NodeView
from controller.upgrade.states import State
from controller.upgrade.survey import survey
from tests.unit.upgrade.builders import NEW, NOW, OLD, STARTING, at, node, pod, policy, record, view, workload

S = State
DRAINING = policy(drain={"enable": True, "timeoutSeconds": 60})


def fleet_of(*views: NodeView) -> Fleet:
    """The counts of some nodes."""
    fleet = Fleet()
    for seen in views:
        fleet.update("gpu", seen.node.name, facts_of(seen, NOW))
    return fleet


def explained(seen: NodeView, *others: NodeView) -> Explanation:
    facts = facts_of(seen, NOW)
    tally = fleet_of(seen, *others).tally("gpu", facts.policy)
    return explain(seen, facts, tally, [o.node.name for o in others], NOW)


def busy(name: str, by=DRAINING) -> NodeView:
    """Another node, in its drain."""
    on = node(S.DRAIN_REQUIRED, record(S.DRAIN_REQUIRED), name=name, cordoned=True)
    return view(on, OLD, policy=by)


def test_every_reason_has_a_remedy():
    assert set(REMEDIES) == set(Reason)
    assert all(text.endswith((".", "?")) for text in REMEDIES.values())


def test_remedies_name_the_node_and_the_policy():
    assert remedy(Reason.SKIPPED, "n1") == "Run `driver-upgrade skip n1 --undo`."
    assert remedy(Reason.PAUSED, "n1", "Kind/ns/gpu") == "Run `driver-upgrade resume Kind/ns/gpu`."
    assert remedy(None, "n1") == ""


def test_a_drain_is_explained_with_blockers_deadline_and_what_then():
    found = explained(at(S.DRAIN_REQUIRED, OLD, policy=DRAINING, workload=(pod("bare", owner=None),)))
    assert (found.state, found.reason, found.then) == ("drain-required", Reason.UNMANAGED_POD, "upgrade-failed")
    assert found.deadline - found.since == 60
    assert [b.name for b in found.blockers] == ["bare"]
    assert found.stuck


@pytest.mark.parametrize(
    ("state", "by", "then"),
    [
        (S.WAIT_FOR_JOBS_REQUIRED, policy(waitForCompletion={"podSelector": "a=b", "timeoutSeconds": 60}), "goes on"),
        (S.POD_DELETION_REQUIRED, policy(podDeletion={"podSelector": "a=b"}, drain={"enable": True}), "drain-required"),
        (S.POD_DELETION_REQUIRED, policy(podDeletion={"podSelector": "a=b"}), "upgrade-failed"),
    ],
)
def test_what_the_deadline_brings(state: State, by, then: str):
    held = pod("bare", owner=None, labels={"a": "b"})
    assert then in explained(at(state, OLD, policy=by, workload=(held,))).then


def test_a_state_without_a_deadline_has_none():
    by = policy(drain={"enable": True, "timeoutSeconds": 0})
    found = explained(at(S.DRAIN_REQUIRED, OLD, policy=by, workload=(pod("bare", owner=None),)))
    assert (found.deadline, found.then) == (0, "")


def test_a_node_without_a_slot_is_told_who_has_them():
    found = explained(at(S.UPGRADE_REQUIRED, OLD, policy=DRAINING), busy("n2"))
    assert (found.reason, found.message, found.holders) == (Reason.NO_SLOT, "1 of 1 slots are in use", ("n2",))
    assert not found.stuck


def test_a_node_that_a_slot_is_free_for_is_told_that_the_controller_is_next():
    found = explained(at(S.UPGRADE_REQUIRED, OLD, policy=DRAINING))
    assert (found.reason, found.next, found.holders) == (None, "goes to cordon-required", ())


def test_other_reasons_of_the_rollout():
    paused, capped = policy(paused=True), policy(maxUnavailable=0)
    assert explained(at(S.UPGRADE_REQUIRED, OLD, policy=paused)).reason is Reason.PAUSED
    assert explained(at(S.UPGRADE_REQUIRED, OLD, policy=capped)).reason is Reason.MAX_UNAVAILABLE
    skipped = at(S.UPGRADE_REQUIRED, OLD, policy=DRAINING, labels={"nvidia.com/gpu-driver-upgrade.skip": "true"})
    found = explained(skipped)
    assert found.reason is Reason.SKIPPED
    assert "remove it" in found.message


def test_a_step_that_is_due_is_told():
    assert explained(at(S.DRAIN_REQUIRED, OLD, policy=DRAINING)).next == "goes to pod-restart-required"
    assert explained(view(node(), NEW, policy=DRAINING)).next == "goes to upgrade-done"


def test_a_relabelled_node_has_no_time_of_its_own_yet():
    on = node(S.UPGRADE_REQUIRED, record(S.UPGRADE_FAILED), cordoned=True)
    assert explained(view(on, OLD, policy=DRAINING)).since == 0


def test_a_failure_is_explained_by_its_cause():
    failure = Failure(Reason.DRIVER_POD_CRASHING, S.POD_RESTART_REQUIRED, "ds@2", "drv-new", "restarted 11 times")
    found = explained(at(S.UPGRADE_FAILED, STARTING, rec={"failure": failure}))
    assert (found.state, found.reason) == ("upgrade-failed", Reason.DRIVER_POD_CRASHING)
    assert found.message == "restarted 11 times"


def test_a_label_that_nobody_knows_is_shown_as_it_is():
    found = explained(view(node("nonsense"), NEW, policy=DRAINING))
    assert (found.state, found.reason) == ("nonsense", Reason.INVALID_STATE)


def test_a_plan_goes_in_waves_and_names_pods_and_what_holds_them():
    by = policy(maxParallelUpgrades=2, drain={"enable": True})

    def waiting(name: str, *pods, **changes) -> NodeView:
        on = node(S.UPGRADE_REQUIRED, record(S.UPGRADE_REQUIRED), name=name, **changes)
        return view(on, OLD, policy=by, workload=pods)

    web = workload("web")
    nodes = [waiting("n3"), waiting("n1", web), waiting("n2", ready=False), waiting("n4", pod("bare", owner=None))]
    ordered = in_order([(v, facts_of(v, NOW)) for v in nodes])
    planned = plan(by, ordered, {"web": Attempt(float("inf"), Reason.POD_DISRUPTION_BUDGET, "no")}, NOW, Tally())
    assert [(p.node, p.wave) for p in planned] == [("n1", 1), ("n2", 0), ("n3", 1), ("n4", 2)]
    assert planned[0].evicts == ("ops/web",)
    assert [b.reason for p in planned for b in p.blockers] == [Reason.POD_DISRUPTION_BUDGET, Reason.UNMANAGED_POD]
    assert planned[1].reason is Reason.NODE_NOT_READY


def test_a_plan_without_a_drain_evicts_only_device_users():
    by = policy(podDeletion={"podSelector": "gpu=yes"})
    user = workload("user", labels={"gpu": "yes"})
    seen = at(S.UPGRADE_REQUIRED, OLD, policy=by, workload=(user, workload("web")))
    (planned,) = plan(by, [seen], {}, NOW, Tally())
    assert planned.evicts == ("ops/user",)


def test_who_waits_for_an_upgrade():
    assert is_waiting(at(S.UPGRADE_REQUIRED, OLD))
    assert is_waiting(at(S.UPGRADE_DONE, OLD)), "no controller has labelled it yet"
    assert not is_waiting(at(S.UPGRADE_DONE, NEW))
    assert not is_waiting(at(S.DRAIN_REQUIRED, OLD))
    assert not is_waiting(at(S.UPGRADE_REQUIRED, OLD, policy=None))


@pytest.mark.parametrize(
    ("by", "condition"),
    [
        (DRAINING, "Upgrading"),
        (policy(paused=True), "Paused"),
        (policy(autoUpgrade=False), "Disabled"),
        (policy(drain={"podSelector": "a b"}), "PolicyInvalid"),
    ],
)
def test_the_condition_of_a_policy(by, condition: str):
    tally = fleet_of(busy("n1", by)).tally("gpu", by.full_name)
    assert survey(by, tally).condition == condition
    assert survey(by, tally, counts=False).condition == "NamespaceNotAllowed"


def test_a_survey_counts():
    failure = Failure(Reason.FAILED, target="ds@2")
    fleet = fleet_of(busy("n2"), at(S.UPGRADE_FAILED, OLD, policy=DRAINING, rec={"failure": failure}))
    found = survey(DRAINING, fleet.tally("gpu", DRAINING.full_name))
    assert (found.nodes, found.in_progress, found.failed, found.slots) == (2, 1, 1, 1)
    assert found.condition == "Halted"
