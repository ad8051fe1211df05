"""Failure and every way back: what fails a node, what it costs the others, and what makes it whole again."""

from typing import Any

import pytest

from tests.cluster.process import Process
from tests.cluster.test_cli import explained
from tests.cluster.test_driver import NOT_READY, READY, validator
from tests.cluster.test_interventions import held_in_drain
from tests.cluster.world import DONE, DRAIN, FAILED, FAST_DRIVER, FAST_WORK, REQUIRED, RESTART, VALIDATION, World
from tools.controlplane import scene
from tools.controlplane.resources import DAEMON_SETS, NODES, PODS, Object

SWITCHED_OFF = """kubectl patch driverupgradepolicies.nvidia.com -n {0} {1} --type merge \
    -p '{{"spec": {{"driver": {{"upgradePolicy": {{"autoUpgrade": false}}}}}}}}'"""
DELETED = "kubectl delete driverupgradepolicies.nvidia.com -n {0} {1}"


def closed(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))


async def fails_first(cluster: World, count: int, **fields: Any) -> str:
    """A pool whose first node cannot be drained: a bare pod is on it. The others wait until `first_failed`."""
    first, *others = await cluster.nodes(count)
    await cluster.driver("1")
    await cluster.pod("bare", first)
    await cluster.policy(**fields)
    await cluster.skip(*others)
    return first


async def first_failed(cluster: World, controller: Process) -> None:
    """Lets the first node fail, and the others come after it."""
    first, *others = cluster.names
    await controller.logged(msg="node waits", node=first, reason="UnmanagedPod")
    await cluster.expire(first)
    await cluster.state(FAILED, first)
    await cluster.unskip(*others)


async def test_a_driver_pod_that_no_room_is_left_for_fails_with_the_schedulers_words(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller() as controller:
        await request_cpu(cluster, "2", "1000")
        waits = await controller.logged(msg="node waits", node=node, reason="DriverPodPending")
        assert waits["state"] == RESTART
        await cluster.status(lambda status: any("Unschedulable" in a.get("message", "") for a in status.get("active", ())))
        await cluster.expire(node)
        moved = await controller.logged(msg="node moved", node=node, state=FAILED)
        assert moved["reason"] == "DriverPodPending"
        assert "Unschedulable: 0/" in moved["detail"]
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and closed(n))
        await request_cpu(cluster, "3", "1")
        await cluster.done("3")


async def request_cpu(cluster: World, version: str, cpu: str) -> None:
    container = {"name": "driver", "image": f"{scene.DRIVER_IMAGE}:{version}", "resources": {"requests": {"cpu": cpu}}}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await cluster.api.patch(DAEMON_SETS, "driver", body, cluster.namespace, kind="strategic")


