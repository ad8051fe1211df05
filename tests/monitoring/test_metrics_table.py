"""docs/metrics.md and what the controller exposes are held against each other, in both directions."""

import asyncio
import re
import subprocess
from collections.abc import Iterable

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.monitoring.everything import everything
from tests.monitoring.programs import needed
from tests.monitoring.table import Row, rows

_UNITS = {"seconds": "_seconds", "bytes": "_bytes"}


def as_rows(families: Iterable[Metric]) -> dict[str, Row]:
    found = {}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        found[name] = Row(name, family.type, rows()[name].unit if name in rows() else "", labels, family.documentation)
    return found


async def test_every_metric_is_a_row_of_the_table_and_every_row_a_metric():
    assert as_rows((await everything()).collect()) == rows()


def test_units_are_in_the_names():
    for row in rows().values():
        end = _UNITS.get(row.unit, "")
        name = row.name.removesuffix("_total")
        assert name.endswith(end), row
        assert row.unit in _UNITS or not name.endswith(tuple(_UNITS.values())), row


async def test_promtool_has_nothing_against_them():
    text, promtool = generate_latest(await everything()), needed("promtool")
    answer = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert [line for line in (answer.stdout + answer.stderr).decode().splitlines() if line] == []
    assert answer.returncode == 0


async def test_states_and_reasons_are_the_only_values_of_their_labels():
    states = {str(state) or "unknown" for state in State}
    values: dict[str, set[str]] = {}
    for family in (await everything()).collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    for label in ("state", "from", "to"):
        assert values[label] <= states
    assert values["reason"] <= {str(reason) for reason in Reason}
    assert all(re.fullmatch(r"[a-z_]+", value) for value in values["outcome"])
