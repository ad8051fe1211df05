"""Node affinity, the part of it that ties pods to nodes: read in the templates of DaemonSets and in their pods."""

from controller.api.meta import Trimmed


class NodeSelectorRequirement(Trimmed, frozen=True, gc=False):
    """One condition on a node's labels or fields."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class NodeSelectorTerm(Trimmed, frozen=True, gc=False):
    """Conditions that must all hold; a term without any matches nothing."""

    match_expressions: tuple[NodeSelectorRequirement, ...] | None = None
    match_fields: tuple[NodeSelectorRequirement, ...] | None = None


class NodeSelector(Trimmed, frozen=True, gc=False):
    """Terms of which one must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] | None = None


class NodeAffinity(Trimmed, frozen=True, gc=False):
    """The required part of a pod's node affinity."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class Affinity(Trimmed, frozen=True, gc=False):
    """A pod's affinity; only the node part decides where a DaemonSet runs."""

    node_affinity: NodeAffinity | None = None

    @property
    def node_name(self) -> str:
        """The one node that it demands by name; empty where it does not.

        As kubernetes/pkg/controller/daemon/util reads back what the DaemonSet controller has written into its pods.
        """
        required = self.node_affinity and self.node_affinity.required_during_scheduling_ignored_during_execution
        terms = required.node_selector_terms if required else None
        for field in (field for term in terms or () for field in term.match_fields or ()):
            if field.key == "metadata.name" and field.operator == "In" and field.values and len(field.values) == 1:
                return field.values[0]
        return ""
