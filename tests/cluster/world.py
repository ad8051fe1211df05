"""A part of the cluster of a test's own that is watched: what is awaited is seen on a watch, and the end is judged."""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tests.cluster.evidence import Evidence
from tests.cluster.judge import Case, judge, rule_of
from tests.cluster.pool import (
    DONE,
    DRAIN,
    FAILED,
    FAST_DRIVER,
    FAST_WORK,
    JOBS,
    POLICIES,
    REQUIRED,
    RESTART,
    SEEDS,
    VALIDATION,
    Pool,
)
from tests.cluster.process import Process, running
from tests.cluster.recorder import Recorder
from tests.cluster.witness import Witness
from tests.controlplane import namespace_ready
from tools.account import Account
from tools.controlplane import scene
from tools.controlplane.api import PATIENCE, Api
from tools.controlplane.audit import Request
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import DAEMON_SETS, NAMESPACES, NODES, PODS, Object
from tools.manifests import Place

__all__ = [
    "DONE",
    "DRAIN",
    "FAILED",
    "FAST_DRIVER",
    "FAST_WORK",
    "JOBS",
    "POLICIES",
    "REQUIRED",
    "RESTART",
    "SEEDS",
    "VALIDATION",
    "World",
    "world",
]


class World(Pool):
    """A pool with controllers of its own, recorded and witnessed; made by `world`."""

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
        super().__init__(api, control_plane, pool, driver, namespace, domain)
        place = Place(self.namespace, self.namespace, pool, domain)
        self.account = Account(api, control_plane.access, place, control_plane.directory, folder)
        """Who the controller is."""
        self.processes: list[Process] = []
        """Every controller that was started."""
        self.recorder = Recorder(api, pool, self.state_label, (self.namespace, self.work))
        self.evidence = Evidence(api, f"pool={pool}", (self.namespace, self.work), domain)
        self.witness = Witness(api, control_plane, self.evidence, self.work)
        self._done, self._done_at = 0, 0.0

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
    async def controller(
        self, *flags: str, kubeconfig: Path | None = None, server: str = "", mutant: str = ""
    ) -> AsyncIterator[Process]:
        """Runs the controller over this world; it is stopped at the end, and must then have done without a crash.

        Without a `kubeconfig` it is a replica of its own account, which has the permissions of the manifests and no more;
        `server` is where it finds the API server, where that is not the API server itself.
        `mutant` names a defect of tests/sim/mutations.py to run with.
        """
        if kubeconfig is None:
            replica = await self.account.replica()
            kubeconfig, flags = replica.kubeconfig, (*replica.flags, *flags)
            if server:
                replace(replica.access, server=server).write(kubeconfig, replica.name, self.namespace)
        sources = (value for flag, value in pairwise(flags) if flag == "--source")
        await self.evidence.configured(dict(source.split("=", 1) for source in sources))
        async with running(kubeconfig, self.namespace, *flags, mutant=mutant) as process:
            self.processes.append(process)
            yield process

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
            self._done, self._done_at = await self.evidence.now(), time.time()

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

    async def gone(self, *pods: Object) -> None:
        """Waits until pods are gone."""
        for pod in pods:
            meta = pod["metadata"]
            await self.api.wait_gone(PODS, meta["name"], meta["namespace"], uid=meta["uid"])

    def evicted(self) -> list[str]:
        """Names of the pods whose eviction was accepted, in order, once for each time."""
        return self.witness.evicted()

    async def witnessed(self) -> list[Request]:
        """Every write that was answered until now, of whatever; none where the cluster was given."""
        return await self.witness.until_now()

    async def violations(self, *, at_rest: bool = False) -> list[str]:
        """What the checker of the invariants says, which judges from outside; `at_rest`: all is done that can be done."""
        case = Case(self.evidence, await self.witnessed(), self.namespace, self.processes, self._done, self._done_at)
        return judge(case, at_rest=at_rest)

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
    expected: Collection[str] = (),
) -> AsyncIterator[World]:
    """A fresh world, recorded from the start; what must always hold is checked at the end.

    Its controllers have the permissions of the manifests in `folder`. The `expected` rules are those that a defect of
    theirs may have broken, and the test looks itself whether it has.
    """
    made = World(api, control_plane, f"w-{secrets.token_hex(3)}", driver, namespace, domain, folder)
    await api.apply([scene.namespace(name) for name in (made.namespace, made.work)])
    await namespace_ready(api, made.namespace, made.work)
    await made.account.create()
    try:
        async with made.recorder, made.evidence:
            yield made
            await made.recorder.caught_up()
            violations = [said for said in await made.violations() if rule_of(said) not in expected]
        assert not violations, "\n".join(["The checker found violations:", *violations])
        made.recorder.check_edges()
        made.recorder.check_departures(made.work)
        made.witness.check()
    finally:
        await made.remove()


def _is_mark(pod: Object) -> bool:
    return bool(pod["metadata"]["name"].startswith("mark-"))
