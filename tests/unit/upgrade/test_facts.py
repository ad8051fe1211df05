"""What the budget sees of a node, and which policy has it."""

from typing import Any

import pytest
from msgspec.structs import replace

from controller.api.node import Node
from controller.upgrade.assign import assign, contenders
from controller.upgrade.decide import decide
from controller.upgrade.facts import (
    ORDINARY,
    OTHER_TARGET,
    REQUESTED,
    RETRY,
    SAFE_LOAD,
    Ask,
    Unlisted,
    facts_of,
    facts_unlisted,
    failing,
)
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.snapshot import NodeView, Released
from controller.upgrade.states import IN_PROGRESS, State
from tests.unit.upgrade.builders import KEYS, NEW, NOW, OLD, at, driver_set, node, orphan, other, policy, record, view

S, R = State, Reason
POOL = {"pool": "a100"}
GPU, OLDER, POOLED = (
    policy(created=5),
    policy(name="older", created=1),
    policy(name="pooled", driver={"nodeSelector": {"matchLabels": POOL}}),
)
DISABLED, BROKEN = policy(autoUpgrade=False), policy(drain={"podSelector": "("})
ASTRAY = policy(name="astray", driver={"nodeSelector": {"matchLabels": {"a b": "c"}}})
FAILURE = Failure(R.DRIVER_POD_PENDING, target="ds@2")


@pytest.mark.parametrize("state", list(State))
def test_in_progress_is_from_the_grant_to_the_end(state: State):
    facts = facts_of(at(state, OLD), NOW)
    assert facts.in_progress == (state in IN_PROGRESS)
    assert facts.available == (state in {S.UNKNOWN, S.UPGRADE_DONE, S.UPGRADE_REQUIRED})
    assert facts.state is state


@pytest.mark.parametrize("label", ["", "nonsense", S.UPGRADE_REQUIRED, S.UPGRADE_DONE, S.UPGRADE_FAILED])
def test_in_progress_by_the_record_whatever_the_label_says(label: str):
    facts = facts_of(view(node(label, record(S.DRAIN_REQUIRED), cordoned=True), OLD), NOW)
    assert facts.in_progress
    assert facts.ask is Ask.NOTHING


def test_in_progress_for_the_policy_in_the_record():
    stray = at(S.DRAIN_REQUIRED, OLD, policy=None, released=Released.GONE, rec={"policy": "Seed/x", "namespace": "y"})
    facts = facts_of(stray, NOW)
    assert (facts.policy, facts.in_progress, facts.managed) == ("Seed/y/x", True, False)


@pytest.mark.parametrize(
    ("situation", "seen", "available", "managed"),
    [
        ("at rest", at(S.UPGRADE_DONE, NEW), True, True),
        ("cordoned by others", at(S.UPGRADE_DONE, NEW, cordoned=True), False, True),
        ("not ready", at(S.UPGRADE_DONE, NEW, ready=False), False, True),
        ("failed and uncordoned", at(S.UPGRADE_FAILED, NEW, cordoned=False), False, True),
        ("a DaemonSet should run here", view(node()), True, True),
        ("a driver pod is here", view(node(), orphan(), sets=()), True, True),
        ("our record is here", at(S.UPGRADE_DONE, sets=()), True, True),
        ("nothing of the driver is here", view(node(), sets=(driver_set(wants=False),)), True, False),
    ],
)
def test_unavailable_and_managed(situation: str, seen: NodeView, available: bool, managed: bool):
    facts = facts_of(seen, NOW)
    assert (facts.available, facts.managed) == (available, managed)


