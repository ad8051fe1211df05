"""The vocabulary of the tests: a pool of nodes, a driver, workloads and a policy of the test's own, in one control plane.

Everything of a pool bears its name: the label `pool` of the nodes, the namespace of driver and policy, the driver, the
policy; workloads live in `<pool>-work`. So tests do not meet, whatever one leaves behind. Times are short, but nothing
depends on how short: whatever is awaited is seen on a watch. Who watches it and judges is in `world.py`.
"""

import asyncio
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from tools.controlplane import safeload, scene
from tools.controlplane.api import PATIENCE, Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Object, Objects, Resource
from tools.controlplane.resources import JOBS as JOBS_API

SEEDS = Resource("nvidia.com/v1", "customresources", "CustomResource")
POLICIES = Resource("nvidia.com/v1", "driverupgradepolicies", "DriverUpgradePolicy")
DONE, FAILED, REQUIRED = "upgrade-done", "upgrade-failed", "upgrade-required"
DRAIN, RESTART, VALIDATION = "drain-required", "pod-restart-required", "validation-required"
JOBS = "wait-for-jobs-required"
FAST_DRIVER = scene.stage(ready_delay="300ms", delete_delay="50ms", crash_delay="50ms", crash_back_off="50ms")
FAST_WORK = scene.stage(delete_delay="100ms")
DAY = 86_400.0
CONFLICT = 409


