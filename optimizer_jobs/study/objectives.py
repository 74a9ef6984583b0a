"""What the objectives say of one candidate: numbers to minimize, and limits kept or missed.

Search looks at point estimates only; the judge applies the same limits to the pessimistic end of an interval.
"""

from collections.abc import Sequence

from retune.api.objectives import GoalType, Metric, Objective, Role

_EXACT = 1e-9
"""Differences below this are rounding: a limit met exactly is kept."""
_LEAST = 1e-12
"""What a ratio is to, where there is nothing, such as no error at all."""


def shortfall(objective: Objective, candidate: float, champion: float) -> float:
    """Return how far `candidate` misses the objective's goal, in the metric's unit; 0 or less keeps it.

    Raises ValueError when the objective has no goal.
    """
    if objective.goal is None:
        raise ValueError(f"objective {objective.metric} has no goal")
    limit, sign = float(objective.goal.value), (1.0 if objective.metric.higher_is_better else -1.0)
    gain = sign * (candidate - champion)
    missed = {
        GoalType.THRESHOLD: sign * (limit - candidate),
        GoalType.MIN_IMPROVEMENT: limit - gain,
        GoalType.PERCENT_MIN_IMPROVEMENT: limit / 100 * champion - gain,
        GoalType.MAX_DEGRADATION: -limit - gain,
        GoalType.PERCENT_MAX_DEGRADATION: -limit / 100 * champion - gain,
    }[objective.goal.type]
    return 0.0 if abs(missed) < _EXACT else missed


def limits(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return the objectives that carry a goal, whatever their role."""
    return tuple(objective for objective in objectives if objective.goal is not None)


def ranked(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Return the objectives with role Optimize, most important first."""
    return tuple(objective for objective in objectives if objective.role is Role.OPTIMIZE)


def cost(metric: Metric, candidate: float, champion: float) -> float:
    """Return the number a study minimizes: the loss of a share, or the ratio to the champion (1 is equal)."""
    if metric.is_share:
        return champion - candidate
    worse, better = (champion, candidate) if metric.higher_is_better else (candidate, champion)
    return worse / max(better, _LEAST)
