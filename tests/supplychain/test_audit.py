"""Known vulnerabilities, in a database made up for the purpose in the format of the real one."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

from tools.supplychain import audit, lock
from tools.supplychain.audit import AuditError, Finding, Report
from tools.supplychain.lock import Pin


def advisory(**fields: Any) -> Mapping[str, Any]:
    return {"id": "PYSEC-2030-1", "modified": "2030-01-01T00:00:00Z", "aliases": ["CVE-2030-1"], **fields}


def affected(*events: Mapping[str, str], name: str = "The.Name", versions: Any = (), **package: str) -> Mapping[str, Any]:
    ranges = [
        {"type": "GIT", "repo": "https://example.com", "events": [{"introduced": "0"}]},
        {"type": "ECOSYSTEM", "events": list(events)},
    ]
    found = {"ecosystem": "PyPI", "name": name, **package}
    return {"package": found, "ranges": ranges if events else [], "versions": list(versions)}


def database(folder: Path, *advisories: Mapping[str, Any], name: str = "the-name") -> Path:
    place = folder / "vulns" / name
    place.mkdir(parents=True)
    for number, one in enumerate(advisories):
        (place / f"PYSEC-2030-{number}.yaml").write_text(yaml.safe_dump(dict(one)))
    return folder


def found(folder: Path, version: str, *advisories: Mapping[str, Any]) -> tuple[Finding, ...]:
    pin = Pin(canonicalize_name("the-name"), version, ())
    return audit.audit([pin], database(folder, *advisories)).findings


INTRODUCED, FIXED = {"introduced": "1.1"}, {"fixed": "1.10"}


@pytest.mark.parametrize(
    ("version", "events", "hit"),
    [
        ("1.0", (INTRODUCED, FIXED), False),
        ("1.1", (INTRODUCED, FIXED), True),
        ("1.9", (INTRODUCED, FIXED), True),
        ("1.10", (INTRODUCED, FIXED), False),
        ("1.10rc1", (INTRODUCED, FIXED), True),
        ("1.9", (FIXED, INTRODUCED), True),
        ("9", (INTRODUCED, FIXED), False),
        ("9", (INTRODUCED, FIXED, {"introduced": "8"}), True),
        ("9", ({"introduced": "0"},), True),
        ("1.9", ({"introduced": "0"}, {"last_affected": "1.9"}), True),
        ("1.9.1", ({"introduced": "0"}, {"last_affected": "1.9"}), False),
    ],
)
def test_a_version_is_affected_between_its_events(tmp_path: Path, version: str, events: Any, hit: bool):
    assert bool(found(tmp_path, version, advisory(affected=[affected(*events)]))) is hit


@pytest.mark.parametrize(("version", "hit"), [("2.0", True), ("2", True), ("2.0.1", False)])
def test_a_version_that_is_listed_is_affected_however_it_is_spelt(tmp_path: Path, version: str, hit: bool):
    assert bool(found(tmp_path, version, advisory(affected=[affected(versions=["0.1dev-r7", "2.0"])]))) is hit


def test_a_finding_says_what_and_what_to_do(tmp_path: Path):
    [one] = found(tmp_path, "1.5", advisory(affected=[affected(INTRODUCED, FIXED)]))
    assert str(one) == "the-name 1.5: PYSEC-2030-1 (CVE-2030-1), fixed in 1.10"


@pytest.mark.parametrize(
    "one",
    [
        advisory(affected=[affected(INTRODUCED)], withdrawn="2030-02-01T00:00:00Z"),
        advisory(affected=[affected(INTRODUCED, name="other")]),
        advisory(affected=[affected(INTRODUCED, ecosystem="npm")]),
        advisory(affected=[affected()]),
        advisory(),
    ],
    ids=["withdrawn", "another package", "another ecosystem", "only commits", "nothing"],
)
def test_what_is_about_something_else_finds_nothing(tmp_path: Path, one: Mapping[str, Any]):
    assert found(tmp_path, "1.5", one) == ()


def test_a_folder_that_is_no_database_is_refused(tmp_path: Path):
    with pytest.raises(AuditError, match="no folder vulns"):
        audit.audit([], tmp_path)


def test_a_source_that_cannot_be_reached_is_told_with_the_way_without_network(tmp_path: Path):
    with pytest.raises(AuditError, match="make audit ADVISORIES="):
        audit.fetch(tmp_path / "checkout", (tmp_path / "nowhere").as_uri())


def test_the_database_is_cloned_then_brought_up_to_date_and_its_date_is_its_commits(tmp_path: Path):
    source = database(tmp_path / "source", advisory(affected=[affected(INTRODUCED)]))
    commit(source, "2030-01-02T00:00:00Z")
    checkout = audit.fetch(tmp_path / "checkout", source.as_uri())
    pins = [Pin(canonicalize_name("the-name"), "1.5", ())]
    report = audit.audit(pins, checkout)
    assert (len(report.findings), report.advisories, report.newest) == (1, 1, datetime(2030, 1, 2, tzinfo=UTC))
    database(source, advisory(affected=[affected(FIXED)]), name="another")
    commit(source, "2030-03-04T00:00:00Z")
    assert audit.audit(pins, audit.fetch(checkout, source.as_uri())).newest == datetime(2030, 3, 4, tzinfo=UTC)


def commit(folder: Path, date: str) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(folder)]
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "PATH": "/usr/bin:/bin"}
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "advisories"]):
        subprocess.run([*git, *arguments], check=True, env=dates, capture_output=True)


def test_an_old_database_is_called_old():
    newest = datetime(2030, 1, 1, tzinfo=UTC)
    report = Report((), 1, 1, newest)
    assert not report.stale(newest + timedelta(days=audit.STALE_DAYS))
    assert report.stale(newest + timedelta(days=audit.STALE_DAYS + 1))


@pytest.mark.parametrize(("vulnerable", "code"), [(True, 1), (False, 3)])
def test_the_command_ends_with_1_for_a_vulnerability_and_3_for_a_database_that_is_too_old(
    tmp_path: Path, vulnerable: bool, code: int
):
    version = lock.read()[canonicalize_name("aiohttp")].version
    events = ({"introduced": "0"}, *([] if vulnerable else [{"fixed": version}]))
    place = database(tmp_path, advisory(affected=[affected(*events, name="aiohttp")]), name="aiohttp")
    commit(place, "2020-01-01T00:00:00Z")
    command = [sys.executable, "-m", "tools.supplychain", "audit", "--advisories", str(place)]
    done = subprocess.run(command, cwd=lock.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert f"{int(vulnerable)} known vulnerabilities" in done.stdout
    assert "database of 2020-01-01" in done.stdout
