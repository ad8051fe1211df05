"""What is told as Events: every step, every failure, each new blocker once, in words that say what to do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from controller.upgrade.actions import Decision, PatchNode
from controller.upgrade.decide import decide
from controller.upgrade.narration import (
    HARMLESS,
    MAX_BLOCKERS,
    TOLD_REASONS,
    Happening,
    Told,
    gist,
    on_condition,
    on_decision,
    on_transition,
)
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.remedies import REMEDIES
from controller.upgrade.states import IN_PROGRESS, State
from tests.unit.upgrade.builders import NEW, NOW, OLD, at, node, policy, record, view

PAGE = Path(__file__).parents[3] / "docs" / "events.md"
DRAIN, REQUIRED, FAILED = State.DRAIN_REQUIRED, State.UPGRADE_REQUIRED, State.UPGRADE_FAILED
BUDGET = Blocker(Reason.POD_DISRUPTION_BUDGET, "work", "web-1", "budget web needs 1, has 1")


def to(state: State, *, reason: Reason | None = None, message: str = "") -> PatchNode:
    return PatchNode(record(state) if state else None, reason=reason, message=message)


STEPS = {
    State.UPGRADE_REQUIRED: "UpgradeRequired",
    State.CORDON_REQUIRED: "UpgradeStarted",
    State.WAIT_FOR_JOBS_REQUIRED: "WaitingForJobs",
    State.POD_DELETION_REQUIRED: "DeletingPods",
    State.DRAIN_REQUIRED: "Draining",
    State.POD_RESTART_REQUIRED: "RestartingDriver",
    State.VALIDATION_REQUIRED: "Validating",
    State.UNCORDON_REQUIRED: "Uncordoning",
    State.UPGRADE_DONE: "UpgradeDone",
    State.UPGRADE_FAILED: "UpgradeFailed",
    State.UNKNOWN: "PutBack",
}


def test_every_state_has_its_event():
    assert STEPS.keys() == set(State)


@pytest.mark.parametrize("state", State)
def test_a_step_is_told(state):
    before = State.POD_RESTART_REQUIRED if state is not State.POD_RESTART_REQUIRED else DRAIN
    told = on_transition(at(before, OLD), to(state))
    assert told is not None
    assert (told.reason, told.warning) == (STEPS[state], state is FAILED)
    assert told.note.startswith("driver gpu: ")
    assert "{" not in told.note


def test_a_step_says_what_for_and_how_long():
    required = on_transition(view(node(), OLD), to(REQUIRED))
    draining = on_transition(
        at(State.CORDON_REQUIRED, OLD, policy=policy(drain={"enable": True, "timeoutSeconds": 90})), to(DRAIN)
    )
    assert required is not None
    assert "to revision 2 of DaemonSet ds" in required.note
    assert draining is not None
    assert draining.note == "driver gpu: draining the node, for at most 90 s, then the upgrade fails"


def test_a_failure_says_where_why_and_what_to_do():
    told = on_transition(at(DRAIN, OLD), to(FAILED, reason=Reason.DEADLINE_EXCEEDED, message="time is up with work/web"))
    assert told is not None
    assert "failed in drain-required: DeadlineExceeded: time is up with work/web. The node stays cordoned." in told.note
    assert "driver-upgrade retry n1" in told.note


def test_a_failure_on_an_open_node_does_not_call_it_cordoned():
    lifted = to(FAILED, reason=Reason.CORDON_LIFTED, message="lifted 6 times")
    told = on_transition(at(DRAIN, OLD, cordoned=False), lifted)
    assert told is not None
    assert "the node is open to new pods" in told.note
    assert "stays cordoned" not in told.note


def test_the_failures_of_the_core_are_told():
    """The words come from the decision itself, not from a copy of it."""
    late = at(DRAIN, OLD, rec={"entered": {DRAIN: NOW - 10_000}}, policy=policy(drain={"enable": True}), workload=(OLD,))
    late = replace(late, workload=(replace(OLD, metadata=replace(OLD.metadata, owner_references=(), uid="w")),))
    patch = decide(late, NOW).patch
    assert patch is not None
    told = on_transition(late, patch)
    assert told is not None
    assert (told.reason, told.warning) == ("UpgradeFailed", True)


def test_the_remedy_is_kept_whatever_the_length_of_the_message():
    told = on_transition(at(DRAIN, OLD), to(FAILED, reason=Reason.DEADLINE_EXCEEDED, message="x" * 9999))
    assert told is not None
    assert len(told.note) <= 1024
    assert told.note.endswith(REMEDIES[Reason.DEADLINE_EXCEEDED].replace("NODE", "n1"))


def test_marks_put_in_order_and_a_first_look_are_no_news():
    assert on_transition(at(DRAIN, OLD), to(DRAIN, message="label and record brought together")) is None
    assert on_transition(view(node(), NEW), to(State.UPGRADE_DONE)) is None


def test_a_lifted_cordon_is_told_although_the_state_stays():
    told = on_transition(at(DRAIN, OLD), to(DRAIN, reason=Reason.CORDON_LIFTED, message="someone lifted the cordon"))
    assert told is not None
    assert (told.reason, told.warning) == ("CordonLifted", True)


def waits(state: State, reason: Reason | None, *blockers: Blocker, message: str = "so") -> Decision:
    return Decision(state, reason=reason, message=message, blockers=blockers)


def told(state: State, decision: Decision, last: Decision | None = None) -> list[Told]:
    return list(on_decision(at(state, OLD), decision, last))


def test_a_blocker_is_told_once_with_its_pod_and_the_remedy():
    decision = waits(DRAIN, Reason.POD_DISRUPTION_BUDGET, BUDGET)
    (one,) = told(DRAIN, decision)
    assert (one.reason, one.action, one.warning, one.pod) == ("PodDisruptionBudget", "Drain", True, ("work", "web-1"))
    assert "drain-required is held up by pod work/web-1: PodDisruptionBudget (budget web needs 1, has 1)" in one.note
    assert REMEDIES[Reason.POD_DISRUPTION_BUDGET] in one.note
    assert not told(DRAIN, decision, decision)
    changed = replace(decision, blockers=(replace(BUDGET, message="budget web needs 2, has 2"),))
    assert not told(DRAIN, changed, decision), "words that change with each look are no news"
    assert told(DRAIN, replace(decision, blockers=(BUDGET, replace(BUDGET, name="web-2"))), decision)[0].pod[1] == "web-2"


def test_a_hundred_blockers_are_not_a_hundred_events():
    many = [replace(BUDGET, name=f"web-{n}") for n in range(100)]
    found = told(DRAIN, waits(DRAIN, Reason.POD_DISRUPTION_BUDGET, *many))
    assert len(found) == MAX_BLOCKERS + 1
    assert "95 more pods" in found[-1].note


def test_a_pod_that_shuts_down_is_no_news_until_something_holds_it():
    ending = Blocker(Reason.POD_TERMINATING, "work", "web", "shutting down")
    held = replace(ending, message="held by finalizer example.com/x")
    decision = waits(DRAIN, Reason.POD_TERMINATING, ending)
    assert not told(DRAIN, decision)
    assert not told(DRAIN, waits(DRAIN, Reason.POD_TERMINATING, replace(ending, message="")))
    (one,) = told(DRAIN, waits(DRAIN, Reason.POD_TERMINATING, held), decision)
    assert one.warning
    assert "finalizer example.com/x" in one.note


@pytest.mark.parametrize("reason", sorted(set(Reason) - TOLD_REASONS))
def test_what_passes_by_itself_or_concerns_all_is_not_told_of_a_node(reason):
    assert not told(DRAIN, waits(DRAIN, reason))
    assert not told(DRAIN, waits(DRAIN, reason, replace(BUDGET, reason=reason)))


@pytest.mark.parametrize("reason", sorted(TOLD_REASONS - {Reason.DRIVER_POD_PENDING, Reason.DRIVER_POD_MISSING}))
@pytest.mark.parametrize("state", sorted(IN_PROGRESS | {REQUIRED}))
def test_what_a_node_waits_for_is_told_once(state, reason):
    decision = waits(state, reason)
    (one,) = told(state, decision)
    assert (one.reason, one.warning) == (reason, reason not in HARMLESS)
    assert not told(state, decision, decision)
    assert told(state, decision, waits(state, Reason.EVICTING))


def test_a_driver_pod_that_takes_its_seconds_to_come_is_no_news_and_one_that_cannot_come_is():
    restart = State.POD_RESTART_REQUIRED
    coming = Blocker(Reason.DRIVER_POD_PENDING, "ops", "drv", "not started yet")
    stuck = replace(coming, message="Unschedulable: 0/3 nodes are available")
    assert not told(restart, waits(restart, Reason.DRIVER_POD_PENDING, coming))
    assert "0/3 nodes" in told(restart, waits(restart, Reason.DRIVER_POD_PENDING, stuck))[0].note
    assert not told(restart, waits(restart, Reason.DRIVER_POD_MISSING))
    assert told(REQUIRED, waits(REQUIRED, Reason.DRIVER_POD_MISSING))


def test_of_nodes_at_rest_only_what_somebody_has_to_mend_is_told():
    done = State.UPGRADE_DONE
    assert not told(done, waits(done, Reason.DRIVER_POD_MISSING))
    assert told(done, waits(done, Reason.INVALID_STATE))
    assert not told(FAILED, waits(FAILED, Reason.DEADLINE_EXCEEDED)), "its failure has been told"


GOOD = [
    ("Halted", "False", "BelowThreshold"),
    ("Valid", "True", "Accepted"),
    ("Degraded", "False", "AsExpected"),
    ("Progressing", "False", "Idle"),
    ("Progressing", "False", "Disabled"),
    ("Available", "True", "NodesAvailable"),
]


@pytest.mark.parametrize(("kind", "status", "reason"), GOOD)
def test_what_is_as_it_should_be_is_not_told_at_first_sight(kind, status, reason):
    assert on_condition(kind, None, (status, reason), "", "gpu") is None
    assert on_condition(kind, (status, reason), (status, reason), "other words", "gpu") is None


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected", "warning"),
    [
        ("Halted", ("False", "BelowThreshold"), ("True", "FailureThreshold"), "RolloutHalted", True),
        ("Halted", ("True", "FailureThreshold"), ("False", "BelowThreshold"), "HaltEnded", False),
        ("Valid", ("True", "Accepted"), ("False", "PolicyInvalid"), "PolicyInvalid", True),
        ("Valid", None, ("False", "NamespaceNotAllowed"), "NamespaceNotAllowed", True),
        ("Valid", ("False", "PolicyInvalid"), ("True", "Accepted"), "PolicyAccepted", False),
        ("Degraded", ("False", "AsExpected"), ("True", "NodesFailed"), "NodesFailed", True),
        ("Degraded", ("True", "NodesFailed"), ("True", "NoDaemonSet"), "NoDaemonSet", True),
        ("Degraded", ("True", "NodesFailed"), ("False", "AsExpected"), "NodesRecovered", False),
        ("Progressing", ("False", "Idle"), ("True", "Upgrading"), "RolloutStarted", False),
        ("Progressing", ("True", "Upgrading"), ("False", "Idle"), "RolloutFinished", False),
        ("Progressing", ("True", "Upgrading"), ("True", "Paused"), "RolloutPaused", False),
        ("Progressing", ("True", "Upgrading"), ("False", "Disabled"), "PolicyDisabled", False),
        ("Progressing", ("True", "Paused"), ("False", "Paused"), None, False),
        ("Progressing", ("True", "Upgrading"), ("False", "Blocked"), None, False),
        ("Progressing", ("True", "Upgrading"), ("False", "MaxUnavailable"), "RolloutBlocked", True),
        ("Progressing", ("False", "Blocked"), ("False", "MaxUnavailable"), "RolloutBlocked", True),
        ("Progressing", None, ("False", "MaxUnavailable"), "RolloutBlocked", True),
        ("Progressing", ("False", "MaxUnavailable"), ("True", "Upgrading"), "RolloutStarted", False),
        ("Available", ("True", "NodesAvailable"), ("False", "NoNodeAvailable"), None, False),
    ],
)
def test_a_condition_that_changes_is_told(kind, old, new, expected, warning):
    found = on_condition(kind, old, new, "why", "gpu")
    assert (found.reason, found.warning) == (expected, warning) if found else expected is None
    assert found is None or "why" in found.note


def test_a_pause_is_told_with_the_command_that_ends_it():
    found = on_condition("Progressing", ("True", "Upgrading"), ("True", "Paused"), "", "Kind/ns/gpu")
    assert found is not None
    assert "`driver-upgrade resume Kind/ns/gpu`" in found.note


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("Blocked", "nothing can begin: 2 Skipped", "Blocked"),
        ("Blocked", "nothing can begin: 1 Skipped, 3 MaxUnavailable: 0 of 3 nodes are unavailable", "MaxUnavailable"),
        ("NodesFailed", "MaxUnavailable", "NodesFailed"),
    ],
)
def test_what_blocks_a_rollout_is_news_of_its_own(reason: str, message: str, expected: str):
    assert gist({"status": "False", "reason": reason, "message": message}) == ("False", expected)


def test_what_is_told_now_was_told_before_without_words():
    assert gist({"type": "Halted", "status": "False", "reason": "BelowThreshold"}) == ("False", "BelowThreshold")


def rows(about: str) -> Iterator[list[str]]:
    section = next(part for part in PAGE.read_text().split("\n## ") if part.startswith(about))
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_page_lists_every_event_and_no_other():
    of_policies = {Reason.POLICY_INVALID, Reason.POLICY_CONFLICT, Reason.NAMESPACE_NOT_ALLOWED}
    assert {r[0] for r in rows("What was done")} == {*Happening, *of_policies}
    assert {r[0]: (r[1], r[2]) for r in rows("What holds")} == {
        str(r): ("Normal" if r in HARMLESS else "Warning", REMEDIES[r]) for r in TOLD_REASONS
    }


def test_the_page_says_what_is_a_warning():
    kinds = {r[0]: r[1] for r in rows("What was done")}
    for state, reason in STEPS.items():
        assert kinds[reason] == ("Warning" if state is FAILED else "Normal")
    assert all(all(r) for r in rows("What was done")), "every cell says something"