@pytest.mark.parametrize(
    ("situation", "seen", "ask", "blocked"),
    [
        ("outdated", at(S.UPGRADE_REQUIRED, OLD), Ask.GRANT, None),
        ("from the peer, without record", view(node(S.UPGRADE_REQUIRED), OLD), Ask.GRANT, None),
        ("claim to be given up through a grant", at(S.UPGRADE_REQUIRED, NEW, rec={"claim": True}), Ask.GRANT, None),
        ("skipped", at(S.UPGRADE_REQUIRED, OLD, labels={KEYS.skip: "true"}), Ask.GRANT, R.SKIPPED),
        (
            "other driver",
            at(S.UPGRADE_REQUIRED, OLD, others=(other(S.DRAIN_REQUIRED),)),
            Ask.GRANT,
            R.OTHER_DRIVER_IN_PROGRESS,
        ),
        ("unwanted", at(S.UPGRADE_REQUIRED, OLD, sets=(driver_set(wants=False),)), Ask.GRANT, R.DAEMONSET_GONE),
        ("no longer needed", at(S.UPGRADE_REQUIRED, NEW), Ask.NOTHING, None),
        ("not yet required", at(S.UPGRADE_DONE, OLD), Ask.NOTHING, None),
        ("unsettled", at(S.UPGRADE_REQUIRED, OLD, sets=(driver_set(observed=False),)), Ask.NOTHING, R.REVISION_UNKNOWN),
        ("no policy", at(S.UPGRADE_REQUIRED, OLD, policy=None), Ask.NOTHING, None),
        ("label to be restored first", view(node(record=record(S.UPGRADE_REQUIRED)), OLD), Ask.NOTHING, None),
        ("record to be corrected first", view(node(S.UPGRADE_REQUIRED, record(S.UPGRADE_FAILED)), OLD), Ask.NOTHING, None),
        ("another operator", at(S.UPGRADE_REQUIRED, OLD, notes={KEYS.requestor_mode: "x"}), Ask.NOTHING, R.OTHER_OPERATOR),
        ("failed", at(S.UPGRADE_FAILED, OLD), Ask.NOTHING, None),
        ("failed, recovered", at(S.UPGRADE_FAILED, NEW), Ask.VALIDATION, None),
        ("failed, recovered, skipped", at(S.UPGRADE_FAILED, NEW, labels={KEYS.skip: "true"}), Ask.VALIDATION, None),
        (
            "failed, recovered, another driver in progress",
            at(S.UPGRADE_FAILED, NEW, others=(other(S.DRAIN_REQUIRED),)),
            Ask.NOTHING,
            None,
        ),
        ("failed by the peer, not taken over", view(node(S.UPGRADE_FAILED), NEW), Ask.NOTHING, None),
    ],
)
def test_ask(situation: str, seen: NodeView, ask: Ask, blocked: Reason | None):
    facts = facts_of(seen, NOW)
    assert (facts.ask, facts.blocked) == (ask, blocked)


@pytest.mark.parametrize(
    ("changes", "rank", "counted"),
    [
        ({"rec": {"failure": replace(FAILURE, target="ds@1")}}, OTHER_TARGET, ""),
        ({"rec": {"failure": FAILURE}}, RETRY, "ds@2"),
        ({"rec": {"failure": replace(FAILURE, earlier=True)}}, RETRY, ""),
        ({"notes": {KEYS.requested: "true"}}, REQUESTED, ""),
        ({"notes": {KEYS.safe_load: ""}}, SAFE_LOAD, ""),
        ({}, ORDINARY, ""),
    ],
)
def test_rank_and_what_counts_as_failed(changes: dict[str, Any], rank: int, counted: str):
    facts = facts_of(at(S.UPGRADE_REQUIRED, OLD, **changes), NOW)
    assert (facts.rank, facts.failed_target, facts.target) == (rank, counted, "ds@2")


def test_a_failure_counts_until_the_node_is_done():
    assert facts_of(at(S.DRAIN_REQUIRED, OLD, rec={"failure": FAILURE}), NOW).failed_target == "ds@2"


@pytest.mark.parametrize("failure", [FAILURE, replace(FAILURE, earlier=True)])
def test_a_failed_node_that_no_daemonset_wants_any_more_counts_on(failure: Failure):
    unwanted = at(S.UPGRADE_FAILED, cordoned=True, sets=(), rec={"failure": failure})
    assert facts_of(unwanted, NOW).failed_target == ("" if failure.earlier else "ds@2")


def test_a_failure_on_its_way_counts_and_keeps_its_slot():
    before = facts_of(at(S.DRAIN_REQUIRED, OLD), NOW)
    after = failing(before, record(S.UPGRADE_FAILED, failure=FAILURE))
    assert (before.failed_target, after.failed_target, after.in_progress) == ("", "ds@2", True)


def owner(on: Node, *policies: Policy) -> tuple[str | None, Released | None]:
    chosen, released = assign(on, KEYS, sorted(policies, key=lambda p: p.age_order))
    return (chosen.name if chosen else None), released


