"""One bad node delays no other, on a real cluster: tests/sim/test_isolation.py and `make bench` know more ways to be bad."""

from tests.cluster.world import DONE, FAILED, FAST_DRIVER, RESTART, World
from tools.controlplane import scene
from tools.controlplane.resources import PODS

STUCK = scene.stage(stuck="true")
UNSTUCK = {"metadata": {"annotations": dict.fromkeys(STUCK)}}


async def test_an_old_driver_pod_that_never_ends_fails_its_node_alone(cluster: World):
    """As with a process that cannot be killed. The other node is done while this one still has its slot."""
    first, second = await cluster.nodes(2)
    await cluster.driver("1", annotations=FAST_DRIVER)
    old = await cluster.driver_pod(first)
    name = old["metadata"]["name"]
    await cluster.api.patch(PODS, name, {"metadata": {"annotations": STUCK}}, cluster.namespace)
    await cluster.policy(parallel=2, failureThreshold=2)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        waits = await controller.logged(msg="node waits", node=first, reason="DriverPodTerminating")
        assert waits["state"] == RESTART
        await cluster.done("2", second)
        await cluster.state(RESTART, first)
        await cluster.expire(first)
        moved = await controller.logged(msg="node moved", node=first, state=FAILED)
        assert moved["reason"] == "DriverPodTerminating"
        assert f"not ready in time: {name}: still shutting down" in moved["detail"]
        await cluster.nodes_are(lambda n: cluster.state_of(n) == FAILED and n["spec"]["unschedulable"], [first])
        await cluster.state(DONE, second)
        await cluster.api.patch(PODS, name, UNSTUCK, cluster.namespace)
        await cluster.gone(old)
        await cluster.done("2")
