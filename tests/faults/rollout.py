"""A rollout with faults between controller and API server, which ends as one without them: that is the whole claim."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.cluster.process import Process
from tests.cluster.world import DONE, World
from tools.faultproxy.plan import Plan
from tools.faultproxy.proxy import FaultProxy

LAG = 6.0
"""Seconds by which the faults of these tests may keep the controller behind, besides what is measured."""


@asynccontextmanager
async def behind(cluster: World, proxy: FaultProxy, *flags: str) -> AsyncIterator[Process]:
    """The controller as a replica of its own account, whose API server is the proxy."""
    cluster.evidence.lag = LAG
    replica = await cluster.account.replica()
    access = replace(replica.access, server=proxy.access().server, ca=proxy.access().ca)
    path = Path(f"{replica.kubeconfig}.proxy")
    async with cluster.controller(
        *replica.flags, *flags, kubeconfig=access.write(path, replica.name, cluster.namespace)
    ) as controller:
        yield controller


async def at_rest(cluster: World, nodes: int = 2) -> None:
    """Nodes with a driver and a workload each, and a policy: nothing to do yet."""
    await cluster.nodes(nodes)
    await cluster.driver("1")
    await cluster.workload("web", nodes)
    await cluster.policy(drain={"timeoutSeconds": 300})


async def rolls(cluster: World, proxy: FaultProxy, plan: Plan) -> None:
    """One rollout under a plan; when enough has gone wrong everything works again, and all nodes get done."""
    async with behind(cluster, proxy):
        await cluster.state(DONE)
        proxy.plan = plan
        await cluster.roll("2")
        await cluster.done("2")
        plan.clear()
    assert not await cluster.violations(at_rest=True)
