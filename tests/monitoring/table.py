"""docs/metrics.md as data."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "metrics.md"


@dataclass(frozen=True)
class Row:
    """One metric, as it is documented."""

    name: str
    type: str
    unit: str
    labels: frozenset[str]
    meaning: str


def rows() -> dict[str, Row]:
    """Every row of the table, by name."""
    found: dict[str, Row] = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            name, kind, unit, labels, meaning, _ = (cell.strip() for cell in line.strip("|").split("|"))
            row = Row(name.strip("`"), kind, unit, frozenset(labels.split(", ")) - {""}, meaning)
            assert row.name not in found, f"{row.name} is there twice"
            found[row.name] = row
    return found


def series(row: Row) -> frozenset[str]:
    """The names that a query may use for a metric."""
    return frozenset({f"{row.name}_{end}" for end in ("bucket", "sum", "count")} if row.type == "histogram" else {row.name})
