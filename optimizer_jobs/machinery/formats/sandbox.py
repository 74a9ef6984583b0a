"""Convert an untrusted model in a process of its own, so that what crashes or stalls there is a finding.

What goes over and comes back is plain JSON and files, never pickled objects.
"""

import stat
from collections.abc import Mapping
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
from retune.api.model import DatasetFormat, Factory, ModelFormat, Task
from retune.contract.results import Reason

CONVERT_SECONDS = 600.0
"""Time a conversion may take."""

_CLASSES: TypeAdapter[tuple[int | str, ...]] = TypeAdapter(tuple[int | str, ...])

Json = Mapping[str, Any]


def convert_in_sandbox(
    native: Native,
    *,
    uri: str,
    task: Task,
    rows: Path,
    rows_format: DatasetFormat,
    label: str,
    into: Path,
    limit_bytes: int,
) -> Converted:
    """Return the ONNX file made of a delivered one.

    Args:
        native: The delivered file.
        uri: Name that people know it by.
        task: What the model does.
        rows: Private copy of the validation data, which shows what the inputs are.
        rows_format: Its format.
        label: Its label column.
        into: Folder for the ONNX file.
        limit_bytes: Bytes that the data may have once expanded.

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
        "rows": str(rows),
        "rows_format": rows_format,
        "label": label,
        "into": str(into),
        "limit_bytes": limit_bytes,
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
    columns = open_columns(
        Path(question["rows"]), DatasetFormat(question["rows_format"]), limit_bytes=question["limit_bytes"]
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
