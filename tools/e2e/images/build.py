"""Builds the images of the real node and packs them for containerd, under names that no registry is asked for."""

from collections.abc import Mapping
from pathlib import Path

from tools.controlplane.build import locked
from tools.controlplane.terminal import Reporter
from tools.image.build import build
from tools.image.store import buildah, save

NAMES: Mapping[str, tuple[str, ...]] = {"pause": ("1",), "driver": ("1", "2", "3"), "work": ("1",)}
"""Targets of the Dockerfile here, and the versions that each is known by."""
PREFIX = "docker.io/local"
"""How containerd spells out `local/NAME`, which is what pods say."""


def archives(directory: Path, report: Reporter) -> None:
    """Writes one archive for each image and version: `<name>-<version>.tar`.

    Raises:
        ImageError: one cannot be built; the message says why.
    """
    controller = build(report)
    with report.task("Packing the images of the real node"), locked("images", report):
        save(controller, directory / "driver-upgrade-1.tar", f"{PREFIX}/driver-upgrade:1")
        for name, versions in NAMES.items():
            tag = f"localhost/driver-upgrade-e2e-{name}:1"
            buildah(
                *("build", "--pull-never", "--layers", "--isolation=chroot", f"--target={name}", "--tag", tag),
                *(f"--build-arg=CONTROLLER={controller}", str(Path(__file__).parent)),
            )
            for version in versions:
                save(tag, directory / f"{name}-{version}.tar", f"{PREFIX}/{name}:{version}")
