"""Names of the resources that tests and tools work with, and the addresses of their objects."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Objects = list[Object]


@dataclass(frozen=True)
class Resource:
    """A kind of object as the API server serves it."""

    api_version: str
    """Group and version, `v1` for the core group."""
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection (of all namespaces where none is given), of an object, or of its subresource."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        space = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{space}/{self.plural}" + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")


NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("v1", "nodes", "Node", namespaced=False)
PODS = Resource("v1", "pods", "Pod")
EVENTS = Resource("v1", "events", "Event")
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
DAEMON_SETS = Resource("apps/v1", "daemonsets", "DaemonSet")
DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
STATEFUL_SETS = Resource("apps/v1", "statefulsets", "StatefulSet")
CONTROLLER_REVISIONS = Resource("apps/v1", "controllerrevisions", "ControllerRevision")
JOBS = Resource("batch/v1", "jobs", "Job")
POD_DISRUPTION_BUDGETS = Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)


def key(obj: Object) -> str:
    """`namespace/name`, or the name alone of what lives in no namespace."""
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
