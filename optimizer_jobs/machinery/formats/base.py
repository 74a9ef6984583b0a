"""What a format is: something that turns a delivered file into an ONNX file that answers the same.

A converter sees hostile files, so it runs in a process of its own (`formats.sandbox`), and loads what runs code only
when the spec says so in words; that is checked before it is called.
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
    """An ONNX file made from a delivered one."""

    model: Path
    signature: Signature
    classes: tuple[int | str, ...] = ()
    """Label of each score column; empty means that the column's number is the label."""
    native: Native | None = None
    """What training starts from in the delivered file's place, where the converter made one; it runs no code."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A delivered file and what is known of it."""

    native: Native
    uri: str
    """Name that people know the file by."""
    task: Task
    columns: Columns
    """Validation rows: they show which inputs the model is given."""
    label: str
    """Column that is no input."""


class Format(Protocol):
    """A module that converts one format."""

    def convert(self, delivered: Delivered, *, into: Path) -> Converted:
        """Write the ONNX file into the folder `into`; raises JobError ModelInvalid with what is wrong."""
        ...
