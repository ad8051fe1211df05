"""Writes manifests/monitoring/prometheusrule.yaml from rules.yaml beside it: ``python -m tools.alerts [--check]``.

The alerts are written down once, as Prometheus itself reads them; the Prometheus operator wants the same groups inside an
object. ``--check`` writes nothing and ends with 1 where the object is not current.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "manifests" / "monitoring" / "rules.yaml"
OBJECT = RULES.with_name("prometheusrule.yaml")
HEAD = "# Written by `python -m tools.alerts` from rules.yaml: change that.\n"


def groups(path: Path = RULES) -> list[dict[str, Any]]:
    """The rule groups."""
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return found


def alerts() -> list[dict[str, Any]]:
    """Every alert of every group."""
    return [rule for group in groups() for rule in group["rules"]]


def rendered() -> str:
    """The PrometheusRule."""
    metadata = {
        "name": "driver-upgrade",
        "namespace": "driver-upgrade",
        "labels": {"app.kubernetes.io/name": "driver-upgrade"},
    }
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata,
        "spec": {"groups": groups()},
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


def main() -> int:
    """Write the object, or check it; the exit code is 1 where it is not current."""
    parser = argparse.ArgumentParser(description="Writes prometheusrule.yaml from rules.yaml.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the object is not current")
    arguments = parser.parse_args()
    wanted = rendered()
    if not arguments.check:
        OBJECT.write_text(wanted, encoding="utf-8")
        return 0
    current = OBJECT.exists() and OBJECT.read_text(encoding="utf-8") == wanted
    if not current:
        print(f"{OBJECT.relative_to(ROOT)} is not current: run python -m tools.alerts", file=sys.stderr)
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())
