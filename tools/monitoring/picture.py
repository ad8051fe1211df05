"""Draws the dashboard's panels from what Prometheus answered, in the dashboard's layout and colours.

It is no Grafana: only what the panels say (kind, unit, stacking, legends, colours) is drawn, so that a reader of the docs
sees what they will get. Needs matplotlib (`pip install -e '.[docs]'`).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tools.monitoring.panels import COLORS, REASON_COLORS, ROWS, Panel, Query

Drawn = dict[str, list[tuple[Query, list[dict[str, Any]]]]]
"""The answers to a panel's queries, by its title."""
Series = list[tuple[str, list[float], list[float]]]
"""Legend, times and values."""
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "dashboard.png"
_COLUMNS, _WIDTH, _ROW = 24, 18.0, 0.42
_HEIGHTS = {"stat": 4, "timeseries": 9, "heatmap": 9}
_PALETTE = (
    *("#3274D9", "#FF9830", "#56A64B", "#B877D9", "#E02F44", "#37872D", "#8F3BB8", "#C69B06", "#5794F2"),
    *("#00A3A3", "#F78FB3", "#A16207", "#7C8B1D", "#45556B"),
)
_INK, _PALE, _BACK, _CARD = "#24292E", "#6E7780", "#F4F5F5", "#FFFFFF"
_MINUTE, _HOUR, _MIB = 60.0, 3600.0, 2.0**20
_CHARACTERS = 12.0
"""Of a legend, in a column of the grid."""
_MAX_LEGEND = 12


