"""The two servers under contract: the simulator's in virtual time, and a real kube-apiserver."""

import asyncio
import itertools
import random

import aiohttp
import orjson
import pytest

from controller.kube import config
from controller.kube.transport import AiohttpTransport
from tests.contract.budgets import Budgets
from tests.contract.server import TIMEOUT, Case, Server
from tests.sim import loop as virtual
from tests.sim.apiserver import ApiServer
from tests.sim.eviction import Evictions
from tests.sim.loop import VirtualLoop
from tests.sim.network import FINE, Network, SimTransport
from tests.sim.routes import Route, new_object
from tests.sim.watches import Watches
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import NAMESPACES, NODES

_numbers = itertools.count(1)
NODE = {"apiVersion": "v1", "kind": "Node", "spec": {}}


class Simulated:
    """The simulator's API server alone: no component of a cluster runs beside it but a disruption controller."""

    def run(self, case: Case) -> None:
        virtual.run(self._run(case))

    async def _run(self, case: Case) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        server, network = ApiServer(loop), Network(random.Random(1))
        watches = Watches(server)
        Evictions(server)
        Budgets(server)
        server.apply("admin", "nodes", {**NODE, "metadata": {"name": "bare"}})
        server.apply("admin", "namespaces", new_object(Route("namespaces", "", "case", ""), scene.namespace("case")))
        transport = SimTransport(server, watches, network, "controller", lambda _: FINE, lambda: None)

        async def expire() -> None:
            for kind in server.store.tables:
                server.store.compact(kind)
            server.expire_pages()

        async with asyncio.timeout(TIMEOUT):
            await case(Server(transport, "case", "bare", expire))


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
            try:
                async with asyncio.timeout(2 * TIMEOUT):
                    await case(Server(transport, name, name, self._expire))
            finally:
                await self._remove(api, name)

    @staticmethod
    async def _remove(api: Api, name: str) -> None:
        """No kubelet will end the pods, and nobody else takes finalizers off."""
        await api.delete(NAMESPACES, name)
        pods = f"/api/v1/namespaces/{name}/pods"
        for one in (await api.request("GET", pods))["items"]:
            if one["metadata"].get("finalizers"):
                path = f"{pods}/{one['metadata']['name']}"
                await api.request("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        await api.request("DELETE", pods, {"gracePeriodSeconds": 0})
        await api.delete(NODES, name)

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
