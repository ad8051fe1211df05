"""What is told as Events, in words that a person acts on: pure functions from what happened to :class:`Told`.

Every transition of a node, every failure, every new thing that holds a node up, and every change of a policy's conditions.
What all waiting nodes have in common (no slot, paused, halted) is said once, of their policy. The reason of an Event about
something in the way is the node's own :class:`~controller.upgrade.reasons.Reason`.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from controller.upgrade.actions import Decision, PatchNode
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.remedies import remedy
from controller.upgrade.revision import split_target
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import IN_PROGRESS, State
from controller.upgrade.turn import timeout_of

MAX_BLOCKERS = 5
"""Blockers of one look that are told one by one; a drain of a hundred pods must not use up what a node may say."""


class Happening(StrEnum):
    """Reasons of Events about what we did, or what became of a policy. Values are stable."""

    UPGRADE_REQUIRED = "UpgradeRequired"
    UPGRADE_STARTED = "UpgradeStarted"
    WAITING_FOR_JOBS = "WaitingForJobs"
    DELETING_PODS = "DeletingPods"
    DRAINING = "Draining"
    RESTARTING_DRIVER = "RestartingDriver"
    VALIDATING = "Validating"
    UNCORDONING = "Uncordoning"
    UPGRADE_DONE = "UpgradeDone"
    UPGRADE_FAILED = "UpgradeFailed"
    PUT_BACK = "PutBack"
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_FINISHED = "RolloutFinished"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_BLOCKED = "RolloutBlocked"
    ROLLOUT_HALTED = "RolloutHalted"
    HALT_ENDED = "HaltEnded"
    POLICY_DISABLED = "PolicyDisabled"
    POLICY_ACCEPTED = "PolicyAccepted"
    NODES_FAILED = "NodesFailed"
    NODES_RECOVERED = "NodesRecovered"
    NO_NODES_SELECTED = "NoNodesSelected"
    NO_DAEMONSET = "NoDaemonSet"
    DAEMONSET_NOT_ON_DELETE = "DaemonSetNotOnDelete"


_H, _R = Happening, Reason


class Told(msgspec.Struct, frozen=True):
    """One Event: ``pod`` is the namespace and name of the pod that it has to do with, where there is one."""

    reason: str
    action: str
    note: str
    warning: bool = False
    pod: tuple[str, str] = ("", "")


_ENTERED: Mapping[State, tuple[Happening, str, str]] = {
    State.UPGRADE_REQUIRED: (_H.UPGRADE_REQUIRED, "Upgrade", "an upgrade{target} is needed; the node waits for its turn"),
    State.CORDON_REQUIRED: (_H.UPGRADE_STARTED, "Cordon", "the upgrade{target} begins: the node is cordoned"),
    State.WAIT_FOR_JOBS_REQUIRED: (_H.WAITING_FOR_JOBS, "WaitForJobs", "cordoned; waiting for jobs to finish{time}"),
    State.POD_DELETION_REQUIRED: (_H.DELETING_PODS, "DeletePods", "evicting the pods that use the device{time}"),
    State.DRAIN_REQUIRED: (_H.DRAINING, "Drain", "draining the node{time}"),
    State.POD_RESTART_REQUIRED: (_H.RESTARTING_DRIVER, "RestartDriver", "replacing the driver pod{time}"),
    State.VALIDATION_REQUIRED: (_H.VALIDATING, "Validate", "the driver is ready; waiting for its validation{time}"),
    State.UNCORDON_REQUIRED: (_H.UNCORDONING, "Uncordon", "the driver is ready: uncordoning the node"),
    State.UPGRADE_DONE: (_H.UPGRADE_DONE, "Upgrade", "the driver is up to date{target}"),
    State.UNKNOWN: (_H.PUT_BACK, "PutBack", "the upgrade is called off and the node put back"),
}
"""Reason, action and words of the entry into each state."""

_THEN: Mapping[State, str] = {
    State.WAIT_FOR_JOBS_REQUIRED: "then the upgrade goes on all the same",
    State.POD_DELETION_REQUIRED: "then the node is drained, or failed where the policy has no drain",
}

_TOLD_ELSEWHERE = frozenset({_R.NO_SLOT, _R.PAUSED, _R.HALTED, _R.MAX_UNAVAILABLE, _R.POLICY_INVALID})
"""What all waiting nodes of a policy share: told of the policy."""

_PASSING = frozenset(
    {
        _R.EVICTING,
        _R.REVISION_UNKNOWN,
        _R.PODS_NOT_LISTED,
        _R.DRIVER_POD_NOT_READY,
        _R.DRIVER_POD_TERMINATING,
        _R.OTHER_DRIVER_IN_PROGRESS,
    }
)
"""Waits that healthy upgrades go through: status and explain show them, an Event would be noise."""

HARMLESS = frozenset({_R.JOBS_RUNNING, _R.SKIPPED, _R.DRIVER_POD_PENDING, _R.DRIVER_POD_MISSING, _R.POD_TERMINATING})
"""Waits that are worth an Event but no warning."""

_OF_POLICIES = {_R.NAMESPACE_NOT_ALLOWED, _R.POLICY_CONFLICT}
TOLD_REASONS = frozenset(_R) - _TOLD_ELSEWHERE - _PASSING - {_R.FAILED, _R.DEADLINE_EXCEEDED} - _OF_POLICIES
"""Reasons of nodes that Events carry; how an upgrade failed is in the words of the failure."""

_WAITING = IN_PROGRESS | {State.UPGRADE_REQUIRED, State.UNKNOWN, State.UPGRADE_DONE}
_AT_REST = frozenset({_R.INVALID_STATE, _R.OTHER_OPERATOR})
"""What is told also of nodes at rest; that their driver pod is missing is every new node's beginning."""


