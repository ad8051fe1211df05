"""The demo's cluster: nodes in three zones, a driver on all but one, workloads that mind being moved.

- Every node but the last runs version OLD of the driver from a DaemonSet with updateStrategy OnDelete.
- The last node uses the driver of its operating system until, with the upgrade, it is taken into the pool of a second
  DaemonSet, whose init container waits for safe loading, as the node already has workloads.
- `web` and `inference` are Deployments with a PodDisruptionBudget; their pods take a while to be ready, so that the
  budget is spent at times and a drain has to wait for it.
- `training` is a Job on the first node, and the policy says to wait for such jobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.controllerprocess import CRDS
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Object, Objects

OLD = "570.195.03"
NEW = "580.95.05"
POLICY = "gpu"
KIND = "DriverUpgradePolicy"
JOB_LABEL = "training"
SAFE_LOAD_SET = f"{scene.DRIVER}-safe-load"
_POOL = "driver-upgrade.test/pool"
_SAFE_LOAD_POOL = {_POOL: "safe-load"}
_ORDINARY_POOL = {_POOL: "ordinary"}
_SETTLE_SECONDS = 120.0
_NEW_IMAGE = f"{scene.DRIVER_IMAGE}:{NEW}"


@dataclass(frozen=True)
class Script:
    """What is played."""

    nodes: int = 24
    parallel: int = 4
    zones: int = 3
    driver_seconds: float = 2.0
    """How long a driver takes to compile and load."""
    job_seconds: float = 14.0
    """How long the batch job runs, from before the upgrade on."""

    @property
    def ordinary(self) -> Objects:
        """The nodes that have a container driver from the beginning."""
        return self._all()[:-1]

    @property
    def newcomer(self) -> Object:
        """The node whose driver is loaded safely."""
        node = self._all()[-1]
        del node["metadata"]["labels"][_POOL]
        return node

    def _all(self) -> Objects:
        return scene.nodes(self.nodes, zones=self.zones, labels=_ORDINARY_POOL)


def daemon_set(script: Script, version: str, *, safe_load: bool = False) -> Object:
    """The driver's DaemonSet, or the one of the node whose driver is loaded safely."""
    made = scene.driver_daemon_set(
        version,
        name=SAFE_LOAD_SET if safe_load else scene.DRIVER,
        safe_load=POLICY if safe_load else "",
        node_selector=_SAFE_LOAD_POOL if safe_load else _ORDINARY_POOL,
        annotations=scene.stage(ready_delay=f"{script.driver_seconds:g}s"),
    )
    made["spec"]["template"]["metadata"]["labels"]["driver"] = POLICY
    return made


def policy(script: Script, version: str) -> Object:
    """The custom resource that the demo is about."""
    upgrade = {
        "autoUpgrade": True,
        "maxParallelUpgrades": script.parallel,
        "waitForCompletion": {"podSelector": f"app={JOB_LABEL}"},
        "drain": {"enable": True},
    }
    driver = {"podSelector": {"matchLabels": {"driver": POLICY}}, "version": version, "upgradePolicy": upgrade}
    return {
        "apiVersion": "nvidia.com/v1",
        "kind": KIND,
        "metadata": {"name": POLICY, "namespace": scene.NAMESPACE},
        "spec": {"driver": driver},
    }


def workloads(script: Script) -> Objects:
    """Budgets and Deployments: about two pods a node."""
    slow, quick = scene.stage(start_delay="1500ms", delete_delay="800ms"), scene.stage(delete_delay="600ms")
    count = script.nodes
    return [
        scene.budget("web", max_unavailable=max(1, count // 12)),
        scene.deployment("web", replicas=count, annotations=slow),
        scene.budget("inference", max_unavailable="25%"),
        scene.deployment("inference", replicas=count * 3 // 4, annotations=quick),
    ]


def job(script: Script) -> Object:
    """The batch job, bound to the first node."""
    first = script.ordinary[0]["metadata"]["name"]
    spec = scene.pod_spec(on_node=first, restart="Never")
    return scene.job("training", duration=f"{script.job_seconds:g}s", labels={"app": JOB_LABEL}, spec=spec)


async def install(api: Api, script: Script) -> None:
    """Makes everything but the job, and waits until all of it is ready."""
    for crd in CRDS:
        await api.apply(crd.read_text())
    await api.create(scene.namespace(scene.NAMESPACE))
    await api.create_many([*script.ordinary, script.newcomer])
    await api.create_many([daemon_set(script, OLD), daemon_set(script, OLD, safe_load=True), *workloads(script)])
    await api.wait_for(PODS, scene.all_ready(script.nodes - 1), scene.NAMESPACE, timeout=_SETTLE_SECONDS)
    count = sum(obj["spec"]["replicas"] for obj in workloads(script) if obj["kind"] == "Deployment")
    await api.wait_for(PODS, scene.all_ready(count), "default", timeout=_SETTLE_SECONDS)
    await api.wait_for(POD_DISRUPTION_BUDGETS, _settled, timeout=_SETTLE_SECONDS)
    await api.create(policy(script, OLD))


async def change_version(api: Api, script: Script) -> None:
    """What the demo is about: the custom resource asks for another version; and the last node gets the driver, too."""
    resource = await api.resource("nvidia.com/v1", KIND)
    await api.patch(resource, POLICY, {"spec": {"driver": {"version": NEW}}}, scene.NAMESPACE)
    await api.wait_for_object(DAEMON_SETS, SAFE_LOAD_SET, _is_new, scene.NAMESPACE)
    await api.patch(NODES, script.newcomer["metadata"]["name"], {"metadata": {"labels": _SAFE_LOAD_POOL}})


async def drivers_are_new(api: Api) -> bool:
    """Whether every DaemonSet's pods carry the new version: asked once, at the end."""
    sets, pods = await api.list(DAEMON_SETS, scene.NAMESPACE), await api.list(PODS, scene.NAMESPACE)
    wanted = sum(each["status"]["desiredNumberScheduled"] for each in sets)
    good = [pod for pod in pods if _image(pod["spec"]) == _NEW_IMAGE and scene.is_ready(pod)]
    return bool(len(good) == len(pods) == wanted)


def _is_new(daemon_set: Object) -> bool:
    seen = daemon_set["status"].get("observedGeneration") == daemon_set["metadata"]["generation"]
    return seen and _image(daemon_set["spec"]["template"]["spec"]) == _NEW_IMAGE


def _image(spec: Object) -> str:
    return str(spec["containers"][0]["image"])


def _settled(budgets: Sequence[Object]) -> bool:
    statuses = [budget.get("status", {}) for budget in budgets]
    return all(status.get("expectedPods") and status["currentHealthy"] == status["expectedPods"] for status in statuses)
