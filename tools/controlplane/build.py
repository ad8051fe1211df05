"""Builds the control plane's programs from their Go modules, once, outside the checkout.

Each program lands in `<cache>/<component>-<version>-<digest>/`, where the digest covers everything that makes the
binary what it is: the files of its module directory, flags, and platform. So a directory that exists is right, and a
changed go.mod builds anew without harming other checkouts. A build happens in a temporary directory that is renamed
when complete, under a file lock: two runs at once build once, and a killed build leaves nothing that counts.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.children import die_with_parent
from tools.controlplane.gotoolchain import environment, find_go
from tools.controlplane.terminal import Reporter, Task

MODULES = Path(__file__).parent / "modules"


class BuildError(RuntimeError):
    """The Go build failed; the message ends with what it said."""


@dataclass(frozen=True)
class Component:
    """One program to build."""

    name: str
    module: str
    """Directory below modules/ whose go.mod and go.sum pin everything."""
    package: str
    required: str = ""
    """The module in go.mod whose version is the component's version; empty for our own code."""
    ldflags: str = ""
    """Linker flags; {version}, {major} and {minor} are filled in."""
    hint: str = ""
    """How long a cold build takes, for whoever waits."""

    @property
    def version(self) -> str:
        """The version that the module pins, or `local` for our own code."""
        if not self.required:
            return "local"
        match = re.search(rf"^\s*(?:require )?{re.escape(self.required)} (v\S+)", _read(self.module, "go.mod"), re.MULTILINE)
        if match is None:
            raise BuildError(f"{MODULES / self.module / 'go.mod'} requires no {self.required}")
        return match[1]

    @property
    def linker_flags(self) -> str:
        """Flags for -ldflags: stripped, and stamped with the version, which some servers report otherwise as v0.0.0."""
        major, minor = [*self.version.lstrip("v").split("."), "", ""][:2]
        return f"-s -w {self.ldflags.format(version=self.version, major=major, minor=minor)}".strip()


_KUBE_VERSION = " ".join(
    f"-X k8s.io/component-base/version.{field}" for field in ("gitVersion={version}", "gitMajor={major}", "gitMinor={minor}")
)
COMPONENTS = {
    component.name: component
    for component in (
        Component("certificates", "certificates", "."),
        Component("etcd", "etcd", ".", "go.etcd.io/etcd/server/v3", hint="about 1 min on 2 cores"),
        Component(
            "kwok",
            "kwok",
            "sigs.k8s.io/kwok/cmd/kwok",
            "sigs.k8s.io/kwok",
            "-X sigs.k8s.io/kwok/pkg/consts.Version={version}",
            hint="about 3 min on 2 cores",
        ),
        Component("kubernetes", "kubernetes", ".", "k8s.io/kubernetes", _KUBE_VERSION, hint="about 7 min on 2 cores"),
        Component("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", "k8s.io/kubernetes", _KUBE_VERSION),
        Component("kubelet", "kubelet", ".", "k8s.io/kubernetes", _KUBE_VERSION, hint="about 1 min on 2 cores"),
    )
}


def cache_directory() -> Path:
    """Where built programs are kept: $DRIVER_UPGRADE_CACHE, or driver-upgrade in the user's cache directory."""
    if own := os.environ.get("DRIVER_UPGRADE_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driver-upgrade"


def target(component: Component) -> Path:
    """The path of the component's program, built or not."""
    return cache_directory() / f"{component.name}-{component.version}-{digest(component)}" / component.name


def digest(component: Component) -> str:
    """Twelve hex digits that change when the binary would: module files, package, flags, platform."""
    total = hashlib.sha256()
    for part in (component.package, component.linker_flags, sys.platform, platform.machine(), "CGO_ENABLED=0"):
        total.update(f"{part}\0".encode())
    for path in sorted((MODULES / component.module).iterdir()):
        total.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def ensure(component: Component, report: Reporter) -> Path:
    """Returns the component's program, building it if need be. Blocks; call it in a thread from asyncio.

    Raises:
        BuildError: go reported an error.
        ToolchainError: there is no Go and none could be fetched.
    """
    program = target(component)
    if not program.exists():
        with locked(component.name, report):
            if not program.exists():  # whoever held the lock may have built it
                _build(component, program, report)
    return program


def _build(component: Component, program: Path, report: Reporter) -> None:
    go = find_go(cache_directory(), report)
    title = f"Building {component.name} {component.version}"
    title += f" ({component.hint}, the first time only)" if component.hint else ""
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache_directory()) as scratch, report.task(title) as task:
        output = Path(scratch) / "out" / component.name
        _run_go(go, component, output, task)
        shutil.rmtree(program.parent, ignore_errors=True)
        output.parent.rename(program.parent)


def _run_go(go: Path, component: Component, output: Path, task: Task) -> None:
    command = [str(go), "build", "-v", "-trimpath", "-ldflags", component.linker_flags, "-o", str(output), component.package]
    process = subprocess.Popen(
        command,
        cwd=MODULES / component.module,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it takes no lock and calls one function of libc
    )
    try:
        said = _follow(process, task)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise BuildError(f"building {component.name} {component.version} failed; go said:\n" + "\n".join(said))


def _follow(process: subprocess.Popen[str], task: Task) -> list[str]:
    """Shows what go compiles (-v names each package on standard error) until it ends; returns its last lines."""
    last: deque[str] = deque(maxlen=25)
    count = 0

    def read() -> None:
        nonlocal count
        for line in process.stderr or ():
            last.append(line.rstrip())
            count += 1

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while reader.is_alive():
        reader.join(timeout=0.5)
        task.update(f"{count} packages, {last[-1] if last else 'starting'}")
    process.wait()
    return list(last)


@contextmanager
def locked(name: str, report: Reporter) -> Iterator[None]:
    """Nobody else on this machine makes the part of the cache that has this name while the context is open."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.line(f"Waiting for another process that is building {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(module: str, name: str) -> str:
    return (MODULES / module / name).read_text()
