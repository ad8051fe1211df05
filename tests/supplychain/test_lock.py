"""The locks: everything by hash, and nothing that the rest of the project says otherwise."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from tools.supplychain import lock
from tools.supplychain.lock import LockError, Pin

MAX_DIRECT = 8
LOCKS = [lock.RUNTIME, lock.BUILD, lock.TOOLS]


def closure() -> dict[NormalizedName, str]:
    """What runs when the controller runs here: its requirements and theirs, as installed, with their versions."""
    found: dict[NormalizedName, str] = {}
    waiting = [requirement.name for requirement in lock.direct().values()]
    while waiting:
        name = waiting.pop()
        if canonicalize_name(name) in found:
            continue
        installed = metadata.distribution(name)
        found[canonicalize_name(name)] = installed.version
        needed = [Requirement(text) for text in installed.requires or ()]
        waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_of_a_lock_has_a_version_and_hashes(path: Path):
    pins = lock.read(path)
    assert pins
    assert [pin.name for pin in pins.values() if not pin.hashes] == []


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_the_versions_that_development_and_ci_have(path: Path):
    versions = lock.constraints()
    both = {name: pin.version for name, pin in lock.read(path).items() if name in versions}
    assert both == {name: versions[name] for name in both}, "run `make lock`"


def test_the_lock_has_everything_that_runs_and_nothing_else():
    pins = lock.read()
    here = {name: pin.version for name, pin in pins.items() if not pin.marker}
    assert closure().items() >= here.items()
    assert {name: pins[name].version for name in closure()} == closure(), "run `make lock`"


def test_the_lock_has_what_pyproject_asks_for_within_its_bounds():
    pins = lock.read()
    for name, requirement in lock.direct().items():
        assert requirement.specifier.contains(pins[name].version)


def test_the_build_is_locked_too():
    project = tomllib.loads((lock.ROOT / "pyproject.toml").read_text())
    pins = lock.read(lock.BUILD)
    for requirement in map(Requirement, project["build-system"]["requires"]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)].version)


def test_direct_dependencies_are_few():
    assert len(lock.direct()) <= MAX_DIRECT


def test_lines_are_read_with_their_hashes_and_markers(tmp_path: Path):
    path = tmp_path / "requirements.lock"
    first, second = "a" * 64, "b" * 64
    path.write_text(
        f"# comment\nThe_Name==1.2 ; python_version < '3.13' \\\n    --hash=sha256:{first} \\\n    --hash=sha256:{second}\n"
    )
    expected = Pin(canonicalize_name("the-name"), "1.2", (first, second), 'python_version < "3.13"')
    assert lock.read(path) == {"the-name": expected}
    assert Version(expected.version) == Version("1.2")


def test_a_line_without_a_version_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "requirements.lock"
    path.write_text("aiohttp>=3\n")
    with pytest.raises(LockError, match=r"requirements.lock: 'aiohttp>=3' .*make lock"):
        lock.read(path)
