"""Writes the field tables of docs/policy.md from the CRD: ``python -m tools.policy_docs [--check]``.

The CRD is the one place where a field's type, default, bounds and meaning are written down. Everything between the two
marker lines of the page is replaced; what stands around them is written by hand. ``--check`` writes nothing and ends
with 1 where the page is not current.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CRD = ROOT / "manifests" / "crd" / "driverupgradepolicies.nvidia.com.yaml"
PAGE = ROOT / "docs" / "policy.md"
BEGIN = "<!-- begin: written by `python -m tools.policy_docs`; change manifests/crd instead -->"
END = "<!-- end -->"
UPGRADE_POLICY = "spec.driver.upgradePolicy"
SELECTOR = "`spec.driver.podSelector` has the same fields. Where both are set, both must hold."
TABLE_HEAD = "| field | type | default | allowed | meaning |\n|---|---|---|---|---|"

Schema = Mapping[str, Any]


def load(path: Path = CRD) -> Schema:
    """The OpenAPI schema of a CRD's only version."""
    crd = yaml.safe_load(path.read_text(encoding="utf-8"))
    found: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def render(schema: Schema) -> str:
    """All sections: spec.driver, each object in it, the label selector once, and the status."""
    properties = schema["properties"]
    driver = properties["spec"]["properties"]["driver"]
    selector = {**driver["properties"]["nodeSelector"], "description": SELECTOR}
    sections = [
        *_sections("spec.driver", driver),
        *_sections("spec.driver.nodeSelector", selector),
        *_sections("status", properties["status"]),
    ]
    return "\n\n".join(sections)


def _sections(path: str, schema: Schema) -> Iterator[str]:
    yield _section(f"`{path}`", schema)
    for name, child in schema["properties"].items():
        inner, suffix = (child["items"], "[]") if child.get("type") == "array" else (child, "")
        if "properties" in inner and not _is_selector(inner):
            yield from _sections(f"{path}.{name}{suffix}", {"description": child["description"], **inner})


def _section(title: str, schema: Schema) -> str:
    rows = (_row(name, child, name in schema.get("required", ())) for name, child in schema["properties"].items())
    parts = [f"### {title}", schema["description"], "\n".join([TABLE_HEAD, *rows])]
    return "\n\n".join(parts)


def _row(name: str, schema: Schema, required: bool) -> str:
    cells = (f"`{name}`", _type(schema), _default(schema, required), _allowed(schema), schema["description"])
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _is_selector(schema: Schema) -> bool:
    return "matchExpressions" in schema.get("properties", ())


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or percentage"
    if _is_selector(schema):
        return "label selector"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    default = schema.get("default")
    if default in ({}, None):
        return ""
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def _allowed(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "0 or more, or `0%` to `100%`"
    if "maximum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    if "maxItems" in schema:
        return f"at most {schema['maxItems']}"
    if "maxProperties" in schema:
        return f"at most {schema['maxProperties']}"
    return f"at most {schema['maxLength']} characters" if "maxLength" in schema else ""


def updated(page: str, tables: str) -> str:
    """The page with the tables between its markers.

    Raises:
        ValueError: A marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} must have the lines {BEGIN!r} and {END!r} around its tables")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def main() -> int:
    """Write the page, or check it; the exit code is 1 where it is not current."""
    parser = argparse.ArgumentParser(description="Writes the field tables of docs/policy.md from the CRD.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is not current")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    wanted = updated(page, render(load()))
    if arguments.check:
        if page != wanted:
            print(f"{PAGE.relative_to(ROOT)} is not current: run python -m tools.policy_docs", file=sys.stderr)
        return int(page != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
