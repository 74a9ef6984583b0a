"""What better means in a run on fresh data: first of all, that quality is back.

On the data that a model was made for, quality is a limit and speed or size decide. On data that has moved away from it,
a candidate that only keeps the champion's lost quality restores nothing.
"""

from collections.abc import Sequence

from retune.api.model import Task
from retune.api.objectives import Metric, MetricKind, Objective, Role

LEAST_GAIN = "0.01"
"""Relative gain of quality that is worth a change, where the user's objectives do not say."""
TOLERANCE = "0.01"
"""Relative difference of quality within which the user's own objectives decide."""

_MAIN = {Task.CLASSIFICATION: Metric.ACCURACY, Task.REGRESSION: Metric.RMSE, Task.EMBEDDING: Metric.NEIGHBOR_AGREEMENT}


def restoring(objectives: Sequence[Objective], task: Task) -> tuple[Objective, ...]:
    """Return the objectives with the task's quality first, to be optimized; its limit, if it has one, still holds.

    A user's own order is kept where quality is optimized already.
    """
    if any(each.metric.kind is MetricKind.QUALITY and each.role is Role.OPTIMIZE for each in objectives):
        return tuple(objectives)
    limited = next((each for each in objectives if each.metric.kind is MetricKind.QUALITY), None)
    metric = limited.metric if limited else _MAIN[task]
    first = Objective(
        metric=metric, role=Role.OPTIMIZE, goal=limited.goal if limited else None,
        tolerance=TOLERANCE, min_gain=LEAST_GAIN,
    )  # fmt: skip
    return (first, *(each for each in objectives if each.metric is not metric))
