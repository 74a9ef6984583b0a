"""What a newly delivered model is held to where it may go live itself: every limit of the spec, and quality always.

It need not gain anything. It must be shown not to be worse than the champion, and by labels: what compares answers with
those of the delivered model would always find it perfect.
"""

from collections.abc import Sequence

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.signature import Reading
from optimizer_jobs.study.objectives import limits
from optimizer_jobs.study.protection import fitted_objectives
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import Goal, GoalType, Objective, Role, default_objectives
from retune.contract.requests import JudgeRequest
from retune.contract.results import Reason

LOSS = Goal(type=GoalType.PERCENT_MAX_DEGRADATION, value="1")
"""How much worse than the champion a delivered model may be where the spec sets no limit relative to it."""
_OF_THE_DELIVERED = (Metric.FIDELITY, Metric.COSINE, Metric.NEIGHBOR_AGREEMENT)
"""Metrics that hold answers against those of the delivered model."""


def held(request: JudgeRequest, delivered: Manifest) -> JudgeRequest:
    """Return the request with every limit that the delivered model is held to; one about a search stays as it is.

    Raises:
        JobError: Nothing tells the quality of such a model but the delivered model's own answers.
    """
    if not request.delivered:
        return request
    if not (delivered.task.has_labels or _by_labels(request.objectives)):
        raise JobError(
            Reason.REQUEST_INVALID,
            request.resource,
            f"no objective tells the quality of two models of task {delivered.task} apart.",
            "Give an objective with metric custom or custom_loss, or set rollout.deliveredModel to MustWin.",
        )
    objectives = objectives_of_delivered(request.objectives, delivered)
    return request.model_copy(update={"objectives": objectives})


def objectives_of_delivered(objectives: Sequence[Objective], delivered: Manifest) -> tuple[Objective, ...]:
    """Return the objectives with a limit relative to the champion for each quality that labels tell.

    Where the spec names no such quality, the limits of a spec without objectives hold.
    """
    quality = _by_labels(objectives)
    if not quality:
        chosen = default_objectives(delivered.task)
        reading = delivered.signature.reading or Reading()
        return (*objectives, *limits(fitted_objectives(chosen, delivered.task, reading)))
    unheld = (objective.metric for objective in quality if not _is_relative(objective))
    return (*objectives, *(Objective(metric=metric, role=Role.CONSTRAIN, goal=LOSS) for metric in unheld))


def _by_labels(objectives: Sequence[Objective]) -> list[Objective]:
    quality = (objective for objective in objectives if objective.metric.kind is MetricKind.QUALITY)
    return [objective for objective in quality if objective.metric not in _OF_THE_DELIVERED]


def _is_relative(objective: Objective) -> bool:
    return objective.goal is not None and objective.goal.type is not GoalType.THRESHOLD
