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

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.report.document import FinalistRow, ModelRow, Report, TrialLine
from optimizer_jobs.errors import printable
from retune.api.objectives import Metric, MetricKind

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
    latency = report.latency
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
        axes.set_ylabel(f"{words.LABELS[latency]} latency, relative")
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


def waterfall(report: Report) -> Markup | None:
    """Return what each step did to quality, latency and size, from the champion down; None without a step."""
    if len(report.steps) < 2:
        return None
    steps, faint = report.steps, _unsure(report)
    panels = (
        (report.main, report.start_quality, [each.quality for each in steps], [faint] * len(steps)),
        (report.latency, 1.0, [each.latency_ratio for each in steps], [each.noise for each in steps]),
        (Metric.SIZE_BYTES, 1.0, [each.size_ratio for each in steps], [0.0] * len(steps)),
    )
    with mpl.rc_context(_style("waterfall")):
        figure = Figure(figsize=(7.6, 1.0 + 0.42 * (len(steps) + 1)), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        for place, (metric, start, levels, noise) in enumerate(panels):
            axes = figure.add_subplot(1, 3, place + 1)
            axes.patch.set_alpha(0)
            _fall(axes, metric, start, levels, noise=noise)
            names = ["champion", *(printable(each.step, limit=_STEP_LIMIT) for each in steps)]
            axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names), color=INK)
            axes.set_ylim(len(names) - 0.4, -0.6)
        return _svg(figure)


def _unsure(report: Report) -> float:
    """Return the relative change of quality that the judge could not tell from none."""
    found = report.subject.differences[report.main] if report.subject else None
    if found is None or not report.start_quality:
        return 0.0
    return (found.high - found.low) / 2 / report.start_quality


def _fall(
    axes: Axes, metric: Metric, start: float | None, levels: Sequence[float | None], *, noise: Sequence[float]
) -> None:
    """Draw one panel: a bar from the level before to the level after each step, and the level in figures."""
    known = [level for level in (start, *levels) if level is not None]
    before, low, high = start, min(known, default=0.0), max(known, default=1.0)
    relative = metric.kind is not MetricKind.QUALITY
    room = max(high - low, 3 * max(noise, default=0.0) * abs(high), 1e-9)
    low, high = (0.0, high * 1.35) if relative else (high - 1.15 * room, high + 0.55 * room)
    if start is not None:
        axes.vlines(start, -0.4, len(levels) + 0.4, color=GRID, linewidth=1.2)
        _level(axes, 0, metric, start)
    for position, (level, faint) in enumerate(zip(levels, noise, strict=True), start=1):
        if level is None:
            axes.text(low, position, " not tried on its own", color=QUIET, va="center", fontsize=8)
            continue
        if before is not None:
            axes.barh(position, level - before, left=before, height=0.5, color=_turn(metric, before, level, faint))
            axes.vlines(before, position - 0.75, position + 0.25, color=QUIET, linewidth=0.8)
        _level(axes, position, metric, level, beyond=before)
        before = level
    axes.set_xlim(low, high)
    axes.set_title(_PANELS.get(metric, words.LABELS[metric]), fontsize=9, color=QUIET, loc="left")
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def _level(axes: Axes, position: int, metric: Metric, level: float, *, beyond: float | None = None) -> None:
    """Mark a level, and write it to the right of the bar that comes from the level `beyond`."""
    shown = words.value(metric, level) if metric.kind is MetricKind.QUALITY else f"x{level:.2f}"
    axes.plot([level], [position], "|", color=INK, markersize=11, markeredgewidth=1.6)
    axes.annotate(
        shown,
        (max(level, beyond or level), position),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _turn(metric: Metric, before: float, level: float, faint: float) -> str:
    """Return the colour of a change: better, worse, or too small to mean anything."""
    if abs(level - before) <= faint * before:
        return OTHER
    return CHOSEN if (level > before) == metric.higher_is_better else REFUSED


def distribution(report: Report) -> Markup | None:
    """Return how residuals or similarities of both models are spread over the test rows; None for a classifier."""
    found = report.distribution
    if found is None:
        return None
    with mpl.rc_context(_style("distribution")):
        figure, axes = _figure(height=2.7)
        for name, spread, colour in (("champion", found.champion, QUIET), ("candidate", found.candidate, CHOSEN)):
            if spread.low == spread.high:
                continue
            shares = [100 * count / sum(spread.counts) for count in spread.counts]
            axes.stairs(shares, found.edges, color=colour, label=name, linewidth=1.6, fill=False)
        axes.set_xlabel(_SPREADS[found.what])
        axes.set_ylabel("% of rows")
        axes.locator_params(axis="x", nbins=6)
        axes.ticklabel_format(axis="x", useOffset=False, style="plain")
        axes.legend(loc="best")
        return _svg(figure)


_SPREADS = {
    "residual": "residual: answer minus truth",
    "similarity": "cosine to the model as delivered",
}


def _groups(trials: Sequence[TrialLine], chosen: set[int]) -> list[tuple[str, list[TrialLine], dict[str, Any]]]:
    """Return label, trials and look of each kind of trial, the quiet ones first."""
    kept = [trial for trial in trials if trial.outcome == "feasible"]
    return [
        (
            "misses a limit",
            [trial for trial in trials if trial.outcome != "feasible"],
            {"s": 26, "facecolors": "none", "edgecolors": REFUSED, "linewidths": 1.2},
        ),
        ("keeps the limits", [trial for trial in kept if not trial.finalist], {"s": 26, "color": OTHER}),
        (
            "finalist",
            [trial for trial in trials if trial.finalist and trial.number not in chosen],
            {"s": 52, "facecolors": "white", "edgecolors": CHOSEN, "linewidths": 1.8, "zorder": 4},
        ),
        ("chosen", [trial for trial in trials if trial.number in chosen], {"s": 70, "color": CHOSEN, "zorder": 6}),
    ]


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
