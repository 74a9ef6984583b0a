"""Whether a finalist may be promoted at all: every limit, judged by the pessimistic end of its interval.

"No significant difference" is never enough: a limit counts as kept only when the data show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from optimizer_jobs.judge.evidence import LATENCIES, TIMED, Contender, Standing, estimate, pessimistic
from optimizer_jobs.measure.stats import required_rows
from optimizer_jobs.search.objectives import limits, shortfall
from retune.api.objectives import GoalType, Metric, MetricKind, Objective

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
    """For accuracy: test rows with which an equally good model would pass in nine cases of ten."""

    @property
    def kept(self) -> bool:
        """Whether the limit is shown to be kept."""
        return self.refusal is None


def gate(
    contender: Contender, champion: Standing, *, objectives: Sequence[Objective], noise: str | None
) -> tuple[Check, ...]:
    """Return one check per objective that carries a goal; the contender passes when all are kept.

    `noise` says why latency cannot be judged on this node; a latency limit then counts as not shown.
    """
    return tuple(_check(objective, contender, champion, noise) for objective in limits(objectives))


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
    """Return the test rows an allowed drop of accuracy needs, at the share of disagreement seen here."""
    margin = champion - limit_value(objective, champion)
    goal = objective.goal
    if objective.metric is not Metric.ACCURACY or margin <= 0 or goal is None or goal.type is GoalType.THRESHOLD:
        return None
    found = contender.difference
    share = (found.discordant + _FLIPS_UNSEEN) / (found.rows + _FLIPS_UNSEEN)
    return required_rows(margin=margin, discordance=share, confidence=contender.confidence)
