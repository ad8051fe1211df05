"""The policy's status: counts and conditions, from the tallies and what is wrong with the policy's surroundings."""

from collections.abc import Iterable
from typing import Any

import msgspec

from controller.upgrade.admission import halted_targets
from controller.upgrade.fleet import Tally
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from controller.upgrade.summary import waiting
from controller.upgrade.survey import headline, is_blocked


class Finding(msgspec.Struct, frozen=True):
    """Something about a policy's surroundings that keeps it from doing its work, with the remedy."""

    reason: str
    message: str


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition of a policy. The time of its last transition is the writer's to keep."""

    type: str
    status: str
    reason: str
    message: str = ""


def condition(kind: str, holds: bool, reason: str, message: str = "") -> Condition:
    """Return a condition; messages are bounded as the API demands."""
    return Condition(kind, "True" if holds else "False", reason, message[:1024])


def conditions(policy: Policy, tally: Tally, findings: Iterable[Finding]) -> list[Condition]:
    """Judge a policy that counts."""
    found = list(findings)
    return [
        _available(tally),
        _progressing(policy, tally),
        _degraded(tally, found),
        _halted(policy, tally),
        _valid(policy),
    ]


def ignored(namespaces: Iterable[str]) -> list[Condition]:
    """Judge a policy outside the driver namespaces: it counts for nothing."""
    allowed = ", ".join(sorted(namespaces))
    message = f"policies count only in {allowed}: create it there, or add its namespace to --driver-namespaces"
    return [condition("Valid", holds=False, reason=Reason.NAMESPACE_NOT_ALLOWED, message=message)]


def node_counts(tally: Tally) -> dict[str, int]:
    """Return the counts of ``status.nodes``."""
    states = tally.states
    return {
        "total": tally.total,
        "upToDate": states[State.UPGRADE_DONE],
        "inProgress": tally.in_progress,
        "failed": states[State.UPGRADE_FAILED],
        "pending": states[State.UPGRADE_REQUIRED],
        "unavailable": tally.unavailable,
    }


def status_of(policy: Policy, tally: Tally, findings: Iterable[Finding]) -> dict[str, Any]:
    """Return what ``status`` says by counts alone: all but lists, times, and the conditions' times."""
    state, _ = headline(policy, tally)
    return {
        "observedGeneration": policy.generation,
        "state": state,
        "progress": f"{tally.states[State.UPGRADE_DONE]}/{tally.total}",
        "nodes": node_counts(tally),
        "states": {str(state) or "unknown": count for state, count in sorted(tally.states.items())},
        "blocked": waiting(policy, tally),
        "conditions": [msgspec.to_builtins(c) for c in conditions(policy, tally, findings)],
    }


def _available(tally: Tally) -> Condition:
    if not tally.total:
        return condition("Available", holds=False, reason="NoNodes", message="no node is managed by this policy")
    out = tally.unavailable
    return condition("Available", out < tally.total, "NodesAvailable" if out < tally.total else "NoNodeAvailable")


def _progressing(policy: Policy, tally: Tally) -> Condition:
    pending, busy = tally.states[State.UPGRADE_REQUIRED], tally.in_progress
    text = f"{tally.states[State.UPGRADE_DONE]} of {tally.total} nodes are up to date, {busy} in progress, {pending} waiting"
    if not policy.spec.auto_upgrade:
        return condition("Progressing", holds=False, reason="Disabled", message="autoUpgrade is false")
    if policy.paused:
        return condition("Progressing", busy > 0, Reason.PAUSED, text)
    if policy.errors and not busy:
        return condition("Progressing", holds=False, reason=Reason.POLICY_INVALID, message=text)
    if halted_targets(policy, tally) and not busy:
        return condition("Progressing", holds=False, reason=Reason.HALTED, message=text)
    if is_blocked(policy, tally):
        return condition("Progressing", holds=False, reason="Blocked", message=f"{text}: {headline(policy, tally)[1]}")
    if busy or pending:
        return condition("Progressing", holds=True, reason="Upgrading", message=text)
    return condition("Progressing", holds=False, reason="Idle", message=text)


def _degraded(tally: Tally, findings: list[Finding]) -> Condition:
    failed = tally.states[State.UPGRADE_FAILED]
    if findings:
        return condition("Degraded", True, findings[0].reason, "; ".join(f.message for f in findings))
    if failed:
        return condition("Degraded", holds=True, reason="NodesFailed", message=f"{failed} nodes are in upgrade-failed")
    return condition("Degraded", holds=False, reason="AsExpected")


def _halted(policy: Policy, tally: Tally) -> Condition:
    targets = halted_targets(policy, tally)
    if not targets:
        return condition("Halted", holds=False, reason="BelowThreshold")
    failed = max(tally.failures[t] for t in targets)
    text = (
        f"{failed} nodes failed, failureThreshold is {policy.failure_threshold}: nothing new is started. "
        "Retry the failed nodes, change the driver's version, or raise the threshold"
    )
    return condition("Halted", holds=True, reason="FailureThreshold", message=text)


def _valid(policy: Policy) -> Condition:
    if policy.errors:
        return condition("Valid", False, Reason.POLICY_INVALID, "; ".join(str(e) for e in policy.errors))
    return condition("Valid", holds=True, reason="Accepted")
