"""Rules about one driver's pods: restarted only on empty nodes, jobs waited for, done means done (S4, S6, S9, S12, S13)."""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from tests.checker.deadlines import SLACK
from tests.checker.events import Event, Obj
from tests.checker.evictions import uid_asked
from tests.checker.names import HASH, cordoned
from tests.checker.policies import step, valid
from tests.sim.objects import active, annotations, controller_of, labels, node_of, ready_pod, terminal
from tests.sim.selectors import from_object, parse

if TYPE_CHECKING:
    from tests.checker.judge import Judge

MIRROR = "kubernetes.io/config.mirror"


class PodRules:
    """The pods of one subject."""

    def __init__(self, judge: "Judge") -> None:
        self._judge = judge
        self._names = judge.names
        self._sight = judge.sight
        self._also = from_object({"matchExpressions": judge.subject.app_expressions})

    def drivers(self, node: str) -> Iterator[Obj]:
        """Driver pods on a node."""
        return (p for p in self._sight.pods_on(node) if self.is_driver(p))

    def is_driver(self, pod: Obj) -> bool:
        return all(labels(pod).get(k) == v for k, v in self._judge.subject.app.items()) and self._also(labels(pod))

    def at_home(self, pod: Obj) -> bool:
        """Whether the pod is in the driver's namespace and on a node of this policy (or on one that is gone)."""
        node = self._sight.get("nodes", node_of(pod))
        home = pod["metadata"].get("namespace") == self._judge.subject.namespace
        return home and (node is None or self._judge.mine(node))

    # Evictions.

    def evictable(self, pod: Obj, policy: dict[str, Any], state: str) -> bool:
        """Whether the policy lets this pod be evicted in this state."""
        drain, deletion = step(policy, "drain"), step(policy, "podDeletion")
        if not self._may_leave(pod):
            return False
        if state == "drain-required":
            return bool(drain.get("enable")) and _chosen(pod, drain) and _settings(pod, drain)
        selector = deletion.get("podSelector", "")
        chosen = (bool(selector) and parse(selector)(labels(pod))) or _uses(pod, deletion.get("resourceNames") or ())
        return chosen and _settings(pod, deletion)

    def _may_leave(self, pod: Obj) -> bool:
        owner = controller_of(pod)
        of_daemonset = owner is not None and owner["kind"] == "DaemonSet"
        skipped = labels(pod).get(self._names.drain_skip) == "true"
        return not (of_daemonset or skipped or terminal(pod) or MIRROR in annotations(pod) or self.is_driver(pod))

    # Driver restarts.

    def deletion(self, entry: Event, pod: Obj, since: float) -> None:
        """One of our deletions of a driver pod, which may be one that its node has no room for."""
        name = node_of(pod) or _meant_for(pod)
        if uid_asked(entry) != pod["metadata"]["uid"]:
            self._judge.violate("S4", name, f"deleted {entry.key} without its uid")
        nodes = self._sight.during("nodes", name, since)
        if not any(cordoned(n) and self._names.state(n) == "pod-restart-required" for n in nodes):
            was = self._names.state(nodes[-1])
            self._judge.violate("S4", name, f"driver deleted in {was}, cordoned {cordoned(nodes[-1])}")
        found = [p for p in self._sight.during("pods", entry.key, since) if p] + [pod]
        if not any(self._restartable(p, nodes, since) for p in found):
            self._judge.violate("S4", name, f"{entry.key} is neither outdated nor the recorded one")
        self._empty("S4", name, since, None if self._requested(nodes) else pod)

    def _requested(self, nodes: list[Obj | None]) -> bool:
        """Whether no version of the record allowed a restart without a drain."""
        return not any(self._names.record(n).get("restartOnly") for n in nodes)

    def _asked_for(self, node: Obj | None) -> str:
        """The uid of the pod that is replaced although it is current, because someone asked for it."""
        found = self._names.record(node)
        return "" if found.get("restartOnly") else str(found.get("replace", ""))

    def _restartable(self, pod: Obj, nodes: list[Obj | None], since: float) -> bool:
        uid, owner = pod["metadata"]["uid"], controller_of(pod)
        if any(self._asked_for(n) == uid for n in nodes):
            return True
        if owner is None:
            return False
        newest = self._sight.newest(owner["uid"], since)
        return bool(newest - {labels(pod).get(HASH, ""), ""})

    def unblocked(self, name: str, old: Obj, since: float) -> None:
        """The safe-load annotation was removed."""
        # A label that someone took off is restored from the record, in the same PATCH.
        state = self._names.state(old) or str(self._names.record(old).get("state", ""))
        if not cordoned(old) or state not in {"pod-restart-required", "validation-required"}:
            self._judge.violate("S6", name, f"loading unblocked in {state}, cordoned {cordoned(old)}")
        self._empty("S6", name, since, None)

    def _empty(self, rule: str, name: str, since: float, restarted: Obj | None) -> None:
        policies = self._judge.policies(since)
        if not all(step(p, "drain").get("enable") for p in policies):
            return
        if restarted is not None and any(self._unchanged(restarted, p, since) for p in policies):
            return
        left = [p for p in self._sight.pods_on(name) if all(self._stays_in_the_way(p, name, q, since) for q in policies)]
        if left:
            names = [p["metadata"]["name"] for p in left]
            self._judge.violate(rule, name, f"the driver was taken from under {names}")

    def _unchanged(self, pod: Obj, policy: dict[str, Any], since: float) -> bool:
        """Restart only: the variable that stands for the driver is the same in pod and template."""
        variable = step(policy, "podRestart").get("unchangedEnv")
        if not variable:
            return False
        keys = self._judge.subject.daemonset_keys
        sets = [d for key in keys for d in self._sight.during("daemonsets", key, since)]
        return any(d and _env(d["spec"]["template"]["spec"], variable) == _env(pod["spec"], variable) != "" for d in sets)

    def _stays_in_the_way(self, pod: Obj, node: str, policy: dict[str, Any], since: float) -> bool:
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        return all(
            p is not None and node_of(p) == node and self._may_leave(p) and _chosen(p, step(policy, "drain"))
            for p in self._sight.during("pods", key, since)
        )

    # Leaving states.

    def left_jobs(self, entry: Event, old: Obj, since: float) -> None:
        name = entry.key
        waits = [
            step(p, "waitForCompletion")
            for p in self._judge.policies(since)
            if step(p, "waitForCompletion").get("podSelector")
        ]
        if len(waits) < len(self._judge.policies(since)) or not self._still_wanted(name, old, since):
            return
        waited = self._judge.deadlines.waited(entry, old, "wait-for-jobs-required")
        timeouts = [w.get("timeoutSeconds", 0) for w in waits]
        if any(t and waited >= t - SLACK for t in timeouts):
            return
        left = [p for p in self._sight.pods_on(name) if all(self._is_job(p, name, w["podSelector"], since) for w in waits)]
        if left:
            names = [p["metadata"]["name"] for p in left]
            self._judge.violate("S12", name, f"did not wait for {names} after {waited:.1f} s")

    def _is_job(self, pod: Obj, node: str, selector: str, since: float) -> bool:
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        found = self._sight.during("pods", key, since)
        return all(p is not None and node_of(p) == node and active(p) and parse(selector)(labels(p)) for p in found)

    def _still_wanted(self, name: str, old: Obj, since: float) -> bool:
        """Whether the upgrade had something to do during the whole window."""
        if any(n is not None and self._names.safe_load in annotations(n) for n in [old]):
            return True
        for pod in self.drivers(name):
            owner = controller_of(pod)
            newest = self._sight.newest(owner["uid"], since) if owner else set()
            if labels(pod).get(HASH) not in newest or pod["metadata"]["uid"] == self._asked_for(old):
                return True
        return False

    def done(self, name: str, since: float, *, validated: bool) -> None:
        """Done means done: driver current and ready, validators ready (unless a person set the state behind them)."""
        policies = self._judge.policies(since)
        # Where no enabled policy says which pods are the driver's its DaemonSet does, and it has let go of an orphan.
        said = all(policy.get("autoUpgrade") for policy in policies)
        drivers = [p for p in self.drivers(name) if said or controller_of(p) is not None]
        complaints = [self._complaint("driver", name, since, drivers)]
        selectors = [p.get("autoUpgrade") and step(p, "validation").get("podSelector") for p in policies]
        # By a policy that cannot be understood nothing is done: the last good one stands in, and that may be an old one.
        if validated and selectors and all(selectors) and all(map(valid, policies)):
            # Whichever of the window's policies it went by: one of them must be fulfilled.
            found = [self._complaint("validation", name, since, self._chosen_by(str(s), name)) for s in selectors]
            complaints.append(found[-1] if all(found) else "")
        for complaint in filter(None, complaints):
            self._judge.violate("S13", name, complaint)

    def _chosen_by(self, selector: str, name: str) -> list[Obj]:
        return [p for p in self._sight.pods_on(name) if parse(selector)(labels(p))]

    def _complaint(self, what: str, name: str, since: float, pods: list[Obj]) -> str:
        """What is wrong with these pods; empty where nothing is. One that has just come to a good one is not known yet."""
        gone = [p for p in self._sight.gone_from(name, since) if self.is_driver(p) or what != "driver"]
        if not pods and not gone:
            return f"done without a {what} pod"
        if any(self._ever_good(p, what, since) for p in gone if self.is_driver(p)):
            return ""
        bad = [p for p in pods if not self._ever_good(p, what, since)]
        known = bad if len(bad) == len(pods) else [p for p in bad if self._there_since(p, since)]
        return f"done with {what} pod {known[0]['metadata']['name']} not current and ready" if known else ""

    def _there_since(self, pod: Obj, since: float) -> bool:
        """Whether the pod was on its node during the whole window."""
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        return all(p is not None and node_of(p) == node_of(pod) for p in self._sight.during("pods", key, since))

    def _ever_good(self, pod: Obj, what: str, since: float) -> bool:
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        return any(p is not None and self._good(p, what, since) for p in self._sight.during("pods", key, since))

    def _good(self, pod: Obj, what: str, since: float) -> bool:
        owner = controller_of(pod)
        if what != "driver" or owner is None:
            return ready_pod(pod)
        return ready_pod(pod) and labels(pod).get(HASH) in self._sight.newest(owner["uid"], since)


