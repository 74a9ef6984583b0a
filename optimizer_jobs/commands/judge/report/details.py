"""How two models differ in detail: by class, by residual or by similarity; and how many rows a margin needs."""

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.judge.by_class import ClassLine, by_class
from optimizer_jobs.commands.judge.gate import limit_value, margin_rows
from optimizer_jobs.commands.judge.measuring import Measured
from optimizer_jobs.commands.judge.report.document import Distribution, MarginLine, Spread
from optimizer_jobs.commands.judge.verdict import Finding
from optimizer_jobs.commands.judge.words import change
from optimizer_jobs.measure.answers import cosines
from retune.api.metrics import Metric
from retune.api.objectives import GoalType

Floats = NDArray[np.float64]

USUAL_MARGINS = (0.005, 0.01, 0.02, 0.05)
"""Margins that the report shows: absolute for a metric that is a share, else relative to the champion's value."""
BINS = 40


def classes(subject: Finding, measured: Measured) -> tuple[ClassLine, ...]:
    """Return a classifier's accuracy by class, for the most frequent classes."""
    champion, candidate = (measured.answers[digest] for digest in _both(subject, measured))
    return by_class(champion, candidate, measured.rows)


def distribution(subject: Finding, measured: Measured) -> Distribution | None:
    """Return the distribution of residuals (regression) or of similarities to the model as delivered (embedding)."""
    digests = _both(subject, measured)
    if Metric.COSINE in subject.contender.differences:
        delivered = measured.delivered.numbers
        return _distribution("similarity", [cosines(measured.answers[digest].numbers, delivered) for digest in digests])
    answers = [measured.answers[digest].values for digest in digests]
    residuals = [(values - measured.rows.answers).ravel() for values in answers if values is not None]
    return _distribution("residual", residuals) if len(residuals) == len(digests) else None


def margins(subject: Finding, measured: Measured) -> tuple[MarginLine, ...]:
    """Return how many rows the usual margins and the margin of the spec need, for the main quality metric."""
    contender, champion = subject.contender, measured.evidence.champion
    main, base = contender.main, champion.metrics[contender.main].value
    chosen = _chosen_margin(subject, base)
    usual = USUAL_MARGINS if main.is_share else tuple(float(f"{base * part:.3g}") for part in USUAL_MARGINS)
    shown = sorted({margin for margin in (*usual, *([chosen] if chosen else [])) if margin > 0})
    return tuple(
        MarginLine(
            margin=margin,
            shown=change(main, margin).lstrip("+"),
            rows=margin_rows(main, contender, margin),
            chosen=margin == chosen,
        )
        for margin in shown
    )


def _chosen_margin(subject: Finding, base: float) -> float | None:
    """Return the loss of the main quality metric that the spec allows, rounded to 6 decimals; None without a limit."""
    main = subject.contender.main
    for check in subject.checks:
        goal = check.objective.goal
        if check.objective.metric is not main or goal is None or goal.type is GoalType.THRESHOLD:
            continue
        allowed = abs(base - limit_value(check.objective, base))
        return round(allowed, 6) if goal.type in _LOSSES and allowed else None
    return None


_LOSSES = {GoalType.MAX_DEGRADATION, GoalType.PERCENT_MAX_DEGRADATION}


def _both(subject: Finding, measured: Measured) -> tuple[str, str]:
    return measured.evidence.champion.bundle.digest, subject.contender.bundle.digest


def _distribution(what: str, values: list[Floats]) -> Distribution:
    """Return the distribution of the champion's and the candidate's values, each (N,), over the same bins."""
    champion, candidate = values
    low, high = min(map(np.min, values)), max(map(np.max, values))
    width = max(float(high - low), 1e-6)
    edges = np.linspace(float(low), float(low) + width, BINS + 1)
    return Distribution.model_validate(
        {
            "what": what,
            "edges": [_short(edge) for edge in edges],
            "champion": _summary(champion, edges),
            "candidate": _summary(candidate, edges),
        }
    )


def _summary(values: Floats, edges: Floats) -> Spread:
    percentiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    return Spread(
        mean=_short(values.mean()),
        low=_short(values.min()),
        high=_short(values.max()),
        percentiles=tuple(_short(percentile) for percentile in percentiles),
        counts=tuple(int(count) for count in np.histogram(values, bins=edges)[0]),
    )


def _short(number: np.floating | float) -> float:
    """Return a number rounded to 12 digits; similarities may differ only in their last digits."""
    return float(f"{number:.12g}")
