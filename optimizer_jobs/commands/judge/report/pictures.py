"""The report's pictures as inline SVG: no script, no date, no network, and the same bytes for the same numbers.

Names in them come from users, so no text is parsed as markup or mathematics.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.report.document import FinalistRow, ModelRow, Report, TrialLine
from optimizer_jobs.errors import printable
from retune.api.metrics import Metric, MetricKind

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e4e7eb"
CHOSEN, REFUSED, OTHER = "#0f766e", "#b45309", "#8fa3b8"
_NAME_LIMIT = 44
_STEP_LIMIT = 34
_PANELS = {
    Metric.LATENCY_P50_MS: "p50 latency, relative",
    Metric.LATENCY_P95_MS: "p95 latency, relative",
    Metric.SIZE_BYTES: "size, relative",
}
WIDE = 5.0
"""Ratio of the largest to the smallest value above which an axis is logarithmic."""
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
    """Return a scatter plot of size and latency of every trial, relative to the champion; None if no trial has both."""
    latency = report.latency
    trials = [trial for trial in report.trials if latency in trial.ratios and Metric.SIZE_BYTES in trial.ratios]
    if not trials:
        return None
    with mpl.rc_context(_style("pareto")):
        figure, axes = _figure(height=3.6)
        chosen = {finalist.trial for finalist in report.finalists if finalist.outcome == "Chosen"}
        for label, group, style in _groups(trials, chosen):
            if group:
                points = [(trial.ratios[Metric.SIZE_BYTES], trial.ratios[latency]) for trial in group]
                axes.scatter(*zip(*points, strict=True), label=label, **style)
        axes.scatter([1], [1], label="champion", marker="D", s=46, color=INK, zorder=5)
        axes.set_xlabel("size, relative to the champion")
        axes.set_ylabel(f"{words.LABELS[latency]} latency, relative")
        axes.margins(0.08)
        _relative(axes, "x", [trial.ratios[Metric.SIZE_BYTES] for trial in trials])
        _relative(axes, "y", [trial.ratios[latency] for trial in trials])
        figure.legend(loc="outside upper left", ncols=5, handletextpad=0.2, columnspacing=1.2)
        return _svg(figure)


def latencies(report: Report) -> Markup:
    """Return a strip for each model with the 1st to 99th percentile, the middle half, the median and the 95th."""
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


def waterfall(report: Report) -> Markup | None:
    """Return how each step changed quality, latency and size, starting from the champion; None without steps."""
    if len(report.steps) < 2:
        return None
    steps, unsure = report.steps, _unsure(report)
    panels = (
        _Panel(report.main, report.start_quality, [step.quality for step in steps], [unsure] * len(steps)),
        _Panel(report.latency, 1.0, [step.latency_ratio for step in steps], [step.noise for step in steps]),
        _Panel(Metric.SIZE_BYTES, 1.0, [step.size_ratio for step in steps], [0.0] * len(steps)),
    )
    names = ["champion", *(printable(step.step, limit=_STEP_LIMIT) for step in steps)]
    with mpl.rc_context(_style("waterfall")):
        figure = Figure(figsize=(7.6, 1.0 + 0.42 * len(names)), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), index + 1)
            axes.patch.set_alpha(0)
            _draw(axes, panel)
            axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names), color=INK)
            axes.set_ylim(len(names) - 0.4, -0.6)
        return _svg(figure)


def _unsure(report: Report) -> float:
    """Return the relative change of quality that the judge cannot distinguish from no change."""
    difference = report.subject.differences[report.main] if report.subject else None
    if difference is None or not report.start_quality:
        return 0.0
    return (difference.high - difference.low) / 2 / report.start_quality


@dataclass(frozen=True)
class _Panel:
    """One metric over the steps of the waterfall."""

    metric: Metric
    start: float | None
    """The champion's level."""
    levels: Sequence[float | None]
    """Level after each step; None when it is not known."""
    noise: Sequence[float]
    """For each step, the relative change that may be noise."""

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the axis."""
        known = [level for level in (self.start, *self.levels) if level is not None]
        low, high = min(known, default=0.0), max(known, default=1.0)
        if self.metric.kind is not MetricKind.QUALITY:
            return 0.0, high * 1.35
        width = max(high - low, 3 * max(self.noise, default=0.0) * abs(high), 1e-9)
        return high - 1.15 * width, high + 0.55 * width


def _draw(axes: Axes, panel: _Panel) -> None:
    """Draw one panel: for each step, a bar from the level before to the level after it, and the level as a number."""
    metric, before, (low, high) = panel.metric, panel.start, panel.limits
    if before is not None:
        axes.vlines(before, -0.4, len(panel.levels) + 0.4, color=GRID, linewidth=1.2)
        _level(axes, 0, metric, before)
    for position, (level, noise) in enumerate(zip(panel.levels, panel.noise, strict=True), start=1):
        if level is None:
            axes.text(low, position, " not tried on its own", color=QUIET, va="center", fontsize=8)
            continue
        if before is not None:
            axes.barh(position, level - before, left=before, height=0.5, color=_turn(metric, before, level, noise))
            axes.vlines(before, position - 0.75, position + 0.25, color=QUIET, linewidth=0.8)
        _level(axes, position, metric, level, bar_from=before)
        before = level
    axes.set_xlim(low, high)
    axes.set_title(_PANELS.get(metric, words.LABELS[metric]), fontsize=9, color=QUIET, loc="left")
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def _level(axes: Axes, position: int, metric: Metric, level: float, *, bar_from: float | None = None) -> None:
    """Mark a level, and write it to the right of its bar, which begins at the level `bar_from`."""
    text = words.value(metric, level) if metric.kind is MetricKind.QUALITY else f"x{level:.2f}"
    end = (max(level, bar_from or level), position)
    axes.plot([level], [position], "|", color=INK, markersize=11, markeredgewidth=1.6)
    axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)


def _turn(metric: Metric, before: float, level: float, noise: float) -> str:
    """Return the colour of a change: better, worse, or so small that it may be noise."""
    if abs(level - before) <= noise * before:
        return OTHER
    return CHOSEN if (level > before) == metric.higher_is_better else REFUSED


def distribution(report: Report) -> Markup | None:
    """Return the distribution of residuals or similarities of both models over the test rows; None for a classifier."""
    content = report.distribution
    if content is None:
        return None
    with mpl.rc_context(_style("distribution")):
        figure, axes = _figure(height=2.7)
        for name, spread, colour in (("champion", content.champion, QUIET), ("candidate", content.candidate, CHOSEN)):
            if spread.low == spread.high:
                continue
            shares = [100 * count / sum(spread.counts) for count in spread.counts]
            axes.stairs(shares, content.edges, color=colour, label=name, linewidth=1.6, fill=False)
        axes.set_xlabel(_SPREADS[content.what])
        axes.set_ylabel("% of rows")
        axes.locator_params(axis="x", nbins=6)
        axes.ticklabel_format(axis="x", useOffset=False, style="plain")
        axes.legend(loc="best")
        return _svg(figure)


_SPREADS = {
    "residual": "residual: answer minus truth",
    "similarity": "cosine to the model as delivered",
}


_DOTS: dict[str, dict[str, Any]] = {
    "misses a limit": {"s": 26, "facecolors": "none", "edgecolors": REFUSED, "linewidths": 1.2},
    "keeps the limits": {"s": 26, "color": OTHER},
    "finalist": {"s": 52, "facecolors": "white", "edgecolors": CHOSEN, "linewidths": 1.8, "zorder": 4},
    "chosen": {"s": 70, "color": CHOSEN, "zorder": 6},
}
"""Style of a trial's dot by kind of trial; later kinds are drawn over earlier ones."""


