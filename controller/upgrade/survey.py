"""How a policy stands, in one line of a table: its counts, its slots, and the one thing most worth saying."""

import msgspec

from controller.upgrade.admission import halted_targets
from controller.upgrade.fleet import Tally
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State


class PolicySurvey(msgspec.Struct, frozen=True, rename="camel"):
    """One policy. ``slots`` 0 is no limit. The two times are those of its status, empty where it tells none."""

    policy: str
    driver: str
    nodes: int
    done: int
    in_progress: int
    waiting: int
    failed: int
    unavailable: int
    slots: int
    condition: str
    message: str = ""
    started_at: str = ""
    estimated_completion: str = ""


def survey(policy: Policy, tally: Tally, *, counts: bool = True) -> PolicySurvey:
    """Sum a policy up; ``counts`` tells whether it is in a namespace that counts."""
    condition, message = headline(policy, tally) if counts else (str(Reason.NAMESPACE_NOT_ALLOWED), "counts for nothing")
    return PolicySurvey(
        policy=policy.full_name,
        driver=policy.driver,
        nodes=tally.total,
        done=tally.states[State.UPGRADE_DONE],
        in_progress=tally.in_progress,
        waiting=tally.states[State.UPGRADE_REQUIRED],
        failed=tally.states[State.UPGRADE_FAILED],
        unavailable=tally.unavailable,
        slots=policy.spec.max_parallel_upgrades,
        condition=condition,
        message=message,
    )


def headline(policy: Policy, tally: Tally) -> tuple[str, str]:
    """Return the one thing most worth saying about a policy: in a word, and in words."""
    if policy.errors:
        return str(Reason.POLICY_INVALID), "; ".join(str(e) for e in policy.errors)
    if not policy.enabled:
        return "Disabled", "autoUpgrade is false"
    if targets := halted_targets(policy, tally):
        failed = max(tally.failures[t] for t in targets)
        return str(Reason.HALTED), f"{failed} nodes failed, failureThreshold is {policy.failure_threshold}"
    if policy.paused:
        return str(Reason.PAUSED), "resume it with driver-upgrade resume"
    if is_blocked(tally):
        held = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.stuck.items()))
        return "Blocked", f"nothing can begin: {held}"
    if tally.in_progress or tally.states[State.UPGRADE_REQUIRED]:
        return "Upgrading", ""
    return ("Idle", "") if tally.total else ("NoNodes", "it selects no node where the driver should run")


def is_blocked(tally: Tally) -> bool:
    """Whether every node that is to be upgraded is held up by something of its own, and nothing is under way."""
    return bool(tally.stuck) and not (tally.in_progress or tally.groups or tally.validations)
