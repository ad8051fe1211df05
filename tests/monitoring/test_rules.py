"""The alerts: each fires, stays silent and resolves in promtool's time, has a runbook, and asks for known metrics."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.programs import needed
from tests.monitoring.table import ROOT, rows, series
from tools.alerts import OBJECT, RULES, alerts, groups, rendered

CASES = Path(__file__).with_name("alerts.test.yaml")
RUNBOOKS = ROOT / "docs" / "runbooks"
NAMES = [alert["alert"] for alert in alerts()]
_METRIC = re.compile(r"\b(?:driver_upgrade|rest_client|workqueue|reflector|process|python)_\w+")
_COMMAND = re.compile(r"\bdriver-upgrade (status|explain|plan|retry|skip|resume|pause)\b|\bkubectl ")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([needed("promtool"), *arguments], capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules():
    answer = promtool("check", "rules", str(RULES))
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_alert_fires_and_resolves():
    answer = promtool("test", "rules", str(CASES))
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("broken", ["vector(1) > 2", "vector(1)"], ids=["never", "always"])
def test_an_alert_that_never_or_always_fires_is_caught(tmp_path: Path, name: str, broken: str):
    document = {"groups": groups()}
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        if rule["alert"] == name:
            rule["expr"] = broken
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document))
    cases = yaml.safe_load(CASES.read_text())
    cases["rule_files"] = [str(tmp_path / "rules.yaml")]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    assert promtool("test", "rules", str(tmp_path / "cases.yaml")).returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_the_words_of_an_alert_that_fires_are_filled_in(tmp_path: Path, name: str):
    """promtool shows what fired where it is told to expect nothing."""
    case = next(test for test in yaml.safe_load(CASES.read_text())["tests"] if test["name"].startswith(name))
    firing = next(check["eval_time"] for check in case["promql_expr_test"] if check["exp_samples"])
    case["alert_rule_test"] = [{"eval_time": firing, "alertname": name, "exp_alerts": []}]
    del case["promql_expr_test"]
    cases = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    said = promtool("test", "rules", str(tmp_path / "cases.yaml"))
    shown = said.stdout + said.stderr
    assert said.returncode != 0
    assert "runbook_url" in shown
    assert not re.search(r"error expanding|no value|NaN|{{", shown), shown
    assert re.search(r"description=\\?\"[^\"]*\d", shown), "how many"


def test_the_operators_object_holds_the_same_rules():
    assert OBJECT.read_text() == rendered()


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_tells_how_bad_how_many_and_what_to_do(alert: dict[str, Any]):
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    notes = alert["annotations"]
    assert _COMMAND.search(notes["description"]), "the command to run next"
    assert re.search(r"\$value|value }}|\b0 replicas", notes["description"]), "how many"
    assert notes["runbook_url"].endswith(f"/docs/runbooks/{alert['alert']}.md")


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_asks_for_metrics_that_are_documented(alert: dict[str, Any]):
    known = {name for row in rows().values() for name in series(row)}
    asked = set(_METRIC.findall(alert["expr"] + alert["annotations"]["description"]))
    assert asked
    assert asked <= known


def test_every_alert_has_its_page_and_every_page_its_alert():
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(NAMES)
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        found = re.findall(r"^## (\w+)$", text, re.MULTILINE)
        assert found == ["Meaning", "Impact", "Diagnosis", "Mitigation"], page
        assert _COMMAND.search(text), page
        assert f"[{page.stem}](runbooks/{page.name})" in (ROOT / "docs" / "alerts.md").read_text()


def test_links_between_the_pages_lead_somewhere():
    pages = [*RUNBOOKS.glob("*.md"), ROOT / "docs" / "metrics.md", ROOT / "docs" / "alerts.md"]
    for page in pages:
        for target in re.findall(r"\]\(([\w./-]+\.md)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
