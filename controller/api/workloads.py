"""DaemonSet, ControllerRevision and PodDisruptionBudget, trimmed."""

from collections.abc import Mapping

from controller.api.affinity import Affinity
from controller.api.meta import KubeObject, Trimmed
from controller.api.pod import Container
from controller.api.selectors import LabelSelector


class Toleration(Trimmed, frozen=True, gc=False):
    """Lets a pod onto a tainted node."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodTemplateSpec(Trimmed, frozen=True, gc=False):
    """The pod spec of a DaemonSet's template, as far as placement and restart-only look."""

    node_selector: Mapping[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None


class TemplateMeta(Trimmed, frozen=True, gc=False):
    """Metadata of a pod template."""

    labels: Mapping[str, str] | None = None


class PodTemplate(Trimmed, frozen=True, gc=False):
    """What a DaemonSet's pods are made from."""

    metadata: TemplateMeta = TemplateMeta()
    spec: PodTemplateSpec = PodTemplateSpec()


class UpdateStrategy(Trimmed, frozen=True, gc=False):
    """OnDelete, or RollingUpdate where the DaemonSet controller replaces pods itself."""

    type: str = "RollingUpdate"


class DaemonSetSpec(Trimmed, frozen=True, gc=False):
    """A DaemonSet's desired state."""

    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    update_strategy: UpdateStrategy = UpdateStrategy()


class DaemonSetStatus(Trimmed, frozen=True, gc=False):
    """How far the DaemonSet controller has seen the spec."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0


class DaemonSet(KubeObject, frozen=True, gc=False):
    """The owner of driver pods."""

    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()

    @property
    def observed(self) -> bool:
        """Whether the DaemonSet controller has acted on the current spec, so that its newest revision exists."""
        return self.status.observed_generation >= self.metadata.generation


class ControllerRevision(KubeObject, frozen=True, gc=False):
    """One version of a DaemonSet's template; its data is not read."""

    revision: int = 0


class PodDisruptionBudgetSpec(Trimmed, frozen=True, gc=False):
    """Which pods the budget guards. An absent selector matches none, an empty one all pods of its namespace."""

    selector: LabelSelector | None = None


class PodDisruptionBudgetStatus(Trimmed, frozen=True, gc=False):
    """What the disruption controller allows at the moment."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0


class PodDisruptionBudget(KubeObject, frozen=True, gc=False):
    """How many pods of a workload may be gone at once."""

    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()
