"""The start of a control plane: certificates, then etcd and the API server, then everything that is their client."""

import asyncio
import atexit
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tools.controlplane import commands
from tools.controlplane.binaries import Binaries
from tools.controlplane.commands import AuditLevel, Layout
from tools.controlplane.kubeconfig import Access
from tools.controlplane.process import Component, ComponentError

_HOSTS = ("127.0.0.1", commands.SERVICE_ADDRESS, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
_PORT_ATTEMPTS = 3
_READY_TIMEOUT = 120.0
_OK = 200


@dataclass
class Launch:
    """One start. Everything that is started is stopped by `stack`, whether the start succeeds or not."""

    directory: Path
    binaries: Binaries
    audit_level: AuditLevel
    stages: Sequence[Path]
    stack: ExitStack
    components: list[Component] = field(default_factory=list)

    async def run(self) -> Layout:
        """Returns when the API server is ready and pods are admitted.

        Raises:
            ComponentError: a program died or did not become ready.
        """
        await self._make_certificates()
        layout = await self._start_servers()
        clients = self._clients(layout)
        self._start(clients)
        await _pods_are_admitted(clients[0], layout.access(layout.tokens["admin"]))
        for component in clients:
            component.check()
        return layout

    async def _make_certificates(self) -> None:
        maker = await asyncio.create_subprocess_exec(*self.binaries.certificates, str(self.directory), *_HOSTS)
        if status := await maker.wait():
            raise ComponentError(f"certificates ended with status {status}")

    async def _start_servers(self) -> Layout:
        """Starts etcd and the API server; again on other ports if somebody took one between our choice and their bind."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            layout = Layout(self.directory, *_free_ports())
            layout.write(self.audit_level, self.stages)
            servers = self._servers(layout, attempt)
            self._start(servers)
            try:
                await server_ready(servers[1], layout.access(layout.tokens["admin"]))
                servers[0].check()
            except ComponentError:
                port_taken = any("address already in use" in server.tail() for server in servers)
                if attempt == _PORT_ATTEMPTS or not port_taken:
                    servers[0].check()  # if etcd is dead, that is the cause, and the API server's trouble the effect
                    raise
                for server in servers:
                    server.kill()
                    self.components.remove(server)
            else:
                break
        return layout

    def _servers(self, layout: Layout, attempt: int) -> list[Component]:
        etcd, apiserver = commands.etcd(self.binaries, layout), commands.kube_apiserver(self.binaries, layout)
        return [
            Component("etcd", etcd, self.directory / f"etcd-{attempt}.log"),
            Component("kube-apiserver", apiserver, self.directory / f"kube-apiserver-{attempt}.log"),
        ]

    def _clients(self, layout: Layout) -> list[Component]:
        safeload = [sys.executable, "-m", "tools.controlplane.safeload", str(layout.kubeconfig("fake-kubelet"))]
        programs = {
            "kube-controller-manager": commands.kube_controller_manager(self.binaries, layout),
            "kube-scheduler": commands.kube_scheduler(self.binaries, layout),
            "kwok": commands.kwok(self.binaries, layout),
            "fake-kubelet": safeload,
        }
        return [Component(name, command, self.directory / f"{name}.log") for name, command in programs.items()]

    def _start(self, components: Iterable[Component]) -> None:
        for component in components:
            self.stack.callback(component.kill)
            atexit.register(component.kill)  # for an event loop that never unwinds
            self.stack.callback(atexit.unregister, component.kill)
            self.components.append(component)
            component.start()


async def server_ready(apiserver: Component, access: Access) -> None:
    """Waits until the API server is ready.

    Raises:
        ComponentError: it died, or is not ready after two minutes.
    """
    await _until_ok(apiserver, access, "/readyz")


async def _pods_are_admitted(controller_manager: Component, access: Access) -> None:
    """Pods need the ServiceAccount `default`, which the controller-manager makes: a sign that it works, too."""
    await _until_ok(controller_manager, access, "/api/v1/namespaces/default/serviceaccounts/default")


async def _until_ok(component: Component, access: Access, path: str) -> None:
    headers = {"Authorization": f"Bearer {access.token}"}
    connector = aiohttp.TCPConnector(ssl=access.ssl_context())
    async with aiohttp.ClientSession(access.server, connector=connector, headers=headers) as session:

        async def answers() -> bool:
            try:
                async with session.get(path, timeout=aiohttp.ClientTimeout(total=2)) as response:
                    return response.status == _OK
            except (aiohttp.ClientError, TimeoutError):
                return False

        await component.ready(answers, _READY_TIMEOUT)


def _free_ports() -> tuple[int, int, int]:
    """Ports of the loopback address that nobody listens on; all are held until the last is chosen, so they differ."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1], three.getsockname()[1]
