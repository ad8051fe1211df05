"""Tables as kubectl draws them, by rich: the only module that imports it, so that only commands with tables pay for it.

On a terminal there are colours and columns fold; elsewhere lines are plain and whole.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.cli.common import clock, duration
from controller.upgrade.explain import Explanation
from controller.upgrade.plan import PlannedNode
from controller.upgrade.states import State
from controller.upgrade.survey import PolicySurvey

MOST_NODES = 40
"""Rows of nodes on a screen; wide tables show all."""
MOST_PODS = 4
WIDE = 10_000
_STYLES = {
    "Halted": "red",
    "PolicyInvalid": "red",
    "NamespaceNotAllowed": "red",
    "Paused": "yellow",
    "Blocked": "yellow",
    "Upgrading": "cyan",
}
_FOLDED = frozenset({"MESSAGE", "REMEDY", "BLOCKED", "CONDITION", "EVICTS", "HELD UP BY"})
_OF_POLICY = ("POLICY", "DRIVER", "NODES", "DONE", "IN PROGRESS", "WAITING", "FAILED", "UNAVAILABLE", "BLOCKED", "CONDITION")


def console() -> Console:
    """Return the console of standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def show(*contents: RenderableType) -> None:
    """Print to standard output; elsewhere than on a terminal without the blanks that fill the last column."""
    out = console()
    if out.is_terminal:
        out.print(*contents, sep="\n")
        return
    with out.capture() as captured:
        out.print(*contents, sep="\n")
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def screen() -> tuple[Live, Callable[[RenderableType], None]]:
    """Return a context in which tables are drawn over each other, and what draws them."""
    live = Live(console=console(), auto_refresh=False)
    return live, lambda content: live.update(content, refresh=True)


def status_tables(
    policies: Sequence[PolicySurvey], nodes: Sequence[Explanation], now: float, *, wide: bool, troubles: Iterable[str] = ()
) -> Group:
    """Draw the policies, then the nodes, then what is not up to date."""
    if not policies:
        return Group(Text("There is no upgrade policy: see `driver-upgrade crd`, then create one (docs/policy.md)."))
    shown = nodes if wide else nodes[:MOST_NODES]
    parts: list[RenderableType] = [_policies(policies)]
    if nodes:
        parts += ["", _nodes(shown, now, wide=wide)]
    if len(nodes) > len(shown):
        parts.append(Text(f"... and {len(nodes) - len(shown)} more: -o wide shows all"))
    return Group(*parts, *(Text(f"out of date: {trouble}", style="red") for trouble in troubles))


def _policies(policies: Iterable[PolicySurvey]) -> Table:
    table = _table(*_OF_POLICY)
    for one in policies:
        busy = f"{one.in_progress}/{one.slots}" if one.slots else f"{one.in_progress} (no limit)"
        failed = Text(str(one.failed), style="red" if one.failed else "")
        counts = (str(n) for n in (one.nodes, one.done))
        condition = Text(one.condition, style=_STYLES.get(one.condition, ""))
        told = one.message or _times(one)
        condition.append(f": {told}" if told else "", style="default")
        blocked = Text(", ".join(f"{item['nodes']} {item['reason']}" for item in one.blocked))
        after = (str(one.waiting), failed, str(one.unavailable), blocked, condition)
        table.add_row(one.policy, one.driver, *counts, busy, *after)
    return table


def _times(one: PolicySurvey) -> str:
    """When the rollout began, and when it may end."""
    named = (("since", one.started_at), ("done about", one.estimated_completion))
    return ", ".join(f"{name} {at}" for name, at in named if at)


def _nodes(nodes: Iterable[Explanation], now: float, *, wide: bool) -> Table:
    last = ("MESSAGE", "REMEDY") if wide else ("MESSAGE",)
    table = _table("NODE", "DRIVER", "STATE", "SINCE", "UNTIL", "REASON", *last)
    for one in nodes:
        table.add_row(*_node(one, now), _message(one, wide=wide), *((Text(one.remedy),) if wide else ()))
    return table


def _node(one: Explanation, now: float) -> Iterator[RenderableType]:
    yield from (one.node, one.driver)
    yield Text(one.state, style="red" if one.state == State.UPGRADE_FAILED else "")
    yield f"{duration(now - one.since)} ago" if one.since else ""
    yield clock(one.deadline, now) if one.deadline else ""
    yield Text(str(one.reason or (f"next: {one.next}" if one.next else "")), style="yellow" if one.stuck else "")


def _message(one: Explanation, *, wide: bool) -> Text:
    shown = one.blockers if wide else one.blockers[:1]
    more = len(one.blockers) - len(shown)
    return Text("; ".join(map(str, shown)) + (f"; {more} more" if more > 0 else "") or one.message)


def plan_table(nodes: Iterable[PlannedNode], *, wide: bool) -> Table:
    """Draw a plan, one row for each node in its turn."""
    table = _table("WAVE", "NODE", "DRIVER", "EVICTS", "HELD UP BY")
    for one in nodes:
        held = [f"{one.reason}: {one.message}"] if one.reason else []
        row = (one.node, one.driver, _evicts(one, wide=wide), "; ".join((*held, *map(str, one.blockers))))
        table.add_row(*map(Text, (str(one.wave or "-"), *row)))
    return table


def _evicts(one: PlannedNode, *, wide: bool) -> str:
    if one.restart_only:
        return "nothing: the driver is only restarted"
    shown = one.evicts if wide else one.evicts[:MOST_PODS]
    more = len(one.evicts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column not in _FOLDED)
    return table