def on_transition(view: NodeView, patch: PatchNode) -> Told | None:
    """Tell of a write of a node; None where it only put marks in order.

    That a node is found up to date at the first look is not told: nothing has happened to it.
    """
    old, new = view.state or State.UNKNOWN, patch.state
    if old is new:
        if patch.reason is None:
            return None
        return Told(patch.reason, "Cordon", _sentence(view, patch.message, patch.reason), warning=True)
    if (old, new) == (State.UNKNOWN, State.UPGRADE_DONE):
        return None
    if new is State.UPGRADE_FAILED:
        return _failure(view, old, patch)
    reason, action, text = _ENTERED[new]
    words = text.format(target=_target(view), time=_time(view, new))
    if patch.message:
        words += f": {patch.message}"
    return Told(reason, action, _sentence(view, words, patch.reason), warning=patch.reason is not None)


def _failure(view: NodeView, old: State, patch: PatchNode) -> Told:
    why = f"{patch.reason}: {patch.message}" if patch.message else str(patch.reason or Reason.FAILED)
    words = f"the upgrade failed in {old or 'unknown'}: {why}. "
    words += "The node stays cordoned" if view.node.unschedulable else "Its cordon was lifted: the node is open to new pods"
    return Told(_H.UPGRADE_FAILED, "Upgrade", _sentence(view, words, patch.reason or Reason.FAILED), warning=True)


def on_decision(view: NodeView, decision: Decision, last: Decision | None) -> Iterator[Told]:
    """Tell what newly holds a node up: each new blocker, or where there are none the new reason."""
    if decision.state not in _WAITING or decision.reason is None or decision.reason in _TOLD_ELSEWHERE:
        return
    if decision.state not in IN_PROGRESS | {State.UPGRADE_REQUIRED} and decision.reason not in _AT_REST:
        return
    known = {_identity(b) for b in last.blockers} if last is not None and last.state is decision.state else set()
    fresh = [b for b in decision.blockers if _is_news(decision.state, b.reason, b.message) and _identity(b) not in known]
    for blocker in fresh[:MAX_BLOCKERS]:
        yield _blocker(view, decision.state, blocker)
    if len(fresh) > MAX_BLOCKERS:
        more = f"{len(fresh) - MAX_BLOCKERS} more pods are in the way: `driver-upgrade explain {view.node.name}` names them"
        yield Told(decision.reason, _action(decision.state), _sentence(view, more), warning=True)
    same = last is not None and (last.state, last.reason) == (decision.state, decision.reason)
    if not decision.blockers and not same and _is_news(decision.state, decision.reason, decision.message):
        words = f"{_where(decision.state)} is held up by {decision.reason}: {decision.message}".rstrip(": ")
        warning = decision.reason not in HARMLESS
        yield Told(decision.reason, _action(decision.state), _sentence(view, words, decision.reason), warning)


def _blocker(view: NodeView, state: State, blocker: Blocker) -> Told:
    what = f"{blocker.namespace}/{blocker.name}" if blocker.namespace else blocker.name
    words = f"{_where(state)} is held up by pod {what}: {blocker.reason}"
    if blocker.message:
        words += f" ({blocker.message})"
    warning = blocker.reason not in HARMLESS or "finalizer" in blocker.message
    note = _sentence(view, words, blocker.reason)
    return Told(blocker.reason, _action(state), note, warning, (blocker.namespace, blocker.name))


