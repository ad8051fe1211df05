"""Puts the figures of a benchmark into one table for people and one JSON line for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.upgrade.states import State
from tools.bench.floor import FloorRun
from tools.bench.setting import Size
from tools.bench.subject import Run
from tools.bench.witness import Evidence

_ORDER = {str(state) or "unknown": place for place, state in enumerate(State)}


@dataclass(frozen=True)
class Result:
    """All rollouts of one benchmark. Each figure is the median of its repetitions."""

    size: Size
    floors: Sequence[FloorRun]
    runs: Sequence[Run]

    @property
    def makespan(self) -> float:
        """Of the controller, in seconds."""
        return median(run.evidence.makespan for run in self.runs)

    @property
    def floor(self) -> float:
        """Of the bare script, in seconds."""
        return median(floor.evidence.makespan for floor in self.floors)

    @property
    def requests_per_node(self) -> float:
        """Of the controller, Events and leases apart."""
        return median(run.evidence.total for run in self.runs) / self.size.nodes

    @property
    def peak_rss_mib(self) -> float | None:
        """Of the controller; None where the system does not tell."""
        known = [run.peak_rss_mib for run in self.runs if run.peak_rss_mib is not None]
        return median(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """The last line of output."""
        memory = self.peak_rss_mib
        return {
            "nodes": self.size.nodes,
            "parallel": self.size.parallel,
            "makespan_s": round(self.makespan, 2),
            "floor_s": round(self.floor, 2),
            "ratio": round(self.makespan / self.floor, 3),
            "requests_per_node": round(self.requests_per_node, 2),
            "peak_rss_mib": None if memory is None else round(memory, 1),
        }


def table(result: Result) -> RenderableType:
    """The table: makespan, requests by verb and resource, memory, CPU, seconds per state."""
    size = result.size
    made = Table(title=f"{size.nodes} nodes, {size.parallel} at a time", title_justify="left", title_style="bold")
    made.add_column("")
    for name in ("controller", "floor"):
        made.add_column(name, justify="right")
    _times(made, result)
    _requests(made, result)
    _evictions(made, result)
    _resources(made, result)
    _states(made, result)
    return Group(made, Text("Medians" if len(result.runs) > 1 else "") + _seen(result))


def _times(made: Table, result: Result) -> None:
    made.add_row("makespan, s", f"{result.makespan:.2f}", f"{result.floor:.2f}")
    made.add_row("ratio", f"{result.makespan / result.floor:.2f}", "1", end_section=True)


def _requests(made: Table, result: Result) -> None:
    ours, floor = (_per_node([run.evidence for run in runs], result) for runs in (result.runs, result.floors))
    made.add_row("requests per node", _count(ours.total()), _count(floor.total()))
    for kind in sorted(ours | floor, key=lambda kind: -ours[kind]):
        made.add_row(f"  {kind[0]} {kind[1]}", _count(ours[kind]), _count(floor[kind]))
    apart = median(run.evidence.apart for run in result.runs) / result.size.nodes
    made.add_row("  Events and leases, not counted", _count(apart), "", end_section=True)


def _evictions(made: Table, result: Result) -> None:
    ours, floor = result.runs[-1].evidence, result.floors[-1].evidence
    made.add_row("evictions", str(ours.evictions.total()), str(floor.evictions.total()))
    for code in sorted(ours.evictions | floor.evictions):
        made.add_row(f"  answered {code}", str(ours.evictions[code]), str(floor.evictions[code]))
    for share, name in ((0.5, "half of them answered within, s"), (0.9, "nine in ten within, s")):
        texts = [f"{_quantile(one.eviction_seconds, share):.2f}" for one in (ours, floor)]
        made.add_row(f"  {name}", *texts, end_section=share > 0.5)  # noqa: PLR2004


def _resources(made: Table, result: Result) -> None:
    memory, runs = result.peak_rss_mib, result.runs
    made.add_row("peak memory, MiB", "unknown here" if memory is None else f"{memory:.1f}", "")
    made.add_row("CPU, s", *(f"{median(run.cpu_seconds for run in each):.2f}" for each in (runs, result.floors)))
    count, seconds = runs[-1].throttled
    made.add_row("own rate limiter, s in all", f"{seconds:.2f} / {count} requests", "", end_section=True)


def _states(made: Table, result: Result) -> None:
    """The floor knows no states: each of its steps stands beside the state in which the controller does the same."""
    made.add_row("seconds per node and state", "", "")
    ours, floor = result.runs[-1].state_seconds, result.floors[-1].state_seconds
    for state in sorted(ours.keys() | floor.keys(), key=lambda state: _ORDER[state]):
        count, seconds = ours.get(state, (0, 0.0))
        again = f" ({count} times)" if count not in {0, result.size.nodes} else ""
        spent = (_seconds(each / result.size.nodes) for each in (seconds, floor.get(state, 0.0)))
        made.add_row(f"  {state}{again}", *spent)


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value else ""


def _seen(result: Result) -> Text:
    """Every repetition's makespans: a median hides how far they lie apart."""
    if len(result.runs) == 1:
        return Text("")
    ours = ", ".join(f"{run.evidence.makespan:.2f}" for run in result.runs)
    floors = ", ".join(f"{floor.evidence.makespan:.2f}" for floor in result.floors)
    return Text(f" of {len(result.runs)}: controller {ours}; floor {floors}; evictions and states are the last one's")


def _per_node(evidences: Sequence[Evidence], result: Result) -> "Counter[tuple[str, str]]":
    kinds = {kind for one in evidences for kind in one.requests}
    found: Counter[tuple[str, str]] = Counter()
    for kind in kinds:
        found[kind] = median(one.requests[kind] for one in evidences) / result.size.nodes  # type: ignore[assignment]
    return found


def _count(value: float) -> str:
    return f"{value:.2f}" if value else "0"


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
