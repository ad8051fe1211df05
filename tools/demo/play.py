"""Runs the demo: control plane, cluster, controller, the change of one field, and the view of what follows."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from controller.upgrade.states import State
from tools import controllerprocess, trouble
from tools.account import installed
from tools.controllerprocess import ControllerProcess
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.audit import AuditLog
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.owner import DriverOwner
from tools.controlplane.resources import NODES, Object
from tools.controlplane.terminal import Reporter
from tools.demo import stage, summary, view
from tools.demo.fleet import KEYS, Fleet, NodeCell
from tools.demo.stage import Script

FRAMES_PER_SECOND = 8
_START_SECONDS = 120.0
_SHOWN = 5


class DemoError(RuntimeError):
    """The rollout did not go as it should; the message says what, and where to look."""


@dataclass
class Demo:
    """One performance."""

    script: Script
    console: Console
    timeout: float
    """Seconds after which the rollout is given up."""

    async def play(self) -> None:
        """Plays it; everything is stopped when this returns or raises.

        Raises:
            DemoError: a node failed, or the rollout was not over in time.
            BuildError, ToolchainError, ComponentError, ControllerError, ApiError, TimeoutError: something did not work.
        """
        trouble.stop_when_asked()
        report, script = Reporter(self.console), self.script
        title = f"{script.nodes} nodes in {script.zones} zones, drivers, workloads"
        async with ControlPlane.start(report=report) as cp, Api(cp.access) as api:
            audit = AuditLog(cp.audit_log)  # a cluster that the user gave has none, and is not ours to play with
            report.line(f"A control plane runs at {cp.server}")
            with self._logs_kept(cp.directory):
                with report.task(title):
                    await stage.install(api, script)
                await self._perform(cp, api, audit)
        report.line("Everything is stopped.")

    async def _perform(self, cp: ControlPlane, api: Api, audit: AuditLog) -> None:
        fleet = Fleet(self.script.parallel)
        flags = ("--driver-namespaces", scene.NAMESPACE, "--log-level", "debug")
        log = cp.directory / "controller.log"
        ours = await installed(api, cp.access, scene.NAMESPACE, cp.directory)
        async with (
            DriverOwner(api),
            DriverOwner(api, daemon_set=stage.SAFE_LOAD_SET),
            controllerprocess.running(ours, log, *flags, heard=fleet.hear) as controller,
            asyncio.TaskGroup() as group,
        ):
            await controller.alongside(api.wait_for(NODES, self._adopted, timeout=_START_SECONDS))
            await api.create(stage.job(self.script))
            await fleet.look(api)
            watching = group.create_task(fleet.follow(api))
            await self._watch(fleet, controller, api)
            watching.cancel()
        if controller.status:
            raise DemoError(f"the controller ended with status {controller.status}")
        self.console.print()
        self.console.print(summary.table(fleet, summary.evictions(audit.read())))

    def _adopted(self, nodes: Sequence[Object]) -> bool:
        """Whether the controller has labelled every node that has a driver."""
        done = [node for node in nodes if node["metadata"]["labels"].get(KEYS.state) == State.UPGRADE_DONE]
        return len(done) == len(self.script.ordinary)

    async def _watch(self, fleet: Fleet, controller: ControllerProcess, api: Api) -> None:
        """Changes the version and shows what follows, to its end."""
        arrow = view.arrow(view.is_plain(self.console))
        self.console.print(f"spec.driver.version of {stage.KIND} {stage.POLICY}: {stage.OLD} {arrow} {stage.NEW}\n")
        try:
            async with asyncio.timeout(self.timeout), self._shown(fleet):
                fleet.begin()
                await stage.change_version(api, self.script)
                await controller.alongside(fleet.finished.wait())
        except TimeoutError:
            raise DemoError(f"not over after {self.timeout:g} s: {_unfinished(fleet)}") from None
        if fleet.failed:
            raise DemoError(f"the upgrade failed on {', '.join(fleet.failed)}")
        if not await stage.drivers_are_new(api):
            raise DemoError(f"not every driver pod runs {stage.NEW}")

    @asynccontextmanager
    async def _shown(self, fleet: Fleet) -> AsyncIterator[None]:
        """Shows the fleet: on a terminal as a picture that is drawn again and again, elsewhere as a line a change."""
        if not self.console.is_terminal:
            fleet.changed = self._say(fleet)
            yield
            return
        with Live(view.draw(fleet, self.console), console=self.console, auto_refresh=False) as live:
            drawing = asyncio.create_task(self._draw(fleet, live))
            try:
                yield
            finally:
                drawing.cancel()
                live.update(view.draw(fleet, self.console), refresh=True)

    async def _draw(self, fleet: Fleet, live: Live) -> None:
        while True:  # the clock in the picture runs whether anything happens or not
            live.update(view.draw(fleet, self.console), refresh=True)
            await asyncio.sleep(1 / FRAMES_PER_SECOND)

    def _say(self, fleet: Fleet) -> Callable[[NodeCell], None]:
        said = {cell.name: view.line(cell) for cell in fleet.nodes.values()}

        def say(cell: NodeCell) -> None:
            text = view.line(cell)
            if not said[cell.name].startswith(text):  # that it moves again after it was blocked is no news
                said[cell.name] = text
                self.console.print(f"{fleet.elapsed:6.1f} s  {text}", soft_wrap=True, markup=False, highlight=False)

        return say

    @contextmanager
    def _logs_kept(self, directory: Path) -> Iterator[None]:
        """Copies the logs to where they survive if something goes wrong, and says where that is."""
        try:
            yield
        except Exception:  # whatever it is, the logs tell more; it is raised again
            kept = Path(tempfile.mkdtemp(prefix="driver-upgrade-demo-"))
            for log in directory.glob("*.log"):
                shutil.copy(log, kept)
            self.console.print(f"Logs of the controller and the control plane: {kept}", soft_wrap=True)
            raise


def _unfinished(fleet: Fleet) -> str:
    """The nodes that are not done, with what the controller said last of each."""
    left = [cell for cell in fleet.nodes.values() if cell.finished is None]
    shown = [view.line(cell) for cell in left[:_SHOWN]]
    return "; ".join(shown + [f"and {len(left) - _SHOWN} more"] * (len(left) > _SHOWN))
