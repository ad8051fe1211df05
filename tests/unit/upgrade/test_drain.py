"""Who leaves, who stays and who is in the way: kubectl drain's filters, and where we differ from them, by name."""

import pytest
from msgspec.structs import replace

from controller.api.meta import ObjectMeta
from controller.api.pod import Pod
from controller.api.selectors import parse
from controller.upgrade.actions import EvictPod
from controller.upgrade.drain import OVERDUE_SECONDS, Drainage, Fate, Rules, chooses, drainage, fate
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import Attempt
from tests.unit.upgrade.builders import DELETED, KEYS, NOW, orphan, pod, workload

ALL = Rules(chooses(parse("")), KEYS.drain_skip, own_uid="me", driver_uids=frozenset({"drv-orphan"}))
FORCED = Rules(chooses(parse("")), KEYS.drain_skip, force=True, delete_empty_dir=True, grace_period_seconds=0)
CHOSEN = Rules(chooses(parse("tier=batch")), KEYS.drain_skip)
MIRROR = {"kubernetes.io/config.mirror": "hash"}
DAEMON = ("apps/v1", "DaemonSet", "agent")
F = Fate


def judge(of: Pod, rules: Rules = ALL) -> Fate:
    return fate(of, rules)


@pytest.mark.parametrize(
    ("situation", "of", "plain", "forced"),
    [
        ("of a ReplicaSet", workload(), F.LEAVES, F.LEAVES),
        ("of a controller that is gone", workload(owner=("apps/v1", "ReplicaSet", "gone")), F.LEAVES, F.LEAVES),
        ("of a StatefulSet", workload(owner=("apps/v1", "StatefulSet", "db")), F.LEAVES, F.LEAVES),
        ("pending", workload(phase="Pending", ready=False), F.LEAVES, F.LEAVES),
        ("of a DaemonSet", workload(owner=DAEMON), F.STAYS, F.STAYS),
        ("of a Kruise DaemonSet", workload(owner=("apps.kruise.io/v1alpha1", "DaemonSet", "a")), F.LEAVES, F.LEAVES),
        ("mirror", workload(notes=MIRROR), F.STAYS, F.STAYS),
        ("bare mirror", workload(notes=MIRROR, owner=None), F.STAYS, F.STAYS),
        ("bare", workload(owner=None), F.UNMANAGED, F.LEAVES),
        ("with emptyDir", workload(empty_dir=True), F.EMPTY_DIR, F.LEAVES),
        ("bare, with emptyDir", workload(owner=None, empty_dir=True), F.EMPTY_DIR, F.LEAVES),
        ("skip label", workload(labels={KEYS.drain_skip: "true"}), F.STAYS, F.STAYS),
        ("bare, skip label", workload(owner=None, labels={KEYS.drain_skip: "true"}), F.STAYS, F.STAYS),
        ("skip label not true", workload(labels={KEYS.drain_skip: "yes"}), F.LEAVES, F.LEAVES),
        ("shutting down", workload(terminating=True), F.TERMINATES, F.TERMINATES),
        ("kubectl evicts an ended pod; we leave it", workload(phase="Succeeded"), F.STAYS, F.STAYS),
        (
            "kubectl evicts an ended pod of a DaemonSet; we leave it",
            workload(phase="Failed", owner=DAEMON),
            F.STAYS,
            F.STAYS,
        ),
        ("ended, with emptyDir", workload(phase="Succeeded", empty_dir=True), F.STAYS, F.STAYS),
        ("ended and bare", workload(phase="Failed", owner=None), F.STAYS, F.STAYS),
        (
            "kubectl refuses a bare pod on its way out; we wait",
            workload(owner=None, terminating=True),
            F.TERMINATES,
            F.TERMINATES,
        ),
        (
            "kubectl refuses an emptyDir on its way out; we wait",
            workload(empty_dir=True, terminating=True),
            F.TERMINATES,
            F.TERMINATES,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fate(situation: str, of: Pod, plain: Fate, forced: Fate):
    assert (judge(of), judge(of, FORCED)) == (plain, forced)


def test_our_own_pod_stays():
    assert (judge(workload("me")), judge(workload("me"), CHOSEN)) == (F.STAYS, F.STAYS)
    assert judge(workload("me", labels={"tier": "batch"}), CHOSEN) is F.LEAVES


def test_an_empty_own_uid_is_nobody():
    nameless = Pod(metadata=ObjectMeta(name="x", labels={"tier": "batch"}))
    assert judge(nameless, CHOSEN) is not F.STAYS


def test_the_orphaned_driver_pod_is_restarted_not_drained():
    assert judge(orphan()) is F.STAYS
    assert judge(orphan("other")) is F.UNMANAGED


def test_what_the_selector_leaves_out_is_not_in_the_way():
    assert judge(workload(owner=None), CHOSEN) is F.STAYS
    assert judge(workload(owner=None, labels={"tier": "batch"}), CHOSEN) is F.UNMANAGED


def drained(*pods: Pod, rules: Rules = ALL, **attempts: Attempt) -> Drainage:
    return drainage(pods, rules, attempts, NOW)


def evicted(state: Drainage) -> list[str]:
    return [e.name for e in state.evictions]


def test_over_is_gone_and_not_evicted():
    assert drained().over
    assert drained(workload(owner=DAEMON), workload(phase="Succeeded")).over
    assert not drained(workload(terminating=True)).over
    assert not drained(workload(), rules=ALL, train=Attempt(NOW + 60)).over


def test_an_eviction_names_uid_and_grace_period():
    assert drained(workload("a"), rules=FORCED).evictions == (EvictPod("ops", "a", "a", 0),)
    assert drained(workload("a")).evictions == (EvictPod("ops", "a", "a", -1),)


@pytest.mark.parametrize(
    ("blocking", "reason"),
    [(workload("x", owner=None), Reason.UNMANAGED_POD), (workload("x", empty_dir=True), Reason.EMPTY_DIR_POD)],
)
def test_a_pod_that_must_not_be_evicted_holds_everything(blocking: Pod, reason: Reason):
    state = drained(workload("a"), blocking, workload("b", terminating=True))
    assert evicted(state) == []
    assert [b.reason for b in state.blockers] == [reason, Reason.POD_TERMINATING]
    assert [p.name for p in state.left] == ["a", "x", "b"]


def test_it_goes_on_as_soon_as_that_pod_is_gone_or_on_its_way():
    assert evicted(drained(workload("a"), workload("x", owner=None, terminating=True))) == ["a"]


def test_a_blocker_is_named_with_a_remedy():
    blocker = drained(workload("x", owner=None)).blockers[0]
    assert (blocker.namespace, blocker.name) == ("ops", "x")
    assert "drain.force" in str(blocker)
    assert "drain.deleteEmptyDir" in str(drained(workload("x", empty_dir=True)).blockers[0])


def test_a_refused_eviction_waits_its_time_and_delays_nobody():
    budget = Attempt(NOW + 5, Reason.POD_DISRUPTION_BUDGET, "web-pdb needs 2, has 2", NOW - 30)
    state = drained(workload("a"), workload("b"), workload("c"), a=budget, c=Attempt(NOW + 2, Reason.API_THROTTLED))
    assert evicted(state) == ["b"]
    assert state.look_again == NOW + 2
    assert (state.blockers[0].reason, state.blockers[0].since) == (Reason.POD_DISRUPTION_BUDGET, NOW - 30)
    assert "needs 2, has 2" in str(state.blockers[0])


@pytest.mark.parametrize(("again", "tried"), [(NOW - 1, ["a"]), (NOW, ["a"]), (NOW + 0.001, [])])
def test_an_eviction_is_sent_again_when_its_time_has_come(again: float, tried: list[str]):
    state = drained(workload("a"), a=Attempt(again, Reason.POD_DISRUPTION_BUDGET))
    assert evicted(state) == tried
    assert (state.look_again is None) == bool(tried)


def test_an_evicted_pod_that_is_not_seen_to_go_yet_is_no_blocker():
    state = drained(workload("a"), a=Attempt(NOW + 60))
    assert (state.evictions, state.blockers, state.look_again) == ((), (), NOW + 60)


def test_attempts_belong_to_a_uid():
    """A StatefulSet's new pod has the old one's name, not its uid."""
    assert evicted(drainage([workload("a")], ALL, {"a-before": Attempt(NOW + 60)}, NOW)) == ["a"]


def test_of_a_pod_that_shuts_down_it_is_said_since_when_and_until_when_at_the_latest():
    """deletionTimestamp is the end of the grace, not its begin."""
    going = pod("a", terminating=True)
    going = replace(going, metadata=replace(going.metadata, deletion_grace_period_seconds=30))
    (blocker,) = drained(going).blockers
    assert (blocker.since, blocker.until) == (DELETED.timestamp() - 30, DELETED.timestamp())


def test_what_holds_a_pod_that_shuts_down_is_said():
    held = drained(pod("a", terminating=True, finalizers=("example.com/hold",))).blockers[0]
    assert "example.com/hold" in held.message
    assert held.until == DELETED.timestamp()
    assert drained(pod("a", terminating=True)).blockers[0].message == "shutting down"
    soon = drainage([pod("a", terminating=True)], ALL, {}, DELETED.timestamp() + 1)
    assert soon.blockers[0].message == "shutting down", "its kubelet is given a moment"
    assert soon.look_again == DELETED.timestamp() + OVERDUE_SECONDS, "nobody else tells that it is over"
    late = drainage([pod("a", terminating=True)], ALL, {}, soon.look_again).blockers[0]
    assert late.message.startswith("its grace period is over")
    unreachable = drained(pod("a", terminating=True), rules=replace(ALL, node_ready=False)).blockers[0]
    assert "node is not Ready" in unreachable.message
