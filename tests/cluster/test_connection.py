"""Between the controller and the API server: no permission, no server, no kubeconfig. Cause and remedy are said."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from tests.cluster.process import Process
from tests.cluster.world import DRAIN, World
from tools.controlplane.resources import Object, Resource

CLUSTER_ROLES = Resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False)
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
NEEDED = [
    ("", "nodes", "list watch patch"),
    ("", "pods", "list watch delete"),
    ("", "pods/eviction", "create"),
    ("apps", "daemonsets", "list watch"),
    ("apps", "controllerrevisions", "list watch"),
    ("policy", "poddisruptionbudgets", "list watch"),
    ("nvidia.com", "driverupgradepolicies", "list watch"),
    ("nvidia.com", "driverupgradepolicies/status", "patch"),
    ("nvidia.com", "customresources", "list watch"),
]


def rules(without: tuple[str, str] = ("", "")) -> list[Object]:
    left = [(group, name, [v for v in verbs.split() if (name, v) != without]) for group, name, verbs in NEEDED]
    return [{"apiGroups": [group], "resources": [name], "verbs": verbs} for group, name, verbs in left if verbs]


@asynccontextmanager
async def account(cluster: World, without: tuple[str, str]) -> AsyncIterator[Path]:
    """A kubeconfig of a ServiceAccount that may do everything needed but one thing."""
    api, name = cluster.api, cluster.pool
    metadata = {"name": name, "namespace": cluster.namespace}
    await api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    group = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    await api.create({**group, "kind": "ClusterRole", "rules": rules(without)})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}
    role = {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    await api.create({**group, "kind": "ClusterRoleBinding", "subjects": [subject], "roleRef": role})
    try:
        yield cluster.control_plane.kubeconfig_for(await api.service_account_token(name, cluster.namespace), name)
    finally:
        await api.delete(BINDINGS, name)
        await api.delete(CLUSTER_ROLES, name)


@pytest.mark.parametrize(
    ("resource", "verb", "message", "remedy"),
    [
        ("nodes", "patch", "write refused", "grant the controller's role this verb"),
        ("nodes", "list", "nodes not listed, no grants yet", "grant list on nodes cluster-wide"),
        ("pods", "delete", "write refused", "grant the controller's role this verb"),
        ("pods/eviction", "create", "eviction not accepted", "grant the controller create on pods/eviction"),
        ("driverupgradepolicies/status", "patch", "status not written", "grant patch on driverupgradepolicies/status"),
    ],
)
async def test_a_missing_permission_is_told_and_work_goes_on_when_it_is_granted(
    cluster: World, resource: str, verb: str, message: str, remedy: str
):
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web")
    await cluster.policy()
    async with account(cluster, (resource, verb)) as kubeconfig, cluster.controller(kubeconfig=kubeconfig) as controller:
        await cluster.roll("2")
        line = await controller.logged(msg=message, error=f'cannot {verb} resource "{resource}"')
        assert remedy in line["error"] + line.get("remedy", "")
        assert (await controller.get("/healthz"))[0] == 200
        await cluster.api.patch(CLUSTER_ROLES, cluster.pool, {"rules": rules()})
        await cluster.done("2")
        await cluster.condition("Progressing", "False", reason="Idle")


@pytest.mark.parametrize("resource", ["poddisruptionbudgets", "nodes", "driverupgradepolicies"])
async def test_a_missing_permission_to_read_keeps_it_unready_and_is_told(cluster: World, resource: str):
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    await cluster.roll("2")
    async with account(cluster, (resource, "watch")) as kubeconfig, cluster.controller(kubeconfig=kubeconfig) as controller:
        line = await controller.logged(msg="reflector failed", error=f'cannot watch resource "{resource}"')
        assert f"grant list,watch on {line['resource']} cluster-wide" in line["error"]
        status, text = await controller.get("/readyz")
        assert status == 503
        waiting = orjson.loads(text)["waiting"]
        assert f"grant list,watch on {line['resource']}" in waiting[line["resource"]]
        assert (await controller.get("/healthz"))[0] == 200
        await cluster.api.patch(CLUSTER_ROLES, cluster.pool, {"rules": rules()})
        await cluster.done("2")
        assert await controller.get("/readyz") == (200, "ok\n")


async def test_an_api_server_that_cannot_be_reached_at_the_start_is_told_and_awaited(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    await cluster.roll("2")
    relay = Relay(cluster.control_plane.server)
    port = relay.reserve()
    async with cluster.controller(server=f"https://127.0.0.1:{port}") as controller:
        line = await controller.logged(msg="reflector failed", resource="nodes")
        assert f"127.0.0.1:{port}" in line["error"]
        status, text = await controller.get("/readyz")
        assert status == 503
        assert f"127.0.0.1:{port}" in orjson.loads(text)["waiting"]["nodes"]
        assert (await controller.get("/healthz"))[0] == 200
        async with relay:
            await cluster.done("2")
            assert await controller.get("/readyz") == (200, "ok\n")


async def test_an_api_server_that_goes_away_in_the_middle_is_awaited(cluster: World):
    await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 2)
    await cluster.policy()
    relay = Relay(cluster.control_plane.server)
    async with cluster.controller(server=f"https://127.0.0.1:{relay.reserve()}") as controller:
        async with relay:
            await cluster.roll("2")
            await cluster.any_in(DRAIN)
        await controller.logged(msg="reflector failed", resource="nodes")
        async with relay:
            await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.most_in_progress() == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "kubeconfig"),
        ("apiVersion: v1\nkind: Config\n", "kubeconfig"),
        ("]", "kubeconfig"),
    ],
    ids=["missing", "empty", "not YAML"],
)
async def test_a_wrong_kubeconfig_ends_it_with_code_2_and_a_message(tmp_path: Path, content: str | None, says: str):
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    process = await Process.start(path, "nvidia-operator")
    assert await process.ended() == 2
    assert process.lines[-1]["msg"] == "controller not started"
    said = process.lines[-1]["error"]
    assert str(path) in said
    assert says in said


class Relay:
    """Passes connections on to the API server while its context is open; before and after, they are refused.

    The port stays ours all the time, by a socket that is bound to it and does not listen.
    """

    def __init__(self, server: str) -> None:
        self._target = urlsplit(server)
        self._held = socket.socket()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def reserve(self) -> int:
        """Finds a free port, which nothing listens on yet."""
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        return self._port

    @property
    def _port(self) -> int:
        return int(self._held.getsockname()[1])

    async def __aenter__(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port, reuse_port=True)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()  # it was accepted while the relay closed
            return
        connection = asyncio.create_task(self._connected(reader, writer), name="relay")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _aborted(writer):
            there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
            async with _aborted(back):
                await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


@asynccontextmanager
async def _aborted(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one end is gone
    finally:
        writer.close()
