"""The driver itself: loading it safely, restarting it, validating it, and versions that do not work."""

from tests.cluster.world import DONE, DRAIN, FAILED, REQUIRED, RESTART, VALIDATION, World
from tools.controlplane import scene
from tools.controlplane.resources import DAEMON_SETS, NODES, PODS, Object

NOT_READY = {"metadata": {"annotations": scene.stage(behaviour="notready")}}
READY = {"metadata": {"annotations": scene.stage(behaviour="ready")}}
DIGEST = "DRIVER_CONFIG_DIGEST"


async def validator(cluster: World) -> None:
    """A DaemonSet whose pods validate the driver; kept out of the driver's own selector."""
    made = scene.driver_daemon_set(name="validator", namespace=cluster.work, node_selector={"pool": cluster.pool})
    await cluster.api.create(made)
    await cluster.ready(len(cluster.names), "app=validator", cluster.work)


async def test_safe_load_of_a_fresh_node_cordons_drains_unblocks_and_uncordons_in_this_order(cluster: World):
    """The node has run workloads on its inbox driver when the containerized one arrives."""
    (node,) = await cluster.nodes(1)
    (pod,) = await cluster.workload("web")
    await cluster.policy()
    async with cluster.controller():
        await cluster.driver("1", safe_load=True)
        await cluster.done("1")
        (replaced,) = await cluster.ready(1, "app=web", cluster.work)
    recorder, key = cluster.recorder, cluster.safe_load_key()
    await recorder.caught_up()
    assert recorder.states(node) == ["", REQUIRED, "cordon-required", DRAIN, RESTART, "uncordon-required", DONE]
    waiting = next(s for s in recorder.sights if key in s.annotations)
    cordoned = next(s for s in recorder.sights if s.unschedulable)
    evicted = recorder.departures[pod["metadata"]["uid"]]
    unblocked = next(s for s in recorder.sights if s.version > waiting.version and key not in s.annotations)
    uncordoned = next(s for s in recorder.sights if s.version > cordoned.version and not s.unschedulable)
    await cluster.evidence.caught_up()
    driver = await cluster.driver_pod(node)
    ready = cluster.evidence.first(driver, scene.is_ready)
    returned = cluster.evidence.first(replaced, lambda pod: bool(pod["spec"].get("nodeName")))
    steps = [*(s.version for s in (waiting, cordoned, evicted, unblocked)), ready, uncordoned.version, returned]
    assert steps == sorted(steps)


async def test_safe_load_in_an_upgrade_unblocks_the_new_pod(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.policy()
    async with cluster.controller():
        await cluster.driver("1", safe_load=True)
        await cluster.done("1")
        old = await cluster.driver_pod(node)
        await cluster.roll("2")
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(node).count("cordon-required") == 2, "the old driver is drained and loaded off once"
    assert old["metadata"]["uid"] in cluster.recorder.departures
    assert cluster.safe_load_key() not in (await cluster.api.get(NODES, node))["metadata"]["annotations"]


async def test_validation_holds_the_cordon_until_its_pods_are_ready(cluster: World):
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
        waits = await controller.logged(msg="node waits", node=node, reason="ValidationNotReady")
        assert f"{cluster.work}/{name}" in waits["detail"]
        await cluster.nodes_are(lambda n: cluster.state_of(n) == VALIDATION and n["spec"]["unschedulable"])
        await cluster.api.patch(PODS, name, READY, cluster.work)
        await cluster.done("2")


async def test_a_node_that_is_not_validated_in_time_fails_and_stays_cordoned(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy(validation={"podSelector": "app=validator"})
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=node, reason="ValidationPodMissing")
        await cluster.expire(node)
        moved = await controller.logged(msg="node moved", state=FAILED)
        assert moved["reason"] == "ValidationPodMissing"
        assert "no pod on the node matches validation.podSelector app=validator" in moved["detail"]
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and n["spec"]["unschedulable"])
        await validator(cluster)
        await cluster.done("2")


