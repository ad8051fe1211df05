"""SIGKILL while a write is on its way, over real connections: the next process goes on, and nothing is done twice.

Every kind of write of an upgrade is met in turn, in one rollout: the process is killed when the proxy holds its request, and
the next one is killed at the next kind. A request may also outlive its sender, and arrive before or after the same request
of the next process. There is one node then: where the next process has not touched a node yet, a late grant of it may come
on top of another's, which only the admission fence keeps out (docs/leader-election.md).
"""

import signal
from contextlib import AsyncExitStack

import pytest

from tests.cluster.world import World
from tests.faults.rollout import behind
from tests.faults.writes import ACCEPTED, AFTER_EVICTION, KINDS, OF_PODS, REFUSED, holding, let_go, outdated, seen_leaving
from tools.controlplane.resources import PODS
from tools.faultproxy.holding import Held
from tools.faultproxy.plan import Plan
from tools.faultproxy.proxy import FaultProxy


async def killed(cluster: World, proxy: FaultProxy, kind: str, *, carried_out: bool = False) -> Held:
    """Runs a process until a write of this kind is on its way, and kills it; returns the write.

    Nothing else is on its way then, as there is one slot. Where the write is carried out before, the process stands still
    meanwhile: it would see in its watches what came of it, and go on.
    """
    proxy.plan = holding(cluster, [kind])
    async with behind(cluster, proxy) as process:
        if kind == AFTER_EVICTION:
            await seen_leaving(cluster, process)
        held = await proxy.holds()
        if carried_out:
            process.signal(signal.SIGSTOP)
            assert await held.carry_out() in ACCEPTED
        process.kill()
        await process.ended()
    return held


async def finished(cluster: World, proxy: FaultProxy) -> None:
    """The last process does the rest, if there is anything left to do."""
    proxy.plan = Plan()
    async with behind(cluster, proxy) as process:
        await process.logged(msg="caches synced")
        await cluster.done("2")


@pytest.mark.parametrize("carried_out", [False, True], ids=["never sent", "carried out and never answered"])
async def test_killed_at_a_write_of_each_kind(cluster: World, proxy: FaultProxy, carried_out: bool):
    await outdated(cluster, 2)
    for kind in KINDS:
        await killed(cluster, proxy, kind, carried_out=carried_out)
    await finished(cluster, proxy)
    assert len(cluster.evicted()) == len(cluster.names)
    assert not await cluster.violations(at_rest=True)


async def test_a_write_that_arrives_after_the_next_process_made_it(cluster: World, proxy: FaultProxy):
    await outdated(cluster, 1)
    late = await killed(cluster, proxy, KINDS[0])
    for kind in KINDS[1:]:
        held = await killed(cluster, proxy, kind)  # which comes after the one before it
        assert await late.carry_out() in REFUSED, f"{late.call} was made once more, when its sender was dead"
        late = held
    await finished(cluster, proxy)
    assert await late.carry_out() in REFUSED
    assert not await cluster.violations(at_rest=True)


async def test_a_write_that_arrives_just_before_the_next_process_makes_it(cluster: World, proxy: FaultProxy):
    await outdated(cluster, 1)
    proxy.plan = holding(cluster, KINDS[:1])
    async with AsyncExitStack() as processes:
        process = await processes.enter_async_context(behind(cluster, proxy))
        for number, kind in enumerate(KINDS):
            late = await proxy.holds()
            process.kill()
            proxy.plan = holding(cluster, [kind])
            process = await processes.enter_async_context(behind(cluster, proxy))
            own = await proxy.holds()
            assert own.call == late.call
            proxy.plan = holding(cluster, KINDS[number + 1 : number + 2])
            assert await late.carry_out() in ACCEPTED
            if kind in OF_PODS:
                await let_go(cluster)
                await cluster.api.wait_gone(PODS, late.call.name, late.call.namespace)
            assert await own.send_on() in REFUSED, f"{own.call} was made twice"
        await cluster.done("2")
    assert not await cluster.violations(at_rest=True)
