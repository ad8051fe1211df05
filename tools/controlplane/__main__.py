"""Command line: `python -m tools.controlplane build | run`."""

import asyncio
import signal
import sys
from pathlib import Path

import click

from tools.controlplane.binaries import resolve
from tools.controlplane.build import BuildError, cache_directory
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.commands import AuditLevel
from tools.controlplane.gotoolchain import ToolchainError
from tools.controlplane.kubeconfig import KubeconfigError
from tools.controlplane.process import ComponentError
from tools.controlplane.terminal import Reporter


@click.group(help="A real Kubernetes control plane on this machine, without containers.")
def main() -> None:
    """Entry point."""


@main.command()
@click.option("--which", is_flag=True, help="Print how each program is called, tab-separated, building what is missing.")
def build(which: bool) -> None:
    """Build etcd, kube-apiserver, -controller-manager, -scheduler and kwok (and kubectl where there is none)."""
    binaries = resolve(Reporter())
    click.echo("\n".join(binaries.lines()) if which else f"Everything is built, in {cache_directory()}")


@main.command()
@click.option("--audit-level", type=click.Choice(["Metadata", "RequestResponse"]), default="Metadata", show_default=True)
@click.option("--keep", is_flag=True, help="Leave the directory with the logs behind.")
@click.option(
    "--stages", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Stages instead of ours."
)
def run(audit_level: str, keep: bool, stages: tuple[Path, ...]) -> None:
    """Run a control plane until Ctrl-C; the path of its kubeconfig is printed on standard output."""
    asyncio.run(_run("RequestResponse" if audit_level == "RequestResponse" else "Metadata", keep, stages))


async def _run(audit_level: AuditLevel, keep: bool, stages: tuple[Path, ...]) -> None:
    stop = asyncio.Event()
    report = Reporter()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starting = ControlPlane.start(audit_level=audit_level, keep=keep, stages=stages, report=report)
    async with starting as cp:
        click.echo(cp.kubeconfig)
        report.line(f"{cp.server} is ready; logs in {cp.directory}\nexport KUBECONFIG={cp.kubeconfig}\nCtrl-C stops it.")
        await stop.wait()


def _guarded() -> None:
    try:
        main(prog_name="python -m tools.controlplane")
    except (BuildError, ToolchainError, ComponentError, KubeconfigError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    _guarded()