def _groups(trials: Sequence[TrialLine], chosen: set[int]) -> list[tuple[str, list[TrialLine], dict[str, Any]]]:
    """Return label, trials and style of each kind of trial, in the order in which they are drawn."""
    kept = [trial for trial in trials if trial.outcome == "feasible"]
    groups = {
        "misses a limit": [trial for trial in trials if trial.outcome != "feasible"],
        "keeps the limits": [trial for trial in kept if not trial.finalist],
        "finalist": [trial for trial in trials if trial.finalist and trial.number not in chosen],
        "chosen": [trial for trial in trials if trial.number in chosen],
    }
    return [(label, group, _DOTS[label]) for label, group in groups.items()]


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
    """Scale an axis of ratios so that it contains the champion's 1 and every trial."""
    _scaled(axes, letter, min(1.0, *ratios), max(1.0, *ratios), unit="x")


def _scaled(axes: Axes, letter: str, lowest: float, highest: float, *, unit: str) -> None:
    """Use a logarithmic scale for a wide range of values, otherwise a linear scale from 0."""
    axis = axes.xaxis if letter == "x" else axes.yaxis
    if highest > WIDE * lowest:
        axes.set(**{f"{letter}scale": "log", f"{letter}lim": (lowest / 1.3, highest * 1.3)})
        digits = "15" if highest > 100 * lowest else "125"
        axis.set_minor_formatter(lambda value, _: f"{unit}{value:g}" if f"{value:e}"[0] in digits else "")
    else:
        axes.set(**{f"{letter}lim": (0, highest * 1.12)})
    axis.set_major_formatter(lambda value, _: f"{unit}{value:g}" if value else "0")


def _style(name: str) -> Any:
    """Return the style with a salt for this picture, so that the ids in two pictures of one page differ."""
    return {**_STYLE, "svg.hashsalt": f"retune-{name}"}


def _figure(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    """Return the picture as an SVG element, without prolog, fixed size, and ids that would repeat on one page."""
    stream = StringIO()
    figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(text)  # noqa: S704 - matplotlib escapes every text it draws
