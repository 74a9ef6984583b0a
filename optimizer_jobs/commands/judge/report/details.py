"""Where two models differ, beyond one number: by class, by residual, by similarity, and what a margin would need."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from optimizer_jobs.commands.judge.gate import limit_value, margin_rows
from optimizer_jobs.commands.judge.measuring import Measured
from optimizer_jobs.commands.judge.report.document import ClassLine, Distribution, MarginLine, Spread
from optimizer_jobs.commands.judge.verdict import Finding
from optimizer_jobs.commands.judge.words import change
from optimizer_jobs.errors import printable
from retune.api.objectives import GoalType, Metric

Floats = NDArray[np.float64]

TEXT_LIMIT = 200
MOST_CLASSES = 100
USUAL_MARGINS = (0.005, 0.01, 0.02, 0.05)
"""Points of a share; parts of an error."""
BINS = 40


def classes(subject: Finding, measured: Measured) -> tuple[ClassLine, ...]:
    """Return quality by class, for the most frequent classes when there are very many."""
    if Metric.ACCURACY not in subject.contender.differences:
        return ()
    before, after = (measured.scores[digest][Metric.ACCURACY] > 0 for digest in _both(subject, measured))
    answers = measured.rows.answers
    labels, counts = np.unique(answers, return_counts=True)
    shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    masks = [answers == labels[index] for index in shown]
    flips = [(int((after & ~before & mask).sum()), int((before & ~after & mask).sum())) for mask in masks]
    raw = [float(binomtest(lost, gained + lost).pvalue) if gained + lost else 1.0 for gained, lost in flips]
    return tuple(
        ClassLine(
            label=printable(str(labels[index]), limit=TEXT_LIMIT),
            rows=int(mask.sum()),
            champion=float(before[mask].mean()),
            candidate=float(after[mask].mean()),
            gained=gained,
            lost=lost,
            p_value=float(adjusted),
        )
        for index, mask, (gained, lost), adjusted in zip(shown, masks, flips, false_discovery_control(raw), strict=True)
    )


def distribution(subject: Finding, measured: Measured) -> Distribution | None:
    """Return how residuals (regression) or similarities to the model as delivered (embedding) are spread."""
    digests = _both(subject, measured)
    if Metric.COSINE in subject.contender.differences:
        return _spread("similarity", [measured.scores[digest][Metric.COSINE] for digest in digests])
    answers = [measured.answers[digest].values for digest in digests]
    found = [values - measured.rows.answers for values in answers if values is not None]
    return _spread("residual", found) if len(found) == len(digests) else None


def margins(subject: Finding, measured: Measured) -> tuple[MarginLine, ...]:
    """Return the rows that usual margins and the chosen one need, for the main quality metric."""
    contender, champion = subject.contender, measured.evidence.champion
    main, base = contender.main, champion.metrics[contender.main].value
    chosen = _chosen_margin(subject, base)
    usual = USUAL_MARGINS if main.is_share else tuple(float(f"{base * part:.3g}") for part in USUAL_MARGINS)
    found = sorted({margin for margin in (*usual, *([chosen] if chosen else [])) if margin > 0})
    return tuple(
        MarginLine(
            margin=margin,
            shown=change(main, margin).lstrip("+"),
            rows=margin_rows(main, contender, margin),
            chosen=margin == chosen,
        )
        for margin in found
    )


def _chosen_margin(subject: Finding, base: float) -> float | None:
    """Return the loss of quality that is allowed, rounded so that 0.01 is 0.01; None without such a limit."""
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


def _spread(what: str, found: list[Floats]) -> Distribution:
    champion, candidate = found
    low, high = min(map(np.min, found)), max(map(np.max, found))
    room = max(float(high - low), 1e-6)
    edges = np.linspace(float(low), float(low) + room, BINS + 1)
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
        percentiles=tuple(_short(each) for each in percentiles),
        counts=tuple(int(count) for count in np.histogram(values, bins=edges)[0]),
    )


def _short(number: np.floating | float) -> float:
    """Return a number to 12 digits: similarities differ only far behind the point."""
    return float(f"{number:.12g}")
