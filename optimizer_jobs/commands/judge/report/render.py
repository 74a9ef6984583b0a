"""Render the report's document as a self-contained page: styles and pictures are inside, without script and network.

Every text in it may come from a stranger. The template escapes all texts, and the page's own policy forbids it to load
or run anything.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.report import pictures
from optimizer_jobs.commands.judge.report.document import Estimate, Report
from optimizer_jobs.measure.stats import Interval
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import Goal, GoalType, Objective, Role

MOST_TRIALS = 300
"""Most trials on the page; report.json has all of them."""

_GOALS = {
    GoalType.THRESHOLD: "{better} {value}",
    GoalType.MIN_IMPROVEMENT: "better than the champion by {value} or more",
    GoalType.PERCENT_MIN_IMPROVEMENT: "better than the champion by {value} % or more",
    GoalType.MAX_DEGRADATION: "at most {value} worse than the champion",
    GoalType.PERCENT_MAX_DEGRADATION: "at most {value} % worse than the champion",
}
_TITLES = {
    Metric.LATENCY_P50_MS: "Latency, p50",
    Metric.LATENCY_P95_MS: "Latency, p95",
}
_SHARES = frozenset({Metric.ACCURACY, Metric.ROBUST_ACCURACY, Metric.RECALL, Metric.NEIGHBOR_AGREEMENT})
"""Metrics by which a row is either right or wrong."""
_TIMED = {MetricKind.LATENCY: "calls", MetricKind.QUALITY: "rows", MetricKind.RESOURCE: "readings"}
_OUTCOMES = {"Used": "in the candidate", "Tried": "not chosen", "NoEffect": "no effect", "LeftOut": "left out"}


def render(report: Report) -> str:
    """Return the HTML page of a report."""
    trials = sorted(report.trials, key=lambda trial: (not trial.finalist, trial.number))[:MOST_TRIALS]
    return _template().render(
        report=report,
        evidence=report.evidence_rows or report.test_rows,
        subject=report.subject,
        trials=sorted(trials, key=lambda trial: trial.number),
        pareto=pictures.pareto(report),
        latencies=pictures.latencies(report),
        waterfall=pictures.waterfall(report),
        distribution=pictures.distribution(report),
        metrics=tuple(report.champion.metrics),
        asked=tuple(dict.fromkeys(objective.metric for objective in report.objectives)),
        main=report.main,
        latency=report.latency,
        QUALITY=MetricKind.QUALITY,
        RESOURCE=MetricKind.RESOURCE,
        SHARES=_SHARES,
        Metric=Metric,
    )


def title(metric: Metric) -> str:
    """Return a metric's name as the heading of a table row."""
    label = words.LABELS[metric]
    return _TITLES.get(metric, f"{label[:1].upper()}{label[1:]}")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "title_of": title,
        "quality_change": words.change,
        "label_of": words.LABELS.__getitem__,
        "size": words.size,
        "points": words.points,
        "percent": words.percent,
        "rate": words.three,
        "change": change,
        "objective": describe,
        "p_value": _p_value,
        "short_digest": lambda digest: digest.removeprefix("sha256:")[:12],
    }
    environment.globals |= {"value": words.value, "samples": _TIMED, "outcomes": _OUTCOMES}
    return environment.get_template("report.html.j2")


def change(metric: Metric, estimate: Estimate) -> str:
    """Return a ratio to the champion in words."""
    return words.compared(metric, Interval(**dict(estimate)))


def describe(objective: Objective) -> str:
    """Return an objective in words, such as `accuracy, limit: at most 0.01 worse than the champion`."""
    label = words.LABELS[objective.metric]
    parts = []
    if objective.goal is not None:
        parts.append(f"limit: {_goal(objective.goal, objective.metric)}")
    if objective.role is Role.OPTIMIZE:
        direction = "higher is better" if objective.metric.higher_is_better else "lower is better"
        parts.append(f"optimized: {direction}, equal within {words.percent(float(objective.tolerance))}")
    return f"{label}, {'; '.join(parts)}"


def _goal(goal: Goal, metric: Metric) -> str:
    better = "at least" if metric.higher_is_better else "at most"
    return _GOALS[goal.type].format(better=better, value=goal.value)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
