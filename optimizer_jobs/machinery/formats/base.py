"""What a format is: a way to turn a delivered file, or folder, into an ONNX file that answers the same.

Files may be hostile, so a converter runs in a process of its own (`formats.sandbox`). A file that runs code when it is
loaded reaches a converter only when the spec trusts it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer_jobs.data.readers import Columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.native import Native
from optimizer_jobs.signature import Signature
from retune.api.model import Task
from retune.contract.results import Reason

_SET_TASK = "Set spec.model.task: {}."

LABELS = ("label", "target", "y", "class", "labels")
"""Usual names of a label column, the most likely first."""


@dataclass(frozen=True)
class Converted:
    """An ONNX file made from a delivered file."""

    model: Path
    signature: Signature
    classes: tuple[int | str, ...] = ()
    """Label of each score column; empty means that the column's number is the label."""
    native: Native | None = None
    """A file that training starts from instead of the delivered one, where the converter made it. It runs no code."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A delivered file and what is known about it."""

    native: Native
    uri: str
    """Name that people know the file by."""
    task: Task
    classes: tuple[str, ...] = ()
    """The labels of the score columns, where the spec names them."""
    columns: Columns
    """Validation data: it shows which inputs the model has."""
    label: str
    """Column of the data that is no input."""
    data: str = "the data"
    """Name that people know the data by."""


class Format(Protocol):
    """A module that converts one format."""

    def convert(self, delivered: Delivered, *, into: Path) -> Converted:
        """Write the ONNX file into the folder `into`.

        Raises:
            JobError: ModelInvalid, with what is wrong.
        """
        ...


_DOES = {
    Task.CLASSIFICATION: "a classification",
    Task.REGRESSION: "a regression",
    Task.EMBEDDING: "an embedding",
    Task.MULTI_LABEL: "a classification with several labels a row",
    Task.GENERIC: "something else",
}


def other_task(delivered: Delivered, *, what: str, does: Task) -> JobError:
    """Return the refusal of a model that does something else than the spec says.

    Args:
        delivered: The delivered file.
        what: Name of the thing in the file, such as its class.
        does: What it does.
    """
    message = f"{what} does {_DOES[does]}, and spec.model.task is {delivered.task}."
    return JobError(Reason.MODEL_INVALID, delivered.uri, message, _SET_TASK.format(does))


def task_named(error: JobError) -> Task | None:
    """Return the task that a refusal says is the model's; None when it refuses for another reason."""
    return next((task for task in Task if error.next_step == _SET_TASK.format(task)), None)
