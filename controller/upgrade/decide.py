"""The one decision: what should happen next with one driver on one node, and why.

``decide`` looks at a :class:`~controller.upgrade.snapshot.NodeView` and a time and returns a
:class:`~controller.upgrade.actions.Decision`. It is total: every state, label and record has an answer. It serves the
controller, dry runs, explanations and the simulator alike. Grants are not decided here but in
:mod:`controller.upgrade.admission`, since they look at all nodes.
"""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from controller.upgrade import failed, idle, putback, restart, vacate
from controller.upgrade.actions import Decision
from controller.upgrade.cordon import release
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure, Record
from controller.upgrade.snapshot import NodeView, claims_by_label
from controller.upgrade.states import IN_PROGRESS, VACATING, State
from controller.upgrade.turn import Turn, driver_uid

_STEPS: Mapping[State, Callable[[Turn], Decision]] = {
    State.UNKNOWN: idle.at_rest,
    State.UPGRADE_DONE: idle.at_rest,
    State.UPGRADE_REQUIRED: idle.required,
    State.CORDON_REQUIRED: vacate.cordon,
    State.WAIT_FOR_JOBS_REQUIRED: vacate.wait_for_jobs,
    State.POD_DELETION_REQUIRED: vacate.delete_pods,
    State.DRAIN_REQUIRED: vacate.drain,
    State.POD_RESTART_REQUIRED: restart.restart,
    State.VALIDATION_REQUIRED: restart.validate,
    State.UNCORDON_REQUIRED: restart.uncordon,
    State.UPGRADE_FAILED: failed.failed,
}

_ENGAGED = IN_PROGRESS | {State.UPGRADE_FAILED}


def decide(view: NodeView, now: float) -> Decision:
    """Decide about one driver on one node.

    Args:
        view: What is known.
        now: Server time in seconds.
    """
    if view.state is None:
        text = f"label {view.keys.state} has the unknown value {view.label!r}: correct or remove it"
        return Decision(State.UNKNOWN, reason=Reason.INVALID_STATE, message=text)
    if other_operators(view):
        text = f"annotation {view.keys.requestor_mode}: another operator upgrades this node"
        return Decision(view.state, reason=Reason.OTHER_OPERATOR, message=text)
    record = record_in_force(view, view.state, now)
    if view.policy is None:
        return _without_policy(view, record, now)
    turn = Turn(view, record, view.policy, now)
    if not view.policy.usable:
        errors = "; ".join(str(e) for e in view.policy.errors)
        return _without_cordon(turn, turn.wait(Reason.POLICY_INVALID, f"{view.policy.full_name}: {errors}"))
    return _without_cordon(turn, _marks(turn) or _step(turn))


def _step(turn: Turn) -> Decision:
    if turn.record.state in VACATING and not turn.view.node.unschedulable:
        return vacate.recordon(turn)
    return _STEPS[turn.record.state](turn)


def _without_cordon(turn: Turn, decision: Decision) -> Decision:
    """A claim does not outlive its cordon: what someone cordons after lifting ours is not ours to lift."""
    if decision.patch is not None or not turn.record.claim or turn.view.node.unschedulable:
        return decision
    message = "someone lifted the cordon: it is theirs now"
    return turn.write(replace(turn.record, claim=False), reason=Reason.CORDON_LIFTED, message=message)


def _marks(turn: Turn) -> Decision | None:
    """Bring label and record together before anything else is decided: a budget is counted from records."""
    view, record = turn.view, turn.record
    if record.state is State.UPGRADE_DONE and record.claim:
        return putback.put_back(turn, "relabelled upgrade-done")
    if view.written is not None and record.state is State.UPGRADE_DONE and view.written.state is not State.UPGRADE_DONE:
        return turn.move(State.UPGRADE_DONE, cordon=release(view), message="relabelled upgrade-done")
    if view.written is None and record.state in _ENGAGED:
        return turn.write(record, message="taken over")
    if view.written is not None and (view.written != record or view.label != record.state):
        return turn.write(record, message="label and record brought together")
    if record.state is State.UPGRADE_FAILED and (record.claim or view.node.unschedulable):
        return None
    return putback.daemonset_gone(turn)


def _without_policy(view: NodeView, record: Record, now: float) -> Decision:
    if view.written is None or view.released is None:
        return Decision(record.state)
    turn = Turn(view, record, putback.stand_in(record), now)
    if putback.is_finished_first(view, record):
        return _step(turn)
    return putback.put_back(turn, view.released)


def other_operators(view: NodeView) -> bool:
    """Whether another operator owns the node's upgrade; one that we began is ended first."""
    engaged = view.written is not None and view.written.state in _ENGAGED
    return view.annotated(view.keys.requestor_mode) and not engaged


def record_in_force(view: NodeView, state: State, now: float) -> Record:
    """Return the record, corrected by the label where a person changed that, or made up where there is none."""
    if view.written is None:
        return _taken_over(view, state, now)
    if view.written.state is state:
        return view.written
    changed = replace(view.written, state=state).restart_clock(now)
    if view.policy and view.written.state not in _ENGAGED:
        # Whoever had the node while it was at rest, it is this policy that upgrades it.
        changed = replace(changed, policy=view.policy.key, namespace=view.policy.namespace)
    return changed


def _taken_over(view: NodeView, state: State, now: float) -> Record:
    """A node without our record: new, or left by k8s-operator-libs in the middle of an upgrade."""
    record = Record(state=state, since=round(now, 3), node=view.node.uid)
    if view.policy:
        record = replace(record, policy=view.policy.key, namespace=view.policy.namespace, target=view.target)
    if state not in _ENGAGED:
        return record
    victim = next(iter(view.outdated), None)
    failure = None
    if state is State.UPGRADE_FAILED:
        failure = Failure(Reason.FAILED, state, view.target, driver_uid(view), "failed before it was taken over")
    return replace(
        record,
        claim=claims_by_label(view.node, view.keys, view.label),
        replace=victim.uid if victim else "",
        attempt=1,
        entered={state: _peer_clock(view, state, now)},
        failure=failure,
    )


def _peer_clock(view: NodeView, state: State, now: float) -> float:
    """When the peer entered the state, by its own annotation, where that is a time in the past."""
    keys = {State.WAIT_FOR_JOBS_REQUIRED: view.keys.jobs_start, State.VALIDATION_REQUIRED: view.keys.validation_start}
    text = view.node.annotations.get(keys.get(state, ""), "")
    return float(min(int(text), round(now, 3))) if text.isascii() and text.isdigit() and len(text) <= 12 else round(now, 3)  # noqa: PLR2004


def grant(view: NodeView, policy: Policy, now: float) -> Decision:
    """The slot is given: begin the attempt. The rollout task calls this, nobody else."""
    return idle.grant(Turn(view, record_in_force(view, State.UPGRADE_REQUIRED, now), policy, now))


def grant_validation(view: NodeView, policy: Policy, now: float) -> Decision:
    """The slot is given to a failed node whose driver came back: validate it."""
    turn = Turn(view, record_in_force(view, State.UPGRADE_FAILED, now), policy, now)
    record = replace(
        turn.record,
        policy=policy.key,
        namespace=policy.namespace,
        target=view.target,
        recordons=0,
        entered={},
        gone=0.0,
    )
    return replace(turn, record=record).move(State.VALIDATION_REQUIRED)
