"""Builds the image: the Dockerfile as it is, by buildah with chroot isolation, on a base image made here.

The build fetches packages with the machine's pip configuration and its certificate authorities, mounted read-only and only
while it runs; neither gets into a layer. Which packages is fixed by their hashes, wherever they come from.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from controller import __version__
from tools.controlplane.build import locked
from tools.controlplane.terminal import Reporter
from tools.image import base
from tools.image.store import buildah, exists
from tools.image.tooling import ImageError, missing

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/driver-upgrade:latest"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_MOST_IMAGES = 100
_ISOLATION = ("--isolation=chroot",)


def build(report: Reporter) -> str:
    """Builds the image, or only what changed since the last time, and returns its name in the store.

    Raises:
        ImageError: this machine cannot build images (the message says why and what to do), or the build failed.
    """
    if reasons := missing(("buildah", "debootstrap")):
        raise ImageError("cannot build the image here:\n" + "\n".join(reasons))
    packed = base.ensure(report)
    with locked("images", report), tempfile.TemporaryDirectory() as scratch:
        stand_in = _imported(packed)
        with report.task(f"Building the image {IMAGE}"):
            arguments = {"VERSION": __version__, **_history()}
            buildah(
                *("build", "--pull-never", "--layers", *_ISOLATION, "--from", stand_in, "--tag", IMAGE),
                *(f"--build-arg={key}={value}" for key, value in arguments.items()),
                *(f"--volume={source}:{target}:ro" for source, target in _mounts(Path(scratch)).items()),
                *("--file", str(ROOT / "Dockerfile"), str(ROOT)),
            )
        _tidy()
    return IMAGE


def _tidy() -> None:
    """Drops the layers of earlier builds once there are many; the next build makes those anew that it needs."""
    if len(buildah("images", "--all", "--quiet").split()) > _MOST_IMAGES:
        buildah("rmi", "--prune", "--force")


def _imported(packed: Path) -> str:
    """The base image in the store, from its packed root file system."""
    name = f"localhost/driver-upgrade-{packed.parent.name}:1"
    if not exists(name):
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, str(packed), "/")
        buildah("commit", "--quiet", container, name)
        buildah("rm", container)
    return name


def _mounts(scratch: Path) -> dict[Path, Path]:
    """What pip needs to know of this machine: its configuration, the authorities it trusts, and local packages."""
    settings = pip_settings()
    found: dict[Path, Path] = {}
    lines = ["[global]"]
    for name, value in settings.items():
        path = Path(value)
        if path.is_absolute() and path.exists() and name != "find-links":
            found[path.resolve()] = path
        elif path.is_dir():
            found[path] = path
        lines.append(f"{name} = {value}")
    configuration = scratch / "pip.conf"
    configuration.write_text("\n".join(lines) + "\n")
    found[configuration] = Path("/etc/pip.conf")
    if _AUTHORITIES.exists():
        found[_AUTHORITIES.resolve()] = _AUTHORITIES
    return found


def pip_settings() -> dict[str, str]:
    """What pip's configuration files and the environment say here, without their sections."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, env=os.environ
    ).stdout
    rows = re.findall(r"^[^.=\s]+\.(\S+?)=('.*'|\".*\")$", listing, re.MULTILINE)
    return {name: str(ast.literal_eval(value)) for name, value in rows if name not in ("no-compile", "target")}


def _history() -> dict[str, str]:
    """Commit and its time; an export of the sources has none, and says so."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    revision, created = git("rev-parse", "HEAD"), git("show", "-s", "--format=%cI", "HEAD")
    if revision and git("status", "--porcelain", "--", "controller", "manifests/crd", "Dockerfile", "requirements.lock"):
        revision += "-dirty"
    return {"REVISION": revision or "unknown"} | ({"CREATED": created} if created else {})
