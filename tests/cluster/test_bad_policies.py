"""Bad input in policies and around them: the cause and the remedy are said, and everything else goes on."""

import asyncio

import pytest

from tests.cluster.world import DONE, DRAIN, FAST_DRIVER, POLICIES, REQUIRED, World
from tools.controlplane import scene
from tools.controlplane.api import PATIENCE, ApiError
from tools.controlplane.resources import PODS, Object, Resource

FORBIDDEN = 403
EXCEEDED = "exceeded quota"
QUOTAS = Resource("v1", "resourcequotas", "ResourceQuota")
OTHER_PRIORITY = "system-cluster-critical"
APPLY = """kubectl apply -f - <<'END'
apiVersion: nvidia.com/v1
kind: DriverUpgradePolicy
metadata: {name: gpu, namespace: %s}
spec: {driver: {podSelector: {matchLabels: {app: driver}}, upgradePolicy: {%s}}}
END"""


async def test_a_policy_that_selects_nothing_is_told_so(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy(name="nothing", select={"pool": "empty"})
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2")
        degraded = await cluster.condition("Degraded", "True", name="nothing", reason="NoNodesSelected")
        assert "nodeSelector pool=empty matches none of" in degraded["message"]
        assert "compare it with the nodes' labels" in degraded["message"]
        await cluster.condition("Available", "False", name="nothing", reason="NoNodes")


async def test_a_policy_without_a_driver_is_told_so(cluster: World):
    await cluster.nodes(1)
    await cluster.policy(app="drivr")
    async with cluster.controller():
        degraded = await cluster.condition("Degraded", "True", reason="NoDaemonSet")
        assert f"app=drivr matches the pods of no DaemonSet in namespace {cluster.namespace}" in degraded["message"]
        assert "compare it with the template's labels" in degraded["message"]


async def test_a_selector_that_does_not_parse_grants_nothing_and_breaks_nothing_under_way(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.hold()
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        busy = await cluster.any_in(DRAIN)
        waiting = second if busy == first else first
        await cluster.state(REQUIRED, waiting)
        await cluster.edit(drain={"podSelector": "held in (yes"})
        valid = await cluster.condition("Valid", "False", reason="PolicyInvalid")
        assert "spec.driver.upgradePolicy.drain.podSelector" in valid["message"]
        await cluster.release()
        await cluster.done("2", busy)
        await cluster.status(lambda s: s["nodes"]["inProgress"] == 0 and s["nodes"]["pending"] == 1)
        await cluster.state(REQUIRED, waiting)
        await cluster.edit(drain={"podSelector": "held in (yes)"})
        await cluster.done("2")
        await cluster.condition("Valid", "True")


async def test_a_policy_that_was_never_valid_does_not_hold_up_another_one(cluster: World):
    (bad,) = await cluster.nodes(1, model="a")
    (good,) = await cluster.nodes(1, model="b")
    await cluster.driver("1")
    await cluster.policy(name="bad", select={"model": "a"}, waitForCompletion={"podSelector": "a=b=c"})
    await cluster.policy(select={"model": "b"})
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await cluster.done("2", good)
        valid = await cluster.condition("Valid", "False", name="bad", reason="PolicyInvalid")
        assert "spec.driver.upgradePolicy.waitForCompletion.podSelector" in valid["message"]
        line = await controller.logged(msg="policy invalid", policy=f"DriverUpgradePolicy/{cluster.namespace}/bad")
        assert line["field"] == "spec.driver.upgradePolicy.waitForCompletion.podSelector"
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(bad) == [""]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ('maxUnavailable: "101%"', "or a percentage from 0% to 100%"),
        ("maxParalelUpgrades: 2", 'unknown field "spec.driver.upgradePolicy.maxParalelUpgrades"'),
        ("maxParallelUpgrades: -1", "spec.driver.upgradePolicy.maxParallelUpgrades: Invalid value: -1"),
    ],
)
async def test_kubectl_refuses_what_the_schema_can_judge(cluster: World, policy: str, says: str):
    answer = await cluster.shell(APPLY % (cluster.namespace, policy), check=False)
    assert answer.returncode == 1
    assert says in answer.stderr
    assert await cluster.api.list(POLICIES, cluster.namespace) == []


