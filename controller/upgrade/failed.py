"""The ways out of upgrade-failed (design, section 6): a fixed driver heals by itself, validation is never skipped."""

from controller.upgrade.actions import Decision
from controller.upgrade.pods import is_ready
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from controller.upgrade.turn import Turn, driver_uid


def failed(turn: Turn) -> Decision:
    """Upgrade-failed: stay cordoned, and look for a reason to try again."""
    view, record = turn.view, turn.record
    if record.claim and not view.node.unschedulable:
        message = "someone lifted the cordon of the failed node: it is theirs now"
        return turn.move(State.UPGRADE_FAILED, reason=Reason.CORDON_LIFTED, message=message, claim=False, since=record.since)
    if undecided := turn.list_revisions():
        return undecided
    if deserves_another_try(view, record.failure):
        return turn.move(State.UPGRADE_REQUIRED, message="the driver changed since the failure: trying again")
    if recovered(view, record.failure, record.asked_for):
        if busy := next((o.keys.driver for o in view.others if o.in_progress), ""):
            return turn.wait(Reason.OTHER_DRIVER_IN_PROGRESS, f"the driver is ready again: validated after {busy}")
        return turn.wait(Reason.NO_SLOT, "the driver is ready again: waiting for a slot to validate it")
    failure = record.failure
    return turn.wait(failure.reason if failure else Reason.FAILED, failure.message if failure else "")


def deserves_another_try(view: NodeView, failure: Failure | None) -> bool:
    """Whether a safe load waits in another pod than the failed one, or an outdated pod now has another target."""
    pod, target = (failure.pod, failure.target) if failure else ("", "")
    waits_anew = view.waits_for_safe_load and bool(view.driver_pods) and driver_uid(view) != pod
    return waits_anew or (bool(view.outdated) and bool(view.target) and view.target != target)


def recovered(view: NodeView, failure: Failure | None, to_replace: str) -> bool:
    """Whether the driver is current and ready by other hands, so that it may be validated and given back."""
    if not view.driver_ready or view.waits_for_safe_load:
        return False
    if to_replace and any(p.uid == to_replace for p in view.driver_pods):
        return False
    replaced = failure is None or driver_uid(view) != failure.pod or view.target != failure.target
    return replaced or validation_passes(view)


def validation_passes(view: NodeView) -> bool:
    """Whether validation is off, or all its pods on the node are ready."""
    selector = view.policy.validators if view.policy else None
    if selector is None:
        return True
    found = [p for p in view.workload or () if selector.matches(p.labels)]
    return bool(found) and all(is_ready(p) for p in found)
