"""Grafana's JSON of the panels: ``python -m tools.monitoring.dashboard [--check]`` writes dashboards/driver-upgrade.json."""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.monitoring.panels import COLORS, REASON_COLORS, ROWS, Panel

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "dashboards" / "driver-upgrade.json"
SCHEMA_VERSION = 39
"""Of Grafana 10.4; later ones migrate it when they load it."""
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8}
_COLUMNS = 24


@dataclass(frozen=True)
class Choice:
    """What is chosen in the dashboard's variables; empty is all."""

    driver: str = ""
    policy: str = ""


def panels() -> tuple[Panel, ...]:
    """Every panel, in order."""
    return tuple(panel for _, found in ROWS for panel in found)


def substituted(expr: str, choice: Choice, rate: str = "10m") -> str:
    """An expression as Grafana sends it."""
    values = {"$driver": choice.driver or ".*", "$policy": choice.policy or ".*", "$__rate_interval": rate}
    for name, value in values.items():
        expr = expr.replace(name, value)
    return expr


def numbers(vector: list[dict[str, Any]]) -> list[float]:
    """The numbers of an instant vector, those that are none apart."""
    return [value for value in (float(sample["value"][1]) for sample in vector) if not math.isnan(value)]


def rendered() -> str:
    """The dashboard."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, found in ROWS:
        made.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, y, _COLUMNS, 1)})
        y += 1
        x, height = 0, 0
        for panel in found:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = _HEIGHTS[panel.kind]
            made.append(_panel(panel) | {"gridPos": _place(x, y, panel.width, height)})
            x += panel.width
        y += height
    return json.dumps(_document([{"id": n, **panel} for n, panel in enumerate(made, 1)]), indent=2) + "\n"


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    heat = panel.kind == "heatmap"
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": _DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": "heatmap" if heat else "time_series",
            "range": True,
        }
        for n, query in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *({"color": c, "value": v} for c, v in panel.thresholds)]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        defaults |= {"color": {"mode": "palette-classic"}, "min": 0}
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {"fillOpacity": 70 if panel.stacked else 5, "lineWidth": 1, "stacking": stacking}
    elif panel.kind == "stat":
        defaults |= {"color": {"mode": "thresholds"}, "decimals": 0, "noValue": "-"}
    return defaults


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    named = {"{{state}}": COLORS, "{{reason}}": REASON_COLORS}
    colors = next((named[query.legend] for query in panel.queries if query.legend in named), {})
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for name, color in colors.items()
    ]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "textMode": "value"}
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"mode": "scheme", "scheme": "Oranges"}}
    legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _document(made: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "uid": "driver-upgrade",
        "title": "Driver upgrades",
        "description": "Rollouts of node drivers, and the controller that does them.",
        "tags": ["kubernetes", "driver-upgrade"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), _variable("driver", ""), _variable("policy", '{driver=~"$driver"}')]},
        "annotations": {"list": []},
        "panels": made,
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(name: str, selector: str) -> dict[str, Any]:
    query = f"label_values(driver_upgrade_policy_info{selector}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> int:
    """Write the dashboard, or check it; the exit code is 1 where it is not current."""
    parser = argparse.ArgumentParser(description="Writes dashboards/driver-upgrade.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the file is not current")
    arguments = parser.parse_args()
    wanted = rendered()
    if not arguments.check:
        DASHBOARD.write_text(wanted, encoding="utf-8")
        return 0
    current = DASHBOARD.exists() and DASHBOARD.read_text(encoding="utf-8") == wanted
    if not current:
        name = DASHBOARD.relative_to(ROOT)
        print(f"{name} is not current: run python -m tools.monitoring.dashboard", file=sys.stderr)
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())
