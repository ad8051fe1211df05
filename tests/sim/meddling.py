"""People and other programs who change things under the controller's hands, in every state, until the phase ends.

What is not an upgrade's fault must not hold one up for ever, so everything that would (a pause, a dead node, a finalizer,
a policy that is gone) is put right again at the end of the phase.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.daemonsets import PART
from tests.sim.objects import Obj, controller_of, key_of, labels, node_of
from tests.sim.world import DAEMONSET, DRAIN_SKIP, KEEP, POLICY, RECORD, REQUESTED, SKIP, STATE

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.trace import Trace
    from tests.sim.world import World

LABELS = (
    None,
    "upgrade-required",
    "cordon-required",
    "wait-for-jobs-required",
    "pod-deletion-required",
    "drain-required",
    "pod-restart-required",
    "validation-required",
    "uncordon-required",
    "upgrade-done",
    "upgrade-failed",
    "node-maintenance-required",
    "nonsense",
)

ACTS: dict[str, int] = {
    "cordon": 4,
    "uncordon": 4,
    "relabel": 3,
    "skip": 2,
    "keep_cordon": 1,
    "request": 2,
    "delete_driver": 2,
    "crash_driver": 2,
    "recreate_node": 1,
    "dead_node": 2,
    "parallel": 2,
    "pause": 2,
    "disable": 1,
    "delete_policy": 1,
    "fuzz_policy": 1,
    "change_driver": 2,
    "recreate_daemonset": 1,
    "deselect": 1,
    "annotate": 2,
    "lose_record": 1,
    "skip_pod": 1,
    "hold_pod": 1,
    "orphan_driver": 1,
}
"""What they do, and how often in comparison."""


class Meddler:
    """One phase of interference."""

    def __init__(self, world: "World", faults: "Faults", trace: "Trace") -> None:
        self._world = world
        self._faults = faults
        self._trace = trace
        self._rng = random.Random(f"{world.plan.seed} meddler {faults.count}")
        self._phase = 0
        self._ends = world.loop.time() + world.plan.fault_seconds
        self._pace = self._rng.uniform(2, 40)

    def begin(self, phase: int) -> None:
        """Act now and then as long as the phase lasts; then put things right."""
        self._phase = phase
        self._later()

    def _later(self) -> None:
        self._world.loop.call_later(self._rng.uniform(0, self._pace), self._act)

    def _act(self) -> None:
        if not self._faults.in_phase(self._phase):
            return
        act = self._rng.choices(list(ACTS), list(ACTS.values()))[0]
        nodes = sorted(
            n["metadata"]["name"]
            for n in self._world.server.store.objects("nodes")
            if not n["metadata"]["name"].startswith("evil")
        )
        busy = [n for n in nodes if self._world.states().get(n, "") not in {"", "upgrade-done", "upgrade-required"}]
        node = self._rng.choice(busy if busy and self._rng.random() < 0.7 else nodes) if nodes else ""
        self._faults.fault(f"{act} {node}")
        self.do(act, node)
        self._later()

    def do(self, act: str, node: str) -> None:
        """Do one thing of :data:`ACTS`, on or about a node."""
        getattr(self, f"_{act}")(node)

    def _undo(self, low: float, high: float, what: Callable[..., object], *args: object) -> None:
        """Put something right after a while, or when the phase ends."""
        left = self._ends - self._world.loop.time() - 0.5
        self._world.loop.call_later(max(0.0, min(self._rng.uniform(low, high), left)), what, *args)

    def _cordon(self, node: str) -> None:
        self._world.cordon(node, on=True)

    def _uncordon(self, node: str) -> None:
        self._world.cordon(node, on=False)

    def _relabel(self, node: str) -> None:
        value = self._rng.choice(LABELS)
        self._world.label_node(node, STATE, value)
        if value == "nonsense":
            self._undo(5, 60, self._world.label_node, node, STATE, None)

    def _skip(self, node: str) -> None:
        self._world.label_node(node, SKIP, "true")
        self._undo(5, 100, self._world.label_node, node, SKIP, None)

    def _keep_cordon(self, node: str) -> None:
        self._world.annotate_node(node, KEEP, "true")

    def _request(self, node: str) -> None:
        self._world.annotate_node(node, REQUESTED, "true")

    def _delete_driver(self, node: str) -> None:
        for pod in self._world.driver_pods(node):
            self._world.server.delete("admin", "pods", key_of(pod))

    def _crash_driver(self, node: str) -> None:
        self._world.kubelets.crash_driver(node)

    def _recreate_node(self, node: str) -> None:
        old = self._world.server.get("nodes", node)
        if old is None:
            return
        self._world.server.delete("autoscaler", "nodes", node)
        keeps_marks = self._rng.random() < 0.3
        self._undo(0.1, 60, self._register, node, old if keeps_marks else None)

    def _register(self, node: str, old: Obj | None) -> None:
        if self._world.server.get("nodes", node) is not None:
            return
        if old is None:
            self._world.add_node(node)
            return
        meta = {"name": node, "labels": labels(old), "annotations": old["metadata"].get("annotations") or {}}
        self._world.server.apply("admin", "nodes", {**old, "metadata": meta, "spec": {}})

    def _dead_node(self, node: str) -> None:
        self._world.set_ready(node, ready=False)
        self._undo(5, 200, lambda: self._world.set_ready(node, ready=True))

    def _parallel(self, _: str) -> None:
        self._world.edit_policy(maxParallelUpgrades=self._rng.choice([0, 1, 2, 5]))

    def _pause(self, _: str) -> None:
        self._world.edit_policy(paused=True)
        self._undo(5, 60, lambda: self._world.edit_policy(paused=False))

    def _disable(self, _: str) -> None:
        self._world.edit_policy(autoUpgrade=False)
        self._undo(1, 60, lambda: self._world.edit_policy(autoUpgrade=True))

    def _delete_policy(self, _: str) -> None:
        self._world.server.delete("admin", "driverupgradepolicies", POLICY)
        self._undo(0.5, 60, self._restore_policy)

    def _restore_policy(self) -> None:
        if self._world.server.get("driverupgradepolicies", POLICY) is None:
            self._world.create_policy(self._world.plan.policy)

    def _fuzz_policy(self, _: str) -> None:
        broken: list[dict[str, object]] = [
            {"maxParallelUpgrades": -1},
            {"maxUnavailable": "150%"},
            {"drain": {"enable": True, "timeoutSeconds": 60, "podSelector": "a in (("}},
            {"validation": "yes"},
            {"maxUnavailable": 0},
        ]
        fields = self._rng.choice(broken)
        before = {name: self._world.plan.policy.get(name) for name in fields}
        self._world.edit_policy(**fields)
        self._undo(1, 60, lambda: self._world.edit_policy(**before))

    def _change_driver(self, _: str) -> None:
        version = self._rng.choice([self._world.version - 1, self._world.version, self._world.version + 1])
        self._world.version = max(self._world.version, version)
        self._world.set_version(f"v{version}", self._rng.choice(["", "same"]))

    def _recreate_daemonset(self, _: str) -> None:
        if self._world.server.get("daemonsets", DAEMONSET) is None:
            return
        self._world.server.delete("admin", "daemonsets", DAEMONSET)
        self._undo(0.5, 250, self._restore_daemonset)

    def _restore_daemonset(self) -> None:
        if self._world.server.get("daemonsets", DAEMONSET) is None:
            self._world.create_driver()

    def _deselect(self, node: str) -> None:
        self._world.label_node(node, "gpu", None)
        self._undo(1, 200, self._world.label_node, node, "gpu", "true")

    def _annotate(self, node: str) -> None:
        self._world.annotate_node(node, "example.com/heartbeat", str(self._rng.random()), "someone")

    def _lose_record(self, node: str) -> None:
        self._world.annotate_node(node, RECORD, self._rng.choice([None, "{", '{"state":"drain-required","since":"x"}']))

    def _some_pod(self, node: str) -> Obj | None:
        pods = self._world.server.store.objects("pods")
        found = [p for p in pods if node_of(p) == node and (o := controller_of(p)) and o["kind"] == "ReplicaSet"]
        return self._rng.choice(found) if found else None

    def _skip_pod(self, node: str) -> None:
        pod = self._some_pod(node)
        if pod is not None:
            self._world.server.edit("admin", "pods", key_of(pod), ("metadata", "labels", DRAIN_SKIP), "true")

    def _hold_pod(self, node: str) -> None:
        pod = self._some_pod(node)
        if pod is not None:
            path = ("metadata", "finalizers")
            self._world.server.edit("admin", "pods", key_of(pod), path, ["example.com/hold"])
            self._undo(5, 100, self._world.server.edit, "admin", "pods", key_of(pod), path, None)

    def _orphan_driver(self, node: str) -> None:
        """The DaemonSet's pod loses a label: it is nobody's from now on, while the DaemonSet makes another."""
        for pod in self._world.driver_pods(node)[:1]:
            self._world.server.edit("admin", "pods", key_of(pod), ("metadata", "labels", PART), None)
            self._undo(5, 100, self._world.server.delete, "admin", "pods", key_of(pod))
