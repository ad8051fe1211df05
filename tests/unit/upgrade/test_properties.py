"""What holds for every decision on whatever is found: it is made, it is lawful (S3-S9), and deciding comes to rest."""

from collections.abc import Iterator

from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.upgrade.actions import Decision, DeletePod, EvictPod, PatchNode
from controller.upgrade.decide import decide, grant, grant_validation
from controller.upgrade.facts import Ask, facts_of
from controller.upgrade.pods import has_empty_dir, is_daemonset_pod, is_mirror, is_unmanaged
from controller.upgrade.revision import Standing
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import EDGES, IN_PROGRESS, State
from tests.unit.upgrade.builders import KEYS, NOW, OFED, PLAIN, patched
from tests.unit.upgrade.strategies import views

STEPS = 12
OURS = {KEYS.safe_load, KEYS.initial_unschedulable, KEYS.jobs_start, KEYS.validation_start, KEYS.requested}
OURS |= {OFED.initial_unschedulable}
EVICTING = {State.POD_DELETION_REQUIRED, State.DRAIN_REQUIRED}


def lawful(view: NodeView, decision: Decision, now: float) -> None:
    event(f"{view.state!r} {'PATCH' if decision.patch else decision.reason}")
    assert decision.look_again is None or decision.look_again > now
    if decision.patch:
        assert decision.actions == (decision.patch,)
        lawful_patch(view, decision.patch)
    for action in decision.actions:
        if isinstance(action, EvictPod):
            lawful_eviction(view, action)
        if isinstance(action, DeletePod):
            lawful_deletion(view, action)


def lawful_patch(view: NodeView, patch: PatchNode) -> None:
    before = view.state
    assert before is not None
    assert patch.annotations.keys() <= OURS
    if patch.record is None:
        assert view.written is not None or view.foreign_label
        assert KEYS.safe_load not in patch.annotations
    else:
        assert patch.record.node == view.node.uid
        assert patch.state is before or patch.state in EDGES[before]
    if patch.unschedulable is False:
        assert view.claimed
        assert KEYS.initial_unschedulable not in view.node.annotations
        assert not any(o.claim for o in view.others)
    if patch.unschedulable:
        assert not view.node.unschedulable
        assert patch.record is not None
        assert patch.record.claim
    if KEYS.safe_load in patch.annotations:
        assert patch.annotations[KEYS.safe_load] is None
        lawful_restart(view)


def lawful_eviction(view: NodeView, action: EvictPod) -> None:
    pod = next(p for p in view.workload or () if p.uid == action.uid)
    assert view.node.unschedulable
    assert not view.unreadable
    assert view.label in EVICTING
    assert not pod.terminal
    assert not is_mirror(pod)
    assert not is_daemonset_pod(pod)
    assert pod.labels.get(KEYS.drain_skip) != "true"
    assert pod.uid != view.own_uid
    assert view.policy is not None
    rules = view.policy.spec.drain if view.label == State.DRAIN_REQUIRED else view.policy.spec.pod_deletion
    assert rules.force or not is_unmanaged(pod)
    assert rules.delete_empty_dir or not has_empty_dir(pod)


def lawful_deletion(view: NodeView, action: DeletePod) -> None:
    pod = next(p for p in view.driver_pods if p.uid == action.uid)
    assert pod.controller_ref is None or pod.controller_ref.kind == "DaemonSet"
    assert view.label == State.POD_RESTART_REQUIRED
    assert view.written is not None
    assert view.standing_of(pod) is Standing.OUTDATED or view.written.replace == pod.uid
    lawful_restart(view)


def lawful_restart(view: NodeView) -> None:
    assert view.state is State.POD_RESTART_REQUIRED
    assert view.node.unschedulable
    if view.policy is None or not view.policy.spec.drain.enable or (view.written and view.written.restart_only):
        return
    left = [
        p for p in view.workload or () if view.policy.drain.matches(p.labels) and not p.terminal and not is_daemonset_pod(p)
    ]
    drivers = {p.uid for p in view.driver_pods}
    kept = {p.uid for p in left if p.labels.get(KEYS.drain_skip) == "true" or is_mirror(p) or p.uid == view.own_uid}
    assert view.workload is not None
    assert not view.unreadable
    assert {p.uid for p in left} <= kept | drivers


def settled(view: NodeView, now: float) -> Iterator[NodeView]:
    """Decide and write, as a worker does, until there is nothing to write."""
    for _ in range(STEPS):
        yield view
        decision = decide(view, now)
        lawful(view, decision, now)
        if decision.patch is None:
            return
        after = patched(view, decision.patch)
        assert after.node != view.node, f"writes what is there already: {decision.patch}"
        view = after
    raise AssertionError(f"not at rest after {STEPS} writes: {decision}")


@settings(max_examples=500)
@given(views())
def test_deciding_is_lawful_and_comes_to_rest(view: NodeView):
    seen = list(settled(view, NOW))
    assert len({repr(v.node) for v in seen}) == len(seen)


@settings(max_examples=300)
@given(views())
def test_time_alone_never_turns_in_circles(view: NodeView):
    now, writes = NOW, 0
    for _ in range(20):
        seen = list(settled(view, now))
        view, writes = seen[-1], writes + len(seen) - 1
        again = decide(view, now).look_again
        if again is None:
            break
        now = again
    assert writes <= STEPS


@settings(max_examples=300)
@given(views())
def test_what_does_not_move_has_a_reason(view: NodeView):
    view = list(settled(view, NOW))[-1]
    decision = decide(view, NOW)
    held = view.policy is not None and decision.state in IN_PROGRESS | {State.UPGRADE_REQUIRED, State.UPGRADE_FAILED}
    assert decision.reason is not None or decision.actions or not held


@settings(max_examples=300)
@given(views())
def test_a_grant_is_asked_for_only_where_it_can_be_written(view: NodeView):
    view = list(settled(view, NOW))[-1]
    facts = facts_of(view, NOW)
    if facts.ask is Ask.GRANT and facts.blocked is None:
        decision = grant(view, view.policy or PLAIN, NOW)
        assert decision.state is State.CORDON_REQUIRED
        assert view.label == State.UPGRADE_REQUIRED
    elif facts.ask is Ask.VALIDATION:
        decision = grant_validation(view, view.policy or PLAIN, NOW)
        assert decision.state is State.VALIDATION_REQUIRED
        assert view.label == State.UPGRADE_FAILED
    else:
        return
    lawful(view, decision, NOW)
    assert decision.patch is not None
    after = facts_of(patched(view, decision.patch), NOW)
    assert after.in_progress
    assert after.ask is Ask.NOTHING


@settings(max_examples=200)
@given(views(), st.sampled_from([0.0, 1e-9, NOW + 1e9]))
def test_any_time_will_do(view: NodeView, now: float):
    lawful(view, decide(view, now), now)
    lawful(view, grant(view, view.policy or PLAIN, now), now) if view.state is State.UPGRADE_REQUIRED else None


@settings(max_examples=200)
@given(views())
def test_the_label_that_vanished_comes_back(view: NodeView):
    labels = {k: v for k, v in view.node.labels.items() if k != KEYS.state}
    bare = replace(view, node=replace(view.node, metadata=replace(view.node.metadata, labels=labels)))
    decision = decide(bare, NOW)
    if bare.written is None or bare.policy is None or not bare.policy.usable or decision.patch is None:
        return
    record = decision.patch.record
    assert record is None or record.state is bare.written.state or record.state in EDGES[bare.written.state]
