"""The pods that are to be evicted: one object each, and what is told of them.

A pod is remembered from its first submission until it or its node is forgotten. Submitted again after that it is another
object: whoever still holds the old one, a queue or a request under way, can see that nobody waits for it any more.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec.structs import replace

from controller.api.pod import Pod
from controller.upgrade.actions import EvictPod
from controller.upgrade.guards import NEVER
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import Attempt

MISJUDGED = 2.0
"""Seconds by which a step of the server's clock may have been misjudged that had run at a wrong speed before."""


@dataclass(slots=True, eq=False)
class Evictee:
    """One pod, and what is remembered of it between attempts. Times are the server's."""

    node: str
    action: EvictPod
    pod: Pod
    """As it was when its eviction was asked for last."""
    attempt: Attempt | None = None
    """What came of the last eviction; None while there is nothing to tell and nothing to wait for."""
    refusal: Attempt | None = None
    """The last refusal: until another answer is there it is what holds the pod up."""
    evicted: bool = False
    """Whether an eviction was accepted: never another, from there on only the pod's end is waited for."""
    failures: int = 0
    asked: float = 0.0
    """When the server was last asked, or first spared the question: a budget that says 0 is believed for 5 s only."""
    since: float = 0.0
    """Since when the pod has been refused."""
    logged: Reason | None = None
    """The last answer's, so that one that only repeats is not logged again."""
    budgets: tuple[str, ...] = ()
    """Keys of the disruption budgets that guard it, of this version of all budgets' selectors:"""
    budgets_at: int = -1
    waits_for: list[str] = field(default_factory=list)
    """Keys of the budgets whose change it waits for."""

    @property
    def uid(self) -> str:
        """The pod's."""
        return self.action.uid

    @property
    def under_way(self) -> bool:
        """Whether its eviction is on the way, or over."""
        return self.attempt is not None and self.attempt.again == NEVER

    def trying(self, again: float = NEVER) -> Attempt:
        """Return what is told while its eviction is on the way: a try is no change until it is answered."""
        return replace(self.refusal or Attempt(NEVER, Reason.EVICTING, since=self.since), again=again)

    def clock_set(self, seconds: float) -> None:
        """What was to be tried in a few seconds still is, whatever the server's clock says then; rather late than early."""
        moved = self.attempt and _moved(self.attempt, seconds)
        self.attempt = moved and replace(moved, again=moved.again + MISJUDGED)
        self.refusal = self.refusal and _moved(self.refusal, seconds)
        self.asked = self.asked and self.asked + seconds + MISJUDGED
        self.since = self.since and self.since + seconds


class Evictees:
    """The pods that are remembered, by uid and by node."""

    def __init__(self) -> None:
        self._by_uid: dict[str, Evictee] = {}
        self._by_node: dict[str, set[str]] = {}
        self._attempts: dict[str, Attempt] = {}

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """Each pod's :attr:`Evictee.attempt` by uid, where there is one. The core reads it."""
        return self._attempts

    def __len__(self) -> int:
        return len(self._by_uid)

    def get(self, uid: str) -> Evictee | None:
        """The pod of this uid, if it is remembered."""
        return self._by_uid.get(uid)

    def expects(self, evictee: Evictee) -> bool:
        """Whether this very object is remembered, and its pod still to be evicted."""
        return self._by_uid.get(evictee.uid) is evictee and not evictee.evicted

    def add(self, node: str, action: EvictPod, pod: Pod) -> Evictee:
        """Remember a pod, or take over how it is to be evicted now."""
        evictee = self._by_uid.setdefault(action.uid, Evictee(node, action, pod))
        if evictee.pod.labels != pod.labels:
            evictee.budgets_at = -1
        evictee.action, evictee.pod = action, pod
        self._by_node.setdefault(evictee.node, set()).add(action.uid)
        return evictee

    def tell(self, evictee: Evictee, attempt: Attempt | None) -> None:
        """Note where a pod stands that is still remembered."""
        if self._by_uid.get(evictee.uid) is not evictee:
            return
        evictee.attempt = attempt
        self._publish(evictee)

    @contextmanager
    def set_aside(self, evictee: Evictee) -> Iterator[None]:
        """Have a pod decided on as if its eviction were not under way."""
        self._attempts.pop(evictee.uid, None)
        try:
            yield
        finally:
            self._publish(evictee)

    def forget(self, uid: str) -> Evictee | None:
        """Remember a pod no more; returns it if it was."""
        evictee = self._by_uid.pop(uid, None)
        self._attempts.pop(uid, None)
        if evictee is not None:
            here = self._by_node[evictee.node]
            here.discard(uid)
            if not here:
                del self._by_node[evictee.node]
        return evictee

    def of_node(self, node: str) -> tuple[str, ...]:
        """Uids of a node's pods."""
        return tuple(self._by_node.get(node, ()))

    def clock_set(self, seconds: float) -> None:
        """Move all times that are remembered."""
        for evictee in self._by_uid.values():
            evictee.clock_set(seconds)
            self._publish(evictee)

    def _publish(self, evictee: Evictee) -> None:
        if evictee.attempt is None:
            self._attempts.pop(evictee.uid, None)
        else:
            self._attempts[evictee.uid] = evictee.attempt


def _moved(attempt: Attempt, seconds: float) -> Attempt:
    return replace(attempt, again=attempt.again + seconds, since=attempt.since and attempt.since + seconds)
