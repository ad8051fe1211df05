"""The two servers under contract: the simulator's in virtual time, and a real kube-apiserver."""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import orjson
import pytest

from controller.kube import config
from controller.kube.transport import AiohttpTransport
from tests.contract.server import OWN, TIMEOUT, Case, Server
from tests.controlplane import namespace_ready
from tests.sim import loop as virtual
from tests.sim.apiserver import ApiServer
from tests.sim.daemonsets import DaemonSets
from tests.sim.eviction import Evictions
from tests.sim.kubelets import Behaviour, Kubelets, node
from tests.sim.loop import VirtualLoop
from tests.sim.network import FINE, Network, SimTransport
from tests.sim.routes import Route, new_object
from tests.sim.watches import Watches
from tests.sim.workloads import NAMESPACE, Disruptions, Scheduler, Workload, Workloads
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import NAMESPACES, NODES, Object

_numbers = itertools.count(1)
NODE: Object = {"apiVersion": "v1", "kind": "Node", "spec": {}}


class Simulated:
    """The simulator's API server, and beside it the components that its worlds have."""

    def run(self, case: Case) -> None:
        virtual.run(self._run(case))

    async def _run(self, case: Case) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = _Components(loop)
        server = cluster.server
        server.apply("admin", "nodes", {**NODE, "metadata": {"name": "bare"}, "status": {"conditions": []}})
        where = Route("namespaces", "", NAMESPACE, "")
        server.apply("admin", "namespaces", new_object(where, scene.namespace(NAMESPACE)))
        network = Network(random.Random(1))
        transport = SimTransport(server, cluster.watches, network, "controller", lambda _: FINE, lambda: None)
        async with asyncio.timeout(TIMEOUT):
            await case(Server(transport, NAMESPACE, "bare", cluster))


class _Components:
    """All that runs in a simulated world but our controller."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.server = server = ApiServer(loop)
        self.watches = Watches(server)
        Evictions(server)
        daemonsets = DaemonSets(server, random.Random(2))
        self._workloads = Workloads(server, random.Random(3))
        Scheduler(server, random.Random(4), daemonsets)
        Disruptions(server, random.Random(5), self._workloads)
        Kubelets(server, random.Random(6), Behaviour())
        self._machines = itertools.count(1)

    async def expire(self) -> None:
        for kind in self.server.store.tables:
            self.server.store.compact(kind)
        self.server.expire_pages()

    async def join(self) -> str:
        name = f"n{next(self._machines):02}"
        self.server.apply("admin", "nodes", node(name, {OWN: NAMESPACE}))
        return name

    async def deploy(self, name: str, replicas: int) -> None:
        self._workloads.add(Workload(name, replicas))


class Real:
    """A real API server, its etcd, and the controllers that run beside it."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    def run(self, case: Case) -> None:
        asyncio.run(self._run(case))

    async def _run(self, case: Case) -> None:
        name = f"contract-{next(_numbers)}"
        connection = await config.load(str(self._control_plane.kubeconfig))
        async with Api(self._control_plane.access) as api, AiohttpTransport(connection, user_agent="contract") as transport:
            await api.create({**NODE, "metadata": {"name": name}})
            await api.create(scene.namespace(name))
            await namespace_ready(api, name)
            cluster = _Given(api, name, self._expire)
            try:
                async with asyncio.timeout(2 * TIMEOUT):
                    await case(Server(transport, name, name, cluster))
            finally:
                await self._remove(api, name, cluster.machines)

    @staticmethod
    async def _remove(api: Api, name: str, machines: list[str]) -> None:
        """No kubelet will end the pods, and nobody else takes finalizers off."""
        await api.delete(NAMESPACES, name)
        pods = f"/api/v1/namespaces/{name}/pods"
        revisions = f"/apis/apps/v1/namespaces/{name}/controllerrevisions"
        for path in (pods, revisions):
            for one in (await api.request("GET", path))["items"]:
                if one["metadata"].get("finalizers"):
                    freed = {"metadata": {"finalizers": None}}
                    await api.request("PATCH", f"{path}/{one['metadata']['name']}", freed, "application/merge-patch+json")
        await api.request("DELETE", pods, {"gracePeriodSeconds": 0})
        for machine in (name, *machines):
            await api.delete(NODES, machine)

    async def _expire(self) -> None:
        """Compacts etcd at the newest revision, through its JSON gateway."""
        if "etcd" not in self._control_plane.components:
            pytest.skip("the cluster was given: its etcd is not ours to compact")
        command = self._control_plane.components["etcd"].command
        flag = "--listen-client-urls="
        url = next(part.removeprefix(flag) for part in command if part.startswith(flag))
        async with aiohttp.ClientSession(url) as session:
            everything = {"key": "AA==", "range_end": "AA==", "count_only": True}
            async with session.post("/v3/kv/range", data=orjson.dumps(everything)) as answer:
                revision = (await answer.json(content_type=None))["header"]["revision"]
            async with session.post("/v3/kv/compaction", data=orjson.dumps({"revision": revision})) as answer:
                assert answer.status == 200, await answer.text()


class _Given:
    """What a case may ask of the real cluster besides its API. Nothing of it is another test's: see :data:`OWN`."""

    def __init__(self, api: Api, namespace: str, expire: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._api = api
        self._namespace = namespace
        self.expire = expire
        self.machines: list[str] = []

    async def join(self) -> str:
        name = f"{self._namespace}-{len(self.machines) + 1:02}"
        self.machines.append(name)
        await self._api.create(scene.node(name, labels={OWN: self._namespace}))
        await self._api.wait_for_object(NODES, name, scene.is_ready, what=f"node {name} is ready")
        return name

    async def deploy(self, name: str, replicas: int) -> None:
        spec = scene.pod_spec() | {"nodeSelector": {OWN: self._namespace}}
        await self._api.create(scene.deployment(name, self._namespace, replicas, spec=spec))