def _is_news(state: State, reason: Reason, message: str) -> bool:
    """Whether it is more than the seconds that every pod takes to end, and every driver pod to come."""
    if reason is _R.POD_TERMINATING:
        return message not in {"", "shutting down"}
    if reason is _R.DRIVER_POD_PENDING:
        return message.startswith("Unschedulable")
    if reason is _R.DRIVER_POD_MISSING:
        return state is State.UPGRADE_REQUIRED
    return reason in TOLD_REASONS


def _identity(blocker: Blocker) -> tuple[str, ...]:
    """By what a blocker is known again. Its words may change with each look, but a pod's end has several causes in turn."""
    ending = blocker.message if blocker.reason is _R.POD_TERMINATING else ""
    return (blocker.reason, blocker.namespace, blocker.name, ending)


def _where(state: State) -> str:
    return str(state) or "the node"


def _action(state: State) -> str:
    return _ENTERED[state][1] if state else "Upgrade"


def _sentence(view: NodeView, words: str, reason: Reason | None = None) -> str:
    """The driver, what happened, and what to do; the remedy goes first where the whole would be cut off."""
    text = f"driver {view.keys.driver}: {words[:700]}"
    policy = view.policy.name if view.policy else "POLICY"
    return f"{text.rstrip('.')}. {remedy(reason, view.node.name, policy)}" if reason else text


def _target(view: NodeView) -> str:
    driver = view.driver_set
    _, revision = split_target(view.target)
    return f" to revision {revision} of DaemonSet {driver.daemonset.name}" if driver and revision else ""


def _time(view: NodeView, state: State) -> str:
    seconds = timeout_of(view.policy, state) if view.policy else 0
    return f", for at most {seconds} s, {_THEN.get(state, 'then the upgrade fails')}" if seconds else ""


def gist(condition: Mapping[str, Any]) -> tuple[str, str]:
    """What of a condition is news when it changes: status and reason.

    What blocks a rollout is one thing more. Nodes tell what of their own holds them; that ``maxUnavailable`` leaves no room,
    they have in common, so there it stands for the reason, and is told also where they were blocked otherwise before.
    """
    status, reason = str(condition.get("status")), str(condition.get("reason"))
    no_room = reason == "Blocked" and _R.MAX_UNAVAILABLE in str(condition.get("message"))
    return status, str(_R.MAX_UNAVAILABLE) if no_room else reason


def on_condition(kind: str, old: tuple[str, str] | None, new: tuple[str, str], message: str, policy: str) -> Told | None:
    """Tell of a condition of ``policy``; ``old`` and ``new`` are its :func:`gist`, ``old`` None where it is seen first.

    What is as it should be is not told at first sight.
    """
    if old == new or (old is None and new in _AS_IT_SHOULD):
        return None
    holds, reason = new[0] == "True", new[1]
    match kind:
        case "Halted":
            happening = _H.ROLLOUT_HALTED if holds else _H.HALT_ENDED
            return Told(happening, "Rollout", message or "new nodes are started again", warning=holds)
        case "Valid":
            return Told(_H.POLICY_ACCEPTED if holds else reason, "Validate", message or "the policy is valid", not holds)
        case "Degraded":
            text = message or "nothing is wrong any more"
            return Told(reason if holds else _H.NODES_RECOVERED, "Rollout", text, warning=holds)
        case "Progressing":
            return _progress(old, new, message, policy)
    return None


_AS_IT_SHOULD = frozenset({("False", "BelowThreshold"), ("True", "Accepted"), ("False", "AsExpected"), ("False", "Idle")})

_PROGRESS: Mapping[str, tuple[Happening, str]] = {
    "Upgrading": (_H.ROLLOUT_STARTED, "the rollout goes on"),
    "Idle": (_H.ROLLOUT_FINISHED, "the rollout is finished"),
    Reason.PAUSED: (_H.ROLLOUT_PAUSED, "no further node is started: paused. Run `driver-upgrade resume POLICY` to go on"),
    Reason.MAX_UNAVAILABLE: (_H.ROLLOUT_BLOCKED, "the rollout stands still"),
    "Disabled": (_H.POLICY_DISABLED, "autoUpgrade is false: nodes under way are put back"),
}


def _progress(old: tuple[str, str] | None, new: tuple[str, str], message: str, policy: str) -> Told | None:
    """Tell how the rollout goes. A pause that also ends what was under way is no further news."""
    if new[1] not in _PROGRESS or (old is not None and old[1] == new[1]) or (old is None and new[1] == "Disabled"):
        return None
    happening, words = _PROGRESS[new[1]]
    if new[1] == "Upgrading" and (old is None or old[1] in {"Idle", "Disabled"}):
        words = "a rollout begins"
    note = f"{words.replace('POLICY', policy)}; {message}"
    return Told(happening, "Rollout", note, warning=happening is _H.ROLLOUT_BLOCKED)
