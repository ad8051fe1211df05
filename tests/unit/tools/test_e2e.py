"""Where there can be no real node, `python -m tools.e2e` says why, runs nothing, and ends with a status of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.e2e import cgroups, inside, needs, node
from tools.e2e.__main__ import NOT_RUN

ROOT = Path(__file__).parents[3]


def test_a_machine_without_the_programs_is_told_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.e2e"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NOT_RUN
    assert "NOT RUN" in done.stderr
    assert "apt-get install --no-install-recommends buildah containerd" in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was built"


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert any("not root" in reason for reason in needs.missing())


def test_another_system_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert needs.missing() == ["this is darwin: a real node needs Linux"]


def test_directories_to_mount_on_are_there_and_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, absent = tmp_path / "there", tmp_path / "new" / "deep"
    there.mkdir()
    monkeypatch.setattr(inside, "PRIVATE", (str(there), str(absent)))
    with inside.places():
        assert absent.is_dir()
    assert there.is_dir()
    assert not absent.parent.exists()


def test_groups_are_made_in_every_hierarchy_and_removed_with_those_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cpuset", "memory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "no-hierarchy").mkdir()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    with cgroups.own("e2e-1") as root:
        assert root == "/e2e-1"
        (tmp_path / "memory" / "e2e-1" / "kubepods" / "pod1").mkdir(parents=True)
        assert not (tmp_path / "no-hierarchy" / "e2e-1").exists()
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["cgroup.procs", "cgroup.procs", "cpuset.cpus"]


def test_groups_that_a_killed_run_left_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "cgroup.procs").touch()
    for name in (f"{cgroups.PREFIX}1/kubepods/pod1", f"{cgroups.PREFIX}2", "kubepods"):
        (tmp_path / "memory" / name).mkdir(parents=True)
    cgroups.sweep()
    assert sorted(path.name for path in (tmp_path / "memory").iterdir()) == ["cgroup.procs", "kubepods"]


def test_the_kubelet_leaves_the_machine_alone() -> None:
    config = node.kubelet_configuration("/e2e-1")
    assert config["protectKernelDefaults"]
    assert config["address"] == "127.0.0.1"
    assert config["cgroupRoot"] == "/e2e-1"
