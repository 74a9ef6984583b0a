"""Convert an untrusted model in a process of its own, so that a crash or a stall is reported and harms nothing else.

Both processes exchange plain JSON and files, never pickled objects.
"""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from optimizer_jobs.data.label_columns import together
from optimizer_jobs.data.readers import UnreadableDataError, open_columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.registry import convert
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.sandbox import run_in_sandbox
from optimizer_jobs.signature import Signature
from retune.api.model import CsvFormat, DatasetFormat, ModelFormat, Task
from retune.api.own_code import Factory
from retune.contract.results import Reason

CONVERT_SECONDS = 600.0
"""Seconds that a conversion may take."""

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
    """Label column, or what several are called together."""
    label_columns: tuple[str, ...] = ()
    """Columns that are together the labels; empty where there is one."""
    asides: tuple[str, ...] = ()
    """Columns that are neither an input nor the label."""
    limit_bytes: int
    """Bytes that the file may have once expanded."""
    uri: str = "the data"
    """Name that people know the file by."""

    def to_dict(self) -> Json:
        """Return the sample as plain JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "csv": self.csv.to_dict() if self.csv else None,
            "label": self.label,
            "label_columns": list(self.label_columns),
            "asides": list(self.asides),
            "limit_bytes": self.limit_bytes,
            "uri": self.uri,
        }


def convert_in_sandbox(
    native: Native, *, uri: str, task: Task, sample: Sample, into: Path, classes: Sequence[str] = ()
) -> Converted:
    """Convert a delivered file to ONNX.

    Args:
        native: The delivered file.
        uri: Name that people know it by.
        task: What the model does.
        sample: Validation data, which shows what the inputs are.
        into: Folder for the ONNX file.
        classes: The labels of the score columns, where the spec names them.

    Raises:
        JobError: ModelInvalid, also when the process dies or takes too long.
        UnreadableDataError: The validation data cannot be read.
    """
    into.mkdir(parents=True, exist_ok=True)
    question = {
        "native": _to_json(native),
        "uri": uri,
        "task": task,
        "classes": list(classes),
        "sample": sample.to_dict(),
        "into": str(into),
    }
    reply = run_in_sandbox(f"{__name__}:answer", question, uri=uri, seconds=CONVERT_SECONDS)
    if "unreadable" in reply:
        raise UnreadableDataError(reply["unreadable"])
    try:
        return _read(reply, into, native.factory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(
            Reason.MODEL_INVALID,
            uri,
            "the process that converted the model gave no sensible answer.",
            "Save it again, or deliver ONNX.",
        ) from error


def _to_json(native: Native) -> Json:
    factory = native.factory.to_dict() if native.factory else None
    return {"path": str(native.path), "format": native.format, "factory": factory}


def _read(reply: Json, into: Path, factory: Factory | None) -> Converted:
    """Return the conversion that a reply describes.

    The model may have forged it, so only files in `into` are taken, and the factory is that of the delivered file.
    """
    native = reply["native"]
    return Converted(
        model=_file(reply["model"], into),
        signature=Signature.model_validate(reply["signature"]),
        classes=_CLASSES.validate_python(reply["classes"]),
        native=Native(_file(native["path"], into), ModelFormat(native["format"]), factory) if native else None,
    )


def _file(name: str, folder: Path) -> Path:
    path = Path(name)
    if path.parent != folder or not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{name} is no file that was made")
    return path


def answer(question: Json) -> Json:
    """Do the conversion and return the answer; called in the other process."""
    try:
        return _converted(question)
    except UnreadableDataError as error:
        return {"unreadable": str(error)}


def _converted(question: Json) -> Json:
    converted = convert(_delivered(question), into=Path(question["into"]))
    return {
        "model": str(converted.model),
        "signature": converted.signature.to_dict(),
        "classes": list(converted.classes),
        "native": _to_json(converted.native) if converted.native else None,
    }


def _delivered(question: Json) -> Delivered:
    native, sample = question["native"], question["sample"]
    factory = Factory.model_validate(native["factory"]) if native["factory"] else None
    columns = open_columns(
        Path(sample["path"]),
        DatasetFormat(sample["format"]),
        limit_bytes=sample["limit_bytes"],
        csv_format=CsvFormat.model_validate(sample["csv"]) if sample["csv"] else None,
    )
    columns = together(columns, sample["label_columns"], name=sample["label"])
    columns = replace(columns, names=tuple(name for name in columns.names if name not in sample["asides"]))
    return Delivered(
        native=Native(Path(native["path"]), ModelFormat(native["format"]), factory),
        uri=question["uri"],
        task=Task(question["task"]),
        classes=tuple(question["classes"]),
        columns=columns,
        label=sample["label"],
        data=sample["uri"],
    )
