"""The dashboard as a file: complete, current, and asking for documented metrics only. tests/cluster looks at its data."""

import json
import re
from typing import Any

import pytest

from tests.monitoring.table import rows, series
from tools.monitoring.dashboard import DASHBOARD, Choice, panels, rendered, substituted

_METRIC = re.compile(r"\b(?:driver_upgrade|rest_client|workqueue|reflector|process|python)_\w+")
# The units of Grafana (@grafana/data, valueFormats) that are used here.
_UNITS = {"none", "percentunit", "s", "ops", "reqps", "bytes"}


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return made


def shown() -> list[dict[str, Any]]:
    return [panel for panel in document()["panels"] if panel["type"] != "row"]


def test_the_file_follows_from_the_panels():
    assert DASHBOARD.read_text() == rendered()


def test_it_loads_into_grafana_10():
    made = document()
    assert made["schemaVersion"] == 39
    assert "id" not in made, "an id of another Grafana's database would be refused"
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    assert [v["name"] for v in made["templating"]["list"]] == ["datasource", "driver", "policy"]


@pytest.mark.parametrize("panel", shown(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_unit_a_description_and_legends(panel: dict[str, Any]):
    assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS
    assert len(panel["description"]) > 20
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_covers_another():
    cells: set[tuple[int, int]] = set()
    for panel in document()["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not mine & cells, panel["title"]
        cells |= mine


def test_every_query_asks_for_documented_metrics_with_their_labels():
    known = {name: row for row in rows().values() for name in series(row)}
    for panel in panels():
        for query in panel.queries:
            for name in _METRIC.findall(query.expr):
                assert name in known, f"{panel.title}: {name}"
            if "$policy" in query.expr:
                asked = [known[n] for n in re.findall(r"(\w+){driver=~", query.expr)]
                assert asked
                assert all({"driver", "policy"} <= row.labels for row in asked)


def test_variables_are_filled_in_as_grafana_does():
    expr = 'rate(x{driver=~"$driver",policy=~"$policy"}[$__rate_interval])'
    assert substituted(expr, Choice("gpu")) == 'rate(x{driver=~"gpu",policy=~".*"}[10m])'
    for panel in panels():
        for query in panel.queries:
            assert "$" not in substituted(query.expr, Choice())
