"""A rollout with faults between controller and API server, which ends as one without them: that is the whole claim."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.cluster.process import Process
from tests.cluster.world import DONE, World
from tools.account import Replica
from tools.faultproxy.plan import Plan
from tools.faultproxy.proxy import FaultProxy

LAG = 6.0
"""Seconds by which the faults of these tests may keep the controller behind, besides what is measured."""


@asynccontextmanager
async def behind(cluster: World, proxy: FaultProxy, *flags: str) -> AsyncIterator[Process]:
    """The controller as a replica of its own account, whose API server is the proxy."""
    cluster.evidence.lag = LAG
    replica = await cluster.account.replica()
    kubeconfig = through(proxy, replica, cluster.namespace)
    async with cluster.controller(*replica.flags, *flags, kubeconfig=kubeconfig) as controller:
        yield controller


def through(proxy: FaultProxy, replica: Replica, namespace: str) -> Path:
    """A replica's kubeconfig, by which the proxy is its API server."""
    access = replace(replica.access, server=proxy.access().server, ca=proxy.access().ca)
    return access.write(Path(f"{replica.kubeconfig}.proxy"), replica.name, namespace)


async def first(*awaited: Coroutine[Any, Any, object]) -> None:
    """Waits for one of several things; the others are not waited for any more."""
    tasks = [asyncio.create_task(one) for one in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


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
