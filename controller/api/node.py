"""Node, trimmed to what admission, cordons and placement look at."""

from controller.api.meta import KubeObject, Trimmed


class Taint(Trimmed, frozen=True, gc=False):
    """Keeps pods that do not tolerate it off the node."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Trimmed, frozen=True, gc=False):
    """The node's scheduling settings; ``unschedulable`` is the cordon."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] | None = None


class NodeCondition(Trimmed, frozen=True, gc=False):
    """One observed condition, such as Ready."""

    type: str = ""
    status: str = ""


class NodeStatus(Trimmed, frozen=True, gc=False):
    """What the kubelet and the node controller report."""

    conditions: tuple[NodeCondition, ...] | None = None


class Node(KubeObject, frozen=True, gc=False):
    """A machine of the cluster."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def unschedulable(self) -> bool:
        """Whether the node is cordoned, by whomever."""
        return self.spec.unschedulable

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is True. A node without the condition is not ready."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions or ())
