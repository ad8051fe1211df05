"""What runs on the nodes and who puts it there: ReplicaSets, jobs, the scheduler, and the disruption controller."""

import random
from dataclasses import dataclass, field

from tests.sim.apiserver import ApiServer
from tests.sim.daemonsets import DaemonSets
from tests.sim.objects import Obj, assoc, controller_of, key_of, labels, node_of, pod_status, ready_node, ready_pod, terminal
from tests.sim.selectors import from_object

NAMESPACE = "work"
DEFAULT = "default-scheduler"


@dataclass
class Workload:
    """A ReplicaSet, or with ``job`` a job whose pods end by themselves."""

    name: str
    replicas: int
    job: bool = False
    grace: int = 30
    empty_dir: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    claim: str = ""
    """The ResourceClaim that its pods share, with a device of this driver: its name is the driver's."""
    uid: str = ""
    pods: set[str] = field(default_factory=set)


class Workloads:
    """Re-creates pods as soon as one is on its way out. Job pods are not re-created."""

    def __init__(self, server: ApiServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._all: dict[str, Workload] = {}
        server.store.reactions["pods"].append(self._pod)

    def add(self, workload: Workload) -> None:
        workload.uid = f"rs-{workload.name}"
        self._all[workload.uid] = workload
        if workload.claim:
            self._server.apply("scheduler", "resourceclaims", _claim(workload.claim))
        self._sync(workload)

    def remove(self, name: str) -> None:
        """The workload is deleted, and its pods with it."""
        gone = self._all.pop(f"rs-{name}")
        for pod in self._server.store.objects("pods"):
            if (owner := controller_of(pod)) and owner["uid"] == gone.uid:
                self._server.delete("garbage-collector", "pods", key_of(pod))

    def expected(self, uid: str) -> int:
        """How many pods the owner with this uid wants."""
        return self._all[uid].replicas if uid in self._all else 0

    def _pod(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        owner = controller_of(pod) if pod else None
        workload = self._all.get(owner["uid"]) if owner else None
        if workload is None or pod is None:
            return
        key = key_of(pod)
        leaving = new is None or "deletionTimestamp" in new["metadata"] or terminal(new)
        if not leaving:
            workload.pods.add(key)
        elif key in workload.pods:
            workload.pods.discard(key)
            if not workload.job:
                self._server.loop.call_later(self._rng.uniform(0.01, 0.2), self._sync, workload)

    def _sync(self, workload: Workload) -> None:
        while len(workload.pods) < workload.replicas:
            name = f"{workload.name}-{self._rng.getrandbits(32):08x}"
            workload.pods.add(f"{NAMESPACE}/{name}")
            self._server.apply("replicaset-controller", "pods", self._make(workload, name))

    def _make(self, workload: Workload, name: str) -> Obj:
        kind = "Job" if workload.job else "ReplicaSet"
        version = "batch/v1" if workload.job else "apps/v1"
        spec: Obj = {"containers": [{"name": "main", "image": "work"}], "terminationGracePeriodSeconds": workload.grace}
        if workload.empty_dir:
            spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
        if workload.claim:
            spec["resourceClaims"] = [{"name": "device", "resourceClaimName": workload.claim}]
        owner = {"apiVersion": version, "kind": kind, "name": workload.name, "uid": workload.uid, "controller": True}
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {"app": workload.name, **({"job": "true"} if workload.job else {}), **workload.labels},
                "ownerReferences": [owner],
            },
            "spec": spec,
            "status": pod_status("Pending"),
        }


class Scheduler:
    """Binds pods a moment after it has chosen a node, so that a binding may land on a node just cordoned."""

    def __init__(self, server: ApiServer, rng: random.Random, daemonsets: DaemonSets) -> None:
        self._server = server
        self._rng = rng
        self._daemonsets = daemonsets
        self._waiting: dict[str, None] = {}
        self._due = False
        server.store.reactions["pods"].append(self._pod)
        server.store.reactions["nodes"].append(self._node)

    def _pod(self, _old: Obj | None, new: Obj | None) -> None:
        # A pod may name another scheduler, which the world has not got.
        if new is not None and not node_of(new) and new["spec"].get("schedulerName", DEFAULT) == DEFAULT:
            self._waiting[key_of(new)] = None
            self._kick()

    def _node(self, _old: Obj | None, _new: Obj | None) -> None:
        if self._waiting:
            self._kick()

    def _kick(self) -> None:
        if not self._due:
            self._due = True
            self._server.loop.call_later(self._rng.uniform(0.005, 0.05), self._schedule)

    def _schedule(self) -> None:
        self._due = False
        if not self._waiting:
            return
        fit = [n["metadata"]["name"] for n in self._server.store.objects("nodes") if _schedulable(n)]
        for key in tuple(self._waiting):
            pod = self._server.get("pods", key)
            node = self._choose(pod, fit) if pod is not None else ""
            if node is None:
                continue
            del self._waiting[key]
            if pod is not None:
                self._server.loop.call_later(self._rng.uniform(0.005, 0.05), self._bind, key, pod["metadata"]["uid"], node)

    def _choose(self, pod: Obj, fit: list[str]) -> str | None:
        target = self._daemonsets.targets.get(key_of(pod))
        if target is not None:
            return target if self._server.get("nodes", target) else None
        return self._rng.choice(fit) if fit else None

    def _bind(self, key: str, uid: str, node: str) -> None:
        pod = self._server.get("pods", key)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        if self._server.get("nodes", node) is None:
            self._waiting[key] = None
            return
        self._server.apply("scheduler", "pods", assoc(pod, ("spec", "nodeName"), node))


