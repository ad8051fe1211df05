"""The live view: zones side by side, a line for each node, legible without colour and on 80 columns.

A node's glyph fills as its upgrade goes on; the word says the state, and what follows says what the node waits for.
Wide screens show the controller's own reasons, narrow ones a short word for each.
"""

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tools.demo.fleet import Budget, Fleet, NodeCell
from tools.demo.stage import NEW, OLD

WIDE = 110
_S, _R = State, Reason
_LOOKS: Mapping[State, tuple[str, str, str, str]] = {
    # glyph, the same in ASCII, word, style
    _S.UNKNOWN: ("·", ".", "no driver yet", "dim"),
    _S.UPGRADE_REQUIRED: ("○", "o", "waiting", "dim"),
    _S.CORDON_REQUIRED: ("◔", "c", "cordon", "yellow"),
    _S.WAIT_FOR_JOBS_REQUIRED: ("◔", "j", "jobs", "magenta"),
    _S.POD_DELETION_REQUIRED: ("◑", "p", "pods", "yellow"),
    _S.DRAIN_REQUIRED: ("◑", "d", "drain", "yellow"),
    _S.POD_RESTART_REQUIRED: ("◕", "r", "restart", "cyan"),
    _S.VALIDATION_REQUIRED: ("◕", "v", "validate", "cyan"),
    _S.UNCORDON_REQUIRED: ("◕", "u", "uncordon", "cyan"),
    _S.UPGRADE_DONE: ("●", "#", "done", "green"),
    _S.UPGRADE_FAILED: ("✖", "X", "FAILED", "bold red"),
}
_LEGEND = (
    _S.UPGRADE_REQUIRED,
    _S.WAIT_FOR_JOBS_REQUIRED,
    _S.DRAIN_REQUIRED,
    _S.POD_RESTART_REQUIRED,
    _S.UPGRADE_DONE,
    _S.UPGRADE_FAILED,
)
_SHORT: Mapping[str, str] = {
    _R.JOBS_RUNNING: "running",
    _R.EVICTING: "evicting",
    _R.POD_DISRUPTION_BUDGET: "budget!",
    _R.POD_TERMINATING: "pods end",
    _R.PODS_NOT_LISTED: "listing",
    _R.DRIVER_POD_TERMINATING: "stops",
    _R.DRIVER_POD_MISSING: "no pod",
    _R.DRIVER_POD_PENDING: "pending",
    _R.DRIVER_POD_NOT_READY: "loading",
    _R.REVISION_UNKNOWN: "new",
}
_UNDER_WAY = frozenset(_SHORT) - {_R.JOBS_RUNNING, _R.POD_DISRUPTION_BUDGET} | {_R.NO_SLOT}
"""Reasons that every node has for a moment: in a picture they show that something moves, in a text they are noise."""
_DETAIL_STYLES: Mapping[str, str] = {_R.JOBS_RUNNING: "magenta", _R.POD_DISRUPTION_BUDGET: "bold yellow"}


def draw(fleet: Fleet, console: Console) -> RenderableType:
    """The whole view, as wide as the console."""
    wide = console.width >= WIDE
    plain = is_plain(console)
    zones = _zones(fleet, wide, plain)
    parts = (_headline(fleet, plain), _progress(fleet), Text(), zones, Text(), _budgets(fleet, plain), _legend(plain))
    return Group(*parts)


def is_plain(console: Console) -> bool:
    """Whether the terminal knows ASCII only."""
    return not console.encoding.lower().startswith("utf")


def arrow(plain: bool) -> str:
    """What stands between the old version and the new."""
    return "->" if plain else "→"


def _line(plain: bool) -> Text:
    return Text(no_wrap=True, overflow="crop" if plain else "ellipsis")


def line(cell: NodeCell) -> str:
    """How a node stands, for output that is no terminal."""
    said = str(cell.state) or "unknown"
    said += f": {cell.blocked_by}" if cell.blocked_by and cell.blocked_by not in _UNDER_WAY else ""
    return f"{cell.name} {cell.zone} {said}" + (", waits for safe load" if cell.safe_load else "")


def _headline(fleet: Fleet, plain: bool) -> Text:
    text = _line(plain).append(f"Driver {OLD} {arrow(plain)} {NEW}", "bold")
    text.append(f"   {fleet.slots} of {fleet.limit} slots in use", "cyan" if fleet.slots else "dim")
    text.append(f"   {fleet.elapsed:5.1f} s", "bold")
    return text


def _progress(fleet: Fleet) -> Table:
    total, done = max(1, len(fleet.nodes)), fleet.upgraded
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=total, completed=done, complete_style="green", finished_style="green")
    row.add_row(bar, f"{done} of {len(fleet.nodes)} nodes upgraded")
    return row


def _zones(fleet: Fleet, wide: bool, plain: bool) -> Table:
    zones: dict[str, list[NodeCell]] = {}
    for cell in sorted(fleet.nodes.values(), key=lambda cell: cell.name):
        zones.setdefault(cell.zone, []).append(cell)
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for zone, cells in sorted(zones.items()):
        table.add_column(_zone(zone, cells), ratio=1, no_wrap=True, overflow="crop" if plain else "ellipsis")
    columns = [cells for _, cells in sorted(zones.items())]
    for row in range(max(map(len, columns), default=0)):
        table.add_row(*(_cell(cells[row], wide, plain) if row < len(cells) else Text() for cells in columns))
    return table


def _zone(zone: str, cells: list[NodeCell]) -> Text:
    done = sum(cell.finished is not None for cell in cells)
    return Text.assemble(zone, (f"  {done} of {len(cells)}", "dim"))


def _cell(cell: NodeCell, wide: bool, plain: bool) -> Text:
    glyph, ascii_glyph, word, style = _LOOKS[cell.state]
    if cell.safe_load and cell.state is State.UPGRADE_REQUIRED:
        word = "safe load"
    text = Text.assemble((ascii_glyph if plain else glyph, style), " ", (cell.name, "" if cell.cordoned else "dim"), " ")
    if cell.state is State.UPGRADE_DONE and cell.seconds is None:
        text.append("old driver", "dim")
        return text
    text.append(word, style)
    if detail := _detail(cell, wide):
        text.append(": " if wide and cell.finished is None else " ", "dim")
        text.append(detail, _DETAIL_STYLES.get(cell.blocked_by, "dim"))
    return text


def _detail(cell: NodeCell, wide: bool) -> str:
    if cell.seconds is not None:
        return f"{cell.seconds:.1f} s"
    if cell.state is State.UPGRADE_REQUIRED:
        return ""
    reason = cell.blocked_by
    return reason if wide else _SHORT.get(reason, reason)


def _budgets(fleet: Fleet, plain: bool) -> Text:
    text = _line(plain).append("Budgets")
    for budget in sorted(fleet.budgets.values(), key=lambda budget: budget.name):
        text.append("   ").append_text(_budget(budget))
    return text


def _budget(budget: Budget) -> Text:
    spare = (f"{budget.allowed} to spare", "") if budget.allowed else ("none to spare", "bold yellow")
    return Text.assemble(f"{budget.name} {budget.healthy} ready, ", spare)


def _legend(plain: bool) -> Text:
    text = _line(plain)
    for state in _LEGEND:
        glyph, ascii_glyph, word, style = _LOOKS[state]
        text.append(ascii_glyph if plain else glyph, style).append(f" {word}   ", "dim")
    return text
