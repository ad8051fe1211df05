"""One-line questions about pods, composed into the larger ones of drain, restart and validation."""

import fnmatch
from collections.abc import Iterable

from controller.api.pod import ContainerStatus, Pod
from controller.api.workloads import DaemonSet
from controller.upgrade.reasons import Reason

MIRROR = "kubernetes.io/config.mirror"
_PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def is_mirror(pod: Pod) -> bool:
    """Whether it is the image of a static pod: it cannot be evicted."""
    return MIRROR in pod.annotations


def is_daemonset_pod(pod: Pod) -> bool:
    """Whether a DaemonSet of apps/v1 controls it: evicted, it would come back at once."""
    owner = pod.controller_ref
    return owner is not None and owner.kind == "DaemonSet" and owner.api_version == "apps/v1"


def is_unmanaged(pod: Pod) -> bool:
    """Whether nothing would re-create it elsewhere."""
    return pod.controller_ref is None


def has_empty_dir(pod: Pod) -> bool:
    """Whether it keeps data that is lost with it. Host paths and local volumes do not count, as in kubectl drain."""
    return any(v.empty_dir is not None for v in pod.spec.volumes or ())


def is_active(pod: Pod) -> bool:
    """Whether it is Pending or Running: a job that has not ended."""
    return pod.phase in {"Pending", "Running"}


def is_ready(pod: Pod) -> bool:
    """Whether it is Running, every container reports ready, and it is not being deleted."""
    statuses = pod.status.container_statuses or ()
    return (
        pod.phase == "Running"
        and not pod.terminating
        and len(statuses) >= len(pod.spec.containers or ())
        and all(s.ready for s in statuses)
    )


def created(pod: Pod) -> float:
    """When it was made, in seconds since the epoch; 0 where that is not known."""
    return pod.metadata.creation_timestamp.timestamp() if pod.metadata.creation_timestamp else 0.0


def all_statuses(pod: Pod) -> Iterable[ContainerStatus]:
    """Every container's status, init containers first."""
    yield from pod.status.init_container_statuses or ()
    yield from pod.status.container_statuses or ()


def restarts(pod: Pod) -> int:
    """The highest restart count of any container or init container."""
    return max((s.restart_count for s in all_statuses(pod)), default=0)


def uses_resource(pod: Pod, patterns: Iterable[str]) -> bool:
    """Whether a container or init container asks for a resource whose name matches (``nvidia.com/gpu*``)."""
    names = {
        name
        for container in (*(pod.spec.containers or ()), *(pod.spec.init_containers or ()))
        if container.resources
        for name in container.resources.names
    }
    return matches_any(names, patterns)


def claim_keys(pod: Pod) -> frozenset[str]:
    """The ResourceClaims that it uses, ``namespace/name``, named in its spec or made from its templates."""
    made = {c.name: c.resource_claim_name for c in pod.status.resource_claim_statuses or ()}
    names = (c.resource_claim_name or made.get(c.name) for c in pod.spec.resource_claims or ())
    return frozenset(f"{pod.namespace}/{name}" for name in names if name)


def matches_any(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether any name matches any pattern (``nvidia.com/gpu*``)."""
    chosen = tuple(patterns)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in chosen)


def env_value(containers: Iterable[object] | None, name: str) -> str:
    """The first literal, non-empty value of an environment variable among containers."""
    for container in containers or ():
        for var in getattr(container, "env", None) or ():
            if var.name == name and var.value:
                return str(var.value)
    return ""


def unchanged(pod: Pod, daemonset: DaemonSet, variable: str) -> bool:
    """Whether the running pod and the template agree on a variable that stands for the driver itself."""
    template = daemonset.spec.template.spec
    running = env_value((*(pod.spec.containers or ()), *(pod.spec.init_containers or ())), variable)
    wanted = env_value((*(template.containers or ()), *(template.init_containers or ())), variable)
    return bool(running) and running == wanted


def why_not_ready(pod: Pod) -> tuple[Reason, str]:
    """Say in one reason and a few words why a driver pod is not ready."""
    if pod.terminating:
        return Reason.DRIVER_POD_TERMINATING, _finalizers(pod)
    for status in all_statuses(pod):
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason in _PULL_REASONS:
            return Reason.IMAGE_PULL_FAILED, f"container {status.name}: {waiting.reason} {waiting.message}".strip()
        if waiting and waiting.reason == "CrashLoopBackOff":
            return Reason.DRIVER_POD_CRASHING, f"container {status.name} restarted {status.restart_count} times"
    if pod.phase == "Pending":
        return Reason.DRIVER_POD_PENDING, _unscheduled(pod)
    crashed = restarts(pod)
    return Reason.DRIVER_POD_NOT_READY, f"phase {pod.phase}" + (f", {crashed} restarts" if crashed else "")


def _finalizers(pod: Pod) -> str:
    held = pod.metadata.finalizers
    return f"held by finalizer {', '.join(held)}" if held else "still shutting down"


def _unscheduled(pod: Pod) -> str:
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    return "not started yet"
