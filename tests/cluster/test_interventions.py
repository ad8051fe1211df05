"""People and other programs change things in the middle of a rollout: what is under way ends well, nothing is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.process import Process
from tests.cluster.world import DONE, DRAIN, FAILED, FAST_WORK, REQUIRED, World
from tools.controlplane import scene
from tools.controlplane.resources import NODES


@asynccontextmanager
async def held_in_drain(cluster: World, count: int = 2) -> AsyncIterator[tuple[Process, str]]:
    """A rollout of which one node is in the middle of its drain, held by a budget, until its release; the others wait."""
    await cluster.nodes(count)
    await cluster.driver("1")
    await cluster.hold()
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", reason="PodDisruptionBudget")
        if others := set(cluster.names) - {waits["node"]}:
            await cluster.state(REQUIRED, *others)
        yield controller, waits["node"]


async def test_paused_what_was_granted_finishes_and_nothing_new_begins(cluster: World):
    async with held_in_drain(cluster) as (_, first):
        (second,) = set(cluster.names) - {first}
        await cluster.edit(paused=True)
        await cluster.condition("Progressing", "True", reason="Paused")
        await cluster.release()
        await cluster.done("2", first)
        await cluster.condition("Progressing", "False", reason="Paused")
        await cluster.state(REQUIRED, second)
        await cluster.edit(paused=False)
        await cluster.done("2")


async def test_switched_off_in_the_middle_the_node_is_put_back(cluster: World):
    async with held_in_drain(cluster) as (controller, first):
        await cluster.edit(autoUpgrade=False)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == "" and not n["spec"].get("unschedulable"))
        await controller.logged(msg="node moved", node=first, state="unknown")
        assert cluster.evicted() == []
        await cluster.release()
    record = cluster.key("upgrade.record")
    for node in cluster.names:
        assert record not in (await cluster.api.get(NODES, node))["metadata"]["annotations"]


async def test_a_policy_deleted_in_the_middle_leaves_no_cordon_behind(cluster: World):
    async with held_in_drain(cluster):
        await cluster.shell(f"kubectl delete driverupgradepolicies.nvidia.com -n {cluster.namespace} {cluster.pool}")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == "" and not n["spec"].get("unschedulable"))


async def test_a_node_deleted_in_the_middle_gives_its_slot_to_the_next(cluster: World):
    async with held_in_drain(cluster) as (_, first):
        cluster.names.remove(first)
        await cluster.shell(f"kubectl delete node {first}")
        await cluster.state(DRAIN)
        await cluster.release()
        await cluster.done("2")


async def test_the_version_put_back_in_the_middle_ends_the_drain_without_an_eviction(cluster: World):
    async with held_in_drain(cluster) as (_, first):
        old = (await cluster.driver_pod(first))["metadata"]["uid"]
        await cluster.roll("1")
        await cluster.done("1")
        assert cluster.evicted() == []
        assert (await cluster.driver_pod(first))["metadata"]["uid"] == old


async def test_an_administrator_who_wants_the_cordon_kept_says_so(cluster: World):
    async with held_in_drain(cluster, 1) as (_, first):
        await cluster.annotate(first, **{"upgrade.node_initial_state.unschedulable": "true"})
        await cluster.release()
        await cluster.done("2", cordoned=[first])


async def test_a_failed_node_relabelled_by_hand_is_tried_again(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.pod("bare", node)
    await cluster.policy(drain={"timeoutSeconds": 1})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.state(FAILED)
        await cluster.edit(drain={"force": True, "timeoutSeconds": 300})
        await cluster.shell(f"kubectl label node {node} --overwrite {cluster.state_label}={REQUIRED}")
        await cluster.done("2")


async def test_a_state_label_taken_away_comes_back(cluster: World):
    async with held_in_drain(cluster, 1) as (_, first):
        await cluster.shell(f"kubectl label node {first} {cluster.state_label}-")
        await cluster.state(DRAIN)
        await cluster.release()
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.most_in_progress() == 1


async def test_two_budgets_on_one_pod_are_named_as_the_cause(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web", labels={"tier": "front"})
    await cluster.api.create(scene.budget("web", cluster.work, max_unavailable=1))
    await cluster.api.create(scene.budget("front", cluster.work, labels={"tier": "front"}, max_unavailable=1))
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=node, reason="MultiplePodDisruptionBudgets")
        assert "leave the pod only one of its budgets" in waits["blockers"]


async def test_a_stateful_set_s_pod_that_returns_under_its_name_elsewhere_is_another_pod(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.shell(f"kubectl cordon {second}")
    spec = scene.pod_spec() | {"nodeSelector": cluster.selector()}
    await cluster.api.create(scene.stateful_set("db", cluster.work, annotations=FAST_WORK, spec=spec))
    await cluster.ready(1, "app=db", cluster.work)
    await cluster.shell(f"kubectl uncordon {second}")
    await cluster.policy(select={"kubernetes.io/hostname": first})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2", first)
    (moved,) = await cluster.ready(1, "app=db", cluster.work)
    assert moved["spec"]["nodeName"] == second
    assert cluster.evicted() == ["db-0"]
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(first)[-1] == DONE


async def test_the_version_put_back_heals_a_node_whose_drain_failed(cluster: World):
    """Its driver pod was never touched: it is the current one again."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.pod("bare", node)
    await cluster.policy(drain={"timeoutSeconds": 1})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.state(FAILED)
        await cluster.roll("1")
        await cluster.done("1")
