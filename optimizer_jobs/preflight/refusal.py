"""The sentence that refuses a model that cannot be run on its data."""

from collections.abc import Iterator
from contextlib import contextmanager

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.measure.custom import CustomMetricError
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.engine import EngineError
from retune.api.model import Task
from retune.contract.results import Reason

_SHOWN = 120
_ROLES = {
    Task.CLASSIFICATION: "a classifier",
    Task.REGRESSION: "a regression",
    Task.EMBEDDING: "an embedding",
    Task.MULTI_LABEL: "a classifier of several labels a row",
    Task.GENERIC: "a generic model",
}


def cannot_run(error: Exception, *, uri: str, task: Task) -> JobError:
    """Return the refusal of a model that cannot be run on its data; the error says why."""
    if isinstance(error, CustomMetricError):
        return error.refusal
    reason = printable(str(error), limit=300).rstrip(".")
    return JobError(
        Reason.MODEL_INVALID,
        uri,
        f"the model cannot be run as {_ROLES[task]} on this data: {reason}.",
        "Give a model whose outputs fit spec.model.task (any do for Generic), and data of the shape it takes.",
    )


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Turn whatever a stage raises into an EngineError that names the stage; refusals in words stay as they are."""
    try:
        yield
    except UnfitAnswersError:
        raise
    except Exception as error:
        words = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {str(error)[:_SHOWN]}"
        raise EngineError(f"{name} fails ({words})") from error
