"""Every kind of write of an upgrade, to be held on its way by the proxy."""

from collections.abc import Iterable

from tests.cluster.process import Process
from tests.cluster.world import World
from tools.controlplane import scene
from tools.controlplane.resources import PODS
from tools.faultproxy.plan import Fault, Kind, Plan, Rule

KINDS = ("grant", "cordon", "eviction", "transition", "deletion", "uncordon")
"""In the order in which a node goes through them."""
AFTER_EVICTION = "transition"
OF_PODS = {"eviction": "evict", "deletion": "delete"}
ACCEPTED, REFUSED = (200, 201), (404, 409)


def holding(cluster: World, kinds: Iterable[str]) -> Plan:
    """Holds the next write of each of these kinds."""
    bodies = {
        "grant": f'"{cluster.state_label}":"cordon-required"',
        "cordon": '"unschedulable":true',
        "transition": f'"{cluster.state_label}":"pod-restart-required"',
        "uncordon": '"unschedulable":null',
    }
    held = (Fault(Kind.HELD),)
    return Plan(
        rules=[
            Rule(held, (OF_PODS[kind],), ("pods",), times=1)
            if kind in OF_PODS
            else Rule(held, ("patch",), ("nodes",), times=1, containing=bodies[kind].encode())
            for kind in kinds
        ]
    )


async def outdated(cluster: World, nodes: int) -> None:
    """Nodes with an old driver and a workload each, which is evicted and stays; nobody has begun yet."""
    for number, node in enumerate(await cluster.nodes(nodes)):
        spec = scene.pod_spec() | {"nodeSelector": cluster.selector(node)}
        name = f"web-{number}"
        await cluster.api.create(scene.deployment(name, cluster.work, annotations=scene.stage(stuck="true"), spec=spec))
        await cluster.ready(1, f"app={name}", cluster.work)
    await cluster.driver("1")
    await cluster.policy(drain={"timeoutSeconds": 300})
    await cluster.roll("2")


async def seen_leaving(cluster: World, process: Process) -> None:
    """Waits until a process has seen that a workload was evicted, whoever did it; only then may they be gone."""
    await process.logged(msg="node waits", reason="PodTerminating")
    await let_go(cluster)


async def let_go(cluster: World) -> None:
    """Workloads that are evicted end now."""
    goes = {"metadata": {"annotations": dict.fromkeys(scene.stage(stuck=""))}}
    for pod in await cluster.api.list(PODS, cluster.work):
        await cluster.api.patch(PODS, pod["metadata"]["name"], goes, cluster.work)
