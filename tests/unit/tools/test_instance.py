"""Directories of control planes: a left-over is ended and removed, one in use or kept is left alone."""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from tools.controlplane.instance import Instance, sweep
from tools.controlplane.terminal import Reporter


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where the reporter writes, with all instances below a directory of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return io.StringIO()


def swept(said: io.StringIO) -> str:
    sweep(Reporter(Console(file=said)))
    return said.getvalue()


def test_a_left_over_is_killed_and_removed(said: io.StringIO) -> None:
    instance = Instance()
    command = [sys.executable, "-c", "input()", f"--data-dir={instance.directory}/etcd"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as orphan:
        instance._lock.close()  # what the kernel does when the owner dies
        assert "left over from another run" in swept(said)
        assert orphan.wait(timeout=10) != 0
    assert not instance.directory.exists()


def test_one_in_use_is_left_alone(said: io.StringIO) -> None:
    instance = Instance()
    assert not swept(said)
    assert instance.directory.exists()
    instance.close()
    assert not instance.directory.exists()


def test_one_kept_on_purpose_is_left_alone(said: io.StringIO) -> None:
    instance = Instance()
    instance.close(keep=True)
    assert not swept(said)
    assert instance.directory.exists()
