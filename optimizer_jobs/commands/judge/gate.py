"""Whether a finalist may be promoted at all: each limit is applied to the bad end of the interval.

"No significant difference" is never enough: a limit is kept only when the data prove it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import norm

from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Contender, Standing, estimate, pessimistic
from optimizer_jobs.measure.stats import Interval, required_rows, required_rows_of_mean
from optimizer_jobs.study.objectives import limits, shortfall
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import Goal, GoalType, Objective, Role

_FLIPS_UNSEEN = 2
"""Number of rows that are added to the disagreements before their share is estimated, in case none was observed."""


LEAST_SPREAD = 0.1
"""Spread of the answers over rows, relative to the champion's, below which a model answers all rows nearly alike."""


class Refusal(StrEnum):
    """Why a limit is not proven to be kept."""

    ACCURACY_BELOW_MARGIN = "AccuracyBelowMargin"
    QUALITY_BELOW_MARGIN = "QualityBelowMargin"
    TOO_FEW_TEST_ROWS = "TooFewTestRows"
    LATENCY_ABOVE_LIMIT = "LatencyAboveLimit"
    LATENCY_UNCERTAIN = "LatencyUncertain"
    SIZE_ABOVE_LIMIT = "SizeAboveLimit"
    MEMORY_ABOVE_LIMIT = "MemoryAboveLimit"
    RESOURCE_LIMIT_MISSED = "ResourceLimitMissed"
    MEASUREMENT_UNRELIABLE = "MeasurementUnreliable"
    NEARLY_CONSTANT = "NearlyConstant"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit, and whether the measurement proves that it is kept."""

    objective: Objective
    limit: float
    """The worst value that keeps the goal, in the metric's unit."""
    estimate: float
    """The finalist's value."""
    pessimistic: float
    """The bad end of its interval, which decides."""
    refusal: Refusal | None
    rows_needed: int | None = None
    """For quality, the number of test rows with which a good model passes in nine of ten cases."""

    @property
    def kept(self) -> bool:
        """Whether the limit is proven to be kept."""
        return self.refusal is None


def gate(
    contender: Contender,
    champion: Standing,
    *,
    objectives: Sequence[Objective],
    noise: str | None,
    memory: int | None = None,
) -> tuple[Check, ...]:
    """Return a check for each objective with a goal, and one for the memory; the contender passes if all are kept.

    Args:
        contender: The finalist.
        champion: The champion.
        objectives: Objectives of the spec.
        noise: Why latency cannot be judged on this node, which makes every limit on it unproven; None when it can.
        memory: Most bytes for a whole process with the model; None without a limit.
    """
    checks = [_check(objective, contender, champion, noise) for objective in limits(objectives)]
    return (*_constant_check(contender), *checks, *_memory_check(contender, memory))


def _constant_check(contender: Contender) -> tuple[Check, ...]:
    """Return a check that fails where the answers hardly differ from row to row, though the champion's do."""
    if contender.spread >= LEAST_SPREAD:
        return ()
    goal = Goal(type=GoalType.THRESHOLD, value=str(LEAST_SPREAD))
    objective = Objective(metric=Metric.FIDELITY, role=Role.CONSTRAIN, goal=goal)
    spread = contender.spread
    refusal = Refusal.NEARLY_CONSTANT
    return (Check(objective=objective, limit=LEAST_SPREAD, estimate=spread, pessimistic=spread, refusal=refusal),)


def limit_value(objective: Objective, champion: float) -> float:
    """Return the worst value that keeps the objective's goal, in the metric's unit."""
    worst = champion
    sign = 1.0 if objective.metric.higher_is_better else -1.0
    return worst + sign * shortfall(objective, worst, champion)


def _check(objective: Objective, contender: Contender, champion: Standing, noise: str | None) -> Check:
    base = champion.metrics[objective.metric].value
    value, worst = estimate(objective, contender, champion), pessimistic(objective, contender, champion)
    missed_by_estimate = shortfall(objective, value, base) > 0
    missed = shortfall(objective, worst, base) > 0
    unreliable = noise is not None and objective.metric in TIMED
    return Check(
        objective=objective,
        limit=limit_value(objective, base),
        estimate=value,
        pessimistic=worst,
        refusal=_refusal(objective.metric, missed=missed, for_sure=missed_by_estimate, unreliable=unreliable),
        rows_needed=_rows_needed(objective, contender, base),
    )


