"""The cluster that is rolled: the same for the floor and for the controller, made anew for each.

N fake nodes, one driver pod on each (ready 1 s after it is bound, gone 0.2 s after it is deleted) and two workload pods a
node (gone 0.5 s after their eviction), in N/5 Deployments of ten with a PodDisruptionBudget each. A budget lets half of
its ten pods be away: wide enough that the rollout's own parallelism sets the pace, as it does on a cluster whose owners
let it be maintained, and that what is measured is the controller and not the budgets' patience. Evictions that meet at
one budget still conflict in the API server, and now and then one is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Object, Objects

PODS_PER_NODE = 2
REPLICAS = 10
MAX_UNAVAILABLE = 5
NEW_VERSION = "2"
POLICY = "gpu"
SETTLE_SECONDS = 240.0


class IncompleteError(RuntimeError):
    """A rollout ended without having done all of its work: its figures would mean nothing."""


@dataclass(frozen=True)
class Size:
    """How large a rollout is."""

    nodes: int
    parallel: int

    @property
    def apps(self) -> list[tuple[str, int]]:
        """Name and replicas of each Deployment: ten each, fewer in the last where the nodes do not divide by five."""
        total = PODS_PER_NODE * self.nodes
        return [(f"app-{i}", min(REPLICAS, total - start)) for i, start in enumerate(range(0, total, REPLICAS))]


def workload(size: Size) -> Objects:
    """The Deployments and their budgets."""
    objects: Objects = []
    for name, replicas in size.apps:
        objects.append(scene.budget(name, max_unavailable=min(MAX_UNAVAILABLE, replicas)))
        objects.append(scene.deployment(name, replicas=replicas))
    return objects


def policy(size: Size) -> Object:
    """What the controller is told: drain, so many nodes at a time."""
    upgrade = {"autoUpgrade": True, "maxParallelUpgrades": size.parallel, "drain": {"enable": True}}
    pods = {"matchLabels": {"app": scene.DRIVER}}
    return {
        "apiVersion": "nvidia.com/v1",
        "kind": "DriverUpgradePolicy",
        "metadata": {"name": POLICY, "namespace": scene.NAMESPACE},
        "spec": {"driver": {"podSelector": pods, "upgradePolicy": upgrade}},
    }


async def install(api: Api, size: Size) -> None:
    """Makes the cluster and waits until every pod is ready and every budget knows its pods."""
    await api.create(scene.namespace(scene.NAMESPACE))
    await api.create_many(scene.nodes(size.nodes, zones=3))
    await api.create(scene.driver_daemon_set("1"))
    await api.wait_for(PODS, scene.all_ready(size.nodes), scene.NAMESPACE, timeout=SETTLE_SECONDS)
    await api.create_many(workload(size))
    await api.wait_for(PODS, scene.all_ready(PODS_PER_NODE * size.nodes), "default", timeout=SETTLE_SECONDS)
    await api.wait_for(POD_DISRUPTION_BUDGETS, budgets_settled, timeout=SETTLE_SECONDS)


async def change_version(api: Api) -> Object:
    """Starts the rollout: a new image in the DaemonSet's template. Returns the DaemonSet."""
    template = scene.driver_daemon_set(NEW_VERSION)["spec"]["template"]
    return await api.patch(DAEMON_SETS, scene.DRIVER, {"spec": {"template": template}}, scene.NAMESPACE)


async def confirm(api: Api, size: Size) -> None:
    """Looks whether the rollout did what it should: new drivers, all ready, on schedulable nodes.

    Raises:
        IncompleteError: it did not.
    """
    nodes, drivers = await api.list(NODES), await api.list(PODS, scene.NAMESPACE)
    cordoned = [node["metadata"]["name"] for node in nodes if node["spec"].get("unschedulable")]
    image = f"{scene.DRIVER_IMAGE}:{NEW_VERSION}"
    bad = [pod for pod in drivers if pod["spec"]["containers"][0]["image"] != image or not scene.is_ready(pod)]
    wrong = (cordoned, [pod["metadata"]["name"] for pod in bad])
    if any(wrong) or len(drivers) != size.nodes:
        raise IncompleteError(f"the rollout is not complete: cordoned {wrong[0]}, drivers not as they should be {wrong[1]}")


def budgets_settled(budgets: Sequence[Object]) -> bool:
    """Whether every budget knows its pods, and all of them are there."""
    statuses = [budget.get("status", {}) for budget in budgets]
    return all(status.get("expectedPods") and status["currentHealthy"] == status["expectedPods"] for status in statuses)
