"""When a node may be given back before its upgrade is over: only as a put-back (S5, S7; design, section 6)."""

import math
from typing import TYPE_CHECKING

from tests.checker.events import Event, Obj
from tests.checker.names import HASH, cordoned
from tests.checker.sight import Version
from tests.sim.objects import annotations, controller_of, labels, node_of

if TYPE_CHECKING:
    from tests.checker.judge import Judge

GONE = 95.0
"""Seconds for which no DaemonSet has wanted a node: two minutes by a clock that runs a fifth faster and tells whole ones."""
MOST_PROCESSES = 64
FINISHING = frozenset({"pod-restart-required", "validation-required", "uncordon-required"})


class PutBacks:
    """One subject's nodes that are given back."""

    def __init__(self, judge: "Judge") -> None:
        self._judge = judge
        self._names = judge.names
        self._sight = judge.sight
        self._acting: dict[str, float] = {}
        """Since when each of our processes has written: what was before it goes by what the record says."""

    def notice(self, entry: Event) -> None:
        """Any write."""
        if entry.ours:
            self._acting.setdefault(entry.actor, entry.sent)
            while len(self._acting) > MOST_PROCESSES:
                del self._acting[next(iter(self._acting))]

    def due(self, entry: Event, old: Obj, since: float) -> bool:
        """Whether there is a reason: policy disabled, gone or not selecting; relabelled done; DaemonSet gone for long."""
        if self._names.state(old) == "upgrade-done" and self._names.claims(old):
            return True
        if not all(p.get("autoUpgrade") for p in self._judge.policies(since)):
            return True
        nodes = self._sight.during("nodes", entry.key, since)
        chosen = all(n is not None and self._judge.mine(n) and self._judge.selects(n) for n in nodes)
        return not chosen or self._unwanted(entry, since)

    def _unwanted(self, entry: Event, since: float) -> bool:
        """Whether no DaemonSet has wanted the node for two minutes, as far as the view showed."""
        nodes = self._shown("nodes", entry.key, entry, since)
        return all(
            any(self._apart(n, d) for n in nodes for d in self._shown("daemonsets", key, entry, since))
            for key in self._judge.subject.daemonset_keys
        )

    def _shown(self, kind: str, key: str, entry: Event, since: float) -> list[list[Version]]:
        """What may have been seen of an object in the last two minutes: stories, one of which must do.

        Where the view was older than that, one moment is all that it showed. How long anything has been so is not judged
        where the clock was set, or a person wrote into the record since when it is; nor for longer than this process acts,
        for a DaemonSet that came and went while nobody looked was never seen.
        """
        timed = not entry.set_by and not self._judge.deadlines.rewritten(entry.key)
        acting = self._acting.get(entry.actor, entry.sent)
        seen, begin = max(since, self._sight.earliest(kind)), max(entry.sent - GONE, acting) if timed else entry.sent
        changes = (at for at, _, _ in self._sight.between(kind, key, seen, entry.sent) if at > seen)
        return [self._story(kind, key, begin, moment) for moment in (seen, *changes)]

    def _story(self, kind: str, key: str, begin: float, moment: float) -> list[Version]:
        """What a view of one moment had shown since; what it showed last it shows still."""
        found = self._sight.between(kind, key, min(begin, moment), moment)
        at, _, last = found[-1]
        return [*found[:-1], (at, math.inf, last)] if moment >= begin else [(-math.inf, math.inf, last)]

    def _apart(self, nodes: list[Version], daemonsets: list[Version]) -> bool:
        return not any(
            n and d and n0 < d1 and d0 < n1 and self._judge.wants(n, d) for n0, n1, n in nodes for d0, d1, d in daemonsets
        )

    def premature(self, entry: Event, old: Obj, since: float) -> str:
        """Why a node is not to be given back yet, though there is a reason to; empty where it is."""
        nodes = self._judge.before(entry.key, since)
        state = self._names.state(old)
        if state == "upgrade-failed" and all(map(cordoned, nodes)):
            return "failed, and still cordoned"
        if state not in FINISHING:
            return ""
        unblocked = all(n and self._names.safe_load not in annotations(n) and self._comes(n, since) for n in nodes)
        half = unblocked and not any(self._is_old(p, nodes, since) for p in self._pods(entry.key, since))
        return "the old driver is gone, and the new one to come" if half else ""

    def _comes(self, node: Obj, since: float) -> bool:
        """Whether the DaemonSet in the record has stood all the time, and wanted the node: another one is not waited for."""
        uid = str(self._names.record(node).get("target", "")).partition("@")[0]
        kept = [self._sight.during("daemonsets", key, since) for key in self._judge.subject.daemonset_keys]
        return any(all(d and d["metadata"]["uid"] == uid and self._judge.wants(node, d) for d in one) for one in kept)

    def _pods(self, node: str, since: float) -> list[Obj]:
        """Every version of every driver pod that was on the node."""
        here = [*self._sight.pods_on(node), *self._sight.gone_from(node, since)]
        keys = {f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in here if self._judge.pods.is_driver(p)}
        return [p for key in keys for p in self._sight.during("pods", key, since) if p and node_of(p) == node]

    def _is_old(self, pod: Obj, nodes: list[Obj | None], since: float) -> bool:
        """Whether the pod has to be replaced, and nobody has begun to."""
        if "deletionTimestamp" in pod["metadata"]:
            return False
        if any(self._names.record(n).get("replace") == pod["metadata"]["uid"] for n in nodes):
            return True
        owner = controller_of(pod)
        return owner is not None and bool(self._sight.newest(owner["uid"], since) - {labels(pod).get(HASH, "")})
