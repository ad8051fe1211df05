"""Objects as plain dicts that are never changed in place: a change copies the path to it and shares the rest.

So every version of every object that ever was can be kept for the history of watches, the audit log and the checker at
the price of a few small dicts.
"""

from collections.abc import Mapping
from typing import Any

Obj = dict[str, Any]
EPOCH = 1_800_000_000
"""Server time at virtual time 0."""


def key_of(obj: Obj) -> str:
    """``namespace/name``, or the name."""
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


def labels(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def node_of(pod: Obj) -> str:
    return str(pod["spec"].get("nodeName") or "")


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference of the controller."""
    owners = obj["metadata"].get("ownerReferences")
    return next((o for o in owners if o.get("controller")), None) if owners else None


def assoc(obj: Obj, path: tuple[str, ...], value: Any) -> Obj:
    """Return the object with a value at a path; None takes the key away."""
    head, *rest = path
    new = dict(obj)
    if rest:
        new[head] = assoc(obj.get(head) or {}, tuple(rest), value)
    elif value is None:
        new.pop(head, None)
    else:
        new[head] = value
    return new


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386. Returns the target itself where the patch changes nothing."""
    if not isinstance(patch, dict):
        return patch
    base = target if isinstance(target, dict) else {}
    new: Obj | None = None if base is target else {}
    for name, value in patch.items():
        if value is None:
            if name in (base if new is None else new):
                new = dict(base) if new is None else new
                del new[name]
            continue
        before = base.get(name)
        after = merge_patch(before, value)
        if after is not before and (name not in base or after != before):
            new = dict(base) if new is None else new
            new[name] = after
    return base if new is None else new


def ready_node(node: Obj) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))


def ready_pod(pod: Obj) -> bool:
    """Running, every container ready, staying."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or ()
    return (
        status.get("phase") == "Running"
        and "deletionTimestamp" not in pod["metadata"]
        and len(containers) >= len(pod["spec"]["containers"])
        and all(c["ready"] for c in containers)
    )


def terminal(pod: Obj) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def active(pod: Obj) -> bool:
    return pod.get("status", {}).get("phase") in {"Pending", "Running"}


def pod_status(phase: str, ready: bool = False, restarts: int = 0, waiting: str = "", init: bool = False) -> Obj:
    """The status that a kubelet reports of a pod with one container (and one init container that still runs)."""
    state: Obj = {"waiting": {"reason": waiting}} if waiting else {"running": {}} if phase == "Running" else {}
    status: Obj = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [{"name": "main", "ready": ready, "restartCount": restarts, "state": state}],
    }
    if init:
        status["initContainerStatuses"] = [{"name": "wait", "ready": False, "restartCount": 0, "state": {"running": {}}}]
    return status