class Pool:
    """One test's part of the cluster: what is there, and how people change it."""

    def __init__(
        self,
        api: Api,
        control_plane: ControlPlane,
        pool: str,
        driver: str = "",
        namespace: str = "",
        domain: str = "nvidia.com",
    ) -> None:
        self.api = api
        self.domain = domain
        self.control_plane = control_plane
        self.pool = pool
        self.driver_name = driver or pool
        self.namespace = namespace or pool
        self.work = f"{pool}-work"
        self.names: list[str] = []
        """The nodes."""
        self.state_label = self.key("upgrade-state")

    def key(self, end: str) -> str:
        """A label or annotation of this driver: `key("upgrade-state")`, `key("upgrade.skip")`."""
        return f"{self.domain}/{self.driver_name}-driver-{end}"

    async def nodes(self, count: int, **labels: str) -> list[str]:
        """Adds fake nodes and waits until they are ready."""
        prefix = f"{self.pool}-n{len(self.names) + 1}"
        made = scene.nodes(count, prefix=prefix, labels={"pool": self.pool, **labels})
        names = [node["metadata"]["name"] for node in await self.api.create_many(made)]
        self.names += names
        await self.api.wait_for(NODES, scene.all_ready(len(self.names)), labels=f"pool={self.pool}", what="nodes ready")
        return names

    async def driver(self, version: str = "1", *, name: str = "driver", safe_load: bool = False, **options: Any) -> None:
        """Deploys the driver on the nodes; waits until it is ready on all, unless it waits for safe loading."""
        options = {"annotations": FAST_DRIVER, "node_selector": {"pool": self.pool}, **options}
        load = self.driver_name if safe_load else ""
        await self.api.create(
            scene.driver_daemon_set(version, name=name, namespace=self.namespace, safe_load=load, **options)
        )
        if not safe_load:
            await self.ready(len(self.names), f"app={name}", self.namespace)

    async def roll(self, version: str, *, name: str = "driver", env: Mapping[str, str] | None = None) -> None:
        """The driver's owner asks for another version."""
        container: Object = {"name": "driver", "image": f"{scene.DRIVER_IMAGE}:{version}"}
        if env:
            container["env"] = [{"name": key, "value": value} for key, value in env.items()]
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await self.api.patch(DAEMON_SETS, name, body, self.namespace, kind="strategic")

    async def revised(self, name: str = "driver") -> None:
        """Waits until the DaemonSet's controller knows it as it is: a pod that it makes then is of the newest revision."""
        wanted = (await self.api.get(DAEMON_SETS, name, self.namespace))["metadata"]["generation"]
        await self.api.wait_for_object(
            DAEMON_SETS, name, lambda d: d.get("status", {}).get("observedGeneration", 0) >= wanted, self.namespace
        )

    async def workload(
        self, name: str = "web", replicas: int = 1, *, node: str = "", labels: Mapping[str, str] = {}, **spec: Any
    ) -> Objects:
        """A Deployment on the nodes (or on one of them), running; returns its pods. `spec` as for `scene.pod_spec`."""
        made = scene.pod_spec(**spec) | {"nodeSelector": self.selector(node)}
        await self.api.create(scene.deployment(name, self.work, replicas, labels=labels, annotations=FAST_WORK, spec=made))
        return await self.ready(replicas, f"app={name}", self.work)

    async def hold(self) -> None:
        """A workload on every node that its budget does not let go, until `release`: which node comes first is open.

        The budget wants one more than there are. Of one that has enough, a pod that is not ready may be evicted
        (IfHealthyBudget): that of a node which is not ready, say, until the budget's controller has counted again.
        """
        for number, node in enumerate(self.names):
            await self.workload(f"held-{number}", node=node, labels={"held": "yes"})
        held = scene.budget("hold", self.work, labels={"held": "yes"}, min_available=len(self.names) + 1)
        await self.api.create(held)

    async def release(self) -> None:
        """Takes the budget of `hold` away."""
        await self.api.delete(POD_DISRUPTION_BUDGETS, "hold", self.work)

    async def pod(self, name: str, node: str, *, labels: Mapping[str, str] = {}, **spec: Any) -> Object:
        """A bare pod on a node, running."""
        made = scene.pod_spec(**spec) | {"nodeSelector": self.selector(node)}
        await self.api.create(scene.pod(name, self.work, labels=labels, annotations=FAST_WORK, spec=made))
        return await self.api.wait_for_object(PODS, name, scene.is_ready, self.work)

    async def job(self, name: str, node: str, duration: str, **labels: str) -> Object:
        """A Job on a node, running."""
        spec = scene.pod_spec(restart="Never") | {"nodeSelector": self.selector(node)}
        await self.api.create(scene.job(name, self.work, duration=duration, labels=labels, spec=spec))
        return (await self.ready(1, f"app={name}", self.work))[0]

    async def finish(self, *pods: Object) -> None:
        """Lets the pods of Jobs come to their end, whatever duration they had."""
        for meta in (pod["metadata"] for pod in pods):
            ends = {"metadata": {"annotations": scene.stage(run_duration="1ms")}}
            await self.api.patch(PODS, meta["name"], ends, meta["namespace"])

    async def next_second(self) -> None:
        """Waits until what is created now is younger than what was, by creationTimestamps, which count seconds."""
        job = scene.job(
            "second", self.work, duration="1s", spec=scene.pod_spec(restart="Never") | {"nodeSelector": self.selector()}
        )
        await self.api.create(job)
        await self.api.wait_for_object(JOBS_API, "second", lambda job: job["status"].get("succeeded"), self.work)

    def selector(self, node: str = "") -> dict[str, str]:
        """A nodeSelector for one node, or for all of the pool."""
        return {"kubernetes.io/hostname": node} if node else {"pool": self.pool}

    async def ready(self, count: int, labels: str, namespace: str) -> Objects:
        """Waits until so many pods are there, all ready; returns them."""

        def all_ready(pods: Sequence[Object]) -> Objects:
            return list(pods) if scene.all_ready(count)(pods) else []

        return await self.api.wait_for(PODS, all_ready, namespace, labels=labels, what=f"{count} ready pods {labels}")

    async def policy(
        self,
        *,
        name: str = "",
        namespace: str = "",
        parallel: int = 1,
        drain: Mapping[str, Any] | None = {},
        select: Mapping[str, str] | None = None,
        app: str = "driver",
        **fields: Any,
    ) -> Object:
        """Creates a policy for the pool (or for what `select` says); `drain` None switches the drain off."""
        upgrade = {"autoUpgrade": True, "maxParallelUpgrades": parallel, **fields}
        if drain is not None:
            upgrade["drain"] = {"enable": True, **drain}
        driver = {
            "name": self.driver_name,
            "podSelector": {"matchLabels": {"app": app}},
            "nodeSelector": {"matchLabels": dict(select if select is not None else {"pool": self.pool})},
            "upgradePolicy": upgrade,
        }
        metadata = {"name": name or self.pool, "namespace": namespace or self.namespace}
        return await self.api.create(
            {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind, "metadata": metadata, "spec": {"driver": driver}}
        )

    async def edit(self, *, name: str = "", **fields: Any) -> None:
        """Changes fields of a policy's upgradePolicy."""
        body = {"spec": {"driver": {"upgradePolicy": fields}}}
        await self.api.patch(POLICIES, name or self.pool, body, self.namespace)

    async def annotate(self, node: str, **annotations: str | None) -> None:
        """Sets annotations of this driver on a node, None removes; `_` in a name stands for a `-`."""
        named = {self.key(name.replace("_", "-")): value for name, value in annotations.items()}
        await self.api.patch(NODES, node, {"metadata": {"annotations": named}})

    async def skip(self, *nodes: str) -> None:
        """Sets the skip label: which node is looked at first, and so granted first, is open where several may go."""
        for node in nodes:
            await self.api.patch(NODES, node, {"metadata": {"labels": {self.key("upgrade.skip"): "true"}}})

    async def unskip(self, *nodes: str) -> None:
        """Takes the skip label off."""
        for node in nodes:
            await self.api.patch(NODES, node, {"metadata": {"labels": {self.key("upgrade.skip"): None}}})

    async def expire(self, node: str) -> None:
        """Lets a deadline pass when its time has come in the test: the times in the node's record are set back by a day.

        A deadline of a second passes on a slow machine before what the test is about has happened, and for other nodes too.
        """

        def set_back(record: Object) -> None:
            record["since"] -= DAY
            record["entered"] = {state: at - DAY for state, at in record["entered"].items()}

        await self.rewrite(node, set_back)

    async def rewrite(self, node: str, change: Callable[[Object], None]) -> None:
        """Changes the record of a node as it is at that moment, whatever the controller writes meanwhile."""
        key = self.key("upgrade.record")
        while True:
            meta = (await self.api.get(NODES, node))["metadata"]
            record = orjson.loads(meta["annotations"][key])
            change(record)
            marks = {"resourceVersion": meta["resourceVersion"], "annotations": {key: orjson.dumps(record).decode()}}
            try:
                await self.api.patch(NODES, node, {"metadata": marks})
            except ApiError as error:
                if error.code != CONFLICT:
                    raise
            else:
                return

    def state_of(self, node: Object) -> str:
        """The node's state label; empty where it has none."""
        return str(node["metadata"]["labels"].get(self.state_label, ""))

    async def driver_pod(self, node: str) -> Object:
        """The driver pod on a node."""
        pods = await self.api.list(PODS, self.namespace, labels="app=driver", fields=f"spec.nodeName={node}")
        assert len(pods) == 1
        return pods[0]

    async def shell(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a script of an administrator, who has kubectl."""
        environment = f"export KUBECONFIG={shlex.quote(str(self.control_plane.kubeconfig))}; "
        run = ["bash", "-c", environment + script]
        answer = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert not check or answer.returncode == 0, f"{script}\n{answer.stdout}{answer.stderr}"
        return answer

    def safe_load_key(self) -> str:
        """The annotation that says: the driver waits to be loaded."""
        return safeload.annotation(self.driver_name)
