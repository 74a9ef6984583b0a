"""Whether a finalist may be promoted at all: every limit, judged by the pessimistic end of its interval.

"No significant difference" is never enough: a limit counts as kept only when the data show it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import norm

from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Contender, Standing, estimate, pessimistic
from optimizer_jobs.measure.quality import SHARES
from optimizer_jobs.measure.stats import Interval, required_rows, required_rows_of_mean
from optimizer_jobs.study.objectives import limits, shortfall
from retune.api.objectives import Goal, GoalType, Metric, MetricKind, Objective, Role

_FLIPS_UNSEEN = 2
"""Rows added to the disagreements seen before their share is extrapolated, so that none seen is not taken for none."""


class Refusal(StrEnum):
    """Why a limit does not count as kept."""

    ACCURACY_BELOW_MARGIN = "AccuracyBelowMargin"
    QUALITY_BELOW_MARGIN = "QualityBelowMargin"
    TOO_FEW_TEST_ROWS = "TooFewTestRows"
    LATENCY_ABOVE_LIMIT = "LatencyAboveLimit"
    LATENCY_UNCERTAIN = "LatencyUncertain"
    SIZE_ABOVE_LIMIT = "SizeAboveLimit"
    MEMORY_ABOVE_LIMIT = "MemoryAboveLimit"
    RESOURCE_LIMIT_MISSED = "ResourceLimitMissed"
    MEASUREMENT_UNRELIABLE = "MeasurementUnreliable"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit and what the measurement says of it."""

    objective: Objective
    limit: float
    """The worst value that keeps the goal, in the metric's unit."""
    estimate: float
    """The finalist's number."""
    pessimistic: float
    """The bad end of its interval, which decides."""
    refusal: Refusal | None
    rows_needed: int | None = None
    """For quality: test rows with which a model that deserves it would pass in nine cases of ten."""

    @property
    def kept(self) -> bool:
        """Whether the limit is shown to be kept."""
        return self.refusal is None


def gate(
    contender: Contender,
    champion: Standing,
    *,
    objectives: Sequence[Objective],
    noise: str | None,
    memory: int | None = None,
) -> tuple[Check, ...]:
    """Return one check per objective that carries a goal, and one of `memory`; the contender passes when all are kept.

    `noise` says why latency cannot be judged on this node; a limit on it then counts as not shown. `memory` is what a
    whole process with the model must get along with, in bytes.
    """
    checks = [_check(objective, contender, champion, noise) for objective in limits(objectives)]
    return (*checks, *_fits(contender, memory))


def limit_value(objective: Objective, champion: float) -> float:
    """Return the worst value that keeps the objective's goal, in the metric's unit."""
    worst = champion
    sign = 1.0 if objective.metric.higher_is_better else -1.0
    return worst + sign * shortfall(objective, worst, champion)


def _check(objective: Objective, contender: Contender, champion: Standing, noise: str | None) -> Check:
    base = champion.metrics[objective.metric].value
    found, worst = estimate(objective, contender, champion), pessimistic(objective, contender, champion)
    missed_by_estimate = shortfall(objective, found, base) > 0
    missed = shortfall(objective, worst, base) > 0
    unreliable = noise is not None and objective.metric in TIMED
    return Check(
        objective=objective,
        limit=limit_value(objective, base),
        estimate=found,
        pessimistic=worst,
        refusal=_refusal(objective.metric, missed=missed, for_sure=missed_by_estimate, unreliable=unreliable),
        rows_needed=_rows_needed(objective, contender, base),
    )


def _fits(contender: Contender, memory: int | None) -> tuple[Check, ...]:
    """Return the check of the memory that the spec's serving part gives a process, where it gives one."""
    needed = contender.process_bytes
    if memory is None or needed is None:
        return ()
    goal = Goal(type=GoalType.THRESHOLD, value=str(memory))
    given = Objective(metric=Metric.PEAK_MEMORY_BYTES, role=Role.CONSTRAIN, goal=goal)
    refusal = Refusal.MEMORY_ABOVE_LIMIT if needed > memory else None
    return (Check(objective=given, limit=memory, estimate=needed, pessimistic=needed, refusal=refusal),)


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
    """Return the test rows that a limit on quality needs, at the disagreement and the spread seen here.

    So many that a model as good as this one looks passes, and for a limit relative to the champion also one as good as
    the champion. None where no number of rows would do.
    """
    metric, goal = objective.metric, objective.goal
    if metric.kind is not MetricKind.QUALITY or goal is None:
        return None
    limit, sign = limit_value(objective, champion), 1.0 if metric.higher_is_better else -1.0
    if goal.type is GoalType.THRESHOLD:
        own = contender.metrics[metric]
        margin = sign * (own.value - limit)
        return None if margin <= 0 else _own_rows(metric, own, margin, confidence=contender.confidence)
    margin = sign * (champion - limit)
    left = sign * (contender.metrics[metric].value - limit)
    if min(margin, left) <= 0:
        return None
    spread = _spread(metric, contender)
    as_seen = required_rows_of_mean(margin=left, spread=spread, confidence=contender.confidence)
    return max(as_seen, margin_rows(metric, contender, margin))


def margin_rows(metric: Metric, contender: Contender, margin: float) -> int:
    """Return the test rows with which a model as good as the champion is shown to stay within `margin`, above 0."""
    if metric in SHARES:
        discordance = _spread(metric, contender) ** 2
        return required_rows(margin=margin, discordance=discordance, confidence=contender.confidence)
    return required_rows_of_mean(margin=margin, spread=_spread(metric, contender), confidence=contender.confidence)


def _spread(metric: Metric, contender: Contender) -> float:
    """Return the standard deviation of one row's part in the difference to the champion."""
    found = contender.differences[metric]
    if metric in SHARES:
        return math.sqrt((found.discordant + _FLIPS_UNSEEN) / (found.rows + _FLIPS_UNSEEN))
    return found.spread


def _own_rows(metric: Metric, own: Interval, margin: float, *, confidence: float) -> int:
    """Return the rows with which a model's own figure is shown to be better than one that is worse by `margin`."""
    if metric in SHARES:
        spread = math.sqrt(own.value * (1 - own.value) + 1 / own.samples)
    else:
        half = (own.high - own.low) / 2
        spread = half * math.sqrt(own.samples) / float(norm.ppf(0.5 + confidence / 2))
    return required_rows_of_mean(margin=margin, spread=spread, confidence=confidence)