def resting(state: State = S.UPGRADE_DONE, labels: dict[str, str] | None = None, **rec: Any) -> Node:
    return node(state, record(state, **rec), labels=labels)


@pytest.mark.parametrize(
    ("situation", "on", "policies", "expected"),
    [
        ("nobody", node(), (), (None, None)),
        ("the only one", node(), (GPU,), ("gpu", None)),
        ("the older of two", node(), (GPU, OLDER), ("older", None)),
        ("the younger that selects", node(labels={}), (GPU, POOLED), ("gpu", None)),
        ("disabled, no record", node(), (DISABLED,), (None, None)),
        ("disabled, our record", resting(), (DISABLED,), (None, Released.DISABLED)),
        ("gone, our record", resting(), (), (None, Released.GONE)),
        ("no longer selected", resting(policy="DriverUpgradePolicy/pooled"), (POOLED,), (None, Released.UNSELECTED)),
        ("record of another node", resting(node="before"), (), (None, None)),
        ("at rest, its policy gone, another there", resting(policy="DriverUpgradePolicy/x"), (GPU,), ("gpu", None)),
        ("in progress: the record's, though younger", resting(S.DRAIN_REQUIRED), (GPU, OLDER), ("gpu", None)),
        ("in progress, disabled", resting(S.DRAIN_REQUIRED), (DISABLED, OLDER), (None, Released.DISABLED)),
        (
            "in progress, no longer selected, another there",
            resting(S.DRAIN_REQUIRED, policy="DriverUpgradePolicy/pooled"),
            (GPU, POOLED),
            (None, Released.UNSELECTED),
        ),
        ("in progress, same name elsewhere", resting(S.DRAIN_REQUIRED, namespace="x"), (GPU,), (None, Released.GONE)),
        ("in progress, record without policy", resting(S.DRAIN_REQUIRED, policy=""), (GPU,), ("gpu", None)),
        ("in progress, record without policy, none there", resting(S.DRAIN_REQUIRED, policy=""), (), (None, Released.GONE)),
        ("in progress, broken since", resting(S.DRAIN_REQUIRED), (BROKEN,), ("gpu", None)),
        (
            "failed, its policy gone, another there",
            resting(S.UPGRADE_FAILED, policy="DriverUpgradePolicy/x"),
            (GPU,),
            ("gpu", None),
        ),
        ("failed, its policy gone", resting(S.UPGRADE_FAILED), (), (None, Released.GONE)),
        ("a policy that cannot tell its nodes comes last", node(), (ASTRAY, policy(created=10**9)), ("gpu", None)),
        ("a policy that cannot tell its nodes, alone", node(), (ASTRAY,), ("astray", None)),
    ],
)
def test_assign(situation: str, on: Node, policies: tuple[Policy, ...], expected: tuple[str | None, Released | None]):
    assert owner(on, *policies) == expected


def test_contenders_are_all_that_select_the_node():
    on = node(labels=POOL)
    assert [p.name for p in contenders(on, [OLDER, GPU, POOLED, DISABLED])] == ["older", "gpu", "pooled"]
    assert [p.name for p in contenders(node(), [GPU, POOLED])] == ["gpu"]


@pytest.mark.parametrize("state", list(State))
def test_a_node_whose_driver_pods_are_not_known_counts_by_its_record_and_asks_for_nothing(state: State):
    seen = at(state, OLD, rec={"failure": FAILURE} if state is S.UPGRADE_FAILED else {})
    whole, facts = facts_of(seen, NOW), facts_unlisted(Unlisted(replace(seen, driver_pods=())), NOW)
    assert facts == replace(whole, ask=Ask.NOTHING, blocked=None, rank=facts.rank)
    lost = replace(seen, policy=None, released=Released.UNSELECTED, driver_pods=())
    assert facts_unlisted(Unlisted(lost), NOW).in_progress == (state in IN_PROGRESS)
    assert facts_unlisted(Unlisted(lost), NOW).policy == (GPU.full_name if state in IN_PROGRESS else "")


@pytest.mark.parametrize("state", list(State))
def test_a_decision_that_was_made_anyway_is_not_made_again(state: State):
    for seen in (at(state, OLD), at(state, NEW), at(state), at(state, OLD, labels={KEYS.skip: "true"})):
        assert facts_of(seen, NOW, decide(seen, NOW)) == facts_of(seen, NOW)
