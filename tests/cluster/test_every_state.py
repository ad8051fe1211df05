"""What people do to a policy, and what becomes of nodes, in the middle of a rollout: with a node held in every state.

One world has them all at the same time. Each is held by something that `let_go` takes away: a Job, a budget, an old driver
pod that does not end, a validation pod that is not ready; a skip label; the failed one had a bare pod on it.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.cluster.test_driver import NOT_READY, READY, validator
from tests.cluster.world import DONE, DRAIN, FAILED, JOBS, POLICIES, REQUIRED, RESTART, VALIDATION, World
from tools.controlplane import scene
from tools.controlplane.resources import NODES, PODS, Object

DELETION = "pod-deletion-required"
GRANTED = [JOBS, DELETION, DRAIN, RESTART, VALIDATION]
STATES = [DONE, REQUIRED, *GRANTED, FAILED]
CURRENT = {DONE, VALIDATION}  # where the driver is the new one already
STUCK = f"{scene.STAGE_PREFIX}stuck"
Nodes = Mapping[str, str]
"""The node that is held in a state, by state."""


def closed(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))


async def edit(cluster: World, **fields: Any) -> None:
    """Edits the policy, and waits until the controller has read it: what is done to nodes next, it sees on another watch."""
    await cluster.edit(**fields)
    wanted = (await cluster.api.get(POLICIES, cluster.pool, cluster.namespace))["metadata"]["generation"]
    await cluster.status(lambda status: status["observedGeneration"] >= wanted)


async def blocked(cluster: World, reason: str, count: int) -> None:
    """Waits until the policy says that so many nodes are not granted, and why."""
    await cluster.status(lambda s: any(b["reason"] == reason and b["nodes"] == count for b in s.get("blocked", ())))


async def stick(cluster: World, node: str) -> None:
    """The driver pod of a node does not end, from now on."""
    name = (await cluster.driver_pod(node))["metadata"]["name"]
    await cluster.api.patch(PODS, name, {"metadata": {"annotations": {STUCK: "true"}}}, cluster.namespace)


async def validates(cluster: World, node: str, as_told: Object, *, ready: bool) -> None:
    """Directs the validation pod of a node, and waits until it is so."""
    (pod,) = await cluster.api.list(PODS, cluster.work, labels="app=validator", fields=f"spec.nodeName={node}")
    name = (await cluster.api.patch(PODS, pod["metadata"]["name"], as_told, cluster.work))["metadata"]["name"]
    await cluster.api.wait_for_object(PODS, name, lambda p: scene.is_ready(p) == ready, cluster.work)


async def renewed(cluster: World, node: str) -> None:
    """Somebody restarts the driver of a node by hand."""
    old = (await cluster.driver_pod(node))["metadata"]["name"]
    await cluster.shell(f"kubectl delete pod -n {cluster.namespace} {old}")
    await cluster.ready(len(cluster.names), "app=driver", cluster.namespace)


async def put_obstacles(cluster: World, nodes: Nodes) -> None:
    """What holds each node in its state, and what fails the last one."""
    await cluster.job("train", nodes[JOBS], "1h", awaited="yes")
    await cluster.workload("held-device", node=nodes[DELETION], labels={"held": "yes"}, gpus=1)
    await cluster.workload("held-web", node=nodes[DRAIN], labels={"held": "yes"})
    # One more than there are: of a budget that has enough, a pod that is not ready (its node is not) may be evicted.
    await cluster.api.create(scene.budget("hold", cluster.work, labels={"held": "yes"}, min_available=3))
    await stick(cluster, nodes[RESTART])
    await validates(cluster, nodes[VALIDATION], NOT_READY, ready=False)
    await cluster.pod("bare", nodes[FAILED])


@asynccontextmanager
async def held_in_every_state(cluster: World) -> AsyncIterator[Nodes]:
    """A rollout of version 2 of which each node has come as far as its state."""
    nodes = dict(zip(STATES, await cluster.nodes(len(STATES)), strict=True))
    await cluster.driver("1")
    await validator(cluster)
    await put_obstacles(cluster, nodes)
    await cluster.skip(*(set(nodes.values()) - {nodes[FAILED]}))
    await cluster.roll("2")
    await cluster.revised()
    await renewed(cluster, nodes[DONE])
    await cluster.policy(
        parallel=0,
        failureThreshold=len(STATES),
        waitForCompletion={"podSelector": "awaited=yes"},
        podDeletion={"resourceNames": [scene.GPU]},
        drain={"timeoutSeconds": 1},
        validation={"podSelector": "app=validator"},
    )
    async with cluster.controller():
        await cluster.state(FAILED, nodes[FAILED])
        await edit(cluster, drain={"timeoutSeconds": 300})
        await cluster.unskip(*(node for state, node in nodes.items() if state is not REQUIRED))
        await all_held(cluster, nodes)
        yield nodes


async def all_held(cluster: World, nodes: Nodes) -> None:
    """Waits until each node is in its state, and closed from its grant on."""
    for state, node in nodes.items():
        await cluster.nodes_are(is_in(cluster, state, is_closed=state not in {DONE, REQUIRED}), [node], f"held in {state}")


def is_in(cluster: World, state: str, *, is_closed: bool) -> Callable[[Object], bool]:
    return lambda node: cluster.state_of(node) == state and closed(node) == is_closed


async def unstick(cluster: World) -> None:
    """Lets old driver pods end."""
    for meta in (pod["metadata"] for pod in await cluster.api.list(PODS, cluster.namespace, labels="app=driver")):
        if STUCK in meta["annotations"]:
            await cluster.api.patch(PODS, meta["name"], {"metadata": {"annotations": {STUCK: None}}}, cluster.namespace)


async def let_go(cluster: World, nodes: Nodes) -> None:
    """Takes away what holds the nodes; the skip label, and the retry of the failed node, apart."""
    await cluster.shell(f"kubectl delete pod -n {cluster.work} -l app=train --wait=false")
    await cluster.release()
    await unstick(cluster)
    await validates(cluster, nodes[VALIDATION], READY, ready=True)
    await cluster.api.delete(PODS, "bare", cluster.work)


async def retry(cluster: World, nodes: Nodes) -> None:
    """The failed node is relabelled by hand."""
    await cluster.shell(f"kubectl label node {nodes[FAILED]} --overwrite {cluster.state_label}={REQUIRED}")


async def ready(cluster: World, nodes: Nodes, *, is_ready: bool) -> None:
    """Lets the kubelets of nodes say whether they are ready, and waits until they have."""
    for node in nodes.values():
        told = {"metadata": {"annotations": {scene.NOT_READY: None if is_ready else ""}}}
        await cluster.api.patch(NODES, node, told)
    await cluster.nodes_are(lambda node: scene.is_ready(node) == is_ready, list(nodes.values()), f"ready: {is_ready}")


@pytest.mark.parametrize("how", ["paused", "skipped"])
async def test_what_was_granted_finishes_and_nothing_else_begins(cluster: World, how: str):
    async with held_in_every_state(cluster) as nodes:
        if how == "paused":
            await edit(cluster, paused=True)
            await cluster.unskip(nodes[REQUIRED])
        else:
            await cluster.skip(*cluster.names)
        await all_held(cluster, nodes)
        await let_go(cluster, nodes)
        await retry(cluster, nodes)
        await cluster.done("2", nodes[DONE], *(nodes[state] for state in GRANTED))
        await blocked(cluster, how.capitalize(), 2)
        await cluster.nodes_are(is_in(cluster, REQUIRED, is_closed=False), [nodes[REQUIRED]])
        await cluster.nodes_are(is_in(cluster, REQUIRED, is_closed=True), [nodes[FAILED]])
        await (cluster.edit(paused=False) if how == "paused" else cluster.unskip(*cluster.names))
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert all(cluster.recorder.states(node).count("cordon-required") <= 1 for s, node in nodes.items() if s is not FAILED)


@pytest.mark.parametrize("how", ["disabled", "deleted", "for other nodes"])
async def test_without_a_policy_nodes_are_put_back_but_half_a_driver_is_finished(cluster: World, how: str):
    async with held_in_every_state(cluster) as nodes:
        olds = {state: (await cluster.driver_pod(nodes[state]))["metadata"]["uid"] for state in STATES}
        if how == "disabled":
            await cluster.edit(autoUpgrade=False)
        elif how == "for other nodes":
            others = {"spec": {"driver": {"nodeSelector": {"matchLabels": {"pool": "of-others"}}}}}
            await cluster.api.patch(POLICIES, cluster.pool, others, cluster.namespace)
        else:
            await cluster.api.delete(POLICIES, cluster.pool, cluster.namespace)
        given_back = [nodes[state] for state in STATES if state not in {RESTART, FAILED}]
        await cluster.nodes_are(is_in(cluster, "", is_closed=False), given_back, "put back")
        await cluster.nodes_are(is_in(cluster, RESTART, is_closed=True), [nodes[RESTART]])
        await unstick(cluster)
        await cluster.nodes_are(is_in(cluster, "", is_closed=False), [nodes[RESTART]], "finished")
        await cluster.nodes_are(is_in(cluster, FAILED, is_closed=True), [nodes[FAILED]], "still failed")
        await cluster.shell(f"kubectl uncordon {nodes[FAILED]}")
        await cluster.nodes_are(is_in(cluster, "", is_closed=False), what="all put back")
        news = {state: (await cluster.driver_pod(nodes[state]))["metadata"]["uid"] for state in STATES}
    assert {state for state in STATES if olds[state] != news[state]} == {RESTART}
    assert cluster.evicted() == []
    for node in await cluster.api.list(NODES, labels=f"pool={cluster.pool}"):
        assert cluster.key("upgrade.record") not in node["metadata"]["annotations"]


async def test_an_edited_policy_lets_each_node_go_on_by_its_new_words(cluster: World):
    async with held_in_every_state(cluster) as nodes:
        await cluster.edit(waitForCompletion={"podSelector": ""})
        await cluster.done("2", nodes[JOBS])
        await cluster.edit(podDeletion={"resourceNames": []})
        await cluster.state(DRAIN, nodes[DELETION])
        await cluster.edit(drain={"enable": False})
        await cluster.done("2", nodes[DELETION], nodes[DRAIN])
        await cluster.nodes_are(is_in(cluster, VALIDATION, is_closed=True), [nodes[VALIDATION]])
        await cluster.edit(validation={"podSelector": ""})
        await cluster.done("2", nodes[VALIDATION])
        await cluster.edit(podRestart={"timeoutSeconds": 1})
        await cluster.nodes_are(is_in(cluster, FAILED, is_closed=True), [nodes[RESTART], nodes[FAILED]])
        await unstick(cluster)
        await cluster.done("2", nodes[RESTART])
        await edit(cluster, podRestart={"timeoutSeconds": 300})
        await cluster.unskip(nodes[REQUIRED])
        await retry(cluster, nodes)
        await cluster.done("2")


async def test_deleted_nodes_free_their_slots_and_begin_anew_when_they_are_back(cluster: World):
    async with held_in_every_state(cluster) as nodes:
        await edit(cluster, maxParallelUpgrades=len(GRANTED))
        await cluster.unskip(nodes[REQUIRED])
        await blocked(cluster, "NoSlot", 1)
        away = {state: node for state, node in nodes.items() if state is not REQUIRED}
        await cluster.shell(f"kubectl delete node {' '.join(away.values())}")
        await cluster.done("2", nodes[REQUIRED])
        await cluster.status(lambda status: status["nodes"]["total"] == 1 and status["nodes"]["inProgress"] == 0)
        await cluster.recorder.caught_up()
        before = {node: len(cluster.recorder.states(node)) for node in away.values()}
        assert all(cluster.recorder.states(node)[-1] == state for state, node in away.items())
        await cluster.api.create_many([scene.node(node, labels={"pool": cluster.pool}) for node in away.values()])
        await cluster.nodes_are(closed, [node for state, node in away.items() if state not in CURRENT], "held anew")
        await let_go(cluster, nodes)
        await cluster.done("2")
    await cluster.recorder.caught_up()
    for state, node in away.items():
        anew = cluster.recorder.states(node)[before[node] :]
        assert anew[0] == "", "nothing is remembered of the node that was deleted"
        assert ("cordon-required" in anew) == (state not in CURRENT), f"{state}: {anew}"
        ended = await cluster.api.get(NODES, node)
        assert ended["metadata"]["uid"] in ended["metadata"]["annotations"][cluster.key("upgrade.record")]


async def test_nodes_that_are_not_ready_do_not_fail_and_go_on_when_they_are_back(cluster: World):
    async with held_in_every_state(cluster) as nodes:
        await cluster.nodes(1)
        await ready(cluster, nodes, is_ready=False)
        await cluster.unskip(nodes[REQUIRED])
        await blocked(cluster, "NodeNotReady", 1)
        await cluster.status(lambda status: status["nodes"]["unavailable"] == len(nodes))
        await all_held(cluster, nodes)
        assert cluster.evicted() == []
        await ready(cluster, nodes, is_ready=True)
        await let_go(cluster, nodes)
        await retry(cluster, nodes)
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert all(FAILED not in cluster.recorder.states(node) for state, node in nodes.items() if state is not FAILED)