def _claim(driver: str) -> Obj:
    """An allocated ResourceClaim."""
    return {
        "kind": "ResourceClaim",
        "apiVersion": "resource.k8s.io/v1",
        "metadata": {"name": driver, "namespace": NAMESPACE},
        "spec": {},
        "status": {"allocation": {"devices": {"results": [{"driver": driver}]}}},
    }


def _schedulable(node: Obj) -> bool:
    return not node["spec"].get("unschedulable") and ready_node(node)


class Disruptions:
    """The disruption controller: budgets' status, behind by a fraction of a second."""

    def __init__(self, server: ApiServer, rng: random.Random, workloads: Workloads) -> None:
        self._server = server
        self._rng = rng
        self._workloads = workloads
        self._due: set[str] = set()
        self._pods: dict[str, dict[str, None]] = {}
        """Keys of pods by namespace."""
        server.store.reactions["pods"].append(self._pod)
        server.store.reactions["poddisruptionbudgets"].append(self._budget)

    def _pod(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        if pod is None:
            return
        namespace = pod["metadata"]["namespace"]
        if new is None:
            self._pods[namespace].pop(key_of(pod), None)
        else:
            self._pods.setdefault(namespace, {})[key_of(pod)] = None
        if old is None or new is None or ready_pod(old) != ready_pod(new):
            for budget in self._server.store.objects("poddisruptionbudgets"):
                if budget["metadata"]["namespace"] == namespace and _guards(budget, pod):
                    self._later(key_of(budget))

    def _budget(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and (old is None or old["spec"] != new["spec"] or _disrupted(old) != _disrupted(new)):
            self._later(key_of(new))

    def _later(self, key: str) -> None:
        if key not in self._due:
            self._due.add(key)
            self._server.loop.call_later(self._rng.uniform(0.05, 0.5), self._sync, key)

    def _sync(self, key: str) -> None:
        self._due.discard(key)
        budget = self._server.get("poddisruptionbudgets", key)
        if budget is None:
            return
        found = (self._server.get("pods", k) for k in self._pods.get(budget["metadata"]["namespace"], ()))
        pods = [p for p in found if p is not None and _guards(budget, p)]
        names = {p["metadata"]["name"]: p for p in pods}
        disrupted = {
            n: t for n, t in _disrupted(budget).items() if n in names and "deletionTimestamp" not in names[n]["metadata"]
        }
        healthy = sum(ready_pod(p) and p["metadata"]["name"] not in disrupted for p in pods)
        expected, desired = self._expected(budget["spec"], pods)
        status = {
            "observedGeneration": budget["metadata"]["generation"],
            "disruptionsAllowed": max(0, healthy - desired) if expected else 0,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptedPods": disrupted,
        }
        self._server.edit("disruption-controller", "poddisruptionbudgets", key, ("status",), status)

    def _expected(self, spec: Obj, pods: list[Obj]) -> tuple[int, int]:
        """How many pods there are to be and how many must be healthy: minAvailable goes by the pods that are there, and
        maxUnavailable by what their controllers want, so that pods of none are never allowed to go.
        """
        if "minAvailable" in spec:
            return len(pods), spec["minAvailable"]
        owners = {o["uid"] for p in pods if (o := controller_of(p))}
        expected = sum(self._workloads.expected(uid) for uid in sorted(owners))
        return expected, max(0, expected - spec["maxUnavailable"])


def _guards(budget: Obj, pod: Obj) -> bool:
    return from_object(budget["spec"]["selector"])(labels(pod))


def _disrupted(budget: Obj) -> Obj:
    return (budget.get("status") or {}).get("disruptedPods") or {}


def budget(name: str, app: str, **spec: int) -> Obj:
    """A PodDisruptionBudget for one workload."""
    return {
        "kind": "PodDisruptionBudget",
        "apiVersion": "policy/v1",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
        "status": {},
    }
