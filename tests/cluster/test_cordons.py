"""Whose cordon it is: whatever people do to it, a node ends as the one who meddled last wants it, and none is lost."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.cluster.test_failures import new_driver_pod
from tests.cluster.test_interventions import held_in_drain
from tests.cluster.world import DONE, DRAIN, FAILED, FAST_DRIVER, POLICIES, REQUIRED, RESTART, World
from tools.controlplane.resources import NODES, PODS, Object

KEEP = "upgrade.node-initial-state.unschedulable"
RECORD = "upgrade.record"
FROM_RESTART: Mapping[str, str] = {"from": RESTART}
"""Of a node that moved: the end of an upgrade that leaves the cordon to somebody else, not a driver's first label."""

BEFORE: Mapping[str, str] = {
    "cordoned before": "kubectl cordon {node}",
    "cordoned before, uncordoned while it waits": "kubectl cordon {node}",
    "cordoned before, uncordoned in the drain": "kubectl cordon {node}",
}
WAITING: Mapping[str, str] = {
    "cordoned while it waits": "kubectl cordon {node}",
    "cordoned before, uncordoned while it waits": "kubectl uncordon {node}",
}
DRAINING: Mapping[str, str] = {
    "uncordoned in the drain": "kubectl uncordon {node}",
    "cordoned before, uncordoned in the drain": "kubectl uncordon {node}",
    "key 5 set in the drain": "kubectl annotate node {node} {keep}=true",
    "cordoned again in the drain": "kubectl cordon {node}",
    "record removed in the drain": "kubectl annotate node {node} {record}-",
    "record removed and key 5 set in the drain": "kubectl annotate node {node} {record}- {keep}=true",
}
STAY_CLOSED = {
    "cordoned before",
    "cordoned while it waits",
    "key 5 set in the drain",
    "record removed and key 5 set in the drain",
}
"""All others end open: uncordoning says so; and cordoning what is cordoned sends nothing to the API server."""
SITUATIONS = sorted({*BEFORE, *WAITING, *DRAINING})


def closed(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))


async def meddle(cluster: World, nodes: Mapping[str, str], what: Mapping[str, str]) -> None:
    keys = {"keep": cluster.key(KEEP), "record": cluster.key(RECORD)}
    await cluster.shell(" && ".join(text.format(node=nodes[name], **keys) for name, text in what.items()))


async def test_every_cordon_ends_as_its_owner_wants(cluster: World):
    nodes = dict(zip(SITUATIONS, await cluster.nodes(len(SITUATIONS)), strict=True))
    await cluster.driver("1")
    await cluster.hold()
    await meddle(cluster, nodes, BEFORE)
    await cluster.policy(parallel=0, paused=True)
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.state(REQUIRED)
        await meddle(cluster, nodes, WAITING)
        await cluster.edit(paused=False)
        await cluster.any_in(DRAIN, len(nodes))
        await meddle(cluster, nodes, DRAINING)
        await cluster.nodes_are(closed)
        await cluster.release()
        await cluster.done("2", cordoned=[nodes[name] for name in STAY_CLOSED])
    for node in await cluster.api.list(NODES, labels=f"pool={cluster.pool}"):
        assert cluster.key(KEEP) not in node["metadata"]["annotations"], "it was for this upgrade only"


async def test_a_node_that_is_opened_again_and_again_fails_and_stays_open(cluster: World):
    async with held_in_drain(cluster, 1) as (controller, node):
        for _ in range(6):
            await cluster.nodes_are(closed)
            await cluster.shell(f"kubectl uncordon {node}")
        moved = await controller.logged(msg="node moved", node=node, state=FAILED)
        assert moved["reason"] == "CordonLifted"
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and not closed(n))
        assert cluster.evicted() == []


@pytest.mark.parametrize("again", [False, True], ids=["open", "then cordoned by someone"])
async def test_a_failed_node_uncordoned_by_hand_is_theirs(cluster: World, again: bool):
    """Whoever cordons it after that has a cordon that the next attempt leaves alone."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.pod("bare", node)
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=node, reason="UnmanagedPod")
        await cluster.expire(node)
        await cluster.state(FAILED)
        await cluster.shell(f"kubectl uncordon {node}")
        await controller.logged(msg="node marks written", node=node, reason="CordonLifted")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and not closed(n))
        if again:
            await cluster.shell(f"kubectl cordon {node}")
        await cluster.api.delete(PODS, "bare", cluster.work)
        await cluster.shell(f"kubectl label node {node} --overwrite {cluster.state_label}={REQUIRED}")
        await cluster.done("2", cordoned=[node] if again else [])


async def test_foreign_cordons_are_passed_over_where_the_policy_says_so(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.shell(f"kubectl cordon {first}")
    await cluster.policy(cordonedNodes="Skip")
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await cluster.done("2", second)
        await controller.logged(msg="node waits", node=first, reason="NodeCordoned")
        await cluster.shell(f"kubectl uncordon {first}")
        await cluster.done("2")


async def second_driver(cluster: World, name: str, **upgrade: Any) -> None:
    """Another driver on the same nodes, with a policy of its own, at version 1."""
    await cluster.driver("1", name=name, annotations=FAST_DRIVER)
    driver = {
        "name": name,
        "podSelector": {"matchLabels": {"app": name}},
        "nodeSelector": {"matchLabels": cluster.selector()},
    }
    metadata = {"name": name, "namespace": cluster.namespace}
    spec = {"driver": {**driver, "upgradePolicy": {"autoUpgrade": True, "drain": {"enable": True}, **upgrade}}}
    kind = {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind}
    await cluster.api.create({**kind, "metadata": metadata, "spec": spec})


async def test_of_two_drivers_on_a_node_the_last_one_lifts_the_cordon(cluster: World):
    """The first one fails and keeps its claim: the second is upgraded meanwhile, and leaves the cordon to it."""
    (node,) = await cluster.nodes(1)
    other = f"{cluster.driver_name}-b"
    label = f"{cluster.domain}/{other}-driver-upgrade-state"
    await cluster.driver("1")
    await second_driver(cluster, other)
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.nodes_are(lambda n: n["metadata"]["labels"].get(label) == DONE)
        await cluster.roll("2-notready")
        await new_driver_pod(cluster, node, "2-notready")
        await cluster.expire(node)
        await cluster.state(FAILED)
        await cluster.roll("2", name=other)
        await controller.logged(msg="node moved", node=node, driver=other, state=RESTART)
        await controller.logged(msg="node moved", node=node, driver=other, state=DONE, **FROM_RESTART)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and closed(n))
        await cluster.roll("3")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == DONE and not closed(n))
    await cluster.recorder.caught_up()
    cordoned = cluster.recorder.first(node, unschedulable=True)
    opened = next(s for s in cluster.recorder.sights if s.version > cordoned.version and not s.unschedulable)
    assert opened.state == DONE, "it was closed from the first cordon to the end of the last claim"