def draw(found: Drawn, path: Path) -> None:
    """Draw everything into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra that only this command needs

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "axes.edgecolor": "#D5D9DD", "text.color": _INK})
    places = list(_layout())
    rows = max(y + height for _, _, y, height in places)
    span = _span(found)
    figure = plt.figure(figsize=(_WIDTH, rows * _ROW), facecolor=_BACK)
    for what, x, y, height in places:
        if isinstance(what, str):
            figure.text(0.012, 1 - (y + 0.75) / rows, what, fontsize=13, fontweight="bold", va="center")
        else:
            _card(figure, what, found[what.title], (x, y, height), rows, span)
    figure.savefig(path, dpi=110, facecolor=_BACK)
    plt.close(figure)


def _layout() -> Iterator[tuple[Panel | str, int, float, float]]:
    """Yield each panel (or a row's title) with x, y and height in grid cells."""
    y = 0.0
    for title, panels in ROWS:
        yield title, 0, y, 1.4
        y, x, height = y + 1.4, 0, 0.0
        for panel in panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = _HEIGHTS[panel.kind]
            yield panel, x, y, height
            x += panel.width
        y += height


def _card(
    figure: Any,
    panel: Panel,
    answers: Sequence[tuple[Query, list[dict[str, Any]]]],
    at: tuple[int, float, float],
    rows: float,
    span: tuple[float, float],
) -> None:
    x, y, height = at
    left, width = (x + 0.15) / _COLUMNS, (panel.width - 0.3) / _COLUMNS
    bottom, tall = 1 - (y + height - 0.15) / rows, (height - 0.3) / rows
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - see draw

    back = figure.add_axes((left, bottom, width, tall), facecolor=_CARD)
    back.set_xticks([])
    back.set_yticks([])
    title_y = 1 - 0.55 / height
    back.text(
        0.35 / panel.width, title_y, panel.title, fontsize=9.5, fontweight="bold", va="center", transform=back.transAxes
    )
    series = [one for query, answer in answers for one in _series(query, answer)]
    if panel.kind == "stat":
        _stat(back, panel, series)
        return
    inner = figure.add_axes(
        (left + 1.05 / _COLUMNS, bottom + 2.7 / rows, width - 1.35 / _COLUMNS, tall - 4.0 / rows), facecolor=_CARD
    )
    if panel.kind == "heatmap":
        _heatmap(inner, series, span[0])
    else:
        _lines(inner, panel, series, span[0])
    inner.set_xlim(0, span[1] - span[0])
    inner.xaxis.set_major_locator(MaxNLocator(max(5, panel.width // 2), steps=[1, 1.5, 3, 6], integer=True))
    inner.xaxis.set_major_formatter(FuncFormatter(_clock))
    inner.tick_params(colors=_PALE, labelsize=7.5, length=0)
    for side in ("top", "right"):
        inner.spines[side].set_visible(False)


def _series(query: Query, answer: Sequence[Mapping[str, Any]]) -> Series:
    """Legends filled in, times and values apart."""
    made = []
    for one in answer:
        labels = one["metric"]
        legend = re.sub(r"{{(\w+)}}", partial(_label, labels), query.legend)
        values = [float(value) for _, value in one["values"]]
        made.append((legend, [float(at) for at, _ in one["values"]], values))
    return made


def _label(labels: Mapping[str, str], match: re.Match[str]) -> str:
    return labels.get(match[1], "")


def _span(found: Drawn) -> tuple[float, float]:
    """The first and the last of all samples: every panel shows this time."""
    times = [float(at) for answers in found.values() for _, answer in answers for one in answer for at, _ in one["values"]]
    return min(times), max(times)


def _stat(axes: Any, panel: Panel, series: Series) -> None:
    values = [value for _, _, values in series for value in values if math.isfinite(value)]
    last = values[-1] if values else math.nan
    color = "#37872D"
    for bad, limit in panel.thresholds:
        color = bad if last >= limit else color
    text = "-" if math.isnan(last) else _human(last, panel.unit)
    axes.text(
        0.5, 0.36, text, ha="center", va="center", fontsize=23, fontweight="bold", color=color, transform=axes.transAxes
    )


def _lines(axes: Any, panel: Panel, series: Series, start: float) -> None:
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415 - see draw

    series = sorted(series, key=lambda one: _order(one[0]))
    colors = [(COLORS | REASON_COLORS).get(legend, _PALETTE[n % len(_PALETTE)]) for n, (legend, _, _) in enumerate(series)]
    if panel.stacked and series:
        times = sorted({at for _, found, _ in series for at in found})
        known = [dict(zip(found, values, strict=True)) for _, found, values in series]
        heights = [[values.get(at, 0.0) for at in times] for values in known]
        seconds = [at - start for at in times]
        axes.stackplot(seconds, *heights, labels=[legend for legend, _, _ in series], colors=colors, alpha=0.85, linewidth=0)
    else:
        for (legend, found, values), color in zip(series, colors, strict=True):
            axes.plot([at - start for at in found], values, label=legend, color=color, linewidth=1.5)
    top = axes.get_ylim()[1] * 1.08
    axes.set_ylim(0, max(top, 1.2) if panel.unit == "none" else top)
    axes.yaxis.set_major_locator(_ticks(panel.unit, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _human(value, panel.unit)))
    axes.grid(axis="y", color="#E8EAED", linewidth=0.8)
    axes.set_axisbelow(True)
    longest = max((len(legend) for legend, _, _ in series), default=1)
    columns = max(1, min(len(series), int(panel.width * _CHARACTERS / (longest + 6))))
    axes.legend(
        *(part[:_MAX_LEGEND] for part in axes.get_legend_handles_labels()),
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=columns,
        frameon=False,
        fontsize=7.5,
        handlelength=1.2,
        columnspacing=1.2,
    )


def _ticks(unit: str, top: float) -> Any:
    """Few, at round numbers of what is written: MiB are powers of two."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator  # noqa: PLC0415 - see draw

    if unit == "bytes":
        return MultipleLocator(_MIB * max(1, 2 ** math.ceil(math.log2(top / _MIB / 5))))
    return MaxNLocator(5, integer=unit == "none", steps=[1, 2, 5, 10])


def _order(legend: str) -> tuple[int, str]:
    """States in the order of an upgrade, done at the bottom of the stack; everything else by name."""
    states = list(COLORS)
    return (states.index(legend) if legend in states else len(states), legend)


def _heatmap(axes: Any, series: Series, start: float) -> None:
    """Buckets of a Prometheus histogram are cumulative: what one adds to the one below it is drawn."""
    ordered = sorted(series, key=lambda one: float(one[0]))
    grid, below = [], [0.0] * len(ordered[0][1])
    for _, _, values in ordered:
        grid.append([max(0.0, value - under) for value, under in zip(values, below, strict=True)])
        below = values
    used = [n for n, row in enumerate(grid) if any(row)]
    low, high = max(0, min(used, default=0) - 1), max(used, default=0) + 2
    seconds = [at - start for at in ordered[0][1]]
    shown = axes.pcolormesh(seconds, range(len(grid[low:high])), grid[low:high], cmap="Oranges", shading="nearest", vmin=0)
    axes.set_yticks(range(len(grid[low:high])), [_bound(legend) for legend, _, _ in ordered[low:high]])
    bar = axes.figure.colorbar(shown, ax=axes, orientation="vertical", pad=0.02, fraction=0.05)
    bar.ax.tick_params(labelsize=7, colors=_PALE, length=0)
    bar.outline.set_visible(False)
    bar.set_label("nodes", fontsize=7, color=_PALE)


def _bound(text: str) -> str:
    return "longer" if math.isinf(float(text)) else f"≤ {_human(float(text), 's')}"


def _clock(seconds: float, _: object) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _human(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{value:.0%}"
        case "bytes":
            return f"{value / _MIB:.0f} MiB"
        case "s":
            return _seconds(value)
        case "ops" | "reqps":
            return f"{value:g}/s"
        case _:
            return f"{value:g}"


def _seconds(value: float) -> str:
    if value == 0:
        return "0"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 2 * _MINUTE:
        return f"{value:.3g} s"
    return f"{value / _MINUTE:.3g} min" if value < 2 * _HOUR else f"{value / _HOUR:.3g} h"
