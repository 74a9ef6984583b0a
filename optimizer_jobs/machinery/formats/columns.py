"""Hold a delivered model against the task and the columns of its validation data, in one sentence where they differ."""

from collections.abc import Sequence

from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Delivered, other_task
from optimizer_jobs.signature import TensorSpec
from retune.api.model import Task
from retune.contract.results import Reason

_SHOWN = 20
_FITTED = "Give data with the columns that the model was fitted on."


def check_task(delivered: Delivered, *, does: Task, name: str) -> None:
    """Refuse a model that does not do what the spec says; raises JobError, ModelInvalid.

    Whatever it does, it may be held against itself as a generic model.
    """
    if delivered.task not in {does, Task.GENERIC}:
        raise other_task(delivered, what=name, does=does)


def check_order(fitted: Sequence[str], delivered: Delivered) -> None:
    """Refuse a table with the columns of the fitted matrix in another order, because every answer would be wrong.

    Raises:
        JobError: DataInvalid.
    """
    present = [name for name in delivered.columns.names if name != delivered.label]
    if not delivered.columns.tabular or list(fitted) == present or sorted(fitted) != sorted(present):
        return
    raise JobError(
        Reason.DATA_INVALID,
        delivered.uri,
        f"the model was fitted on columns {', '.join(fitted[:_SHOWN])}, and the data has them in another order.",
        "Write the data's columns in that order.",
    )


def check_columns(inputs: Sequence[TensorSpec], delivered: Delivered) -> None:
    """Refuse data that lacks columns of the model; raises JobError, DataInvalid."""
    absent = [tensor.name for tensor in inputs if tensor.name not in delivered.columns.names]
    if absent:
        raise JobError(
            Reason.DATA_INVALID,
            delivered.uri,
            f"the model takes columns that the data lacks: {', '.join(absent[:_SHOWN])}.",
            _FITTED,
        )
