"""How a policy stands, in one line of a table: its counts, its slots, and the one thing most worth saying."""

import msgspec

from controller.upgrade.admission import halted_targets, no_room
from controller.upgrade.fleet import Tally
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.remedies import remedy
from controller.upgrade.states import State
from controller.upgrade.summary import Item, waiting


class PolicySurvey(msgspec.Struct, frozen=True, rename="camel"):
    """One policy. ``slots`` 0 is no limit. The two times are those of its status, empty where it tells none.

    ``blocked`` is as in its status: why nodes do not move, waiting or at rest, each with their number and the name of one.
    """

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
    blocked: tuple[Item, ...] = ()


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
        blocked=tuple(waiting(policy, tally)) if counts else (),
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
        return str(Reason.PAUSED), f"resume it with driver-upgrade resume {policy.full_name}"
    if is_blocked(policy, tally):
        return "Blocked", f"nothing can begin: {_held(policy, tally)}"
    if tally.in_progress or tally.states[State.UPGRADE_REQUIRED]:
        return "Upgrading", ""
    return ("Idle", "") if tally.total else ("NoNodes", "it selects no node where the driver should run")


def is_blocked(policy: Policy, tally: Tally) -> bool:
    """Whether nothing is under way, and nothing can begin.

    Every node that is to be upgraded is held up by something of its own, or by ``maxUnavailable``, which nothing of ours
    makes room for.
    """
    if tally.in_progress or tally.validations:
        return False
    return bool(no_room(policy, tally)) if tally.groups else bool(tally.stuck)


def _held(policy: Policy, tally: Tally) -> str:
    """What holds the nodes of a blocked policy, by number; ``maxUnavailable`` last, in words and with the remedy."""
    held = [f"{count} {reason}" for reason, count in sorted(tally.stuck.items())]
    if words := no_room(policy, tally):
        reason = Reason.MAX_UNAVAILABLE
        held.append(f"{tally.waiting()} {reason}: {words}. {remedy(reason, '')}")
    return ", ".join(held)
