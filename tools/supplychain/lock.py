"""Reads the locks and what they must agree with."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[2]
RUNTIME: Final = ROOT / "requirements.lock"
BUILD: Final = ROOT / "requirements-build.lock"
TOOLS: Final = ROOT / "tools" / "supplychain" / "requirements.lock"
CONSTRAINTS: Final = ROOT / "constraints.txt"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?:\s|$)")


class LockError(RuntimeError):
    """A lock is not one; the message names the file and the line."""


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    name: NormalizedName
    version: str
    hashes: tuple[str, ...]
    marker: str = ""
    """Where it is installed at all; empty for everywhere."""


def read(path: Path = RUNTIME) -> dict[NormalizedName, Pin]:
    """The packages of a lock by their canonical names.

    Raises:
        LockError: A line pins no version.
    """
    pins = [_pin(line, path) for line in _lines(path)]
    return {pin.name: pin for pin in pins}


def constraints(path: Path = CONSTRAINTS) -> dict[NormalizedName, str]:
    """The versions that development and CI install, by canonical name."""
    pairs = (line.partition("==") for line in _lines(path))
    return {canonicalize_name(name): version for name, _, version in pairs}


def direct() -> Mapping[NormalizedName, Requirement]:
    """What pyproject.toml asks for at run time, by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (Requirement(text) for text in project["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def _lines(path: Path) -> list[str]:
    """Logical lines: those that end in a backslash go on."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _pin(line: str, path: Path) -> Pin:
    text = line.partition("--hash")[0].strip()
    requirement = Requirement(text)
    versions = [specifier.version for specifier in requirement.specifier if specifier.operator == "=="]
    if len(versions) != 1:
        raise LockError(f"{path.name}: {text!r} pins no version: run `make lock`")
    marker = str(requirement.marker or "")
    return Pin(canonicalize_name(requirement.name), versions[0], tuple(_HASH.findall(line)), marker)
