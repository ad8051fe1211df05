"""Emptying a node: what leaves, what stays, what holds it up, and how it goes on."""

import pytest

from tests.cluster.world import DONE, DRAIN, FAILED, JOBS, REQUIRED, RESTART, World
from tools.controlplane import scene
from tools.controlplane.resources import NODES, POD_DISRUPTION_BUDGETS, PODS


async def test_a_budget_that_frees_late_is_waited_for_and_said(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 1, node=first)
    await cluster.workload("api", 1, node=second)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy(parallel=2)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=first, reason="PodDisruptionBudget")
        assert f"{cluster.work}/web-" in waits["blockers"]
        assert "budget web needs 1 healthy pods and has 1 currently" in waits["blockers"]
        await cluster.done("2", second)
        await cluster.state(DRAIN, first)
        assert [name.partition("-")[0] for name in cluster.evicted()] == ["api"]
        await cluster.api.patch(POD_DISRUPTION_BUDGETS, "web", {"spec": {"minAvailable": 0}}, cluster.work)
        await cluster.done("2")


async def test_a_budget_is_freed_by_a_replacement_that_becomes_ready_elsewhere(cluster: World):
    """Two nodes drained at once: the second pod may only go when the first one's replacement runs on a new node."""
    await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 2)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy(parallel=0)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", reason="PodDisruptionBudget")
        await cluster.nodes(1)
        await cluster.done("2")
        await cluster.ready(2, "app=web", cluster.work)


async def test_a_job_that_ends_is_waited_for(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    job = await cluster.job("train", node, "1h", kind="training")
    await cluster.policy(waitForCompletion={"podSelector": "kind=training"})
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=node, reason="JobsRunning")
        assert f"{cluster.work}/{job['metadata']['name']}" in waits["blockers"]
        await cluster.finish(job)
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(node)[-5:-1] == [JOBS, DRAIN, RESTART, "uncordon-required"]
    assert job["metadata"]["uid"] not in cluster.recorder.departures
    assert (await cluster.api.get(PODS, job["metadata"]["name"], cluster.work))["status"]["phase"] == "Succeeded"


async def test_a_job_that_takes_too_long_is_left_behind(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    job = await cluster.job("train", node, "600s", kind="training")
    await cluster.policy(waitForCompletion={"podSelector": "kind=training", "timeoutSeconds": 1})
    async with cluster.controller() as controller:
        await cluster.roll("2")
        moved = await controller.logged(msg="node moved", node=node, reason="DeadlineExceeded", state=DRAIN)
        assert moved["from"] == JOBS
        await cluster.done("2")
    assert cluster.evicted() == [job["metadata"]["name"]]


async def test_a_pod_with_the_skip_label_stays(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1")
    (kept,) = await cluster.workload("kept", labels={cluster.key("upgrade-drain.skip"): "true"})
    (left,) = await cluster.workload("left")
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert list(cluster.recorder.left(cluster.work)) == [left["metadata"]["uid"]]
    still = await cluster.api.get(PODS, kept["metadata"]["name"], cluster.work)
    assert still["metadata"]["uid"] == kept["metadata"]["uid"]


async def test_a_bare_pod_holds_everything_until_the_policy_says_force(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web")
    await cluster.pod("bare", node)
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=node, reason="UnmanagedPod")
        assert f"{cluster.work}/bare" in waits["blockers"]
        assert "delete it, or set drain.force" in waits["blockers"]
        assert cluster.evicted() == [], "as in kubectl drain, nothing goes while something cannot"
        await cluster.edit(drain={"force": True})
        await cluster.done("2")
    assert "bare" in cluster.evicted()


async def test_an_empty_dir_pod_holds_until_it_is_deleted(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.pod("scratch", node, empty_dir=True)
    await cluster.policy(drain={"force": True})
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=node, reason="EmptyDirPod")
        assert "delete it, or set drain.deleteEmptyDir" in waits["blockers"]
        await cluster.api.delete(PODS, "scratch", cluster.work)
        await cluster.done("2")
    assert cluster.evicted() == []


async def test_a_drain_that_takes_too_long_fails_its_node_alone(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", node=first)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy(failureThreshold=2)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=first, reason="PodDisruptionBudget")
        await cluster.expire(first)
        moved = await controller.logged(msg="node moved", node=first, state=FAILED)
        assert moved["reason"] == "DeadlineExceeded"
        assert f"{cluster.work}/web-" in moved["detail"]
        await cluster.done("2", second)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and n["spec"]["unschedulable"], [first])
        degraded = await cluster.condition("Degraded", "True")
        assert degraded["reason"] == "NodesFailed"
    await cluster.recorder.caught_up()
    assert cluster.recorder.left(cluster.work) == {}
    assert (await cluster.driver_pod(first))["metadata"]["uid"] not in cluster.recorder.departures, "never without a drain"


async def test_a_node_uncordoned_by_hand_in_the_middle_is_cordoned_again(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web")
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await cluster.state(DRAIN)
        await cluster.shell(f"kubectl uncordon {node}")
        written = await controller.logged(msg="node marks written", node=node, reason="CordonLifted")
        assert "cordoned again" in written["detail"]
        await cluster.nodes_are(lambda n: n["spec"].get("unschedulable"))
        await cluster.api.delete(POD_DISRUPTION_BUDGETS, "web", cluster.work)
        await cluster.done("2")
    await cluster.recorder.caught_up()
    drained = [s.unschedulable for s in cluster.recorder.sights if s.state == DRAIN]
    assert False in drained
    assert drained[-1]


async def test_a_node_cordoned_beforehand_is_upgraded_and_stays_cordoned(cluster: World):
    first, _ = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 2)
    await cluster.shell(f"kubectl cordon {first}")
    await cluster.policy(parallel=2)
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2", cordoned=[first])
    await cluster.recorder.caught_up()
    initial = cluster.key("upgrade.node-initial-state.unschedulable")
    assert [s for s in cluster.recorder.sights if s.node == first and s.annotations.get(initial) == "true"]
    kept = (await cluster.api.get(NODES, first))["metadata"]["annotations"]
    assert initial not in kept, "the annotation goes with the upgrade"


async def test_a_skipped_node_waits_while_others_finish(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.api.patch(NODES, first, {"metadata": {"labels": {cluster.key("upgrade.skip"): "true"}}})
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2", second)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == REQUIRED and not n["spec"].get("unschedulable"), [first])
        status = await cluster.status(lambda s: s["nodes"].get("pending") == 1 and s["nodes"]["upToDate"] == 1)
        assert status["blocked"] == [{"reason": "Skipped", "nodes": 1, "example": first}]
        await cluster.api.patch(NODES, first, {"metadata": {"labels": {cluster.key("upgrade.skip"): None}}})
        await cluster.done("2")


@pytest.mark.parametrize("selected", [True, False])
async def test_only_pods_of_the_drains_selector_leave(cluster: World, selected: bool):
    await cluster.nodes(1)
    await cluster.driver("1")
    (pod,) = await cluster.workload("web", labels={"uses": "driver" if selected else "nothing"})
    await cluster.policy(drain={"podSelector": "uses=driver"})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert (pod["metadata"]["uid"] in cluster.recorder.left(cluster.work)) is selected
    assert (cluster.recorder.states(cluster.names[0])[-1]) == DONE
