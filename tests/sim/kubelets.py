"""Kubelets and what belongs to nodes: pods start, get ready, crash and end; the safe-load gate; a cordon's taint."""

import random
from dataclasses import dataclass, field

from tests.sim.apiserver import ApiServer
from tests.sim.objects import (
    Obj,
    annotations,
    assoc,
    controller_of,
    key_of,
    labels,
    node_of,
    pod_status,
    ready_node,
    ready_pod,
)

_KEY = "node.kubernetes.io/"
_READY_KEYS = {"False": "not-ready", "Unknown": "unreachable"}


@dataclass
class Behaviour:
    """How pods fare. ``broken`` are images that never get ready, by node or ``*``; ``crashing`` ones count restarts."""

    start: tuple[float, float] = (0.2, 2.0)
    ready: tuple[float, float] = (0.2, 5.0)
    stop: tuple[float, float] = (0.1, 5.0)
    job_seconds: tuple[float, float] = (5.0, 120.0)
    broken: set[tuple[str, str]] = field(default_factory=set)
    crashing: set[tuple[str, str]] = field(default_factory=set)
    safe_load_key: str = ""
    driver_app: str = "driver"
    validator_app: str = "validator"


class Kubelets:
    """One kubelet for each node. A node that is not Ready has a dead one: nothing starts, nothing ends."""

    def __init__(self, server: ApiServer, rng: random.Random, behaviour: Behaviour) -> None:
        self._server = server
        self._rng = rng
        self.behaviour = behaviour
        self._pods: dict[str, dict[str, None]] = {}
        server.store.reactions["pods"].append(self._pod)
        server.store.reactions["nodes"].append(self._node)

    def _later(self, bounds: tuple[float, float], *args: object) -> None:
        self._server.loop.call_later(self._rng.uniform(*bounds), *args)  # type: ignore[arg-type]

    def _pod(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        if pod is None or not node_of(pod):
            return
        here = self._pods.setdefault(node_of(pod), {})
        key = key_of(pod)
        if new is None:
            here.pop(key, None)
        else:
            here[key] = None
            if old is None or not node_of(old):
                self._later(self.behaviour.start, self._start, key, pod["metadata"]["uid"])
            if _leaving(new) and not (old and _leaving(old)):
                self._later(self._stop_time(new), self._stop, key, pod["metadata"]["uid"])
        if labels(pod).get("app") == self.behaviour.driver_app:
            self._validators(node_of(pod))

    def _stop_time(self, pod: Obj) -> tuple[float, float]:
        low, high = self.behaviour.stop
        grace = float(pod["metadata"]["deletionGracePeriodSeconds"])
        return min(low, grace), min(high, grace)

    def _live(self, key: str, uid: str) -> Obj | None:
        """The pod, if it is still this one and its kubelet is alive; a dead kubelet looks again later."""
        pod = self._server.get("pods", key)
        if pod is None or pod["metadata"]["uid"] != uid:
            return None
        node = self._server.get("nodes", node_of(pod))
        return pod if node is not None and ready_node(node) else None

    def _start(self, key: str, uid: str) -> None:
        pod = self._live(key, uid)
        if pod is None:
            self._retry(key, uid, self._start)
            return
        if _leaving(pod):
            return
        if pod["spec"].get("initContainers") and self.behaviour.safe_load_key:
            node = self._server.get("nodes", node_of(pod))
            if node is not None and self.behaviour.safe_load_key not in annotations(node):
                path = ("metadata", "annotations", self.behaviour.safe_load_key)
                self._server.edit("driver-init", "nodes", node_of(pod), path, "true")
            self._status(pod, pod_status("Pending", init=True))
            self._later((0.1, 1.0), self._load, key, uid)
            return
        self._run(pod)

    def _load(self, key: str, uid: str) -> None:
        """The init container waits until its annotation is gone."""
        pod = self._live(key, uid)
        if pod is None:
            self._retry(key, uid, self._load)
            return
        node = self._server.get("nodes", node_of(pod))
        if _leaving(pod) or node is None:
            return
        if self.behaviour.safe_load_key in annotations(node):
            self._later((0.5, 2.0), self._load, key, uid)
            return
        self._run(pod)

    def _run(self, pod: Obj) -> None:
        key, uid = key_of(pod), pod["metadata"]["uid"]
        if labels(pod).get("app") in {self.behaviour.driver_app, self.behaviour.validator_app}:
            self._status(pod, pod_status("Running"))
            self._later(self.behaviour.ready, self._ready, key, uid, 0)
            return
        self._status(pod, pod_status("Running", ready=True))
        if (owner := controller_of(pod)) and owner["kind"] == "Job":
            self._later(self.behaviour.job_seconds, self._complete, key, uid)

    def _fate(self, pod: Obj, among: set[tuple[str, str]]) -> bool:
        image = pod["spec"]["containers"][0]["image"]
        return (image, "*") in among or (image, node_of(pod)) in among

    def _ready(self, key: str, uid: str, restarts: int) -> None:
        pod = self._live(key, uid)
        if pod is None or _leaving(pod):
            self._retry(key, uid, self._ready, restarts)
            return
        if self._fate(pod, self.behaviour.crashing):
            self._status(pod, pod_status("Running", restarts=restarts + 1, waiting="CrashLoopBackOff"))
            self._later((2.0, 10.0), self._ready, key, uid, restarts + 1)
        elif self._fate(pod, self.behaviour.broken) or not self._driver_is_up(pod):
            self._later((2.0, 10.0), self._ready, key, uid, restarts)
        else:
            self._status(pod, pod_status("Running", ready=True, restarts=restarts))

    def _driver_is_up(self, pod: Obj) -> bool:
        """A validator is ready only while the driver is."""
        if labels(pod).get("app") != self.behaviour.validator_app:
            return True
        found = [self._server.get("pods", k) for k in self._pods.get(node_of(pod), ())]
        return any(p is not None and labels(p).get("app") == self.behaviour.driver_app and ready_pod(p) for p in found)

    def _validators(self, node: str) -> None:
        for key in tuple(self._pods.get(node, ())):
            pod = self._server.get("pods", key)
            if pod is None or labels(pod).get("app") != self.behaviour.validator_app or not ready_pod(pod):
                continue
            if not self._driver_is_up(pod):
                self._status(pod, pod_status("Running"))
                self._later(self.behaviour.ready, self._ready, key, pod["metadata"]["uid"], 0)

    def _complete(self, key: str, uid: str) -> None:
        pod = self._live(key, uid)
        if pod is not None and not _leaving(pod):
            self._status(pod, pod_status("Succeeded"))

    def _stop(self, key: str, uid: str) -> None:
        pod = self._live(key, uid)
        if pod is None or pod["metadata"].get("finalizers"):
            self._retry(key, uid, self._stop)
            return
        self._server.delete("kubelet", "pods", key, 0)

    def _retry(self, key: str, uid: str, what: object, *args: object) -> None:
        pod = self._server.get("pods", key)
        if pod is not None and pod["metadata"]["uid"] == uid:
            self._later((2.0, 5.0), what, key, uid, *args)

    def _status(self, pod: Obj, status: Obj) -> None:
        self._server.edit("kubelet", "pods", key_of(pod), ("status",), status)

    def _node(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            if old is not None:
                self._later((0.5, 5.0), self._collect, old["metadata"]["name"], old["metadata"]["uid"])
            return
        if _taints(new) != (new["spec"].get("taints") or []):
            self._later((0.01, 0.2), self._taint, new["metadata"]["name"])

    def _taint(self, name: str) -> None:
        """The node lifecycle controller shows a cordon, and what is wrong with a node, as taints."""
        node = self._server.get("nodes", name)
        if node is None:
            return
        self._server.edit("node-lifecycle", "nodes", name, ("spec", "taints"), _taints(node) or None)

    def _collect(self, name: str, uid: str) -> None:
        """Pods of a node that is gone go as well."""
        node = self._server.get("nodes", name)
        if node is not None and node["metadata"]["uid"] == uid:
            return
        for key in tuple(self._pods.get(name, ())):
            pod = self._server.get("pods", key)
            if pod is not None:
                self._server.delete("pod-gc", "pods", key, 0)

    def beat(self) -> None:
        """Every kubelet reports that nothing has changed, as it does all five minutes."""
        for obj in self._server.store.objects("nodes"):
            beats = [{**c, "lastHeartbeatTime": self._server.stamp()} for c in obj["status"]["conditions"]]
            self._server.edit("kubelet", "nodes", obj["metadata"]["name"], ("status", "conditions"), beats)

    def crash_driver(self, node: str) -> None:
        """A driver's container ends and starts again."""
        for key in tuple(self._pods.get(node, ())):
            pod = self._server.get("pods", key)
            if pod is not None and labels(pod).get("app") == self.behaviour.driver_app and ready_pod(pod):
                self._status(pod, pod_status("Running", restarts=1))
                self._later(self.behaviour.ready, self._ready, key, pod["metadata"]["uid"], 1)
                return


def _taints(node: Obj) -> list[Obj]:
    """A node's taints as they should be: others' are kept. Evictions by NoExecute are not played, so it is not set."""
    ready = next((c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"), "Unknown")
    keys = ["unschedulable"] if node["spec"].get("unschedulable") else []
    keys += [_READY_KEYS[ready]] if ready in _READY_KEYS else []
    kept = [t for t in node["spec"].get("taints") or () if not str(t.get("key", "")).startswith(_KEY)]
    return kept + [{"key": _KEY + key, "effect": "NoSchedule"} for key in keys]


def _leaving(pod: Obj) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def node(name: str, labels: dict[str, str], *, unschedulable: bool = False, ready: bool = True) -> Obj:
    """A node as its kubelet registers it."""
    obj = {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}, "annotations": {}},
        "spec": {"unschedulable": True} if unschedulable else {},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }
    return assoc(obj, ("status", "nodeInfo"), {"kubeletVersion": "v1.36.3"})
