"""Runs a control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok on loopback ports.

    async with ControlPlane.start() as cp:
        async with Api(cp.access) as api: ...

Each has a directory, certificate authority, ports and tokens of its own, so several run at once and nothing left over
from one can talk to another. Leaving the context stops everything, after an exception or Ctrl-C as well; process.py and
instance.py tell what happens when this process has no chance to.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tools.controlplane import commands, kubeconfig
from tools.controlplane.binaries import resolve
from tools.controlplane.commands import AuditLevel, Layout
from tools.controlplane.instance import Instance, sweep
from tools.controlplane.kubeconfig import Access
from tools.controlplane.launch import Launch, server_ready
from tools.controlplane.process import Component, ComponentError
from tools.controlplane.terminal import Reporter

KUBECONFIG_VARIABLE = "DRIVER_UPGRADE_TEST_KUBECONFIG"


class ControlPlane:
    """A control plane to work with: one that we run, or one that the user has."""

    def __init__(
        self, directory: Path, access: Access, path: Path, layout: Layout | None, components: Iterable[Component]
    ) -> None:
        self.directory = directory
        self.access = access
        """How the administrator reaches the API server."""
        self.kubeconfig = path
        self.components = {component.name: component for component in components}
        """The running programs by name; empty if they are not ours."""
        self._layout = layout

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        audit_level: AuditLevel = "Metadata",
        given: Path | None = None,
        stages: Sequence[Path] = (),
        keep: bool = False,
        report: Reporter | None = None,
    ) -> AsyncIterator["ControlPlane"]:
        """Starts a control plane, yields it once requests and new pods are accepted, and stops it.

        Args:
            audit_level: `RequestResponse` also records the bodies of writes.
            given: kubeconfig of a cluster to use instead, default $DRIVER_UPGRADE_TEST_KUBECONFIG. Nothing is started then;
                there is no audit log, and fake nodes come to life only if kwok runs there with our stages.
            stages: files of kwok stages; default all of stages/.
            keep: leave the directory with logs and audit log behind.
            report: where to say what is going on.

        Raises:
            BuildError, ToolchainError: a program is missing and could not be built.
            ComponentError: a program died or did not become ready.
            KubeconfigError: the given kubeconfig cannot be used.
        """
        report = report or Reporter()
        given = given or (Path(path) if (path := os.environ.get(KUBECONFIG_VARIABLE)) else None)
        with ExitStack() as stack:
            binaries = None if given else await asyncio.to_thread(resolve, report)
            sweep(report)
            instance = Instance()
            stack.callback(instance.close, keep=keep)
            directory = instance.directory
            if given is not None:
                yield cls(directory, kubeconfig.read(given, directory), given, None, ())
            else:
                assert binaries is not None
                launch = Launch(directory, binaries, audit_level, stages or sorted(commands.STAGES.glob("*.yaml")), stack)
                layout = await launch.run()
                yield cls(
                    directory, layout.access(layout.tokens["admin"]), layout.kubeconfig("admin"), layout, launch.components
                )

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self.access.server

    @property
    def token(self) -> str:
        """The administrator's token; empty where a given kubeconfig has a client certificate instead."""
        return self.access.token

    @property
    def ca_path(self) -> Path:
        """A file with the CA that the server's certificate is verified against."""
        path = self.directory / "ca.crt"
        if not path.exists():
            path.write_bytes(self.access.ca)
        return path

    @property
    def audit_log(self) -> Path:
        """The API server's audit log.

        Raises:
            ComponentError: the control plane is not ours, so there is none.
        """
        if self._layout is None:
            raise ComponentError(
                f"no audit log: the control plane was given by a kubeconfig; unset {KUBECONFIG_VARIABLE} to run one"
            )
        return self._layout.audit_log

    def kubeconfig_for(self, token: str, name: str = "user") -> Path:
        """Writes a kubeconfig for the bearer of a token (of a ServiceAccount, say) and returns its path."""
        return Access(self.server, self.access.ca, token).write(self.directory / f"{name}.kubeconfig", name)

    def kill(self, name: str) -> None:
        """Kills a program and leaves it dead.

        Raises:
            ComponentError: there is no such program here.
        """
        self._component(name).kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a program: SIGSTOP makes it hang with its connections open, SIGCONT goes on."""
        self._component(name).signal(number)

    async def restart_component(self, name: str) -> None:
        """Kills a program if it runs, starts it again, and waits until the API server answers (as far as it is up to it).

        Raises:
            ComponentError: there is no such program, it died, or it did not become ready.
        """
        component = self._component(name)
        component.kill()
        component.start()
        if name in ("etcd", "kube-apiserver"):
            await server_ready(self.components["kube-apiserver"], self.access)
        component.check()

    def _component(self, name: str) -> Component:
        if name not in self.components:
            raise ComponentError(
                f"no component {name!r} here; there are: {', '.join(self.components) or 'none, the cluster was given'}"
            )
        return self.components[name]
