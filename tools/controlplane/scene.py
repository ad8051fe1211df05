"""Builders of the objects that make up a test cluster: pure functions that return what `Api.create` takes.

Driver versions are image tags. A tag that ends in -crash, -nopull or -notready is a bad driver, see stages/pod-run.yaml;
everything else about a pod's life is an annotation, see `stage`.
"""

from collections.abc import Callable, Mapping, Sequence

from tools.controlplane import safeload
from tools.controlplane.resources import Object

NAMESPACE = "nvidia-operator"
DRIVER = "nvidia-driver-daemonset"
DRIVER_IMAGE = "local/driver"
GPU = "nvidia.com/gpu"
STAGE_PREFIX = "stage.driver-upgrade.test/"
NOT_READY = "driver-upgrade.test/not-ready"
_FAKE = {"kwok.x-k8s.io/node": "fake"}


def stage(**options: str) -> dict[str, str]:
    """Annotations that direct a pod's life, from their names with underscores: `stage(ready_delay="2s")`.

    Durations are start_delay, ready_delay, init_delay, run_duration, delete_delay, crash_delay, crash_back_off; behaviour is
    crash, nopull, notready, ready or slow; stuck is "true". Where each acts is said in stages/.
    """
    return {STAGE_PREFIX + name.replace("_", "-"): value for name, value in options.items()}


def node(
    name: str, *, zone: str = "", labels: Mapping[str, str] = {}, annotations: Mapping[str, str] = {}, gpus: int = 8
) -> Object:
    """A fake node, large enough for any scene."""
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    if zone:
        own["topology.kubernetes.io/zone"] = zone
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110"} | ({GPU: str(gpus)} if gpus else {})
    metadata = {"name": name, "labels": {**own, **labels}, "annotations": {**_FAKE, **annotations}}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def nodes(count: int, *, zones: int = 1, prefix: str = "node", labels: Mapping[str, str] = {}) -> list[Object]:
    """`count` fake nodes in `zones` zones, dealt out in turn."""
    width = len(str(count))
    return [
        node(f"{prefix}-{i:0{width}}", zone=f"zone-{'abcdefghij'[i % zones]}", labels=labels) for i in range(1, count + 1)
    ]


def namespace(name: str) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def driver_daemon_set(
    version: str = "1",
    *,
    name: str = DRIVER,
    namespace: str = NAMESPACE,
    safe_load: str = "",
    strategy: str = "OnDelete",
    node_selector: Mapping[str, str] = {},
    annotations: Mapping[str, str] = {},
    env: Mapping[str, str] = {},
) -> Object:
    """The DaemonSet of a driver, labelled app=<name>.

    Args:
        version: tag of the image.
        name: of the DaemonSet, and the value of the label `app`.
        namespace: of the DaemonSet.
        safe_load: name of the driver whose safe-load annotation an init container waits for; empty for none.
        strategy: update strategy.
        node_selector: labels of the nodes that get the driver.
        annotations: of the pods, see `stage`.
        env: environment of the driver's container.
    """
    labels = {"app": name}
    container: Object = {"name": "driver", "image": f"{DRIVER_IMAGE}:{version}", "securityContext": {"privileged": True}}
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    spec: Object = {"containers": [container], "tolerations": [{"operator": "Exists"}], "hostPID": True}
    spec["priorityClassName"] = "system-node-critical"
    if node_selector:
        spec["nodeSelector"] = dict(node_selector)
    if safe_load:
        spec["initContainers"] = [{"name": safeload.CONTAINER, "image": "local/driver-upgrade:1"}]
    pod_labels = labels | ({safeload.LABEL: safe_load} if safe_load else {})
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": strategy},
            "template": {"metadata": {"labels": pod_labels, "annotations": dict(annotations)}, "spec": spec},
        },
    }


def pod_spec(
    *, gpus: int = 0, empty_dir: bool = False, on_node: str = "", restart: str = "Always", grace: int = 30
) -> Object:
    """The spec of a workload pod with one container.

    Args:
        gpus: devices it asks for.
        empty_dir: whether it has a volume that is lost with the pod.
        on_node: bound to this node without the scheduler.
        restart: restart policy.
        grace: termination grace period in seconds.
    """
    container: Object = {"name": "work", "image": "local/work:1", "resources": {"requests": {"cpu": "10m"}}}
    if gpus:
        container["resources"]["limits"] = {GPU: str(gpus)}
    spec: Object = {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": grace}
    if empty_dir:
        container["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
        spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    if on_node:
        spec["nodeName"] = on_node
    return spec


def pod(
    name: str,
    namespace: str = "default",
    *,
    labels: Mapping[str, str] = {},
    annotations: Mapping[str, str] = {},
    finalizers: Sequence[str] = (),
    spec: Object | None = None,
) -> Object:
    """A bare pod, which nothing replaces; `spec` as from `pod_spec`."""
    metadata: Object = {"name": name, "namespace": namespace, "labels": dict(labels), "annotations": dict(annotations)}
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec or pod_spec()}


def deployment(
    name: str,
    namespace: str = "default",
    replicas: int = 1,
    *,
    labels: Mapping[str, str] = {},
    annotations: Mapping[str, str] = {},
    spec: Object | None = None,
) -> Object:
    """A Deployment whose pods are labelled app=<name>, plus `labels`."""
    return _workload("Deployment", name, namespace, replicas, _template(name, labels, annotations, spec))


def stateful_set(
    name: str,
    namespace: str = "default",
    replicas: int = 1,
    *,
    labels: Mapping[str, str] = {},
    annotations: Mapping[str, str] = {},
    spec: Object | None = None,
) -> Object:
    """A StatefulSet whose pods are labelled app=<name>, plus `labels`; they start all at once."""
    made = _workload("StatefulSet", name, namespace, replicas, _template(name, labels, annotations, spec))
    made["spec"] |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return made


def job(
    name: str,
    namespace: str = "default",
    *,
    duration: str = "1s",
    labels: Mapping[str, str] = {},
    spec: Object | None = None,
) -> Object:
    """A Job whose one pod, labelled app=<name> plus `labels`, completes after `duration`."""
    template = _template(name, labels, stage(run_duration=duration), spec or pod_spec(restart="Never"))
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template, "backoffLimit": 0}}


def budget(
    name: str,
    namespace: str = "default",
    *,
    labels: Mapping[str, str] | None = None,
    min_available: int | str | None = None,
    max_unavailable: int | str | None = None,
) -> Object:
    """A PodDisruptionBudget for pods labelled app=<name> (or `labels`); give one of the two bounds."""
    spec: Object = {"selector": {"matchLabels": dict(labels or {"app": name})}}
    spec |= {"minAvailable": min_available} if min_available is not None else {}
    spec |= {"maxUnavailable": max_unavailable} if max_unavailable is not None else {}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec}


def is_ready(obj: Object) -> bool:
    """Whether a pod or node has the condition Ready and is not being deleted."""
    if obj["metadata"].get("deletionTimestamp"):
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in obj.get("status", {}).get("conditions", ()))


def all_ready(count: int) -> Callable[[Sequence[Object]], bool]:
    """A predicate for `Api.wait_for`: exactly `count` objects, all ready."""
    return lambda objects: len(objects) == count and all(map(is_ready, objects))


def _workload(kind: str, name: str, namespace: str, replicas: int, template: Object) -> Object:
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": body}


def _template(name: str, labels: Mapping[str, str], annotations: Mapping[str, str], spec: Object | None) -> Object:
    return {"metadata": {"labels": {"app": name, **labels}, "annotations": dict(annotations)}, "spec": spec or pod_spec()}
