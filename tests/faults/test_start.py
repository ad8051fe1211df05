"""A controller that starts while nothing answers as it should, over real connections: it gives nothing back half upgraded.

What it does not know yet, or is told wrongly at first, is no reason to do anything. Whenever a process starts two nodes are
in the middle of their upgrade, held there by a budget, and what it makes of them is judged by the checker.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.process import Process
from tests.cluster.world import DONE, DRAIN, RESTART, World
from tests.faults.rollout import at_rest, behind, first
from tools.faultproxy.plan import Fault, Kind, Plan, Rule
from tools.faultproxy.proxy import REWOUND, FaultProxy

RESOURCES = ("nodes", "pods", "daemonsets", "controllerrevisions", "poddisruptionbudgets", "driverupgradepolicies")
NO_WATCH_LIST = Fault(Kind.REFUSED, 400)
NOT_FOUND = Fault(Kind.REFUSED, 404)
BROKEN = Fault(Kind.REFUSED, 500)
GONE = Fault(Kind.REFUSED, 410)
THROTTLED = Fault(Kind.REFUSED, 429, retry_after=1)
CUT_SHORT = Fault(Kind.TRUNCATED)
RESET = Fault(Kind.LOST)
SILENT = Fault(Kind.HANGS, seconds=0.7)
STARTS = (
    (GONE, GONE),
    (NOT_FOUND, NOT_FOUND),
    (BROKEN, BROKEN),
    (THROTTLED, THROTTLED),
    (CUT_SHORT, CUT_SHORT),
    (RESET, RESET),
    (SILENT, SILENT),
)
"""What befalls, in one start, the first watch of each resource and then its first list.

A 404 is never the next answer after another: that would be believed of what may be absent.
"""


def wrong(watched: Fault, listed: Fault) -> Plan:
    """The first watch, which is to begin with the state, and the first list, as the next such watch is refused for good."""
    rules = []
    for resource in RESOURCES:
        rules += [Rule((fault,), ("watch",), (resource,), times=1) for fault in (watched, NO_WATCH_LIST)]
        rules.append(Rule((listed,), ("list",), (resource,), times=1))
    return Plan(1, rules)


async def knows(cluster: World, controller: Process, **why: str) -> None:
    """Waits until a process has seen why each node waits, or has wrongly done something with it."""
    for node in cluster.names:
        await first(controller.logged(msg="node waits", node=node, **why), controller.logged(msg="node moved", node=node))


@asynccontextmanager
async def past(cluster: World, proxy: FaultProxy, version: str) -> AsyncIterator[Process]:
    """A process that is told of everything as it was at a version, until the proxy thaws."""
    for resource in RESOURCES:
        proxy.rewind(resource, version)
    async with behind(cluster, proxy) as process:
        for resource in RESOURCES:
            await proxy.happens(REWOUND, resource=resource)
        yield process


async def begun(cluster: World, process: Process) -> str:
    """A rollout by the first process, that stays in drain until `release`; returns the version from before it."""
    await cluster.state(DONE)
    before = str(await cluster.evidence.now())
    await cluster.roll("2-nopull")
    await cluster.any_in(DRAIN, len(cluster.names))
    await process.logged(msg="node waits", reason="PodDisruptionBudget")
    return before


async def held(cluster: World) -> None:
    """Nodes that are all upgraded at once, as soon as there is something to do, and stay in drain."""
    await at_rest(cluster)
    await cluster.edit(maxParallelUpgrades=len(cluster.names))
    await cluster.hold()


async def test_a_restart_while_the_first_answers_are_wrong(cluster: World, proxy: FaultProxy):
    """Each kind of wrong answer in turn, to all resources at once."""
    await held(cluster)
    proxy.plan = wrong(*STARTS[0])
    async with behind(cluster, proxy) as process:
        await proxy.spent()
        await begun(cluster, process)
    for faults in STARTS[1:]:
        proxy.plan = wrong(*faults)
        async with behind(cluster, proxy) as process:
            await proxy.spent()
            await knows(cluster, process, reason="PodDisruptionBudget")
    async with behind(cluster, proxy):
        await cluster.release()
        await cluster.roll("3")
        await cluster.done("3")
    assert not await cluster.violations(at_rest=True)


async def test_a_restart_into_the_past(cluster: World, proxy: FaultProxy):
    """Each process is told of everything as it was before the last one acted, and of the rest when it has looked at that.

    The second does not know of the rollout, though it is in the middle of it; the third takes the pods for there that the
    second has evicted and deleted.
    """
    await held(cluster)
    async with behind(cluster, proxy) as process:
        before = await begun(cluster, process)
    between = str(await cluster.evidence.now())
    async with past(cluster, proxy, before) as process:
        await knows(cluster, process, reason="PodDisruptionBudget")
        await cluster.release()
        await knows(cluster, process, reason="PodTerminating")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == DRAIN and n["spec"]["unschedulable"], what="in drain")
        proxy.thaw()
        for node in cluster.names:
            await process.logged(msg="node waits", node=node, reason="ImagePullFailed")
    async with past(cluster, proxy, between) as process:
        await knows(cluster, process, state=RESTART)
        proxy.thaw()
        await cluster.roll("3")
        await cluster.done("3")
    assert not await cluster.violations(at_rest=True)