def _memory_check(contender: Contender, memory: int | None) -> tuple[Check, ...]:
    """Return the check of the memory that spec.serving allows a process, if there is such a limit."""
    needed = contender.process_bytes
    if memory is None or needed is None:
        return ()
    goal = Goal(type=GoalType.THRESHOLD, value=str(memory))
    objective = Objective(metric=Metric.PEAK_MEMORY_BYTES, role=Role.CONSTRAIN, goal=goal)
    refusal = Refusal.MEMORY_ABOVE_LIMIT if needed > memory else None
    return (Check(objective=objective, limit=memory, estimate=needed, pessimistic=needed, refusal=refusal),)


def _refusal(metric: Metric, *, missed: bool, for_sure: bool, unreliable: bool) -> Refusal | None:
    if unreliable:
        return Refusal.MEASUREMENT_UNRELIABLE
    if not missed:
        return None
    if metric.kind is MetricKind.QUALITY and not for_sure:
        return Refusal.TOO_FEW_TEST_ROWS
    if metric.kind is MetricKind.QUALITY:
        return Refusal.ACCURACY_BELOW_MARGIN if metric is Metric.ACCURACY else Refusal.QUALITY_BELOW_MARGIN
    if metric in LATENCIES:
        return Refusal.LATENCY_ABOVE_LIMIT if for_sure else Refusal.LATENCY_UNCERTAIN
    return Refusal.SIZE_ABOVE_LIMIT if metric is Metric.SIZE_BYTES else Refusal.RESOURCE_LIMIT_MISSED


def _rows_needed(objective: Objective, contender: Contender, champion: float) -> int | None:
    """Return how many test rows a limit on quality needs, given the disagreement and the spread on these rows.

    With so many rows, a model passes that is as good as the contender appears to be; for a limit relative to the
    champion, a model passes that is as good as the champion. None when no number of rows is enough.
    """
    metric, goal = objective.metric, objective.goal
    if metric.kind is not MetricKind.QUALITY or goal is None:
        return None
    limit, sign = limit_value(objective, champion), 1.0 if metric.higher_is_better else -1.0
    if goal.type is GoalType.THRESHOLD:
        own = contender.metrics[metric]
        margin = sign * (own.value - limit)
        is_share = contender.differences[metric].spread is None
        return None if margin <= 0 else _own_rows(own, margin, is_share=is_share, confidence=contender.confidence)
    margin = sign * (champion - limit)
    own_margin = sign * (contender.metrics[metric].value - limit)
    if min(margin, own_margin) <= 0:
        return None
    spread = _spread(metric, contender)
    own_rows = required_rows_of_mean(margin=own_margin, spread=spread, confidence=contender.confidence)
    return max(own_rows, margin_rows(metric, contender, margin))


def margin_rows(metric: Metric, contender: Contender, margin: float) -> int:
    """Return how many test rows prove that a model as good as the champion loses at most `margin`.

    Args:
        metric: A quality metric.
        contender: The finalist, whose disagreement with the champion is used.
        margin: Allowed loss, above 0, in the metric's unit.
    """
    if contender.differences[metric].spread is None:
        discordance = _spread(metric, contender) ** 2
        return required_rows(margin=margin, discordance=discordance, confidence=contender.confidence)
    return required_rows_of_mean(margin=margin, spread=_spread(metric, contender), confidence=contender.confidence)


def _spread(metric: Metric, contender: Contender) -> float:
    """Return the standard deviation of one row's contribution to the difference between contender and champion."""
    difference = contender.differences[metric]
    if difference.spread is None:
        return math.sqrt((difference.discordant + _FLIPS_UNSEEN) / (difference.rows + _FLIPS_UNSEEN))
    return difference.spread


def _own_rows(own: Interval, margin: float, *, is_share: bool, confidence: float) -> int:
    """Return how many rows prove that a model's own value is at most `margin` worse than it appears."""
    if is_share:
        spread = math.sqrt(own.value * (1 - own.value) + 1 / own.samples)
    else:
        half = (own.high - own.low) / 2
        spread = half * math.sqrt(own.samples) / float(norm.ppf(0.5 + confidence / 2))
    return required_rows_of_mean(margin=margin, spread=spread, confidence=confidence)