def _chosen(pod: Obj, drain: dict[str, Any]) -> bool:
    return parse(drain.get("podSelector") or "")(labels(pod))


def _meant_for(pod: Obj) -> str:
    """The node that a DaemonSet's pod is made for while it is on none: its affinity names it."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    fields = [field for term in terms for field in term.get("matchFields") or ()]
    return next((str(f["values"][0]) for f in fields if f["key"] == "metadata.name" and f.get("values")), "")


def _uses(pod: Obj, names: Collection[str]) -> bool:
    """Whether a container asks for such a device, or the pod has claims, whose drivers only their own objects name."""
    containers = [*pod["spec"].get("containers", ()), *(pod["spec"].get("initContainers") or ())]
    asked = {
        key for c in containers for part in (c.get("resources") or {}).values() if isinstance(part, dict) for key in part
    }
    claims = bool(names) and bool(pod["spec"].get("resourceClaims"))
    return claims or any(fnmatchcase(key, name) for key in asked for name in names)


def _settings(pod: Obj, step: dict[str, Any]) -> bool:
    empty_dir = any("emptyDir" in v for v in pod["spec"].get("volumes", ()))
    if empty_dir and not step.get("deleteEmptyDir"):
        return False
    return controller_of(pod) is not None or bool(step.get("force"))


def _env(spec: Obj, name: str) -> str:
    for container in spec.get("containers", ()):
        for variable in container.get("env", ()):
            if variable["name"] == name:
                return str(variable["value"])
    return ""
