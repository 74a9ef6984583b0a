"""The limits on quality of a spec that names none, fitted to what the model answers and to its labels.

Where one class is rare, accuracy says next to nothing: a constant keeps it. There, the order of the scores and the rows
of the rare class that are found decide. Whatever the classes, the probabilities must keep what they explain, because
what is built on them (thresholds, costs, rankings) feels a loss before accuracy does.
"""

from collections.abc import Sequence
from typing import TypeVar

from optimizer_jobs.measure.finding import RARE
from optimizer_jobs.signature import Reading
from optimizer_jobs.stores.published import open_bundle
from optimizer_jobs.study.objectives import limits
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Goal, GoalType, Objective, Role, default_objectives
from retune.contract.requests import SearchRequest

Asked = TypeVar("Asked", bound=SearchRequest)

RARE_OF_MANY = 0.02
"""Share of the rows below which one of more than two classes is rare."""

_PRECISION = Goal(type=GoalType.PERCENT_MAX_DEGRADATION, value="5")
_RECALL = Objective(metric=Metric.RECALL, role=Role.CONSTRAIN, goal=Goal(type=GoalType.MAX_DEGRADATION, value="0.05"))
_BALANCED = Objective(
    metric=Metric.BALANCED_ACCURACY, role=Role.CONSTRAIN, goal=Goal(type=GoalType.MAX_DEGRADATION, value="0.03")
)


def fitted(request: Asked) -> Asked:
    """Return a request with objectives that fit the delivered model, where its spec names none.

    Raises:
        JobError: The bundle of the delivered model is missing or broken.
    """
    if not request.chosen_by_default:
        return request
    delivered = open_bundle(request.original.uri, digest=request.original.digest).manifest
    reading = delivered.signature.reading or Reading()
    return request.model_copy(update={"objectives": fitted_objectives(request.objectives, delivered.task, reading)})


def fitted_objectives(objectives: Sequence[Objective], task: Task, reading: Reading) -> tuple[Objective, ...]:
    """Return the default objectives as they fit the delivered model; those of other tasks stay as they are."""
    if task is Task.MULTI_LABEL and reading.scores is None:
        return tuple(objective for objective in objectives if objective.metric not in _OF_SCORES)
    if task is not Task.CLASSIFICATION:
        return tuple(objectives)
    unknown = {Metric.D2_BRIER} if reading.scale is None else set()
    known = [objective for objective in objectives if objective.metric not in unknown]
    if reading.rarest is None:
        return tuple(known)
    if reading.positive is None:
        rare = reading.rarest < RARE_OF_MANY
        return (*known, _BALANCED) if rare else tuple(known)
    if reading.rarest >= RARE or reading.scores is None:
        return tuple(known)
    return (*(_of_the_rare(objective) for objective in known), _RECALL)


def limits_in_words(task: Task, reading: Reading | None) -> str:
    """Return what a spec without objectives holds a model by, and why, as words without a full stop."""
    how = reading or Reading()
    chosen = fitted_objectives(default_objectives(task), task, how)
    kept = [_in_words(limit) for limit in limits(chosen)]
    words = f"{', '.join(kept[:-1])} and {kept[-1]}" if len(kept) > 1 else kept[0]
    if task in _BECAUSE:
        return f"{words}, because {_BECAUSE[task]}"
    is_rare = how.rarest is not None and any(limit.metric in _RARE for limit in chosen)
    return f"{words}, because the rarest class has {how.rarest:.1%} of the rows" if is_rare else words


_BECAUSE = {
    Task.MULTI_LABEL: "labels must stay right, rare ones be found among others, and probabilities keep what they "
    "explain",
    Task.GENERIC: "what the outputs mean is not known, so they must stay as the delivered model gives them",
}
"""Why these limits, by task."""
_OF_SCORES = frozenset({Metric.AVERAGE_PRECISION, Metric.D2_BRIER})
"""Default metrics that a model of several labels a row without scores does not have."""
_RARE = frozenset({Metric.RECALL, Metric.BALANCED_ACCURACY})
"""Metrics that are held only where a class is rare."""


def _in_words(limit: Objective) -> str:
    """Return a limit such as `accuracy may fall by at most 0.01`."""
    if limit.goal is None:
        raise ValueError(f"objective {limit.metric} has no goal")
    if limit.goal.type is GoalType.THRESHOLD:
        return f"{limit.metric} stays at least {limit.goal.value}"
    unit = " %" if limit.goal.type is GoalType.PERCENT_MAX_DEGRADATION else ""
    return (
        f"{limit.metric} may {'fall' if limit.metric.higher_is_better else 'rise'} by at most {limit.goal.value}{unit}"
    )


def _of_the_rare(objective: Objective) -> Objective:
    """Return average precision in the place of accuracy."""
    if objective.metric is not Metric.ACCURACY:
        return objective
    goal = None if objective.goal is None else _PRECISION
    return objective.model_copy(update={"metric": Metric.AVERAGE_PRECISION, "goal": goal})
