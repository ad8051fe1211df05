"""Pod, trimmed to what drains, driver restarts and validation look at."""

from collections.abc import Mapping
from typing import Any

from controller.api.affinity import Affinity
from controller.api.meta import KubeObject, Trimmed


class EnvVar(Trimmed, frozen=True, gc=False):
    """A literal environment variable (``valueFrom`` is not read)."""

    name: str = ""
    value: str = ""


class ResourceRequirements(Trimmed, frozen=True, gc=False):
    """The resources that a container asks for; only their names matter."""

    limits: Mapping[str, str | int | float] | None = None
    requests: Mapping[str, str | int | float] | None = None

    @property
    def names(self) -> frozenset[str]:
        """Every resource name in limits or requests."""
        return frozenset(self.limits or ()) | frozenset(self.requests or ())


class Container(Trimmed, frozen=True, gc=False):
    """A container or init container."""

    name: str = ""
    image: str = ""
    env: tuple[EnvVar, ...] | None = None
    resources: ResourceRequirements | None = None


class Volume(Trimmed, frozen=True, gc=False):
    """A volume; only whether it is an emptyDir matters."""

    name: str = ""
    empty_dir: Mapping[str, Any] | None = None


class PodResourceClaim(Trimmed, frozen=True, gc=False):
    """A reference to a ResourceClaim, direct or through a template."""

    name: str = ""
    resource_claim_name: str | None = None


class PodSpec(Trimmed, frozen=True, gc=False):
    """Where the pod runs and what it holds."""

    node_name: str = ""
    affinity: Affinity | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    resource_claims: tuple[PodResourceClaim, ...] | None = None
    termination_grace_period_seconds: int | None = None


class ContainerStateWaiting(Trimmed, frozen=True, gc=False):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class ContainerStateTerminated(Trimmed, frozen=True, gc=False):
    """How a container ended."""

    reason: str = ""
    exit_code: int = 0


class ContainerState(Trimmed, frozen=True, gc=False):
    """The state of a container; running is the absence of the other two."""

    waiting: ContainerStateWaiting | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Trimmed, frozen=True, gc=False):
    """What the kubelet reports of one container."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState | None = None


class PodCondition(Trimmed, frozen=True, gc=False):
    """One observed condition, such as Ready or PodScheduled."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodResourceClaimStatus(Trimmed, frozen=True, gc=False):
    """The name of the ResourceClaim that was generated from a template."""

    name: str = ""
    resource_claim_name: str | None = None


class PodStatus(Trimmed, frozen=True, gc=False):
    """What the kubelet reports of the pod."""

    phase: str = ""
    reason: str = ""
    conditions: tuple[PodCondition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    resource_claim_statuses: tuple[PodResourceClaimStatus, ...] | None = None


class Pod(KubeObject, frozen=True, gc=False):
    """A pod: a driver's, or a workload's."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def node_name(self) -> str:
        """The node it is bound to; empty while it is not scheduled."""
        return self.spec.node_name

    @property
    def target_node(self) -> str:
        """The node that it is bound to or, while a DaemonSet's pod waits to be scheduled, the one that it is made for."""
        return self.spec.node_name or (self.spec.affinity.node_name if self.spec.affinity else "")

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Unknown."""
        return self.status.phase

    @property
    def terminal(self) -> bool:
        """Whether all its containers have ended for good."""
        return self.status.phase in {"Succeeded", "Failed"}
