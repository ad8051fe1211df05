"""Which programs make up a control plane: those the user has, and the ones we build.

`KUBEBUILDER_ASSETS` (the directory that envtest's setup fills) gives kube-apiserver, etcd and kubectl, and with luck
the controller-manager and scheduler too; envtest itself ships none of these, so they are built as ever. kwok always is.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

from tools.controlplane.build import COMPONENTS, ensure
from tools.controlplane.terminal import Reporter

Command = tuple[str, ...]


@dataclass(frozen=True)
class Binaries:
    """How each program is called: the path, and for those that share a binary the first argument."""

    etcd: Command
    kube_apiserver: Command
    kube_controller_manager: Command
    kube_scheduler: Command
    kwok: Command
    certificates: Command
    kubectl: Command

    def lines(self) -> list[str]:
        """One line for each program, for people and scripts."""
        return [f"{field.name.replace('_', '-')}\t{' '.join(getattr(self, field.name))}" for field in fields(self)]


def resolve(report: Reporter) -> Binaries:
    """Finds every program, building those that are missing. Blocks: minutes on the first call, milliseconds later.

    Raises:
        BuildError, ToolchainError: a program had to be built and could not be.
    """
    assets = _assets()
    found = {
        "certificates": _built("certificates", report),
        "etcd": _asset(assets, "etcd") or _built("etcd", report),
        "kwok": _built("kwok", report),
        "kubectl": _asset(assets, "kubectl") or _own("kubectl") or _built("kubectl", report),
    }
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        found[name.replace("-", "_")] = _asset(assets, name) or (*_built("kubernetes", report), name)
    if "kubernetes" not in found["kube_apiserver"][0]:
        _warn_of_skew(found["kube_apiserver"], report)
    return Binaries(**found)


def _assets() -> Path | None:
    value = os.environ.get("KUBEBUILDER_ASSETS")
    return Path(value).expanduser() if value else None


def _asset(assets: Path | None, name: str) -> Command | None:
    return (str(assets / name),) if assets is not None and (assets / name).exists() else None


def _own(name: str) -> Command | None:
    path = shutil.which(name)
    return (path,) if path else None


def _built(name: str, report: Reporter) -> Command:
    return (str(ensure(COMPONENTS[name], report)),)


def _warn_of_skew(apiserver: Command, report: Reporter) -> None:
    """Controllers may not be newer than the API server (Kubernetes' skew policy); mostly it works, so this only says it."""
    said = subprocess.run([*apiserver, "--version"], capture_output=True, text=True, check=False).stdout
    theirs = re.search(r"v\d+\.\d+", said)
    ours = re.match(r"v\d+\.\d+", COMPONENTS["kubernetes"].version)
    if theirs and ours and theirs[0] != ours[0]:
        report.line(f"Warning: {apiserver[0]} is {theirs[0]}, the controller-manager and scheduler built here are {ours[0]}")
