"""Convert an untrusted model in a process of its own, so that what crashes or stalls there is a finding.

What goes over and comes back is plain JSON and files, never pickled objects.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from optimizer_jobs.data.readers import UnreadableDataError, open_columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.registry import convert
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.sandbox import run_in_sandbox
from optimizer_jobs.signature import Signature
from retune.api.model import CsvFormat, DatasetFormat, Factory, ModelFormat, Task
from retune.contract.results import Reason

CONVERT_SECONDS = 600.0
"""Time a conversion may take."""

_CLASSES: TypeAdapter[tuple[int | str, ...]] = TypeAdapter(tuple[int | str, ...])

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows that show what a model's inputs are."""

    path: Path
    """Private copy of the file."""
    format: DatasetFormat
    csv: CsvFormat | None = None
    """How it is written, where it is CSV and the spec says so."""
    label: str
    """Label column."""
    limit_bytes: int
    """Bytes that the file may have once expanded."""

    def to_dict(self) -> Json:
        """Return the sample as plain JSON."""
        csv = self.csv.to_dict() if self.csv else None
        return {"path": str(self.path), "format": self.format, "csv": csv, "limit_bytes": self.limit_bytes}


def convert_in_sandbox(native: Native, *, uri: str, task: Task, sample: Sample, into: Path) -> Converted:
    """Return the ONNX file made of a delivered one.

    Args:
        native: The delivered file.
        uri: Name that people know it by.
        task: What the model does.
        sample: Validation data, which shows what the inputs are.
        into: Folder for the ONNX file.

    Raises:
        JobError: ModelInvalid, also when the process dies or takes too long.
        UnreadableDataError: The validation data cannot be read.
    """
    into.mkdir(parents=True, exist_ok=True)
    question = {
        "path": str(native.path),
        "format": native.format,
        "uri": uri,
        "task": task,
        "sample": sample.to_dict(),
        "label": sample.label,
        "into": str(into),
        "factory": native.factory.to_dict() if native.factory else None,
    }
    answer = run_in_sandbox(f"{__name__}:answer", question, uri=uri, seconds=CONVERT_SECONDS)
    if "unreadable" in answer:
        raise UnreadableDataError(answer["unreadable"])
    try:
        return _read(answer, into)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(
            Reason.MODEL_INVALID,
            uri,
            "the process that converted the model gave no sensible answer.",
            "Save it again, or deliver ONNX.",
        ) from error


def _read(answer: Json, into: Path) -> Converted:
    """Return what an answer says; whoever wrote it may have been the model, so files are those of the folder."""
    made = answer["native"]
    return Converted(
        model=_file(answer["model"], into),
        signature=Signature.model_validate(answer["signature"]),
        classes=_CLASSES.validate_python(answer["classes"]),
        native=Native(_file(made["path"], into), ModelFormat(made["format"])) if made else None,
    )


def _file(path: str, folder: Path) -> Path:
    found = Path(path)
    if found.parent != folder or not stat.S_ISREG(found.lstat().st_mode):
        raise ValueError(f"{path} is no file that was made")
    return found


def answer(question: Json) -> Json:
    """Do the conversion; called in the other process."""
    try:
        return _converted(question)
    except UnreadableDataError as error:
        return {"unreadable": str(error)}


def _converted(question: Json) -> Json:
    factory = Factory.model_validate(question["factory"]) if question["factory"] else None
    sample = question["sample"]
    columns = open_columns(
        Path(sample["path"]),
        DatasetFormat(sample["format"]),
        limit_bytes=sample["limit_bytes"],
        csv_format=CsvFormat.model_validate(sample["csv"]) if sample["csv"] else None,
    )
    converted = convert(
        Delivered(
            native=Native(Path(question["path"]), ModelFormat(question["format"]), factory),
            uri=question["uri"],
            task=Task(question["task"]),
            columns=columns,
            label=question["label"],
        ),
        into=Path(question["into"]),
    )
    made = converted.native
    return {
        "model": str(converted.model),
        "signature": converted.signature.to_dict(),
        "classes": list(converted.classes),
        "native": {"path": str(made.path), "format": made.format} if made else None,
    }