async def test_a_daemon_set_that_rolls_by_itself_is_told(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1", strategy="RollingUpdate")
    await cluster.policy()
    async with cluster.controller():
        degraded = await cluster.condition("Degraded", "True", reason="DaemonSetNotOnDelete")
        assert "DaemonSet driver has updateStrategy RollingUpdate" in degraded["message"]
        assert "set spec.updateStrategy.type to OnDelete" in degraded["message"]


async def test_a_node_that_the_daemon_set_does_not_want_is_left_alone_and_delays_nobody(cluster: World):
    await cluster.nodes(1, driver="wanted")
    (without,) = await cluster.nodes(1)
    cluster.names.remove(without)
    await cluster.driver("1", node_selector={"pool": cluster.pool, "driver": "wanted"})
    await cluster.policy(maxUnavailable=1)
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2")
        await cluster.status(lambda s: s["nodes"]["total"] == 1)
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(without) == [""]


async def test_a_node_whose_driver_pod_cannot_be_made_is_told_and_delays_nobody(cluster: World):
    """A quota keeps a second DaemonSet of the driver, for another model, from making its pod."""
    (good,) = await cluster.nodes(1, model="a")
    await cluster.driver("1", node_selector={"pool": cluster.pool, "model": "a"})
    (bad,) = await cluster.nodes(1, model="b")
    scope = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [OTHER_PRIORITY]}]}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": cluster.namespace}}
    await cluster.api.create({**quota, "spec": {"hard": {"pods": "0"}, "scopeSelector": scope}})
    await _refused(cluster, daemon_set_of_model_b(cluster))
    await cluster.api.create(daemon_set_of_model_b(cluster))
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=bad, reason="DriverPodMissing")
        assert f"DaemonSet {cluster.namespace}/driver-b has no pod on this node yet: see its events" in waits["detail"]
        await cluster.done("2", good)
        await cluster.api.delete(QUOTAS, "none", cluster.namespace)
        await cluster.done("2")


async def _refused(cluster: World, daemon_set: Object) -> None:
    """Waits until the API server refuses the DaemonSet's pods: it knows quotas from a cache of its own, which lags.

    Until the quota's controller has counted, it refuses them in other words.
    """
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": daemon_set["spec"]["template"]["spec"]}
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await cluster.api.request("POST", PODS.path(cluster.namespace), pod, dryRun="All")
            except ApiError as error:
                if error.code != FORBIDDEN:
                    raise
                if EXCEEDED in error.message:
                    return
            await asyncio.sleep(0.05)


def daemon_set_of_model_b(cluster: World) -> Object:
    selector = {"pool": cluster.pool, "model": "b"}
    made = scene.driver_daemon_set(
        "2", name="driver-b", namespace=cluster.namespace, node_selector=selector, annotations=FAST_DRIVER
    )
    labels = {"app": "driver", "model": "b"}
    made["spec"]["selector"]["matchLabels"] = labels
    made["spec"]["template"]["metadata"]["labels"] = labels
    made["spec"]["template"]["spec"]["priorityClassName"] = OTHER_PRIORITY
    return made


async def test_the_older_of_two_policies_has_the_node_and_the_other_is_told(cluster: World):
    """The younger one has the name that sorts first, so that it is age that decides."""
    older = await cluster.policy(name="z-older")
    await cluster.nodes(2)
    await cluster.driver("1")
    async with cluster.controller():
        await cluster.state(DONE)
        await cluster.next_second()
        younger = await cluster.policy(name="a-younger", parallel=0)
        assert younger["metadata"]["creationTimestamp"] > older["metadata"]["creationTimestamp"]
        degraded = await cluster.condition("Degraded", "True", name="a-younger", reason="PolicyConflict")
        assert f"DriverUpgradePolicy/{cluster.namespace}/z-older, which is older" in degraded["message"]
        assert "narrow nodeSelector" in degraded["message"]
        await cluster.roll("2")
        await cluster.done("2")
        await cluster.recorder.caught_up()
        assert cluster.recorder.most_in_progress() == 1, "the older one's limit"
        await cluster.api.delete(POLICIES, "z-older", cluster.namespace)
        await cluster.condition("Degraded", "False", name="a-younger")
        await cluster.roll("3")
        await cluster.done("3")


async def test_a_policy_outside_the_driver_namespaces_counts_for_nothing_and_is_told(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1")
    (pod,) = await cluster.workload("web")
    await cluster.policy(namespace=cluster.work, app="web")
    async with cluster.controller() as controller:
        valid = await cluster.condition("Valid", "False", namespace=cluster.work, reason="NamespaceNotAllowed")
        assert f"policies count only in {cluster.namespace}" in valid["message"]
        assert "--driver-namespaces" in valid["message"]
        await controller.logged(msg="policy ignored", reason="NamespaceNotAllowed")
        await cluster.roll("2")
        await cluster.policy()
        await cluster.done("2")
    assert cluster.evicted() == [pod["metadata"]["name"]]
