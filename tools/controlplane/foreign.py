"""Definitions of other people's kinds that our manifests use, as their makers publish them: from their Go modules.

The Prometheus operator's and cert-manager's, at the versions of `definitions/go.mod` and by the hashes of its go.sum. They
are kept as built programs are (`build.py`): in `<cache>/definitions-<digest>/`, where the digest covers what is taken, from
which module files; a directory that exists is complete.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools.controlplane.build import BuildError, cache_directory, locked
from tools.controlplane.gotoolchain import environment, find_go
from tools.controlplane.terminal import Reporter

DEFINITIONS = Path(__file__).parent / "definitions"
TAKEN: Mapping[str, tuple[str, ...]] = {
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "github.com/cert-manager/cert-manager": ("deploy/crds/cert-manager.io_certificates.yaml",),
}
"""What is taken from which module."""


def target() -> Path:
    """The folder of the definitions, there or not."""
    total = hashlib.sha256(json.dumps(TAKEN).encode())
    for name in ("go.mod", "go.sum"):
        total.update((DEFINITIONS / name).read_bytes())
    return cache_directory() / f"definitions-{total.hexdigest()[:12]}"


def definitions(report: Reporter) -> list[Path]:
    """The files of the CustomResourceDefinitions, fetched if need be (8 MB). Blocks; call it in a thread from asyncio.

    Raises:
        BuildError: go could not fetch a module, or it is not the one of go.sum, or has no such file.
        ToolchainError: there is no Go and none could be fetched.
    """
    folder = target()
    if not folder.exists():
        with locked("definitions", report):
            if not folder.exists():  # whoever held the lock may have fetched them
                _fetch(folder, report)
    return sorted(folder.glob("*.yaml"))


def _fetch(folder: Path, report: Reporter) -> None:
    go = find_go(cache_directory(), report)
    title = "Fetching the definitions of the Prometheus operator and of cert-manager"
    with tempfile.TemporaryDirectory(prefix=".definitions-", dir=cache_directory()) as scratch, report.task(title):
        out = Path(scratch) / "out"
        out.mkdir()
        for module, files in TAKEN.items():
            directory = _downloaded(go, module)
            for file in files:
                if not (directory / file).exists():
                    raise BuildError(f"{directory.name} has no {file}")
                shutil.copyfile(directory / file, out / Path(file).name)
        out.rename(folder)


def _downloaded(go: Path, module: str) -> Path:
    command = [str(go), "mod", "download", "-json", module]
    done = subprocess.run(command, cwd=DEFINITIONS, env=environment(), capture_output=True, text=True, check=False)
    said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    if done.returncode or "Dir" not in said:
        raise BuildError(f"fetching {module} failed; go said:\n{said.get('Error') or done.stderr.strip()}")
    return Path(said["Dir"])
