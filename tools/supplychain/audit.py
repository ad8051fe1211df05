"""Looks the locked packages up in a database of known vulnerabilities that lies on this machine.

The database is the Python Packaging Advisory Database (github.com/pypa/advisory-database, in the format of OSV, CC-BY 4.0):
a git checkout, cloned once and brought up to date where the network allows; a copy may be given instead. It is as current
as its newest advisory, so that date is always said: an old copy that finds nothing says little.
"""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from tools.supplychain.lock import ROOT, Pin

SOURCE: Final = "https://github.com/pypa/advisory-database"
CHECKOUT: Final = ROOT / ".venv" / "advisory-database"
STALE_DAYS: Final = 30


class AuditError(RuntimeError):
    """There is no database to look into; the message says how to get one."""


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a pinned version."""

    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    """Versions that are free of it, as far as the advisory says."""

    def __str__(self) -> str:
        also = f" ({', '.join(self.aliases)})" if self.aliases else ""
        remedy = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no version is said to be free of it"
        return f"{self.package} {self.version}: {self.advisory}{also}, {remedy}"


@dataclass(frozen=True)
class Report:
    """What was found, and how much that says."""

    findings: tuple[Finding, ...]
    packages: int
    advisories: int
    """How many advisories about these packages were compared."""
    newest: datetime
    """When the database was last changed."""

    def stale(self, now: datetime) -> bool:
        """Whether the database is too old to be trusted with what it does not say."""
        return (now - self.newest).days > STALE_DAYS


def fetch(checkout: Path = CHECKOUT, source: str = SOURCE) -> Path:
    """Brings the checkout up to date, or makes it, and returns it.

    Raises:
        AuditError: It can neither be cloned nor is there one already.
    """
    if (checkout / ".git").exists():
        done = _git("-C", str(checkout), "pull", "--quiet", "--ff-only")
    else:
        done = _git("clone", "--quiet", "--depth", "1", source, str(checkout))
    if done.returncode != 0 and not (checkout / "vulns").is_dir():
        said = (done.stderr.strip().splitlines() or [""])[-1]
        raise AuditError(
            f"the advisories cannot be had from {source}: {said}\n"
            f"Where there is no network, take a clone along and name it: make audit ADVISORIES=/path/to/advisory-database"
        )
    return checkout


def audit(pins: Iterable[Pin], database: Path) -> Report:
    """Compares the pins with every advisory about them that has not been withdrawn.

    Raises:
        AuditError: This is no such database.
    """
    if not (database / "vulns").is_dir():
        raise AuditError(f"{database} has no folder vulns: it is no clone of {SOURCE}")
    folders = {canonicalize_name(path.name): path for path in (database / "vulns").iterdir()}
    pinned = list(pins)
    compared = [(pin, advisory) for pin in pinned for advisory in _advisories(folders.get(pin.name))]
    findings = tuple(found for pin, advisory in compared for found in _judge(pin, advisory))
    return Report(findings, len(pinned), len(compared), _newest(database))


def _advisories(folder: Path | None) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.glob("*.yaml")) if folder else ():
        advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not advisory.get("withdrawn"):
            yield advisory


def _judge(pin: Pin, advisory: Mapping[str, Any]) -> Iterator[Finding]:
    for affected in advisory.get("affected") or ():
        package = affected.get("package") or {}
        if package.get("ecosystem") != "PyPI" or canonicalize_name(package.get("name", "")) != pin.name:
            continue
        ranges = [entry for entry in affected.get("ranges") or () if entry.get("type") == "ECOSYSTEM"]
        if _listed(pin.version, affected.get("versions") or ()) or any(_within(pin.version, one) for one in ranges):
            fixed = tuple(str(event["fixed"]) for one in ranges for event in one["events"] if "fixed" in event)
            yield Finding(pin.name, pin.version, str(advisory["id"]), tuple(advisory.get("aliases") or ()), fixed)
            return


def _listed(version: str, versions: Iterable[str]) -> bool:
    return any(Version(version) == _version(str(each)) for each in versions)


def _within(version: str, entry: Mapping[str, Any]) -> bool:
    """OSV's rule: the events in the order of their versions; the last one that is not later decides."""
    pinned, inside = Version(version), False
    for event in sorted(entry["events"], key=_position):
        (kind, at), *_ = event.items()
        if kind == "last_affected":
            inside = inside and pinned <= _version(str(at))
        elif kind in {"introduced", "fixed"} and _version(str(at)) <= pinned:
            inside = kind == "introduced"
    return inside


def _position(event: Mapping[str, Any]) -> tuple[Version, bool]:
    (kind, at), *_ = event.items()
    return _version(str(at)), kind != "introduced"


def _version(text: str) -> Version:
    """Old versions of old packages follow no rule; they are before all that do."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")


def _newest(database: Path) -> datetime:
    """When the checkout's commit was made; without git, when the newest advisory was changed."""
    done = _git("-C", str(database), "log", "-1", "--format=%ct", "--", "vulns")
    if done.returncode == 0 and done.stdout.strip():
        return datetime.fromtimestamp(int(done.stdout), UTC)
    changed = (path.stat().st_mtime for path in (database / "vulns").rglob("*.yaml"))
    return datetime.fromtimestamp(max(changed, default=0.0), UTC)


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=600)
