"""Command line: `python -m tools.image build | bench`."""

import asyncio
import statistics
import sys
from pathlib import Path

import click

from tools.account import installed
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.terminal import Reporter
from tools.image import container
from tools.image.build import ROOT
from tools.image.build import build as build_image
from tools.image.store import buildah, inspect, save
from tools.image.tooling import ImageError


@click.group(help="The controller's image, built and run without a container engine.")
def main() -> None:
    """Entry point."""


@main.command()
@click.option("--save", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write it as an archive.")
def build(file: Path | None) -> None:
    """Build the image and say what it is."""
    name = build_image(Reporter())
    size = buildah("images", "--noheading", "--format", "{{.Size}}", name)
    labels = inspect(name)["config"]["Labels"]
    click.echo(f"{name}, {size}, version {labels['org.opencontainers.image.version']}")
    if file is not None:
        click.echo(f"written to {save(name, file, 'driver-upgrade:latest')}; docker load and ctr images import read it")


@main.command()
@click.option("--times", default=5, show_default=True, type=click.IntRange(min=1))
def bench(times: int) -> None:
    """Measure how long the image takes from its start to /healthz and to /readyz, on a control plane of its own."""
    asyncio.run(_bench(times))


async def _bench(times: int) -> None:
    report = Reporter()
    name = await asyncio.to_thread(build_image, report)
    async with ControlPlane.start(report=report) as cp, Api(cp.access) as api:
        for crd in sorted((ROOT / "manifests" / "crd").glob("*.nvidia.com.yaml")):
            await api.apply(crd.read_text())
        ours = await installed(api, cp.access, "default", cp.directory)
        for path in ("/healthz", "/readyz"):
            taken = [await container.start_seconds(name, ours, path) for _ in range(times)]
            click.echo(f"start to {path}: median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s of {times}")


if __name__ == "__main__":
    try:
        main(prog_name="python -m tools.image")
    except ImageError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
