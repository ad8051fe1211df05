"""What is in the way on broken nodes whose driver is good: workloads, and admission policies of the benchmark's own."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tools.bench.kinds import BROKEN, JOB, Kind, name_of
from tools.bench.setting import SETTLE_SECONDS
from tools.bench.subject import STATE_LABEL
from tools.controlplane import scene
from tools.controlplane.api import Api, ApiError
from tools.controlplane.resources import NODES, PODS, Object, Objects

HOLD = "bench.driver-upgrade.test/hold"
DENIED = "the benchmark lets nobody do this"
"""What the admission policies say."""
GRANTED = "cordon-required"
_WORKLOADS = {"Pod", "Deployment", "Job"}
_ADMISSION = "admissionregistration.k8s.io/v1"
_RULES: Mapping[str, Object] = {
    "denied": {"apiGroups": [""], "operations": ["CREATE"], "resources": ["pods/eviction"]},
    "going": {"apiGroups": ["*"], "operations": ["DELETE"], "resources": ["*"], "scope": "Namespaced"},
    "refused": {"apiGroups": [""], "operations": ["UPDATE"], "resources": ["nodes"], "resourceNames": [name_of("refused")]},
}
"""By kind: what is denied. In the namespace that goes it is every deletion, else its pods would soon be gone with it."""


def namespace_of(kind: str) -> str:
    """Where the pods of a kind are: in `default` unless something holds for their namespace."""
    return f"bench-{kind}" if kind in {"denied", "going"} else "default"


def obstacles(kinds: Mapping[str, Kind]) -> Objects:
    """All of them; namespaces first."""
    made = [obj for kind in kinds for obj in _in_the_way(kind)]
    return sorted(made, key=lambda obj: obj["kind"] != "Namespace")


def pods_of(objects: Objects) -> int:
    """How many pods they make."""
    return sum(obj["kind"] in _WORKLOADS for obj in objects)


def _in_the_way(kind: str) -> Objects:
    match kind:
        case "bare":
            return [scene.pod(kind, spec=_spec(kind))]
        case "budget" | "lifted":
            return [_deployment(kind), scene.budget(kind, min_available=1)]
        case "budgets":
            both = scene.budget(kind, max_unavailable=1), scene.budget("another", labels={"app": kind}, max_unavailable=1)
            return [_deployment(kind), *both]
        case "denied" | "going":
            return [scene.namespace(namespace_of(kind)), *_denial(kind), _deployment(kind)]
        case "refused":
            return _denial(kind)
        case "emptydir":
            return [_deployment(kind, empty_dir=True)]
        case "finalizer":
            return [_deployment(kind, finalizers=[HOLD], annotations=scene.stage(stuck="true"))]
        case "stuck":
            return [_deployment(kind, annotations=scene.stage(stuck="true"))]
        case "job":
            return [scene.job(kind, duration="24h", labels={JOB: "yes"}, spec=_spec(kind, restart="Never"))]
        case _:
            return []


def _spec(kind: str, **options: Any) -> Object:
    tolerations = [{"key": BROKEN, "operator": "Exists"}]
    return scene.pod_spec(**options) | {"nodeSelector": {BROKEN: kind}, "tolerations": tolerations}


def _deployment(kind: str, *, empty_dir: bool = False, **metadata: Any) -> Object:
    made = scene.deployment(kind, namespace_of(kind), spec=_spec(kind, empty_dir=empty_dir))
    made["spec"]["template"]["metadata"] |= metadata
    return made


def _denial(kind: str) -> Objects:
    """An admission policy and its binding: no evictions, no deletions, or no grant of the node."""
    name, rule = f"bench-{kind}", {"apiVersions": ["*"], **_RULES[kind]}
    labels = "object.metadata.labels"
    granted = f"has({labels}) && '{STATE_LABEL}' in {labels} && {labels}['{STATE_LABEL}'] == '{GRANTED}'"
    text = f"!({granted})" if kind == "refused" else "false"
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": text, "message": DENIED}]}
    bound: Object = {"policyName": name, "validationActions": ["Deny"]}
    if kind != "refused":
        space = {"kubernetes.io/metadata.name": namespace_of(kind)}
        bound["matchResources"] = {"namespaceSelector": {"matchLabels": space}}
    made = {"apiVersion": _ADMISSION, "metadata": {"name": name}}
    return [
        {**made, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**made, "kind": "ValidatingAdmissionPolicyBinding", "spec": bound},
    ]


async def denials_in_force(api: Api, kinds: Mapping[str, Kind]) -> None:
    """Waits until everything that is to be denied is; nothing tells when an admission policy is in force.

    Raises:
        TimeoutError: it is not.
    """
    async with asyncio.timeout(SETTLE_SECONDS):
        for kind in kinds.keys() & _RULES.keys():
            while not await _is_denied(api, kind):  # noqa: ASYNC110 - it is somebody else's state
                await asyncio.sleep(0.1)


async def _is_denied(api: Api, kind: str) -> bool:
    """Tries it without effect."""
    try:
        if kind == "refused":
            body = {"metadata": {"labels": {STATE_LABEL: GRANTED}}}
            path, merge = NODES.path(name=name_of(kind)), "application/merge-patch+json"
            await api.request("PATCH", path, body, merge, dryRun="All")
        else:
            await _remove(api, kind)
    except ApiError as error:
        if DENIED not in error.message:
            raise
        return True
    return False


async def _remove(api: Api, kind: str) -> None:
    """Evicts a pod of the kind, or deletes it, without effect."""
    pod, *_ = await api.list(PODS, namespace_of(kind), labels=f"app={kind}")
    name, options = pod["metadata"]["name"], {"dryRun": ["All"]}
    if kind == "going":
        await api.request("DELETE", PODS.path(namespace_of(kind), name), options)
        return
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options}
    await api.request("POST", PODS.path(namespace_of(kind), name, "eviction"), body, dryRun="All")
