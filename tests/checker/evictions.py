"""Evictions are lawful (S3), each asked for with patience and once (S15)."""

import math
from typing import TYPE_CHECKING

from tests.checker.events import Event, Obj
from tests.checker.names import cordoned
from tests.sim.objects import labels, node_of
from tests.sim.selectors import Question, from_object

if TYPE_CHECKING:
    from tests.checker.checker import Checker

EVICTING = {"drain-required", "pod-deletion-required"}
RETRY = 5.0
EARLY = 0.5
"""Seconds by which five of the server's may seem to be over too soon: its time is told in whole ones, and what they hide is
learned with every answer, by half a second at most. As much again where it is not exact when a request was sent."""
DRIFTS = 0.1
"""Seconds between two looks at a clock by which it differs from one that runs as it should."""
SETTLED = 30.0
"""Seconds after which whoever asks now and then must know again what time it is."""
MISJUDGED = 1.5
"""Seconds by which the time of a server whose clock drifts may be misjudged, as it is told in whole ones."""


def uid_asked(entry: Event) -> str:
    """The uid that a deletion or an eviction names as its precondition."""
    body = entry.body or {}
    return str((body.get("deleteOptions", body).get("preconditions") or {}).get("uid", ""))


class EvictionRules:
    """Judges every eviction of ours, for whichever driver it was."""

    def __init__(self, checker: "Checker") -> None:
        self._checker = checker
        self._sight = checker.sight
        self._evicted: dict[str, float] = {}
        # When it was asked for last, and how far the server's clock had run then.
        self._refused: dict[str, tuple[float, float]] = {}
        # When the server's clock was last seen to drift between two refusals.
        self._drifted: dict[str, float] = {}
        self._budgets: dict[str, tuple[float, tuple[Obj, ...]]] = {}
        """When each was last another, and what it was and is."""

    def budget_changed(self, entry: Event) -> None:
        """A budget's status or spec is another."""
        if entry.old is not entry.new:
            self._budgets[entry.key] = entry.at, tuple(b for b in (entry.old, entry.new) if b)

    def _guarded_anew(self, pod: Obj) -> float:
        """When a budget of the pod's was last another."""
        space, given = pod["metadata"].get("namespace"), labels(pod)
        guarding = (
            at
            for at, budgets in self._budgets.values()
            if any(b["metadata"].get("namespace") == space and _selector(b)(given) for b in budgets)
        )
        return max(guarding, default=-math.inf)

    def asked(self, entry: Event, since: float) -> None:
        pod = entry.old
        if pod is None:
            return
        name, uid = node_of(pod), pod["metadata"]["uid"]
        self._patience(entry, pod, since)
        if entry.code >= 400:
            return
        if uid_asked(entry) != uid:
            self._checker.violate("S3", name, f"evicted {entry.key} without its uid")
        if self._evicted.get(uid, entry.sent) < max(since, self._sight.earliest("pods")):
            self._checker.violate("S15", name, f"evicted {entry.key} again")
        self._evicted.setdefault(uid, entry.at)
        self._lawful(entry, pod, since)
        if len(self._evicted) + len(self._refused) > 8192:
            self._forget(entry.at)

    def _lawful(self, entry: Event, pod: Obj, since: float) -> None:
        name, uid = node_of(pod), pod["metadata"]["uid"]
        nodes = self._sight.during("nodes", name, since)
        evicting = [
            (j, s) for j in self._checker.judges for n in nodes if cordoned(n) and (s := j.names.state(n)) in EVICTING
        ]
        if not evicting:
            states = [j.names.state(nodes[-1]) or "unknown" for j in self._checker.judges]
            self._checker.violate("S3", name, f"evicted {entry.key} in {states}, cordoned {cordoned(nodes[-1])}")
            return
        pods = [p for p in self._sight.during("pods", entry.key, since) if p and p["metadata"]["uid"] == uid]
        if not any(
            j.pods.evictable(p, policy, s) for j, s in evicting for p in (*pods, pod) for policy in j.policies(since)
        ):
            self._checker.violate("S3", name, f"{entry.key} must not be evicted")

    def _patience(self, entry: Event, pod: Obj, since: float) -> None:
        """Refused by a budget: not again for five seconds, of ours or of the server's, unless a budget changed."""
        uid = pod["metadata"]["uid"]
        if entry.code != 429:
            return
        last, ran = self._refused.get(uid, (-math.inf, -math.inf))
        waited, told = entry.sent - last, entry.ran - ran
        if abs(told - waited) > DRIFTS:
            self._drifted[uid] = entry.sent
        # What a clock that ran faster was misjudged by is put right a moment later, when it runs as it should again.
        drifts = entry.sent - self._drifted.get(uid, -math.inf) < SETTLED
        early = EARLY if self._checker.exact else 2 * EARLY
        enough = waited >= RETRY - early or (drifts and max(waited, told) >= RETRY - MISJUDGED)
        if not enough and self._guarded_anew(pod) < last - (entry.sent - since):
            self._checker.violate("S15", node_of(pod), f"{entry.key} asked for again after {waited:.1f} s")
        self._refused[uid] = entry.sent, entry.ran

    def _forget(self, now: float) -> None:
        for uid in [u for u, at in self._evicted.items() if at < now - 7200]:
            del self._evicted[uid]
        for uid in [u for u, (at, _) in self._refused.items() if at < now - 7200]:
            del self._refused[uid]
            self._drifted.pop(uid, None)


def _selector(budget: Obj) -> Question:
    return from_object((budget.get("spec") or {}).get("selector"))
