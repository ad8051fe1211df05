"""The cache of built programs: the key changes when the binary would, and versions come from go.mod."""

import shutil
from pathlib import Path

import pytest

from tools.controlplane import build
from tools.controlplane.build import COMPONENTS, BuildError


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the modules that a test may change."""
    copied = tmp_path / "modules"
    shutil.copytree(build.MODULES, copied)
    monkeypatch.setattr(build, "MODULES", copied)
    return copied


def test_the_key_covers_every_file_of_the_module(modules: Path) -> None:
    before = build.digest(COMPONENTS["etcd"])
    assert build.digest(COMPONENTS["etcd"]) == before
    for name in ("go.mod", "go.sum", "main.go"):
        path = modules / "etcd" / name
        path.write_bytes(path.read_bytes().replace(b"e", b"3", 1))  # as long as before
        after = build.digest(COMPONENTS["etcd"])
        assert after != before, name
        before = after


def test_another_module_leaves_the_key_alone(modules: Path) -> None:
    before = build.digest(COMPONENTS["etcd"])
    (modules / "kwok" / "go.sum").write_text("changed")
    assert build.digest(COMPONENTS["etcd"]) == before


@pytest.mark.parametrize(
    ("changed", "value"),
    [("Component.linker_flags", "-s"), ("sys.platform", "plan9"), ("platform.machine", lambda: "riscv64")],
)
def test_the_key_covers_flags_and_platform(monkeypatch: pytest.MonkeyPatch, changed: str, value: object) -> None:
    before = build.digest(COMPONENTS["kwok"])
    monkeypatch.setattr(f"tools.controlplane.build.{changed}", value)
    assert build.digest(COMPONENTS["kwok"]) != before


def test_two_programs_of_one_module_have_keys_of_their_own() -> None:
    assert build.digest(COMPONENTS["kubernetes"]) != build.digest(COMPONENTS["kubectl"])


def test_the_version_is_that_of_go_mod_and_is_stamped(modules: Path) -> None:
    path = modules / "kubernetes" / "go.mod"
    version = COMPONENTS["kubernetes"].version
    path.write_text(path.read_text().replace(f"k8s.io/kubernetes {version}", "k8s.io/kubernetes v1.99.7"))
    assert COMPONENTS["kubernetes"].version == "v1.99.7"
    flags = COMPONENTS["kubernetes"].linker_flags
    assert "version.gitVersion=v1.99.7" in flags
    assert flags.endswith("gitMinor=99")


def test_a_module_that_requires_something_else_is_an_error(modules: Path) -> None:
    (modules / "kwok" / "go.mod").write_text("module x\n")
    with pytest.raises(BuildError, match=r"requires no sigs\.k8s\.io/kwok"):
        _ = COMPONENTS["kwok"].version


def test_the_cache_is_outside_the_checkout_and_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DRIVER_UPGRADE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_directory() == tmp_path / "driver-upgrade"
    monkeypatch.setenv("DRIVER_UPGRADE_CACHE", str(tmp_path / "own"))
    assert build.cache_directory() == tmp_path / "own"
