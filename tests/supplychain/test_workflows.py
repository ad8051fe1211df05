"""The workflows of the public repository: of their schema, without what zizmor knows to be dangerous, pinned by commit."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.supplychain import environments
from tools.supplychain.lock import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yaml"))
_USES = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)$")


def checked(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(environments.tool(program)), *arguments], capture_output=True, text=True, check=False)


def schema(kind: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    return checked("check-jsonschema", "--builtin-schema", f"vendor.{kind}", *map(str, paths))


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    return checked("zizmor", "--offline", "--no-progress", "--strict-collection", "--persona", "pedantic", str(folder))


def uses(path: Path) -> Iterator[str]:
    return (line.strip().removeprefix("- ") for line in path.read_text().splitlines() if re.match(r"\s*(- )?uses:", line))


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["jobs"])


def test_workflows_and_dependabot_are_of_their_schemas(tmp_path: Path):
    done = schema("github-workflows", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    done = schema("dependabot", GITHUB / "dependabot.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert schema("github-workflows", broken).returncode != 0


def test_zizmor_finds_nothing_and_would_find_something(tmp_path: Path):
    done = zizmor(GITHUB)
    assert done.returncode == 0, done.stdout + done.stderr
    copy = tmp_path / ".github"
    shutil.copytree(GITHUB, copy)
    loose = copy / "workflows" / WORKFLOWS[0].name
    loose.write_text(re.sub(r"@[0-9a-f]{40} # v(\d+)\S+", r"@v\1", loose.read_text()))
    assert zizmor(copy).returncode != 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_full_commit_and_says_which_version_that_is(path: Path):
    assert [line for line in uses(path) if not _USES.fullmatch(line)] == []


def test_an_action_has_one_commit_in_all_workflows():
    pinned: dict[str, set[str]] = {}
    for line in (line for path in WORKFLOWS for line in uses(path)):
        match = _USES.fullmatch(line)
        assert match
        owner, repository, *_ = match["action"].split("/")
        pinned.setdefault(f"{owner}/{repository}", set()).add(f"{match['commit']} {match['version']}")
    assert {action: commits for action, commits in pinned.items() if len(commits) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_has_the_permissions_that_it_names_and_ends_by_itself(path: Path):
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for job in jobs(path).values():
        assert job["permissions"]["contents"] == "read"
        assert job["timeout-minutes"] <= 120


def test_only_the_job_that_publishes_may_write_packages_and_no_pull_request_reaches_it():
    writers = [
        (path.name, name, job["if"])
        for path in WORKFLOWS
        for name, job in jobs(path).items()
        if job["permissions"].get("packages") == "write"
    ]
    assert writers == [("image.yaml", "publish", "github.event_name == 'push'")]


def test_what_the_workflows_make_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {
        target
        for path in WORKFLOWS
        for job in jobs(path).values()
        for step in job["steps"]
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))
    }
    assert made
    assert made <= targets


def test_lint_and_tests_run_for_every_pull_request():
    ci = yaml.safe_load((GITHUB / "workflows" / "ci.yaml").read_text())
    assert set(ci[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    commands = [step.get("run", "") for job in ci["jobs"].values() for step in job["steps"]]
    assert "make lint" in commands
    assert any(".ci/run" in command for command in commands)
