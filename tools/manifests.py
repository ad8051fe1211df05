"""The manifests as users apply them, and as a test or a demo needs them: built by kubectl, then moved to other names.

Several controllers live side by side in one test cluster, each in a namespace of its own with the account, the permissions
and, where asked for, the fence of the very manifests. :func:`moved` puts them there: what lives in a namespace changes it,
what does not gets a suffix, and every reference follows.
"""

import copy
import functools
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.controlplane.binaries import resolve
from tools.controlplane.resources import Object, Objects
from tools.controlplane.terminal import Reporter

MANIFESTS = Path(__file__).parents[1] / "manifests"
NAME = "driver-upgrade"
"""Of the namespace, the ServiceAccount and the Lease."""
USER = f"system:serviceaccount:{NAME}:{NAME}"
RBAC = frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})
FENCE = frozenset({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"})
_CLUSTER_SCOPED = FENCE | {"ClusterRole", "ClusterRoleBinding"}


@functools.cache
def kubectl() -> str:
    """The kubectl that the tools use."""
    return resolve(Reporter()).kubectl[0]


@functools.cache
def _text(folder: str) -> str:
    command = [kubectl(), "kustomize", str(MANIFESTS / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"kubectl kustomize {folder}: {done.stderr.strip()}")
    return done.stdout


def built(folder: str = "base") -> Objects:
    """All objects of a kustomization, `base` or `overlays/gpu-operator`, in the order in which they are applied.

    Raises:
        RuntimeError: it cannot be built; the message is kubectl's.
    """
    return list(_parsed(folder))


@functools.cache
def _parsed(folder: str) -> tuple[Object, ...]:
    return tuple(yaml.load_all(_text(folder), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def of_kinds(objects: Iterable[Object], kinds: Iterable[str]) -> Objects:
    """The objects of some kinds."""
    chosen = frozenset(kinds)
    return [one for one in objects if one["kind"] in chosen]


def one(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    return next(obj for obj in objects if obj["kind"] == kind and obj["metadata"]["name"] == name)


@dataclass(frozen=True)
class Place:
    """Where a controller of its own lives."""

    namespace: str
    """Of the controller, instead of `driver-upgrade`."""
    drivers: str
    """The driver namespace."""
    suffix: str
    """Behind the name of what lives in no namespace."""
    domain: str = "nvidia.com"
    label: str = "app=driver"
    """Label of driver pods."""

    @property
    def user(self) -> str:
        """The controller's name in authentication."""
        return f"system:serviceaccount:{self.namespace}:{NAME}"

    def name(self, name: str) -> str:
        """What an object outside of namespaces is called here."""
        return f"{name}-{self.suffix}"


def moved(objects: Iterable[Object], place: Place) -> Objects:
    """Permissions and fence for a controller that lives elsewhere."""
    return [_moved(copy.deepcopy(obj), place) for obj in objects]


def _moved(obj: Object, place: Place) -> Object:
    meta, spec = obj["metadata"], obj.get("spec", {})
    if obj["kind"] in _CLUSTER_SCOPED:
        meta["name"] = place.name(meta["name"])
    elif "namespace" in meta:
        meta["namespace"] = place.namespace if meta["namespace"] == NAME else place.drivers
    for subject in obj.get("subjects", ()):
        subject["namespace"] = place.namespace
    if obj.get("roleRef", {}).get("kind") == "ClusterRole":
        obj["roleRef"]["name"] = place.name(obj["roleRef"]["name"])
    if "policyName" in spec:
        spec["policyName"] = place.name(spec["policyName"])
    if "paramRef" in spec:
        spec["paramRef"]["namespace"] = place.namespace
    for condition in spec.get("matchConditions", ()):
        condition["expression"] = _condition(condition["expression"], place)
    settings = {
        "domain": f"'{place.domain}'",
        "driverNamespaces": f"'{place.drivers}'.split(',')",
        "driverLabels": f"'{place.label}'.split(',')",
    }
    for variable in spec.get("variables", ()):
        variable["expression"] = settings.get(variable["name"], variable["expression"])
    return obj


def _condition(expression: str, place: Place) -> str:
    moved_user = expression.replace(USER, place.user)
    return moved_user.replace(f"request.namespace == '{NAME}'", f"request.namespace == '{place.namespace}'")


def rules(objects: Iterable[Object]) -> list[tuple[str, str, str, str]]:
    """What roles among the objects grant, one (scope, verb, resource with its group, name) for each."""
    return [
        (obj["metadata"].get("namespace", ""), verb, _resource(group, resource), name)
        for obj in of_kinds(objects, {"ClusterRole", "Role"})
        for rule in obj["rules"]
        for group in rule.get("apiGroups", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    ]


def _resource(group: str, resource: str) -> str:
    plural, _, rest = resource.partition("/")
    return (f"{plural}.{group}" if group else plural) + (f"/{rest}" if rest else "")


def containers(objects: Iterable[Object]) -> list[Any]:
    """The containers of the controller's Deployment."""
    return list(one(objects, "Deployment", NAME)["spec"]["template"]["spec"]["containers"])
