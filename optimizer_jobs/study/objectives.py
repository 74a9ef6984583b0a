"""How the objectives rate one candidate: costs to minimize, and limits that are kept or missed.

The search applies limits to point estimates; the judge applies the same limits to the bad end of an interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retune.api.metrics import Metric
from retune.api.objectives import GoalType, Objective, Role

_EXACT = 1e-9
"""Smaller differences are rounding errors: a limit that is met exactly is kept."""
_LEAST = 1e-12
"""Smallest denominator of a ratio, for metrics that may be 0, such as an error."""


def shortfall(objective: Objective, candidate: float, champion: float) -> float:
    """Return by how much a candidate misses an objective's goal, in the metric's unit; 0 or less keeps the goal.

    Args:
        objective: An objective with a goal.
        candidate: The candidate's value of the metric.
        champion: The champion's value of the metric.

    Raises:
        ValueError: The objective has no goal.
    """
    if objective.goal is None:
        raise ValueError(f"objective {objective.metric} has no goal")
    limit, sign = float(objective.goal.value), (1.0 if objective.metric.higher_is_better else -1.0)
    gain = sign * (candidate - champion)
    missed = {
        GoalType.THRESHOLD: sign * (limit - candidate),
        GoalType.MIN_IMPROVEMENT: limit - gain,
        GoalType.PERCENT_MIN_IMPROVEMENT: limit / 100 * abs(champion) - gain,
        GoalType.MAX_DEGRADATION: -limit - gain,
        GoalType.PERCENT_MAX_DEGRADATION: -limit / 100 * abs(champion) - gain,
    }[objective.goal.type]
    return 0.0 if abs(missed) < _EXACT else missed


def limits(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return the objectives that have a goal, whatever their role."""
    return tuple(objective for objective in objectives if objective.goal is not None)


def ranked(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return the objectives with the role Optimize, the most important first."""
    return tuple(objective for objective in objectives if objective.role is Role.OPTIMIZE)


def cost(metric: Metric, candidate: float, champion: float) -> float:
    """Return the number that a study minimizes.

    For a metric that is a share, it is the champion's value minus the candidate's (0 means equal). For all others, it
    is the ratio of the two, above 1 when the candidate is worse.
    """
    if metric.is_share:
        return champion - candidate
    worse, better = (champion, candidate) if metric.higher_is_better else (candidate, champion)
    return worse / max(better, _LEAST)


@dataclass(frozen=True)
class Rating:
    """How the objectives rate a candidate."""

    costs: tuple[float, ...]
    """What the study minimizes, in the order of the ranked objectives."""
    shortfalls: dict[str, float]
    """By metric with a goal, how far the goal is missed; 0 or less keeps it."""


def rate(objectives: Sequence[Objective], *, values: Mapping[str, float], champion: Mapping[str, float]) -> Rating:
    """Rate a candidate.

    Args:
        objectives: Objectives of the spec.
        values: By metric, the candidate's value.
        champion: By metric, the champion's value.

    Raises:
        KeyError: The value of a ranked metric or of one with a goal is missing.
    """
    metrics = [objective.metric for objective in ranked(objectives)]
    costs = tuple(cost(metric, values[metric.value], champion[metric.value]) for metric in metrics)
    shortfalls = {
        limit.metric.value: shortfall(limit, values[limit.metric.value], champion[limit.metric.value])
        for limit in limits(objectives)
    }
    return Rating(costs, shortfalls)
