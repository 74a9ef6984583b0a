"""The report's pictures as inline SVG: no script, no date, no network, the same bytes for the same numbers.

Names in them come from users, so nothing is parsed as markup or mathematics.
"""

import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from optimizer_jobs.errors import printable
from optimizer_jobs.report.document import FinalistRow, ModelRow, Report, TrialLine
from retune.api.objectives import Metric

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e4e7eb"
CHOSEN, REFUSED, OTHER = "#0f766e", "#b45309", "#8fa3b8"
_NAME_LIMIT = 44
WIDE = 5.0
"""Largest over smallest value beyond which an axis is logarithmic."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
}
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def pareto(report: Report) -> Markup | None:
    """Return size against latency of every trial, relative to the champion; None when no trial has both."""
    latency = _latency_metric(report)
    trials = [trial for trial in report.trials if latency in trial.ratios and Metric.SIZE_BYTES in trial.ratios]
    if not trials:
        return None
    with mpl.rc_context(_style("pareto")):
        figure, axes = _figure(height=3.6)
        chosen = {each.trial for each in report.finalists if each.outcome == "Chosen"}
        for label, group, look in _groups(trials, chosen):
            if group:
                points = [(trial.ratios[Metric.SIZE_BYTES], trial.ratios[latency]) for trial in group]
                axes.scatter(*zip(*points, strict=True), label=label, **look)
        axes.scatter([1], [1], label="champion", marker="D", s=46, color=INK, zorder=5)
        axes.set_xlabel("size, relative to the champion")
        axes.set_ylabel(f"{_short(latency)} latency, relative")
        axes.margins(0.08)
        _relative(axes, "x", [trial.ratios[Metric.SIZE_BYTES] for trial in trials])
        _relative(axes, "y", [trial.ratios[latency] for trial in trials])
        figure.legend(loc="outside upper left", ncols=5, handletextpad=0.2, columnspacing=1.2)
        return _svg(figure)


def latencies(report: Report) -> Markup:
    """Return one strip a model: 1st to 99th percentile, the middle half, the median, the 95th."""
    rows: list[ModelRow] = [report.champion, *report.finalists]
    with mpl.rc_context(_style("latencies")):
        figure, axes = _figure(height=0.75 + 0.42 * len(rows))
        for position, row in enumerate(reversed(rows)):
            _strip(axes, position, row.latency.percentiles, _colour(row))
        axes.set_yticks(range(len(rows)), [printable(row.plan, limit=_NAME_LIMIT) for row in reversed(rows)], color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("milliseconds a call")
        axes.grid(visible=False, axis="y")
        lowest = min(row.latency.percentiles[0] for row in rows)
        highest = max(row.latency.percentiles[-1] for row in rows)
        _scaled(axes, "x", lowest, highest, unit="")
        return _svg(figure)


def _latency_metric(report: Report) -> Metric:
    """Return the latency the search measured: p95 unless it has only p50."""
    measured = {metric for trial in report.trials for metric in trial.ratios}
    only_p50 = Metric.LATENCY_P50_MS in measured and Metric.LATENCY_P95_MS not in measured
    return Metric.LATENCY_P50_MS if only_p50 else Metric.LATENCY_P95_MS


def _short(metric: Metric) -> str:
    return "p50" if metric is Metric.LATENCY_P50_MS else "p95"


def _groups(trials: Sequence[TrialLine], chosen: set[int]) -> list[tuple[str, list[TrialLine], dict[str, Any]]]:
    """Return label, trials and look of each kind of trial, the quiet ones first."""
    kept = [trial for trial in trials if trial.outcome == "feasible"]
    return [
        ("misses a limit", [trial for trial in trials if trial.outcome != "feasible"],
         {"s": 26, "facecolors": "none", "edgecolors": REFUSED, "linewidths": 1.2}),
        ("keeps the limits", [trial for trial in kept if not trial.finalist], {"s": 26, "color": OTHER}),
        ("finalist", [trial for trial in trials if trial.finalist and trial.number not in chosen],
         {"s": 52, "facecolors": "white", "edgecolors": CHOSEN, "linewidths": 1.8, "zorder": 4}),
        ("chosen", [trial for trial in trials if trial.number in chosen], {"s": 70, "color": CHOSEN, "zorder": 6}),
    ]  # fmt: skip


def _strip(axes: Axes, position: int, percentiles: Sequence[float], colour: str) -> None:
    low, first, median, third, p95, high = (percentiles[index - 1] for index in (1, 25, 50, 75, 95, 99))
    axes.hlines(position, low, high, color=colour, linewidth=1.4)
    axes.hlines(position, first, third, color=colour, linewidth=8, alpha=0.45)
    axes.plot([median], [position], "|", color=INK, markersize=13, markeredgewidth=2)
    axes.plot([p95], [position], "o", color=colour, markersize=5)


def _colour(row: ModelRow) -> str:
    if not isinstance(row, FinalistRow):
        return QUIET
    return {"Chosen": CHOSEN, "Refused": REFUSED}.get(row.outcome, OTHER)


def _relative(axes: Axes, letter: str, ratios: Sequence[float]) -> None:
    """Scale an axis of ratios so that the champion's 1 and every trial are on it."""
    _scaled(axes, letter, min(1.0, *ratios), max(1.0, *ratios), unit="x")


def _scaled(axes: Axes, letter: str, lowest: float, highest: float, *, unit: str) -> None:
    """Use a logarithmic scale for a wide range, else a linear one that starts at 0."""
    axis = axes.xaxis if letter == "x" else axes.yaxis
    if highest > WIDE * lowest:
        axes.set(**{f"{letter}scale": "log", f"{letter}lim": (lowest / 1.3, highest * 1.3)})
        digits = "15" if highest > 100 * lowest else "125"
        axis.set_minor_formatter(lambda value, _: f"{unit}{value:g}" if f"{value:e}"[0] in digits else "")
    else:
        axes.set(**{f"{letter}lim": (0, highest * 1.12)})
    axis.set_major_formatter(lambda value, _: f"{unit}{value:g}" if value else "0")


def _style(name: str) -> Any:
    """Return the style settings with a salt of the picture's own, so that ids of two pictures on one page differ."""
    return {**_STYLE, "svg.hashsalt": f"retune-{name}"}


def _figure(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    """Return the picture as an element, without prolog, fixed size and the ids that would repeat on one page."""
    stream = StringIO()
    figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(text)  # noqa: S704 - matplotlib escapes every text it draws
