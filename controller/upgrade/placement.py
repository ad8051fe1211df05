"""Does a pod of this DaemonSet belong on this node? The DaemonSet controller's own rule, as far as nodes show it.

Follows kubernetes/pkg/controller/daemon: nodeSelector and required node affinity must match, and the NoSchedule and
NoExecute taints must be tolerated. Left out are the taints that Kubernetes itself sets for how a node is at the moment
(cordoned, not ready, unreachable, short of something, out of service): some of them the controller tolerates for every
template, others keep new pods away until the node has recovered, but a node belongs to its driver all the while. One that
restarts in the middle of its upgrade is not given back.
"""

import re
from collections.abc import Iterable, Mapping

from controller.api.affinity import NodeSelectorRequirement, NodeSelectorTerm
from controller.api.node import Node, Taint
from controller.api.workloads import DaemonSet, PodTemplateSpec, Toleration

_NUMBER = re.compile(r"[-+]?[0-9]{1,19}")
_CONDITIONS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""How the keys of the taints begin that come and go with a node's condition."""


def wants(daemonset: DaemonSet, node: Node) -> bool:
    """Whether the DaemonSet controller keeps a pod of this DaemonSet on this node while the node is well."""
    spec = daemonset.spec.template.spec
    selector = spec.node_selector or {}
    return (
        all(node.labels.get(key) == value for key, value in selector.items())
        and _affine(spec, node)
        and _tolerated(spec, node)
    )


def _affine(spec: PodTemplateSpec, node: Node) -> bool:
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is None:
        return True
    return any(_term_matches(term, node) for term in required.node_selector_terms or ())


def _term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    expressions, fields = term.match_expressions or (), term.match_fields or ()
    if not expressions and not fields:
        return False
    return all(_requirement_matches(e, node.labels) for e in expressions) and all(
        _requirement_matches(f, {"metadata.name": node.name}) for f in fields
    )


def _requirement_matches(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement.key), requirement.values or ()
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return value is not None and _compares(requirement.operator, value, values)
        case _:
            return False


def _compares(operator: str, value: str, values: tuple[str, ...]) -> bool:
    """Compare as Go reads numbers: no blanks and no underscores, which Python would take."""
    if len(values) != 1 or not _NUMBER.fullmatch(value) or not _NUMBER.fullmatch(values[0]):
        return False
    number, bound = int(value), int(values[0])
    return number > bound if operator == "Gt" else number < bound


def _tolerated(spec: PodTemplateSpec, node: Node) -> bool:
    hard = (t for t in node.spec.taints or () if t.effect in {"NoSchedule", "NoExecute"})
    return all(taint.key.startswith(_CONDITIONS) or _tolerates(spec.tolerations or (), taint) for taint in hard)


def _tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    return any(
        t.effect in {"", taint.effect}
        and t.key in {"", taint.key}
        and (t.operator == "Exists" or (t.key != "" and t.value == taint.value))
        for t in tolerations
    )
