"""Nodes that k8s-operator-libs left in the middle of an upgrade are taken over, finished and given back.

It leaves a label, a cordon where it had come so far, and its own annotations; it keeps no record. Where it had cordoned the
node itself the annotation of the initial state is absent; where it is there, the administrator's cordon stays.
"""

from typing import Any

import pytest

from tests.cluster.world import DONE, DRAIN, FAILED, JOBS, REQUIRED, RESTART, VALIDATION, World
from tools.controlplane.resources import NODES, PODS, Object

INITIAL, JOBS_START = "upgrade.node-initial-state.unschedulable", "upgrade-wait-for-pod-completion-start-time"
VALIDATION_START, REQUESTOR = "upgrade-validation-start-time", "upgrade-requestor-mode"
PEERS = [INITIAL, JOBS_START, VALIDATION_START, REQUESTOR]
LONG_AGO = "1600000000"

STATES: dict[str, tuple[bool, bool, list[str]]] = {
    REQUIRED: (False, False, [INITIAL]),
    "cordon-required": (False, False, []),
    JOBS: (True, False, [JOBS_START]),
    "pod-deletion-required": (True, False, [JOBS_START]),
    DRAIN: (True, False, []),
    "node-maintenance-required": (True, False, []),
    RESTART: (True, False, []),
    "post-maintenance-required": (True, False, []),
    VALIDATION: (True, True, [VALIDATION_START]),
    "uncordon-required": (True, True, []),
    FAILED: (True, True, [VALIDATION_START]),
    DONE: (False, False, [INITIAL]),
}
"""By state: whether the peer has cordoned the node, whether it has restarted the driver, and what it left behind.

An annotation of the initial state on an open node is of an earlier upgrade, or of a cordon that was lifted since.
"""


async def left_by_the_peer(cluster: World, state: str, *marks: str, cordoned: bool, restarted: bool) -> str:
    """A node with an outdated driver, which the peer has been at."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web")
    await cluster.roll("2")
    if restarted:
        await cluster.revised()
        old = await cluster.driver_pod(node)
        await cluster.api.delete(PODS, old["metadata"]["name"], cluster.namespace)
        await cluster.gone(old)
        await cluster.ready(1, "app=driver", cluster.namespace)
    notes = {cluster.key(mark): "true" if mark in {INITIAL, REQUESTOR} else LONG_AGO for mark in marks}
    body: Object = {"metadata": {"labels": {cluster.state_label: state}, "annotations": notes}}
    if cordoned:
        body["spec"] = {"unschedulable": True}
    await cluster.api.patch(NODES, node, body)
    await cluster.recorder.forget()
    return node


async def marks(cluster: World, node: str) -> set[str]:
    """The peer's annotations that are still there."""
    annotations: dict[str, Any] = (await cluster.api.get(NODES, node))["metadata"]["annotations"]
    return {mark for mark in PEERS if cluster.key(mark) in annotations}


@pytest.mark.parametrize("state", STATES)
async def test_a_node_left_in_this_state_is_finished_and_open_again(cluster: World, state: str):
    cordoned, restarted, left = STATES[state]
    node = await left_by_the_peer(cluster, state, *left, cordoned=cordoned, restarted=restarted)
    await cluster.policy()
    async with cluster.controller():
        await cluster.done("2")
    assert await marks(cluster, node) == set()
    evicted = cluster.evicted()
    assert len(evicted) == (0 if restarted else 1), "what had to leave left, and where the driver is new nobody had to"


async def test_the_cordon_that_the_peer_found_is_left_there(cluster: World):
    node = await left_by_the_peer(cluster, DRAIN, INITIAL, cordoned=True, restarted=False)
    await cluster.policy()
    async with cluster.controller():
        await cluster.done("2", cordoned=[node])
    assert await marks(cluster, node) == set()


async def test_a_node_of_its_requestor_mode_waits_until_that_lets_go(cluster: World):
    node = await left_by_the_peer(cluster, "node-maintenance-required", REQUESTOR, cordoned=True, restarted=False)
    await cluster.policy()
    async with cluster.controller() as controller:
        await controller.logged(msg="node waits", node=node, reason="OtherOperator")
        assert cluster.evicted() == []
        await cluster.annotate(node, upgrade_requestor_mode=None)
        await cluster.done("2")
    assert await marks(cluster, node) == set()
    await cluster.recorder.caught_up()
    assert DRAIN in cluster.recorder.states(node)


async def test_a_node_that_the_peer_failed_stays_so_until_it_is_retried(cluster: World):
    """Its driver is still the old one: what failed, and why, nobody has said."""
    node = await left_by_the_peer(cluster, FAILED, cordoned=True, restarted=False)
    await cluster.policy()
    async with cluster.controller() as controller:
        await controller.logged(msg="node waits", node=node, reason="Failed")
        assert cluster.evicted() == []
        await cluster.shell(f"kubectl label node {node} --overwrite {cluster.state_label}={REQUIRED}")
        await cluster.done("2")
