"""Other people's definitions: taken from their modules once, by what go.sum says, and never in part."""

import json
import shutil
from pathlib import Path

import pytest

from tools.controlplane import foreign
from tools.controlplane.build import BuildError
from tools.controlplane.terminal import Reporter

FILES = {Path(file).name: file for files in foreign.TAKEN.values() for file in files}


class Go:
    """A stand-in that has every module in one folder, and counts how often it is called."""

    def __init__(self, root: Path) -> None:
        self.module, self.calls = root / "module", root / "calls"
        for file in FILES.values():
            (self.module / file).parent.mkdir(parents=True, exist_ok=True)
            (self.module / file).write_text(file)
        self.path = root / "go"
        self.answers(f"echo '{json.dumps({'Dir': str(self.module)})}'")

    def answers(self, line: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho >> {self.calls}\n{line}\n")
        self.path.chmod(0o755)


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    monkeypatch.setenv("DRIVER_UPGRADE_CACHE", str(tmp_path / "cache"))
    made = Go(tmp_path)
    monkeypatch.setattr(foreign, "find_go", lambda *_: made.path)
    return made


def test_they_are_taken_once(go: Go) -> None:
    found = foreign.definitions(Reporter())
    assert {path.name: path.read_text() for path in found} == FILES
    calls = go.calls.read_text()
    assert foreign.definitions(Reporter()) == found
    assert go.calls.read_text() == calls


@pytest.mark.parametrize("name", ["go.mod", "go.sum"])
def test_another_version_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before, copied = foreign.target(), tmp_path / "definitions"
    shutil.copytree(foreign.DEFINITIONS, copied)
    monkeypatch.setattr(foreign, "DEFINITIONS", copied)
    assert foreign.target() == before
    (copied / name).write_text("another")
    assert foreign.target() != before


def test_what_go_says_against_a_module_is_told_and_leaves_nothing(go: Go) -> None:
    go.answers("echo 'checksum mismatch' >&2; exit 1")
    with pytest.raises(BuildError, match="checksum mismatch"):
        foreign.definitions(Reporter())
    assert not foreign.target().exists()


def test_a_module_that_lacks_a_file_leaves_nothing(go: Go) -> None:
    (go.module / next(iter(FILES.values()))).unlink()
    with pytest.raises(BuildError, match="has no"):
        foreign.definitions(Reporter())
    assert not foreign.target().exists()
