"""The vocabulary of the tests: a pool of nodes, a driver, workloads and a policy of the test's own, in one control plane.

Everything of a world bears its name: the label `pool` of the nodes, the namespace of driver and policy, the driver, the
policy; workloads live in `<pool>-work`. So worlds do not meet, whatever a test leaves behind. Times are short, but nothing
depends on how short: whatever is awaited is seen on a watch.
"""

import asyncio
import secrets
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cluster.evidence import Evidence
from tests.cluster.judge import Case, judge
from tests.cluster.process import Process, running
from tests.cluster.recorder import Recorder
from tools.account import Account
from tools.controlplane import safeload, scene
from tools.controlplane.api import PATIENCE, Api, ApiError
from tools.controlplane.audit import AuditLog, Request, writes
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import (
    DAEMON_SETS,
    NAMESPACES,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    Object,
    Objects,
    Resource,
)
from tools.controlplane.resources import JOBS as JOBS_API
from tools.manifests import Place

SEEDS = Resource("nvidia.com/v1", "customresources", "CustomResource")
POLICIES = Resource("nvidia.com/v1", "driverupgradepolicies", "DriverUpgradePolicy")
DONE, FAILED, REQUIRED = "upgrade-done", "upgrade-failed", "upgrade-required"
DRAIN, RESTART, VALIDATION = "drain-required", "pod-restart-required", "validation-required"
JOBS = "wait-for-jobs-required"
FAST_DRIVER = scene.stage(ready_delay="300ms", delete_delay="50ms", crash_delay="50ms", crash_back_off="50ms")
FAST_WORK = scene.stage(delete_delay="100ms")
DAY = 86_400.0
LATE_LINES = 5.0
CONFLICT = 409
ACCEPTED = range(200, 300)