async def test_an_updated_driver_pod_that_failed_to_start_is_deleted_by_hand(cluster: World):
    """The seed's second remedy. Its command names no kind, which kubectl does not take."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2-notready")
        await new_driver_pod(cluster, node, "2-notready")
        await controller.logged(msg="node waits", node=node, reason="DriverPodNotReady")
        await cluster.expire(node)
        await controller.logged(msg="node moved", node=node, state=FAILED, reason="DriverPodNotReady")
        failed = await cluster.driver_pod(node)
        await cluster.shell(f"kubectl delete pod -n {cluster.namespace} {failed['metadata']['name']}")
        await cluster.gone(failed)
        again = await new_driver_pod(cluster, node, "2-notready")
        await cluster.api.patch(PODS, again["metadata"]["name"], READY, cluster.namespace)
        await cluster.done("2-notready")


async def test_a_higher_threshold_ends_the_halt(cluster: World):
    first = await fails_first(cluster, 3)
    _, second, third = cluster.names
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await first_failed(cluster, controller)
        await cluster.condition("Halted", "True")
        await cluster.edit(failureThreshold=2)
        await cluster.done("2", second, third)
        await cluster.condition("Halted", "False")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and closed(n), [first])


async def test_a_retry_that_succeeds_ends_the_halt(cluster: World):
    first = await fails_first(cluster, 2)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await first_failed(cluster, controller)
        await cluster.condition("Halted", "True")
        await controller.logged(msg="node moved", node=first, state=FAILED, reason="DeadlineExceeded")
        await cluster.api.delete(PODS, "bare", cluster.work)
        await cluster.shell(f"kubectl label node {first} --overwrite {cluster.state_label}={REQUIRED}")
        await cluster.done("2")
        await cluster.condition("Halted", "False")
    await cluster.recorder.caught_up()
    versions = [cluster.recorder.first(node, state="cordon-required").version for node in cluster.names]
    done = next(s for s in cluster.recorder.sights if s.node == first and s.state == DONE)
    assert versions[1] > done.version, "the other node waited for it"


async def test_the_version_put_back_ends_the_halt_and_another_one_goes_everywhere(cluster: World):
    first = await fails_first(cluster, 2)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await first_failed(cluster, controller)
        await cluster.condition("Halted", "True")
        await cluster.roll("1")
        await cluster.done("1")
        await cluster.condition("Halted", "False")
        await cluster.edit(drain={"force": True})
        await cluster.roll("3")
        await cluster.done("3")
    assert cluster.evicted() == ["bare"]
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(first).count("cordon-required") == 2


async def test_a_validation_that_failed_is_not_skipped_by_a_new_driver_pod(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await validator(cluster)
    (check,) = await cluster.api.list(PODS, cluster.work, labels="app=validator")
    name = check["metadata"]["name"]
    await cluster.api.patch(PODS, name, NOT_READY, cluster.work)
    await cluster.api.wait_for_object(PODS, name, lambda pod: not scene.is_ready(pod), cluster.work)
    await cluster.policy(validation={"podSelector": "app=validator"})
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=node, reason="ValidationNotReady")
        await cluster.expire(node)
        await controller.logged(msg="node moved", node=node, state=FAILED, reason="ValidationNotReady")
        failed = await cluster.driver_pod(node)
        assert scene.is_ready(failed), "the driver is ready, and yet the node is not given back"
        await cluster.api.delete(PODS, failed["metadata"]["name"], cluster.namespace)
        await cluster.any_in(VALIDATION)
        await cluster.expire(node)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and closed(n))
        await cluster.api.patch(PODS, name, READY, cluster.work)
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(node)[-6:] == [FAILED, VALIDATION, FAILED, VALIDATION, "uncordon-required", DONE]
    held = [s.unschedulable for s in cluster.recorder.sights if s.state in {VALIDATION, FAILED}]
    assert all(held), "no moment in between at which it was open"


@pytest.mark.parametrize("how", [SWITCHED_OFF, DELETED], ids=["disabled", "deleted"])
async def test_without_a_policy_a_half_new_driver_is_finished_and_a_failed_node_stays(cluster: World, how: str):
    first = await fails_first(cluster, 2, parallel=2, failureThreshold=2)
    (second,) = set(cluster.names) - {first}
    async with cluster.controller() as controller:
        await cluster.roll("2-notready")
        await first_failed(cluster, controller)
        await cluster.state(RESTART, second)
        starting = await new_driver_pod(cluster, second, "2-notready")
        await cluster.shell(how.format(cluster.namespace, cluster.pool))
        await cluster.api.patch(PODS, starting["metadata"]["name"], READY, cluster.namespace)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == "" and not closed(n), [second])
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and closed(n), [first])
        await cluster.shell(f"kubectl uncordon {first}")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == "" and not closed(n), [first])
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(second)[-4:-1] == [RESTART, "uncordon-required", DONE]
    record = cluster.key("upgrade.record")
    for node in await cluster.api.list(NODES, labels=f"pool={cluster.pool}"):
        assert record not in node["metadata"]["annotations"]


async def new_driver_pod(cluster: World, node: str, version: str) -> Object:
    """Waits for the driver pod of a version on a node, whatever becomes of it."""

    def find(pods: object) -> Object:
        assert isinstance(pods, list)
        images = [(pod, pod["spec"]["containers"][0]["image"], pod["spec"].get("nodeName")) for pod in pods]
        return next((p for p, image, on in images if on == node and image.endswith(f":{version}")), {})

    return await cluster.api.wait_for(PODS, find, cluster.namespace, labels="app=driver", what=f"driver {version}")


async def test_a_node_deleted_and_made_again_in_the_middle_begins_anew(cluster: World):
    async with held_in_drain(cluster, 1) as (_, first):
        before = await cluster.api.get(NODES, first)
        await cluster.shell(f"kubectl delete node {first}")
        await cluster.api.create(scene.node(first, labels={"pool": cluster.pool}))
        again = await cluster.api.wait_for_object(NODES, first, scene.is_ready)
        assert again["metadata"]["uid"] != before["metadata"]["uid"]
        await cluster.release()
        await cluster.done("2")
        ended = await cluster.api.get(NODES, first)
    assert ended["metadata"]["uid"] in ended["metadata"]["annotations"][cluster.key("upgrade.record")]
    await cluster.recorder.caught_up()
    states = cluster.recorder.states(first)
    assert states[states.index(DRAIN) + 1] == "", "nothing is remembered of the node that was deleted"


async def test_a_node_that_is_lost_in_the_middle_says_so_and_delays_nobody(cluster: World):
    """Its pod was evicted, and now nobody tells that it has ended; when the node is back, it does."""
    first, second = await cluster.nodes(2)
    await cluster.driver("1", annotations=FAST_DRIVER)
    spec = scene.pod_spec() | {"nodeSelector": cluster.selector(first)}
    notes = FAST_WORK | scene.stage(stuck="true")
    await cluster.api.create(scene.deployment("web", cluster.work, 1, annotations=notes, spec=spec))
    (pod,) = await cluster.ready(1, "app=web", cluster.work)
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=first, reason="PodTerminating")
        await cluster.api.patch(NODES, first, {"metadata": {"annotations": {scene.NOT_READY: ""}}})
        await cluster.api.wait_for_object(NODES, first, lambda n: not scene.is_ready(n))
        await cluster.edit(maxParallelUpgrades=2)
        await cluster.done("2", second)
        await cluster.state(DRAIN, first)
        (blocker,) = (await explained(cluster, first))["blockers"]
        assert blocker["message"].startswith("the node is not Ready")
        await cluster.api.patch(NODES, first, {"metadata": {"annotations": {scene.NOT_READY: None}}})
        unstuck = {"metadata": {"annotations": {f"{scene.STAGE_PREFIX}stuck": None}}}
        await cluster.api.patch(PODS, pod["metadata"]["name"], unstuck, cluster.work)
        await cluster.done("2")
