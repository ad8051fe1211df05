"""The end of a run: everything that can be done is done, nothing is stuck, no cordon is lost (L1-L3, L5)."""

from typing import TYPE_CHECKING, Any

from tests.checker.events import Obj
from tests.checker.names import ACT, HASH, cordoned
from tests.checker.policies import scaled
from tests.sim.objects import annotations, controller_of, labels, ready_node, ready_pod

if TYPE_CHECKING:
    from tests.checker.judge import Judge


class Rest:
    """Judges a world in which nothing has happened for a while."""

    def __init__(self, judge: "Judge") -> None:
        self._judge = judge
        self._names = judge.names
        self._sight = judge.sight

    def judge(self) -> None:
        policy = self._judge.policy()
        for node in self._judge.nodes():
            name = node["metadata"]["name"]
            self._stuck(name, node, policy)
            self._lost_cordon(name, node, self._judge.checker.cordons.by(name))
            if policy.get("autoUpgrade") and self._names.any_record(node) and not self._names.record(node):
                self._judge.violate("L3", name, "still has the marks of another node of its name")
        for name in self.eligible():
            self._judge.violate("L2", name, "could be upgraded, and nobody does")

    def _stuck(self, name: str, node: Obj, policy: dict[str, Any]) -> None:
        if not policy.get("autoUpgrade"):
            if self._names.record(node) and not (self._names.state(node) == "upgrade-failed" and cordoned(node)):
                self._judge.violate("L5", name, f"the policy is off and the node is left in {self._names.state(node)}")
            return
        if self._judge.theirs(node):
            return
        if self._names.state(node) in ACT:
            self._judge.violate("L1", name, f"still in {self._names.state(node)}")
        if self._names.state(node) == "upgrade-failed" and not self._judge.subject.may_fail:
            self._judge.violate("L3", name, f"failed for no reason: {self._names.record(node).get('failure')}")
        if self._names.state(node) in {"", "upgrade-done"} and self._needs_upgrade(name, node) and self._judge.wanted(node):
            self._judge.violate("L3", name, f"in {self._names.state(node) or 'unknown'} with an outdated driver")
        if self._names.state(node) == "" and self.current(name) and self._judge.wanted(node):
            self._judge.violate("L3", name, "upgraded and not marked done")
        if self._names.state(node) == "upgrade-required" and not self._needs_upgrade(name, node) and self.current(name):
            self._judge.violate("L3", name, "waits for an upgrade that it does not need")

    def _lost_cordon(self, name: str, node: Obj, by: str) -> None:
        checker = self._judge.checker
        if not cordoned(node) or by == "other" or checker.cordons.kept(node):
            return
        # Another driver's claim holds the cordon as well, and failed nodes stay cordoned.
        waits = self._names.claims(node) and self._names.state(node) == "upgrade-required"
        others = [j.names for j in checker.judges if j.names.state(node) == "upgrade-failed" or j.holds(node)]
        if not others and not waits:
            self._judge.violate("L5", name, f"our cordon is left in {self._names.state(node) or 'unknown'}")

    def _newest(self, pod: Obj) -> set[str]:
        owner = controller_of(pod)
        if owner is None or not self._sight.stands(owner["uid"]):
            return set()
        return self._sight.newest(owner["uid"], float("inf")) - {""}

    def current(self, name: str) -> bool:
        """Whether the node's driver is as it should be."""
        pods = list(self._judge.pods.drivers(name))
        return bool(pods) and all(ready_pod(p) and labels(p).get(HASH) in self._newest(p) for p in pods)

    def outdated(self, name: str) -> bool:
        """Whether the node has a driver pod of an older revision."""
        return any(n and labels(p).get(HASH) not in n for p in self._judge.pods.drivers(name) if (n := self._newest(p)))

    def _needs_upgrade(self, name: str, node: Obj) -> bool:
        requested = annotations(node).get(self._names.requested) == "true" and any(
            True for _ in self._judge.pods.drivers(name)
        )
        return self.outdated(name) or requested or self._names.safe_load in annotations(node)

    def eligible(self) -> list[str]:
        """Nodes that wait although nothing speaks against a grant."""
        policy = self._judge.policy()
        if not policy.get("autoUpgrade") or policy.get("paused"):
            return []
        nodes = self._judge.nodes()
        limit = policy.get("maxParallelUpgrades", 1)
        if limit and sum(self._names.held(n) for n in nodes) >= limit:
            return []
        return [n["metadata"]["name"] for n in nodes if self._may_go(n, nodes, policy)]

    def _may_go(self, node: Obj, nodes: list[Obj], policy: dict[str, Any]) -> bool:
        name, failure = node["metadata"]["name"], self._names.record(node).get("failure")
        if (
            self._names.state(node) != "upgrade-required"
            or labels(node).get(self._names.skip) == "true"
            or not self._judge.wanted(node)
            or self._judge.theirs(node)
        ):
            return False
        if any(j.names.held(node) for j in self._judge.checker.judges):
            return False
        claim = self._judge.checker.cordons.claimed(node)
        if not any(True for _ in self._judge.pods.drivers(name)) or not (self._needs_upgrade(name, node) or claim):
            return False
        if not ready_node(node) and not failure and self._names.safe_load not in annotations(node):
            return False
        if policy.get("cordonedNodes") == "Skip" and cordoned(node) and not claim:
            return False
        halted: bool = self.halted(node, nodes, policy)
        return not halted and self._has_room(node, nodes, policy)

    def halted(self, node: Obj, nodes: list[Obj], policy: dict[str, Any]) -> bool:
        """Whether as many nodes failed as the threshold allows, and this is not one that tries again."""
        if self._names.record(node).get("failure"):
            return False
        threshold = int(policy.get("failureThreshold") or policy.get("maxParallelUpgrades", 1) or 1)
        target = self._target(node)
        failures = [f for n in nodes if (f := self._names.record(n).get("failure")) and not f.get("earlier")]
        return len([f for f in failures if f.get("target") == target]) >= threshold

    def _target(self, node: Obj) -> str:
        """``uid@revision`` of the newest revision of the node's driver, as records write it."""
        sets = [self._sight.get("daemonsets", key) for key in self._judge.subject.daemonset_keys]
        daemonset = next((d for d in sets if self._judge.wants(node, d)), sets[0])
        uid = daemonset["metadata"]["uid"] if daemonset else ""
        found = [r for r in self._sight.all("controllerrevisions") if (o := controller_of(r)) and o["uid"] == uid]
        return f"{uid}@{max((int(r['revision']) for r in found), default=0)}"

    def _has_room(self, node: Obj, nodes: list[Obj], policy: dict[str, Any]) -> bool:
        limit = policy.get("maxUnavailable")
        if limit is None or cordoned(node) or not ready_node(node):
            return True
        managed = [n for n in nodes if self._judge.managed(n)]
        out = sum(
            cordoned(n) or not ready_node(n) or self._names.held(n) or self._names.state(n) == "upgrade-failed"
            for n in managed
        )
        return out < scaled(limit, len(managed))
