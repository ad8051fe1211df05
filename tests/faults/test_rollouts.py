"""A rollout on the real control plane under each family of faults: all nodes done, and nothing for the checker to say."""

import pytest

from tests.cluster.world import DONE, DRAIN, World
from tests.faults.families import FAMILIES, WATCHES
from tests.faults.rollout import at_rest, behind, rolls
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Resource
from tools.faultproxy.plan import Plan
from tools.faultproxy.proxy import FROZEN, FaultProxy


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_rollout_ends_whatever_happens_to_requests(cluster: World, proxy: FaultProxy, family: str):
    await at_rest(cluster)
    await rolls(cluster, proxy, Plan(1, FAMILIES[family]()))
    assert len(proxy.did()) >= 2, "nothing went wrong"


@pytest.mark.parametrize("family", WATCHES)
async def test_a_rollout_ends_whatever_happens_to_watches(cluster: World, proxy: FaultProxy, family: str):
    await at_rest(cluster)
    async with behind(cluster, proxy):
        await cluster.state(DONE)
        proxy.plan = Plan(1, WATCHES[family]())
        await cluster.hold()
        await cluster.roll("2")
        await cluster.any_in(DRAIN)
        assert proxy.cut_watches() > 0
        await cluster.release()
        await cluster.done("2")
    assert proxy.did(verb="watch")
    assert not await cluster.violations(at_rest=True)


@pytest.mark.parametrize("resource", [NODES, PODS, DAEMON_SETS, POD_DISRUPTION_BUDGETS], ids=lambda r: r.plural)
async def test_a_view_that_stands_still_leads_to_nothing_wrong(cluster: World, proxy: FaultProxy, resource: Resource):
    await at_rest(cluster)
    async with behind(cluster, proxy):
        await cluster.state(DONE)
        await cluster.hold()
        await cluster.roll("2")
        node = await cluster.any_in(DRAIN)
        listing = await cluster.api.request("GET", "/api/v1/nodes", limit="1")
        proxy.freeze(resource.plural, listing["metadata"]["resourceVersion"])
        names = {"nodes": node, "pods": (await cluster.driver_pod(node))["metadata"]["name"]}
        names |= {"daemonsets": "driver", "poddisruptionbudgets": "hold"}
        namespace = {"nodes": "", "poddisruptionbudgets": cluster.work}.get(resource.plural, cluster.namespace)
        touched = {"metadata": {"annotations": {"driver-upgrade.test/touched": "yes"}}}
        await cluster.api.patch(resource, names[resource.plural], touched, namespace)
        await proxy.happens(FROZEN, resource=resource.plural)
        await cluster.release()
        await cluster.workload("late")
        proxy.thaw()
        await cluster.done("2")
    assert not await cluster.violations(at_rest=True)
