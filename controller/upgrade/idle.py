"""States that hold no slot: unknown, done, upgrade-required, and the grant that ends the wait."""

from msgspec.structs import replace

from controller.api.pod import Pod
from controller.upgrade.actions import Decision
from controller.upgrade.cordon import release
from controller.upgrade.reasons import Reason
from controller.upgrade.revision import Standing
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from controller.upgrade.turn import Turn, driver_uid


def at_rest(turn: Turn) -> Decision:
    """Unknown or done: is there anything to do?"""
    view, state = turn.view, turn.record.state
    if view.foreign_label and not view.needs_upgrade and not (view.is_wanted and view.driver_pods):
        # No record of this node is about to take their place, and they would tell of another machine for ever.
        return turn.write(None, release(view), message="marks of an earlier node of this name taken off")
    if state is State.UNKNOWN and not view.is_wanted:
        # A node that was put back because of this must not be taken up again for the pods that are still there.
        return turn.wait(Reason.DAEMONSET_GONE, missing_pod(view)) if view.driver_pods else turn.wait(None)
    if view.needs_upgrade:
        return turn.move(State.UPGRADE_REQUIRED, target=view.target)
    if undecided := turn.list_revisions():
        return undecided
    if not view.driver_pods:
        return turn.wait(Reason.DRIVER_POD_MISSING, missing_pod(view))
    if state is State.UPGRADE_DONE:
        return turn.wait(None)
    return turn.move(State.UPGRADE_DONE, cordon=release(view))


def required(turn: Turn) -> Decision:
    """Upgrade-required: wait for the grant, unless it is no longer needed and the node holds no claim."""
    view = turn.view
    # Nothing is granted on a guess, so that this is what it waits for, whatever else is known to be outdated.
    if undecided := turn.list_revisions():
        return undecided
    if not view.needs_upgrade and view.driver_pods and not turn.record.claim:
        return turn.move(State.UPGRADE_DONE, cordon=release(view))
    reason, message = why_not_eligible(view)
    return turn.wait(reason or Reason.NO_SLOT, message)


def why_not_eligible(view: NodeView) -> tuple[Reason | None, str]:
    """Say what about the node itself keeps it from being granted; None where only a slot is missing."""
    failed_before = view.written is not None and view.written.failure is not None
    if view.skipped:
        return Reason.SKIPPED, f"label {view.keys.skip}=true: remove it to upgrade this node"
    if not view.driver_pods:
        return Reason.DRIVER_POD_MISSING, missing_pod(view)
    if not view.is_wanted:
        return Reason.DAEMONSET_GONE, missing_pod(view)
    if not view.node.ready and not failed_before and not view.waits_for_safe_load:
        return Reason.NODE_NOT_READY, "the node's Ready condition is not True"
    if other := next((o for o in view.others if o.in_progress), None):
        return Reason.OTHER_DRIVER_IN_PROGRESS, f"driver {other.keys.driver} is being upgraded on this node"
    if view.foreign_cordon and view.policy and view.policy.spec.cordoned_nodes == "Skip":
        return Reason.NODE_CORDONED, "cordoned by someone else, and the policy's cordonedNodes is Skip"
    return None, ""


def missing_pod(view: NodeView) -> str:
    """Say what to look at where a node has no driver pod."""
    if not view.is_wanted or view.driver_set is None:
        return "no driver DaemonSet wants this node: check its nodeSelector, affinity and tolerations"
    name = f"{view.driver_set.daemonset.namespace}/{view.driver_set.daemonset.name}"
    return f"DaemonSet {name} has no pod on this node yet: see its events"


def grant(turn: Turn) -> Decision:
    """Begin an attempt: a slot was given. Removes the request, notes which pod is to be replaced and for which target.

    A node that may not be granted any more, since something changed after the slot was given, goes on waiting.
    """
    view = turn.view
    reason, message = why_not_eligible(view)
    if reason is not None:
        return turn.wait(reason, message)
    record = replace(
        turn.record,
        policy=turn.policy.key,
        namespace=turn.policy.namespace,
        node=view.node.uid,
        target=view.target,
        replace=_victim(view),
        restart_only=bool(view.outdated) and not view.requested and not _orphans(view),
        attempt=turn.record.attempt + 1,
        entered={},
        recordons=0,
        gone=0.0,
    )
    annotations = {view.keys.requested: None} if view.annotated(view.keys.requested) else {}
    return replace(turn, record=record).move(State.CORDON_REQUIRED, annotations=annotations)


def _victim(view: NodeView) -> str:
    """The uid of the pod to replace. Outdated pods are replaced in any case, so a request is about the orphan first."""
    chosen = (*(_orphans(view) if view.requested else ()), *view.outdated)
    if chosen:
        return chosen[0].uid
    return driver_uid(view) if view.requested else ""


def _orphans(view: NodeView) -> tuple[Pod, ...]:
    return tuple(pod for pod, s in view.standings if s is Standing.ORPHAN)