async def test_pod_deletion_takes_the_users_of_a_device_and_nobody_else(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1")
    (user,) = await cluster.workload("train", gpus=1)
    (other,) = await cluster.workload("web")
    await cluster.policy(drain=None, podDeletion={"resourceNames": ["nvidia.com/gpu*"]})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert "pod-deletion-required" in cluster.recorder.states(cluster.names[0])
    assert list(cluster.recorder.left(cluster.work)) == [user["metadata"]["uid"]]
    assert scene.is_ready(await cluster.api.get(PODS, other["metadata"]["name"], cluster.work))


async def test_an_unchanged_driver_is_restarted_without_evicting_anybody(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1", env={DIGEST: "a"})
    (pod,) = await cluster.workload("web")
    await cluster.policy(podRestart={"unchangedEnv": DIGEST})
    async with cluster.controller():
        await cluster.roll("1-new-sidecar", env={DIGEST: "a"})
        await cluster.done("1-new-sidecar")
        assert cluster.evicted() == []
        await cluster.roll("2", env={DIGEST: "b"})
        await cluster.done("2")
        assert cluster.evicted() == [pod["metadata"]["name"]]
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(node)[:5] == ["", REQUIRED, "cordon-required", RESTART, "uncordon-required"]


async def test_a_requested_node_is_restarted_although_it_is_current(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    olds = {name: (await cluster.driver_pod(name))["metadata"]["uid"] for name in (first, second)}
    await cluster.policy()
    async with cluster.controller():
        await cluster.state(DONE)
        await cluster.annotate(first, upgrade_requested="true")
        requested = cluster.key("upgrade-requested")
        await cluster.nodes_are(lambda n: requested not in n["metadata"]["annotations"], [first])
        await cluster.done("1")
    await cluster.recorder.caught_up()
    assert olds[first] in cluster.recorder.departures
    assert olds[second] not in cluster.recorder.departures
    assert cluster.recorder.states(first).count("cordon-required") == 1


async def test_a_crashing_version_halts_the_rollout_at_its_threshold(cluster: World):
    await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.policy(podRestart={"maxRestarts": 1})
    async with cluster.controller() as controller:
        await cluster.roll("2-crash")
        moved = await controller.logged(msg="node moved", state=FAILED)
        assert moved["reason"] == "DriverPodCrashing"
        assert "more than maxRestarts 1" in moved["detail"]
        halted = await cluster.condition("Halted", "True")
        assert "1 nodes failed, failureThreshold is 1" in halted["message"]
        (other,) = set(cluster.names) - {moved["node"]}
        await cluster.state(REQUIRED, other)
        await cluster.roll("1")
        await cluster.done("1")
        await cluster.condition("Halted", "False")
    await cluster.recorder.caught_up()
    assert "cordon-required" not in cluster.recorder.states(other), "it never had the bad driver"


async def test_a_version_put_back_heals_every_failed_node_without_a_hand(cluster: World):
    await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.policy(parallel=0, failureThreshold=3, podRestart={"maxRestarts": 1})
    async with cluster.controller():
        await cluster.roll("2-crash")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and n["spec"]["unschedulable"])
        await cluster.roll("1")
        await cluster.done("1")


async def test_an_image_that_cannot_be_pulled_fails_the_node_with_this_reason(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2-nopull")
        await controller.logged(msg="node waits", node=node, reason="ImagePullFailed")
        await cluster.expire(node)
        moved = await controller.logged(msg="node moved", node=node, state=FAILED)
        assert moved["reason"] == "ImagePullFailed"
        assert "local/driver:2-nopull" in moved["detail"]
        await cluster.nodes_are(lambda n: n["spec"].get("unschedulable"))
        await cluster.roll("3")
        await cluster.done("3")


async def test_a_second_version_in_the_middle_of_the_first_one(cluster: World):
    """Nodes that are done with the first go on to the second; one in progress ends on the newest."""
    await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.any_in(RESTART)
        await cluster.roll("3")
        await cluster.done("3")
    await cluster.recorder.caught_up()
    assert cluster.recorder.most_in_progress() == 1


async def test_a_daemon_set_that_is_replaced_is_rolled_as_any_other_change(cluster: World):
    """Deleted with --cascade=orphan and created again, as operators do for a change of the selector."""
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller():
        await cluster.state(DONE)
        orphan: Object = {"propagationPolicy": "Orphan"}
        await cluster.api.request("DELETE", DAEMON_SETS.path(cluster.namespace, "driver"), orphan)
        await cluster.api.wait_gone(DAEMON_SETS, "driver", cluster.namespace)
        await cluster.api.create(
            scene.driver_daemon_set("2", name="driver", namespace=cluster.namespace, node_selector={"pool": cluster.pool})
        )
        await cluster.done("2")
