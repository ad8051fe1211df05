"""From an empty node to one given back: restart the driver, validate it, uncordon (design, section 3)."""

from controller.api.pod import Pod
from controller.upgrade import pods
from controller.upgrade.actions import ConfirmPods, Decision, DeletePod
from controller.upgrade.failed import validation_passes
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.states import State
from controller.upgrade.turn import Turn, timeout_of
from controller.upgrade.vacate import drain_state, restart_only, unreadable


def restart(turn: Turn) -> Decision:
    """Pod-restart-required: replace the driver pod or unblock its loading, and wait until it is ready."""
    view = turn.view
    undecided = turn.list_revisions()
    if view.driver_ready and not view.to_replace and not view.waits_for_safe_load:
        return _ready(turn)
    if turn.expired:
        reason, message, _ = why_not_ready(turn)
        if undecided:
            reason, message = Reason.REVISION_UNKNOWN, undecided.message
        return turn.fail(reason, f"not ready in time: {message}")
    if undecided:
        return undecided
    if view.to_replace or view.waits_for_safe_load:
        return _occupied(turn) or _replace(turn)
    return _await_ready(turn)


def _replace(turn: Turn) -> Decision:
    """Delete the old driver pod; where there is none, let the waiting one load."""
    view = turn.view
    if not view.to_replace:
        return turn.write(turn.record, annotations={view.keys.safe_load: None}, message="driver loading unblocked")
    _, message, blockers = why_not_ready(turn)
    doomed = tuple(DeletePod(p.namespace, p.name, p.uid) for p in view.to_replace if not p.terminating)
    return turn.wait(Reason.DRIVER_POD_TERMINATING, message, actions=doomed, blockers=blockers, deadline=turn.deadline)


def _await_ready(turn: Turn) -> Decision:
    if crashed := _crashed(turn):
        return turn.fail(Reason.DRIVER_POD_CRASHING, crashed)
    reason, message, blockers = why_not_ready(turn)
    return turn.wait(reason, message, blockers=blockers, deadline=turn.deadline)


def _ready(turn: Turn) -> Decision:
    if turn.policy.validators is not None:
        return turn.move(State.VALIDATION_REQUIRED)
    return turn.finish()


def _occupied(turn: Turn) -> Decision | None:
    """Go back to the drain while a workload is on the node: the driver is never taken from under one."""
    if not turn.policy.spec.drain.enable or restart_only(turn):
        return None
    if turn.view.workload is None:
        text = "the node's pods have not been listed since the cordon"
        return turn.wait(Reason.PODS_NOT_LISTED, text, deadline=turn.deadline)
    if unreadable(turn) or not drain_state(turn).over:
        return turn.move(State.DRAIN_REQUIRED, message="pods are on the node that have to leave before the driver does")
    if not turn.view.confirmed:
        text = "confirming that the node is empty"
        return turn.wait(Reason.PODS_NOT_LISTED, text, actions=(ConfirmPods(),), deadline=turn.deadline)
    return None


def _crashed(turn: Turn) -> str:
    limit = turn.policy.spec.pod_restart.max_restarts
    for pod in turn.view.driver_pods:
        if pods.restarts(pod) > limit:
            return f"{pod.name} restarted {pods.restarts(pod)} times, more than maxRestarts {limit}: see its logs"
    return ""


def why_not_ready(turn: Turn) -> tuple[Reason, str, tuple[Blocker, ...]]:
    """Say which driver pod is not ready and why."""
    view = turn.view
    if not view.driver_pods:
        return Reason.DRIVER_POD_MISSING, "the DaemonSet has made no new pod on this node", ()
    for pod in (*view.to_replace, *view.driver_pods):
        if pod in view.to_replace or not pods.is_ready(pod):
            reason, message = pods.why_not_ready(pod)
            if pod in view.to_replace and not pod.terminating:
                reason, message = Reason.DRIVER_POD_TERMINATING, "old driver pod is being replaced"
            message += "" if view.node.ready else "; the node is not Ready"
            text = f"{pod.name}: {message}"
            return reason, text, (Blocker(reason, pod.namespace, pod.name, message, pods.created(pod)),)
    return Reason.DRIVER_POD_NOT_READY, "a driver pod that no DaemonSet owns is in the way: delete it", ()


def validate(turn: Turn) -> Decision:
    """Validation-required: every validation pod on the node ready, at least one. Never skipped."""
    view, selector = turn.view, turn.policy.validators
    undecided = turn.list_revisions()
    if undecided is None and (not view.driver_ready or view.waits_for_safe_load):
        return turn.move(State.POD_RESTART_REQUIRED, message="the driver pod is not ready any more")
    if selector is None:
        return _unjudged(turn) or turn.finish()
    if undecided is None and validation_passes(view):
        return turn.finish()
    found = (p for p in view.workload or () if selector.matches(p.labels))
    return _unvalidated(turn, [p for p in found if not pods.is_ready(p)], undecided)


def _unvalidated(turn: Turn, waiting: list[Pod], undecided: Decision | None) -> Decision:
    reason, message = _why_not_valid(turn, waiting)
    if turn.expired:
        return turn.fail(reason, f"not validated in time: {undecided.message if undecided else message}")
    if undecided:
        return undecided
    blockers = tuple(Blocker(reason, p.namespace, p.name, pods.why_not_ready(p)[1], pods.created(p)) for p in waiting)
    return turn.wait(reason, message, blockers=blockers, deadline=turn.deadline)


def _why_not_valid(turn: Turn, waiting: list[Pod]) -> tuple[Reason, str]:
    if turn.view.workload is None:
        return Reason.PODS_NOT_LISTED, "the node's pods have not been listed"
    if not waiting:
        text = f"no pod on the node matches validation.podSelector {turn.policy.validators}"
        return Reason.VALIDATION_POD_MISSING, text
    return Reason.VALIDATION_NOT_READY, "not ready: " + ", ".join(f"{p.namespace}/{p.name}" for p in waiting[:3])


def uncordon(turn: Turn) -> Decision:
    """Uncordon-required: look once more that all is as it should be, then give the node back in one PATCH."""
    view = turn.view
    if unjudged := _unjudged(turn):
        return unjudged
    if not view.driver_ready or view.waits_for_safe_load:
        return turn.move(State.POD_RESTART_REQUIRED, message="the driver pod is not ready any more")
    return _unproven(turn) or turn.finish()


def _unproven(turn: Turn) -> Decision | None:
    """Validate again where that passes no longer: while nobody looked, the driver may have been replaced or restarted."""
    if validation_passes(turn.view):
        return None
    seconds = timeout_of(turn.policy, State.VALIDATION_REQUIRED)
    deadline = turn.view.today(turn.record.began) + seconds if seconds else None
    if turn.view.workload is None and (deadline is None or turn.now < deadline):
        return turn.wait(Reason.PODS_NOT_LISTED, "the node's pods have not been listed", deadline=deadline)
    return turn.move(State.POD_RESTART_REQUIRED, message="the validation does not pass any more")


def _unjudged(turn: Turn) -> Decision | None:
    """List what is missing; where nothing is, wait for the pod in the state that has a deadline for it."""
    if turn.view.unsettled and not turn.view.unlisted:
        message = "a driver pod cannot be judged: its DaemonSet is gone, or has not been observed yet"
        return turn.move(State.POD_RESTART_REQUIRED, message=message)
    return turn.list_revisions()
