"""Which pods leave the node, which stay, and which are in the way (design, section 5).

A drain is this decision repeated, never a blocked task: what is gone is seen on the watch. The filters are those of
kubectl drain, except that nothing is ever deleted instead of evicted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum

import msgspec

from controller.api.pod import Pod
from controller.api.selectors import Selector
from controller.upgrade import pods
from controller.upgrade.actions import EvictPod
from controller.upgrade.keys import TRUE
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.snapshot import Attempt

OVERDUE_SECONDS = 30.0
"""A kubelet takes a while to end a pod whose grace is over; after this it is in the way, and is said to be."""


class Fate(Enum):
    """What a drain does with a pod."""

    STAYS = "stays"
    LEAVES = "leaves"
    TERMINATES = "terminates"
    UNMANAGED = "unmanaged"
    EMPTY_DIR = "empty-dir"


class Rules(msgspec.Struct, frozen=True):
    """The settings of one drain or pod deletion."""

    chosen: Callable[[Pod], bool]
    drain_skip: str
    own_uid: str = ""
    driver_uids: frozenset[str] = frozenset()
    """The driver's own pods: an orphaned one looks like a workload, and is restarted, not drained."""
    force: bool = False
    delete_empty_dir: bool = False
    grace_period_seconds: int = -1
    node_ready: bool = True
    """Where it is not, nobody tells that a pod has ended."""


def chooses(selector: Selector) -> Callable[[Pod], bool]:
    """Return the question whether a selector picks a pod."""
    return lambda pod: selector.matches(pod.labels)


def fate(pod: Pod, rules: Rules) -> Fate:
    """Decide about one pod; the order of the questions is kubectl's."""
    if stays(pod, rules):
        return Fate.STAYS
    if pod.terminating:
        return Fate.TERMINATES
    if pods.has_empty_dir(pod) and not rules.delete_empty_dir:
        return Fate.EMPTY_DIR
    if pods.is_unmanaged(pod) and not rules.force:
        return Fate.UNMANAGED
    return Fate.LEAVES


def stays(pod: Pod, rules: Rules) -> bool:
    """Whether the drain leaves the pod alone.

    Mirror pods, pods of a DaemonSet, ended pods, pods with the skip label, our own pod, the driver's, and what the selector
    leaves out.
    """
    return (
        pods.is_mirror(pod)
        or pods.is_daemonset_pod(pod)
        or pod.terminal
        or pod.labels.get(rules.drain_skip) == TRUE
        or (rules.own_uid != "" and pod.uid == rules.own_uid)
        or pod.uid in rules.driver_uids
        or not rules.chosen(pod)
    )


class Drainage(msgspec.Struct, frozen=True):
    """Where a drain stands. It is over when nothing is left."""

    left: tuple[Pod, ...] = ()
    evictions: tuple[EvictPod, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    look_again: float | None = None

    @property
    def over(self) -> bool:
        """Whether every pod that had to leave is gone: gone, not evicted."""
        return not self.left


def drainage(workload: Iterable[Pod], rules: Rules, attempts: Mapping[str, Attempt], now: float) -> Drainage:
    """Judge a node's pods.

    While any pod must not be evicted (no controller, an emptyDir) nothing else is evicted either, as in kubectl drain: a
    half-drained node that cannot be finished helps nobody.
    """
    fates = [(pod, fate(pod, rules)) for pod in workload]
    left = tuple(pod for pod, f in fates if f is not Fate.STAYS)
    refused = tuple(_refusal(pod, f) for pod, f in fates if f in {Fate.UNMANAGED, Fate.EMPTY_DIR})
    terminating = tuple(_terminating(pod, rules, now) for pod, f in fates if f is Fate.TERMINATES)
    overdue = [b.until + OVERDUE_SECONDS for b in terminating if b.until + OVERDUE_SECONDS > now]
    if refused:
        return Drainage(left, blockers=(*refused, *terminating), look_again=min(overdue, default=None))
    leaving = [pod for pod, f in fates if f is Fate.LEAVES]
    due = [pod for pod in leaving if pod.uid not in attempts or attempts[pod.uid].again <= now]
    again = [attempts[pod.uid].again for pod in leaving if pod.uid in attempts and attempts[pod.uid].again > now]
    return Drainage(
        left,
        tuple(EvictPod(p.namespace, p.name, p.uid, rules.grace_period_seconds) for p in due),
        (*_refusals(leaving, attempts, now), *terminating),
        min((*again, *overdue), default=None),
    )


def _refusals(leaving: Iterable[Pod], attempts: Mapping[str, Attempt], now: float) -> Iterator[Blocker]:
    """Name what was answered to the last eviction of each pod, also while it is tried again: a try is no change."""
    for pod in leaving:
        attempt = attempts.get(pod.uid)
        if attempt is not None and attempt.reason and not (attempt.reason is Reason.EVICTING and attempt.again <= now):
            yield Blocker(attempt.reason, pod.namespace, pod.name, attempt.message, attempt.since)


def _refusal(pod: Pod, what: Fate) -> Blocker:
    if what is Fate.UNMANAGED:
        return Blocker(
            Reason.UNMANAGED_POD,
            pod.namespace,
            pod.name,
            "nothing would re-create it: delete it, or set drain.force",
            pods.created(pod),
        )
    return Blocker(
        Reason.EMPTY_DIR_POD,
        pod.namespace,
        pod.name,
        "its emptyDir data would be lost: delete it, or set drain.deleteEmptyDir",
        pods.created(pod),
    )


def _terminating(pod: Pod, rules: Rules, now: float) -> Blocker:
    meta = pod.metadata
    until = meta.deletion_timestamp.timestamp() if meta.deletion_timestamp else 0.0
    return Blocker(
        Reason.POD_TERMINATING,
        pod.namespace,
        pod.name,
        _why_there(pod, rules, overdue=until + OVERDUE_SECONDS <= now),
        until - (meta.deletion_grace_period_seconds or 0),
        until,
    )


def _why_there(pod: Pod, rules: Rules, *, overdue: bool) -> str:
    """Say what an end still waits for, beside the grace that the pod was given."""
    if finalizers := ", ".join(pod.metadata.finalizers or ()):
        return f"held by finalizer {finalizers}"
    if not rules.node_ready:
        return "the node is not Ready, and only its kubelet can tell that the pod has ended"
    return "its grace period is over, but its kubelet has not ended it" if overdue else "shutting down"
