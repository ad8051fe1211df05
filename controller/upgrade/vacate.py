"""From the grant to an empty node: cordon, wait for jobs, delete device users, drain (design, sections 3 and 5)."""

from collections.abc import Iterable

from controller.api.pod import Pod
from controller.upgrade import pods
from controller.upgrade.actions import ConfirmPods, Decision, ReadClaims
from controller.upgrade.cordon import take, take_again
from controller.upgrade.drain import Drainage, Rules, chooses, drainage
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.states import State
from controller.upgrade.turn import Turn

MAX_RECORDONS = 5
_STEPS = (
    State.CORDON_REQUIRED,
    State.WAIT_FOR_JOBS_REQUIRED,
    State.POD_DELETION_REQUIRED,
    State.DRAIN_REQUIRED,
    State.POD_RESTART_REQUIRED,
)


def cordon(turn: Turn) -> Decision:
    """Cordon-required: cordon and claim, and on to the first state that has work, in one PATCH."""
    return turn.move(next_step(turn, State.CORDON_REQUIRED), cordon=take(turn.view))


def recordon(turn: Turn) -> Decision:
    """The cordon was lifted while the node must be empty: take it again, at most five times an attempt."""
    if turn.record.recordons >= MAX_RECORDONS:
        message = f"the cordon was lifted {MAX_RECORDONS + 1} times during the upgrade: find out by whom"
        return turn.fail(Reason.CORDON_LIFTED, message)
    again = take_again(turn.view)
    return turn.move(
        turn.record.state,
        cordon=again,
        reason=Reason.CORDON_LIFTED,
        message="someone lifted the cordon during the upgrade: cordoned again",
        recordons=turn.record.recordons + 1,
        since=turn.record.since,
    )


def next_step(turn: Turn, state: State) -> State:
    """Return the first state after this one that the policy has work for."""
    if not turn.view.wanted or restart_only(turn):
        return State.POD_RESTART_REQUIRED
    return next(step for step in _STEPS[_STEPS.index(state) + 1 :] if turn.policy.has_work(step))


def restart_only(turn: Turn) -> bool:
    """Whether the driver itself is unchanged, as judged now: then nothing needs to leave the node."""
    variable, view = turn.policy.spec.pod_restart.unchanged_env, turn.view
    if not variable or not turn.record.restart_only or view.waits_for_safe_load or view.driver_set is None or view.unsettled:
        return False
    daemonset = view.driver_set.daemonset
    return bool(view.to_replace) and all(pods.unchanged(pod, daemonset, variable) for pod in view.to_replace)


def wait_for_jobs(turn: Turn) -> Decision:
    """Wait-for-jobs-required: nothing matching may be Pending or Running; when the time is up, go on all the same."""
    if not turn.view.wanted:
        return _unneeded(turn)
    if not turn.policy.has_work(State.WAIT_FOR_JOBS_REQUIRED):
        return turn.move(next_step(turn, State.WAIT_FOR_JOBS_REQUIRED))
    held = _held(turn)
    selector, workload = turn.policy.jobs, turn.view.workload or ()
    jobs = [p for p in workload if selector is not None and selector.matches(p.labels) and pods.is_active(p)]
    if held is None and not jobs:
        return turn.move(next_step(turn, State.WAIT_FOR_JOBS_REQUIRED)) if turn.view.confirmed else _confirm(turn)
    if turn.expired:
        still = held.message if held else f"{len(jobs)} pods of waitForCompletion were still running"
        message = f"time is up: {still}"
        return turn.move(next_step(turn, State.WAIT_FOR_JOBS_REQUIRED), reason=Reason.DEADLINE_EXCEEDED, message=message)
    return held or turn.wait(Reason.JOBS_RUNNING, _count(jobs), blockers=_jobs(jobs), deadline=turn.deadline)


def delete_pods(turn: Turn) -> Decision:
    """Pod-deletion-required: evict the device users; where that fails the drain, if enabled, has the last word."""
    if not turn.view.wanted or restart_only(turn):
        return _unneeded(turn)
    after = next_step(turn, State.POD_DELETION_REQUIRED)
    if not turn.policy.has_work(State.POD_DELETION_REQUIRED):
        return turn.move(after)
    state = drainage(turn.view.workload or (), deletion_rules(turn), turn.view.attempts, turn.now)
    last_resort = after if turn.policy.spec.drain.enable else State.UPGRADE_FAILED
    return _evict(turn, _held(turn) or _unread(turn), state, after, last_resort=last_resort)


def drain(turn: Turn) -> Decision:
    """Drain-required: evict what has to leave, until it is gone."""
    if not turn.view.wanted or restart_only(turn):
        return _unneeded(turn)
    if not turn.policy.spec.drain.enable:
        return turn.move(State.POD_RESTART_REQUIRED)
    return _evict(turn, _held(turn), drain_state(turn), State.POD_RESTART_REQUIRED, last_resort=State.UPGRADE_FAILED)


def drain_state(turn: Turn) -> Drainage:
    """Judge the node's pods by the policy's drain."""
    return drainage(turn.view.workload or (), drain_rules(turn), turn.view.attempts, turn.now)


def drain_rules(turn: Turn) -> Rules:
    """The policy's drain as rules."""
    drain = turn.policy.spec.drain
    return Rules(
        chooses(turn.policy.drain),
        turn.view.keys.drain_skip,
        turn.view.own_uid,
        frozenset(p.uid for p in turn.view.driver_pods),
        drain.force,
        drain.delete_empty_dir,
        drain.grace_period_seconds,
        turn.view.node.ready,
    )


