"""What a format is: a way to turn a delivered file into an ONNX file that answers the same.

Files may be hostile, so a converter runs in a process of its own (`formats.sandbox`). A file that runs code when it is
loaded reaches a converter only when the spec trusts it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer_jobs.data.readers import Columns
from optimizer_jobs.models.native import Native
from optimizer_jobs.signature import Signature
from retune.api.model import Task


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
    columns: Columns
    """Validation data: it shows which inputs the model has."""
    label: str
    """Column of the data that is no input."""
    data: str = "the data"
    """Name that people know the data by."""
    task_is_known: bool = True
    """Whether a person has said the task; otherwise an estimator says what it does itself."""


class Format(Protocol):
    """A module that converts one format."""

    def convert(self, delivered: Delivered, *, into: Path) -> Converted:
        """Write the ONNX file into the folder `into`.

        Raises:
            JobError: ModelInvalid, with what is wrong.
        """
        ...
