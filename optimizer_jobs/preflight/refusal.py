"""The sentence that refuses a model that cannot be run on its data."""

from optimizer_jobs.errors import JobError, printable
from retune.api.model import Task
from retune.contract.results import Reason

_ROLES = {
    Task.CLASSIFICATION: "a classifier",
    Task.REGRESSION: "a regression",
    Task.EMBEDDING: "an embedding",
}


def cannot_run(error: Exception, *, uri: str, task: Task) -> JobError:
    """Return the refusal of a model that cannot be run on its data; the error says why."""
    reason = printable(str(error), limit=300).rstrip(".")
    return JobError(
        Reason.MODEL_INVALID,
        uri,
        f"the model cannot be run as {_ROLES[task]} on this data: {reason}.",
        "Give a model whose outputs fit spec.model.task, and data of the shape it takes.",
    )
