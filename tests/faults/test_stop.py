"""SIGTERM in the middle of an upgrade: what is on its way is heard out, the Lease given back, and the next one finishes."""

import pytest

from tests.cluster.world import DONE, DRAIN, World
from tests.faults.rollout import at_rest, behind
from tools.controlplane.resources import LEASES
from tools.faultproxy.plan import Fault, Kind, Plan, Rule
from tools.faultproxy.proxy import FaultProxy

LEASE = "driver-upgrade"
LATE = Fault(Kind.LATE, seconds=3.0)
LOST = Fault(Kind.UNANSWERED)


async def free(cluster: World) -> None:
    """Waits until nobody holds the Lease."""
    await cluster.api.wait_for_object(
        LEASES, LEASE, lambda lease: not lease["spec"].get("holderIdentity"), cluster.namespace
    )


@pytest.mark.parametrize("fault", [LATE, LOST], ids=["is not answered yet", "was never answered"])
async def test_a_stop_while_an_eviction(cluster: World, proxy: FaultProxy, fault: Fault):
    await at_rest(cluster)
    async with behind(cluster, proxy, "--leader-elect") as first:
        await cluster.state(DONE)
        proxy.plan = Plan(1, [Rule((fault,), ("evict",), times=1)])
        await cluster.roll("2")
        await proxy.happens(str(fault), verb="evict")
        assert await first.stop() == 0
        await free(cluster)
        async with cluster.controller("--leader-elect"):
            await cluster.done("2")
    assert len(cluster.evicted()) == len(set(cluster.evicted()))
    assert not await cluster.violations(at_rest=True)


async def test_a_stop_while_a_node_waits_leaves_it_as_it_is(cluster: World, proxy: FaultProxy):
    await at_rest(cluster)
    async with behind(cluster, proxy, "--leader-elect") as first:
        await cluster.state(DONE)
        await cluster.hold()
        await cluster.roll("2")
        node = await cluster.any_in(DRAIN)
        assert await first.stop() == 0
        await free(cluster)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == DRAIN and n["spec"]["unschedulable"], [node], "in drain")
        await cluster.release()
        async with cluster.controller("--leader-elect"):
            await cluster.done("2")
    assert not await cluster.violations(at_rest=True)
