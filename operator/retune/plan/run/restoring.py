"""What better means in a run on fresh data: first of all, that quality is back.

On the data that a model was made for, quality is a limit and speed or size decide. On data that has moved away from it,
a candidate that only keeps the champion's lost quality restores nothing.
"""

from collections.abc import Sequence

from retune.api.metrics import Metric, MetricKind
from retune.api.model import Task
from retune.api.objectives import GoalType, Objective, Role

LEAST_GAIN = "0.01"
"""Relative gain of quality that is worth a change, where the user's objectives do not say."""
TOLERANCE = "0.01"
"""Relative difference of quality within which the user's own objectives decide."""

_SHARE_LOST = GoalType.PERCENT_MAX_DEGRADATION
_MAIN = {
    Task.CLASSIFICATION: Metric.ACCURACY,
    Task.REGRESSION: Metric.RMSE,
    Task.EMBEDDING: Metric.NEIGHBOR_AGREEMENT,
    Task.MULTI_LABEL: Metric.F1_MICRO,
    Task.GENERIC: Metric.FIDELITY,
}
"""The metric of quality that counts where the user's objectives name none."""


def restoring(objectives: Sequence[Objective], task: Task) -> tuple[Objective, ...]:
    """Return the objectives with the task's quality first, to be optimized; its limit, if it has one, still holds.

    Further quality that may fall by a share at most, such as what probabilities explain, is optimized too: a rise by
    that share is worth as much as the fall would cost. A user's own order is kept where quality is optimized already.
    """
    quality = [objective for objective in objectives if objective.metric.kind is MetricKind.QUALITY]
    if any(objective.role is Role.OPTIMIZE for objective in quality):
        return tuple(objectives)
    limit = quality[0] if quality else None
    first = Objective(
        metric=limit.metric if limit else _MAIN[task],
        role=Role.OPTIMIZE,
        goal=limit.goal if limit else None,
        tolerance=TOLERANCE,
        min_gain=LEAST_GAIN,
    )
    return (first, *(_rising(objective) for objective in objectives if objective.metric is not first.metric))


def _rising(objective: Objective) -> Objective:
    """Return a limit on a relative loss of quality as an objective to optimize; others as they are."""
    goal = objective.goal
    if objective.metric.kind is not MetricKind.QUALITY or goal is None or goal.type is not _SHARE_LOST:
        return objective
    share = f"{float(goal.value) / 100:g}"
    return objective.model_copy(update={"role": Role.OPTIMIZE, "tolerance": share, "min_gain": share})
