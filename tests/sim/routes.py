"""What the API server serves: resources, the paths of their objects, and how each begins its life."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from tests.sim.defaults import defaulted
from tests.sim.objects import Obj

GROUPS = {
    "nodes": "v1",
    "pods": "v1",
    "daemonsets": "apps/v1",
    "controllerrevisions": "apps/v1",
    "poddisruptionbudgets": "policy/v1",
    "driverupgradepolicies": "nvidia.com/v1",
    "customresources": "nvidia.com/v1",
    "leases": "coordination.k8s.io/v1",
    "events": "events.k8s.io/v1",
    "namespaces": "v1",
    "resourceclaims": "resource.k8s.io/v1",
}
KINDS = tuple(GROUPS)
_KINDS = (
    "Node Pod DaemonSet ControllerRevision PodDisruptionBudget DriverUpgradePolicy CustomResource Lease Event Namespace"
    " ResourceClaim"
)
KIND_OF = dict(zip(KINDS, _KINDS.split(), strict=True))
UNWATCHED = frozenset({"resourceclaims"})
"""Read one by one: no watch of them to be disturbed."""
HAS_STATUS = frozenset(KINDS) - {"controllerrevisions", "leases", "events"}
CONDITIONAL = frozenset({"leases", "driverupgradepolicies", "customresources"})
"""Replaced only by who says what was read."""
SERVERS_OWN = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
COUNTS_GENERATION = frozenset({"daemonsets", "poddisruptionbudgets", "driverupgradepolicies", "customresources"})


class Route(NamedTuple):
    """A request's path, taken apart."""

    kind: str
    namespace: str
    name: str
    sub: str

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def group(self) -> str:
        return GROUPS[self.kind].rpartition("/")[0]

    @property
    def resource(self) -> str:
        """The resource as messages name it: ``leases.coordination.k8s.io``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def details(self) -> Obj:
        """What a Status says about the object meant."""
        return {"name": self.name, "kind": self.kind, **({"group": self.group} if self.group else {})}


@lru_cache(maxsize=65536)
def route(path: str) -> Route | None:
    """Take a path apart; None for what the server does not know."""
    parts = [unquote(p) for p in path.strip("/").split("/")]
    version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    kind, name, sub = (*parts, "", "")[:3]
    return Route(kind, namespace, name, sub) if GROUPS.get(kind) == version else None


def new_object(where: Route, body: Obj) -> Obj:
    """An object as it is stored when a client creates it: its status is the server's to begin."""
    meta = {name: value for name, value in body["metadata"].items() if name not in SERVERS_OWN and value}
    if where.namespace:
        meta["namespace"] = where.namespace
    made = {**body, "metadata": meta, "apiVersion": GROUPS[where.kind]}
    if where.kind == "namespaces":
        return {**made, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    if where.kind in HAS_STATUS:
        made.pop("status", None)
    if where.kind == "pods":
        made["status"] = {"phase": "Pending"}
    return defaulted(where.kind, made)