class World:
    """One test's part of the cluster; made by `world`."""

    def __init__(
        self,
        api: Api,
        control_plane: ControlPlane,
        pool: str,
        driver: str = "",
        namespace: str = "",
        domain: str = "nvidia.com",
        folder: str = "base",
    ) -> None:
        self.api = api
        self.domain = domain
        self.control_plane = control_plane
        self.pool = pool
        self.driver_name = driver or pool
        self.namespace = namespace or pool
        self.work = f"{pool}-work"
        place = Place(self.namespace, self.namespace, pool, domain)
        self.account = Account(api, control_plane.access, place, control_plane.directory, folder)
        """Who the controller is."""
        self.names: list[str] = []
        """The nodes."""
        self.processes: list[Process] = []
        """Every controller that was started."""
        self.state_label = self.key("upgrade-state")
        self.recorder = Recorder(api, pool, self.state_label, (self.namespace, self.work))
        self.evidence = Evidence(api, f"pool={pool}", (self.namespace, self.work), domain)
        self._done = 0
        self._audit = AuditLog(control_plane.audit_log) if control_plane.components else None
        self._witness = AuditLog(control_plane.audit_log) if control_plane.components else None
        self._witnessed: list[Request] = []
        if self._witness:
            self._witness.skip()
        self._writes: list[Request] = []
        if self._audit:
            self._audit.skip()

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
        """A workload on every node that its budget does not let go, until `release`: which node comes first is open."""
        for number, node in enumerate(self.names):
            await self.workload(f"held-{number}", node=node, labels={"held": "yes"})
        held = scene.budget("hold", self.work, labels={"held": "yes"}, min_available=len(self.names))
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

    async def condition(self, kind: str, status: str, *, name: str = "", namespace: str = "", reason: str = "") -> Object:
        """Waits until a policy has a condition and returns it."""

        def find(policy: Object) -> Object:
            found = (c for c in policy.get("status", {}).get("conditions", ()) if c["type"] == kind)
            return next((c for c in found if c["status"] == status and reason in {"", c["reason"]}), {})

        what = f"condition {kind}={status} {reason}"
        return find(
            await self.api.wait_for_object(POLICIES, name or self.pool, find, namespace or self.namespace, what=what)
        )

    async def status(self, predicate: Callable[[Object], object]) -> Object:
        """Waits until the policy's status satisfies a predicate and returns it."""
        found = await self.api.wait_for_object(
            POLICIES, self.pool, lambda p: "status" in p and predicate(p["status"]), self.namespace, what="status"
        )
        status: Object = found["status"]
        return status

    @asynccontextmanager
    async def controller(self, *flags: str, kubeconfig: Path | None = None, mutant: str = "") -> AsyncIterator[Process]:
        """Runs the controller over this world; it is stopped at the end, and must then have done without a crash.

        Without a `kubeconfig` it is a replica of its own account, which has the permissions of the manifests and no more.
        `mutant` names a defect of tests/sim/mutations.py to run with.
        """
        if kubeconfig is None:
            replica = await self.account.replica()
            kubeconfig, flags = replica.kubeconfig, (*replica.flags, *flags)
        sources = (value for flag, value in pairwise(flags) if flag == "--source")
        await self.evidence.configured(dict(source.split("=", 1) for source in sources))
        async with running(kubeconfig, self.namespace, *flags, mutant=mutant) as process:
            self.processes.append(process)
            yield process

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
        key = self.key("upgrade.record")
        while True:
            meta = (await self.api.get(NODES, node))["metadata"]
            record = orjson.loads(meta["annotations"][key])
            record["since"] -= DAY
            record["entered"] = {state: at - DAY for state, at in record["entered"].items()}
            marks = {"resourceVersion": meta["resourceVersion"], "annotations": {key: orjson.dumps(record).decode()}}
            try:
                await self.api.patch(NODES, node, {"metadata": marks})
            except ApiError as error:
                if error.code != CONFLICT:
                    raise
            else:
                return

    async def state(self, wanted: str, *names: str) -> None:
        """Waits until nodes (all, where none is named) have a state."""
        await self.nodes_are(lambda node: self.state_of(node) == wanted, names, f"state {wanted}")

    async def any_in(self, wanted: str, count: int = 1) -> str:
        """Waits until that many nodes have a state; returns the name of one of them."""

        def found(nodes: Sequence[Object]) -> str:
            names = [node["metadata"]["name"] for node in nodes if self.state_of(node) == wanted]
            return str(names[0]) if len(names) >= count else ""

        return await self.api.wait_for(NODES, found, labels=f"pool={self.pool}", what=f"{count} nodes in {wanted}")

    async def done(self, version: str, *names: str, cordoned: Iterable[str] = ()) -> None:
        """Waits until nodes (all, where none is named) run a version, are done, and open unless they are `cordoned`."""
        chosen, closed = set(names or self.names), set(cordoned)

        def current(pods: Sequence[Object]) -> bool:
            mine = [pod for pod in pods if pod["spec"].get("nodeName") in chosen and not _is_mark(pod)]
            good = [p for p in mine if p["spec"]["containers"][0]["image"].endswith(f":{version}") and scene.is_ready(p)]
            return len(good) == len(mine) == len(chosen)

        def finished(node: Object) -> bool:
            is_closed = bool(node["spec"].get("unschedulable"))
            return self.state_of(node) == DONE and is_closed == (node["metadata"]["name"] in closed)

        await self.api.wait_for(PODS, current, self.namespace, what=f"driver {version} on {sorted(chosen)}")
        await self.nodes_are(finished, names, "done")
        if not names:
            self._done = await self.evidence.now()

    async def nodes_are(self, predicate: Callable[[Object], object], names: Sequence[str] = (), what: str = "nodes") -> None:
        """Waits until nodes (all, where none is named) satisfy a predicate."""
        chosen, seen = set(names or self.names), dict[str, str]()

        def hold(nodes: Sequence[Object]) -> bool:
            mine = [node for node in nodes if node["metadata"]["name"] in chosen]
            seen.update({n["metadata"]["name"]: f"{self.state_of(n)} {n['spec'].get('unschedulable', '')}" for n in mine})
            return len(mine) == len(chosen) and all(map(predicate, mine))

        try:
            await self.api.wait_for(NODES, hold, labels=f"pool={self.pool}")
        except TimeoutError:
            raise AssertionError(f"not {what} within {PATIENCE:g} s: {seen}") from None

    def state_of(self, node: Object) -> str:
        """The node's state label; empty where it has none."""
        return str(node["metadata"]["labels"].get(self.state_label, ""))

    async def gone(self, *pods: Object) -> None:
        """Waits until pods are gone."""
        for pod in pods:
            meta = pod["metadata"]
            await self.api.wait_gone(PODS, meta["name"], meta["namespace"], uid=meta["uid"])

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

    def evicted(self) -> list[str]:
        """Names of the pods whose eviction was accepted, in order, once for each time."""
        if self._audit is None:
            pytest.skip("the cluster was given: there is no audit log")
        return [r.name for r in self._requests() if r.subresource == "eviction" and r.code in ACCEPTED]

    def check_requests(self) -> None:
        """The controller evicts no workload twice, and deletes none."""
        accepted = [r.name for r in self._requests() if r.subresource == "eviction" and r.code in ACCEPTED]
        assert len(set(accepted)) == len(accepted), f"evicted twice: {accepted}"
        other = [r for r in self._requests() if r.subresource != "eviction"]
        assert not other, f"a workload is evicted, never written otherwise: {other}"

    async def violations(self, *, at_rest: bool = False) -> list[str]:
        """What the checker of the invariants says, which judges from outside; `at_rest`: all is done that can be done."""
        case = Case(self.evidence, await self.witnessed(), self.namespace, self.processes, self._done)
        return judge(case, at_rest=at_rest)

    async def witnessed(self) -> list[Request]:
        """Every write until now, of whatever, as the audit log has it; none where the cluster was given.

        A line comes a moment after its answer. Whose write was carried out when its sender was killed has none that says so.
        """
        await self.evidence.caught_up()
        if self._witness is None:
            return []
        deadline = time.monotonic() + LATE_LINES
        while True:
            self._witnessed += [request for request in self._witness.read() if request.is_write]
            if not self.evidence.unexplained(self._witnessed) or time.monotonic() > deadline:
                return self._witnessed
            await asyncio.sleep(0.02)

    def _requests(self) -> list[Request]:
        """Writes of pods of the workload namespace, by any controller."""
        if self._audit is not None:
            self._writes += writes(self._audit.read(), "driver-upgrade")
        return [r for r in self._writes if r.namespace == self.work and r.resource == "pods"]

    def safe_load_key(self) -> str:
        """The annotation that says: the driver waits to be loaded."""
        return safeload.annotation(self.driver_name)

    async def remove(self) -> None:
        """Takes everything of this world out of the cluster; what ends by itself is not waited for."""
        await self.api.request("DELETE", POLICIES.path(self.namespace))
        if self.namespace == self.pool:
            await self.api.delete(NAMESPACES, self.namespace)
        else:
            for resource in (SEEDS, DAEMON_SETS):
                await self.api.request("DELETE", resource.path(self.namespace))
        await self.api.delete(NAMESPACES, self.work)
        for namespace in (self.namespace, self.work):
            await self.api.request("DELETE", PODS.path(namespace), {"gracePeriodSeconds": 0})
        await self.api.request("DELETE", NODES.path(), labelSelector=f"pool={self.pool}")
        await self.account.remove()


@asynccontextmanager
async def world(
    api: Api,
    control_plane: ControlPlane,
    driver: str = "",
    namespace: str = "",
    domain: str = "nvidia.com",
    folder: str = "base",
) -> AsyncIterator[World]:
    """A fresh world, recorded from the start; what must always hold is checked at the end.

    Its controllers have the permissions of the manifests in `folder`.
    """
    made = World(api, control_plane, f"w-{secrets.token_hex(3)}", driver, namespace, domain, folder)
    await api.apply([scene.namespace(name) for name in (made.namespace, made.work)])
    await made.account.create()
    try:
        async with made.recorder, made.evidence:
            yield made
            await made.recorder.caught_up()
            violations = await made.violations()
        assert not violations, "\n".join(["The checker found violations:", *violations])
        made.recorder.check_edges()
        made.recorder.check_departures(made.work)
        made.check_requests()
    finally:
        await made.remove()


def _is_mark(pod: Object) -> bool:
    return bool(pod["metadata"]["name"].startswith("mark-"))