def deletion_rules(turn: Turn) -> Rules:
    """The policy's pod deletion as rules: device users by selector or by resource name, and still at work."""
    deletion, selector = turn.policy.spec.pod_deletion, turn.policy.deletion

    def chosen(pod: Pod) -> bool:
        by_label = selector is not None and selector.matches(pod.labels)
        return pods.is_active(pod) and (by_label or _uses_device(turn, pod))

    return Rules(
        chosen,
        turn.view.keys.drain_skip,
        turn.view.own_uid,
        frozenset(p.uid for p in turn.view.driver_pods),
        deletion.force,
        deletion.delete_empty_dir,
        turn.policy.spec.drain.grace_period_seconds,
        turn.view.node.ready,
    )


def _uses_device(turn: Turn, pod: Pod) -> bool:
    """Whether a pod asks for a resource by name, or holds a device of a driver by name through a ResourceClaim."""
    names = turn.policy.spec.pod_deletion.resource_names
    drivers = (driver for key in pods.claim_keys(pod) for driver in turn.view.claims.get(key, ()))
    return pods.uses_resource(pod, names) or pods.matches_any(drivers, names)


def _unread(turn: Turn) -> Decision | None:
    """Hold until the claims of the node's active pods are read: device users cannot be told without."""
    if not turn.policy.spec.pod_deletion.resource_names:
        return None
    used = (pods.claim_keys(p) for p in turn.view.workload or () if pods.is_active(p))
    unread = frozenset().union(*used) - turn.view.claims.keys()
    if not unread:
        return None
    text = f"not read yet: resource claims {_names(sorted(unread))} (resource.k8s.io/v1, Kubernetes 1.34 or newer)"
    return turn.wait(Reason.PODS_NOT_LISTED, text, actions=(ReadClaims(unread),), deadline=turn.deadline)


def _unneeded(turn: Turn) -> Decision:
    message = "nothing needs to leave the node any more: the driver is current, or unchanged and only restarted"
    return turn.move(State.POD_RESTART_REQUIRED, message=message)


def _held(turn: Turn) -> Decision | None:
    """Hold while the node cannot be judged: nothing is evicted on half a picture."""
    if undecided := turn.list_revisions():
        return undecided
    if turn.view.workload is None:
        text = "the node's pods have not been listed since the cordon"
        return turn.wait(Reason.PODS_NOT_LISTED, text, deadline=turn.deadline)
    if blockers := unreadable(turn):
        text = f"what cannot be read may be a workload: {blockers[0]}"
        return turn.wait(Reason.PODS_NOT_LISTED, text, blockers=blockers, deadline=turn.deadline)
    return None


def unreadable(turn: Turn) -> tuple[Blocker, ...]:
    """Name the pods of the node that cannot be decoded: nobody knows what they hold, so it is not empty."""
    found = ((*key.rpartition("/"), error) for key, error in sorted(turn.view.unreadable.items()))
    what = "the API server's answer about it cannot be read"
    return tuple(Blocker(Reason.PODS_NOT_LISTED, space, name or "(no name)", f"{what}: {e}") for space, _, name, e in found)


def _evict(turn: Turn, held: Decision | None, state: Drainage, after: State, *, last_resort: State) -> Decision:
    if held is None and state.over:
        return turn.move(after) if turn.view.confirmed else _confirm(turn)
    if turn.expired:
        message = f"time is up: {held.message}" if held else _left(state)
        if last_resort is State.UPGRADE_FAILED:
            return turn.fail(Reason.DEADLINE_EXCEEDED, message)
        return turn.move(last_resort, reason=Reason.DEADLINE_EXCEEDED, message=message)
    if held:
        return held
    return turn.wait(
        _main_reason(state),
        _count(state.left),
        actions=state.evictions,
        blockers=state.blockers,
        look_again=state.look_again,
        deadline=turn.deadline,
    )


def _main_reason(state: Drainage) -> Reason:
    """The first thing that is in the way; where nothing is, that the pods are on their way out."""
    in_the_way = (b.reason for b in state.blockers if b.reason not in {Reason.EVICTING, Reason.POD_TERMINATING})
    otherwise = state.blockers[0].reason if state.blockers and not state.evictions else Reason.EVICTING
    return next(in_the_way, otherwise)


def _confirm(turn: Turn) -> Decision:
    """Nothing is left as far as the view shows: what is missing is the list that proves it, and no time is short now."""
    return turn.wait(Reason.PODS_NOT_LISTED, "confirming that the node is empty", actions=(ConfirmPods(),))


def _count(left: Iterable[Pod]) -> str:
    names = [f"{p.namespace}/{p.name}" for p in left]
    return f"{len(names)} pods left: {_names(names)}"


def _names(all_of_them: list[str]) -> str:
    more = f" and {len(all_of_them) - 3} more" if len(all_of_them) > 3 else ""  # noqa: PLR2004
    return ", ".join(all_of_them[:3]) + more


def _left(state: Drainage) -> str:
    causes = "; ".join(str(b) for b in state.blockers[:2])
    return "time is up with " + _count(state.left) + (f"; {causes}" if causes else "")


def _jobs(jobs: Iterable[Pod]) -> tuple[Blocker, ...]:
    return tuple(Blocker(Reason.JOBS_RUNNING, p.namespace, p.name, p.phase, pods.created(p)) for p in jobs)
