"""Whether a DaemonSet's pod should run on a node: the DaemonSet controller's rule."""

from typing import Any

import pytest

from controller.api.affinity import Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from controller.api.node import Node, Taint
from controller.api.workloads import DaemonSet, DaemonSetSpec, PodTemplate, PodTemplateSpec, Toleration
from controller.upgrade.placement import wants
from tests.unit.upgrade.builders import daemonset, node


def running(**spec: Any) -> DaemonSet:
    template = PodTemplate(spec=PodTemplateSpec(**spec))
    return DaemonSet(metadata=daemonset().metadata, spec=DaemonSetSpec(template=template))


def requires(*terms: NodeSelectorTerm) -> DaemonSet:
    return running(affinity=Affinity(node_affinity=NodeAffinity(NodeSelector(node_selector_terms=terms))))


def term(key: str, operator: str, *values: str) -> NodeSelectorTerm:
    return NodeSelectorTerm(match_expressions=(NodeSelectorRequirement(key=key, operator=operator, values=values),))


def field(operator: str, *values: str) -> NodeSelectorTerm:
    return NodeSelectorTerm(match_fields=(NodeSelectorRequirement(key="metadata.name", operator=operator, values=values),))


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ({}, True),
        ({"pool": "a100"}, True),
        ({"pool": "h100"}, False),
        ({"zone": "a"}, False),
        ({"pool": "a100", "zone": ""}, False),
    ],
)
def test_node_selector(selector: dict[str, str], wanted: bool):
    assert wants(running(node_selector=selector), node(labels={"pool": "a100"})) is wanted


@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        ((term("pool", "In", "a100", "h100"),), True),
        ((term("pool", "In", "h100"),), False),
        ((term("zone", "In", "a"),), False),
        ((term("pool", "NotIn", "h100"),), True),
        ((term("pool", "NotIn", "a100"),), False),
        ((term("zone", "NotIn", "a"),), True),
        ((term("pool", "Exists"),), True),
        ((term("zone", "Exists"),), False),
        ((term("zone", "DoesNotExist"),), True),
        ((term("pool", "DoesNotExist"),), False),
        ((term("gpus", "Gt", "7"),), True),
        ((term("gpus", "Gt", "8"),), False),
        ((term("gpus", "Lt", "9"),), True),
        ((term("gpus", "Lt", "-9"),), False),
        ((term("pool", "Gt", "1"),), False),
        ((term("zone", "Lt", "1"),), False),
        ((term("odd", "Gt", "1"),), False),
        ((term("gpus", "Gt"),), False),
        ((term("pool", "Is", "a100"),), False),
        ((term("pool", "In", "h100"), term("gpus", "Exists")), True),
        ((field("In", "n1"),), True),
        ((field("In", "n2"),), False),
        ((field("NotIn", "n1"),), False),
        ((NodeSelectorTerm(),), False),
        ((), False),
    ],
)
def test_required_affinity(terms: tuple[NodeSelectorTerm, ...], wanted: bool):
    on = node(labels={"pool": "a100", "gpus": "8", "odd": "1_0"})
    assert wants(requires(*terms), on) is wanted


def test_a_terms_requirements_must_all_hold():
    both = NodeSelectorTerm(
        match_expressions=term("pool", "Exists").match_expressions, match_fields=field("In", "n2").match_fields
    )
    assert not wants(requires(both), node(labels={"pool": "x"}))


def tainted(key: str, effect: str = "NoSchedule", value: str = "") -> Node:
    return node(taints=(Taint(key=key, effect=effect, value=value),))


@pytest.mark.parametrize(
    ("on", "tolerations", "wanted"),
    [
        (tainted("gpu"), (), False),
        (tainted("gpu", "NoExecute"), (), False),
        (tainted("gpu", "PreferNoSchedule"), (), True),
        (tainted("gpu"), (Toleration(key="gpu", operator="Exists"),), True),
        (tainted("gpu"), (Toleration(operator="Exists"),), True),
        (tainted("gpu"), (Toleration(operator="Exists", effect="NoExecute"),), False),
        (tainted("gpu", value="yes"), (Toleration(key="gpu", value="yes"),), True),
        (tainted("gpu", value="yes"), (Toleration(key="gpu", value="no"),), False),
        (tainted("gpu"), (Toleration(key="nic", operator="Exists"),), False),
        (tainted("gpu"), (Toleration(),), False),
        (tainted("node.kubernetes.io/unschedulable"), (), True),
        (tainted("node.kubernetes.io/not-ready", "NoExecute"), (), True),
        (tainted("node.kubernetes.io/unreachable", "NoExecute"), (), True),
        (tainted("node.kubernetes.io/disk-pressure"), (), True),
        (tainted("node.kubernetes.io/not-ready"), (), True),
        (tainted("node.kubernetes.io/unreachable"), (), True),
        (tainted("node.kubernetes.io/network-unavailable"), (), True),
        (tainted("node.kubernetes.io/out-of-service", "NoExecute"), (), True),
        (tainted("node.cloudprovider.kubernetes.io/shutdown"), (), True),
    ],
)
def test_taints(on: Node, tolerations: tuple[Toleration, ...], wanted: bool):
    assert wants(running(tolerations=tolerations), on) is wanted


def test_every_taint_must_be_tolerated():
    on = node(taints=(Taint(key="a", effect="NoSchedule"), Taint(key="b", effect="NoSchedule")))
    assert not wants(running(tolerations=(Toleration(key="a", operator="Exists"),)), on)


def test_our_own_cordon_changes_nothing():
    assert wants(running(), node(cordoned=True))
