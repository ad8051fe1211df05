"""SIGTERM in the middle of an upgrade: what is on its way is heard out, the Lease given back, and the next one finishes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import yaml

from tests.cluster.process import ROOT, Process
from tests.cluster.story import uid_of
from tests.cluster.world import DONE, DRAIN, World
from tests.faults.rollout import at_rest, behind
from tests.faults.writes import AFTER_EVICTION, holding, outdated, seen_leaving
from tools.controlplane.audit import Request
from tools.controlplane.resources import LEASES
from tools.faultproxy.holding import Held
from tools.faultproxy.plan import Plan
from tools.faultproxy.proxy import FaultProxy

LEASE = "driver-upgrade"
ELECTED = "--leader-elect"
STOPPED_AT = ("cordon", "eviction", AFTER_EVICTION, "deletion")
"""PATCHes of a node, and what is done to pods."""
DEPLOYMENT = ROOT / "manifests" / "base" / "deployment.yaml"


async def free(cluster: World) -> None:
    """Waits until nobody holds the Lease."""
    await cluster.api.wait_for_object(
        LEASES, LEASE, lambda lease: not lease["spec"].get("holderIdentity"), cluster.namespace
    )


def grace() -> float:
    """Seconds that the manifests give the controller's pod to end."""
    deployment = yaml.safe_load(DEPLOYMENT.read_text())
    return float(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])


async def answered(write: Held) -> None:
    await write.send_on()


async def never_answered(write: Held) -> None:
    await write.carry_out()
    write.drop()


async def never_arrives(write: Held) -> None:
    write.drop()


async def stopped(cluster: World, leader: Process, write: Held, comes_to: Callable[[Held], Awaitable[None]]) -> None:
    """Asks the leader to stop while its write is on the way, decides what comes of that, and waits for the end."""
    ending = asyncio.create_task(leader.stop())
    await leader.logged(msg="stopping")
    lease = await cluster.api.get(LEASES, LEASE, cluster.namespace)
    assert lease["spec"]["holderIdentity"] == leader.identity, "given back while a write was on its way"
    await comes_to(write)
    async with asyncio.timeout(grace()):
        assert await ending == 0
    await free(cluster)


async def sent(cluster: World, leader: Process) -> list[Request]:
    """All that a process has asked to change until now."""
    uid = leader.identity.rpartition("_")[2]
    return sorted((r for r in await cluster.witnessed() if uid_of(r) == uid), key=lambda r: r.received)


def effects(requests: list[Request]) -> list[Request]:
    """What of it is done to nodes and pods."""
    return [r for r in requests if r.resource in {"nodes", "pods"}]


@pytest.mark.parametrize("comes_to", [answered, never_answered, never_arrives])
async def test_a_stop_while_a_write_is_on_its_way(
    cluster: World, proxy: FaultProxy, comes_to: Callable[[Held], Awaitable[None]]
):
    await outdated(cluster, 1)
    for kind in STOPPED_AT:
        proxy.plan = holding(cluster, [kind])
        async with behind(cluster, proxy, ELECTED) as leader:
            if kind == AFTER_EVICTION:
                await seen_leaving(cluster, leader)
            write = await proxy.holds()
            before = len(effects(await sent(cluster, leader)))
            await stopped(cluster, leader, write, comes_to)
        *_, release = requests = await sent(cluster, leader)
        assert len(effects(requests)) == before + (comes_to is not never_arrives), "what was on its way, and no more"
        assert release.resource == "leases"
        assert not release.body["spec"].get("holderIdentity")
    proxy.plan = Plan()
    async with behind(cluster, proxy, ELECTED):
        await cluster.done("2")
    assert len(cluster.evicted()) == 1
    assert not await cluster.violations(at_rest=True)


async def test_a_stop_while_a_node_waits_leaves_it_as_it_is(cluster: World, proxy: FaultProxy):
    await at_rest(cluster)
    async with behind(cluster, proxy, ELECTED) as first:
        await cluster.state(DONE)
        await cluster.hold()
        await cluster.roll("2")
        node = await cluster.any_in(DRAIN)
        assert await first.stop() == 0
        await free(cluster)
        await cluster.nodes_are(lambda n: cluster.state_of(n) == DRAIN and n["spec"]["unschedulable"], [node], "in drain")
        await cluster.release()
        async with cluster.controller(ELECTED):
            await cluster.done("2")
    assert not await cluster.violations(at_rest=True)
