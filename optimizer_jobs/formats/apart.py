"""Convert an untrusted model in a process of its own, so that what crashes or stalls there is a finding.

What goes over and comes back is plain JSON and files, never pickled objects.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer_jobs.data.readers import open_columns
from optimizer_jobs.formats.base import Converted, Delivered
from optimizer_jobs.formats.registry import convert
from optimizer_jobs.models.apart import run_apart
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.signature import Signature
from retune.api.model import DatasetFormat, Factory, ModelFormat, Task

CONVERT_SECONDS = 600.0
"""Time a conversion may take."""

Json = Mapping[str, Any]


def convert_apart(
    native: Native, *, uri: str, task: Task, rows: Path, rows_format: DatasetFormat, label: str, into: Path,
    limit_bytes: int,
) -> Converted:  # fmt: skip
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
    """
    into.mkdir(parents=True, exist_ok=True)
    question = {
        "path": str(native.path), "format": native.format, "uri": uri, "task": task, "rows": str(rows),
        "rows_format": rows_format, "label": label, "into": str(into), "limit_bytes": limit_bytes,
        "factory": native.factory.to_dict() if native.factory else None,
    }  # fmt: skip
    answer = run_apart(f"{__name__}:answer", question, uri=uri, seconds=CONVERT_SECONDS)
    classes = tuple(answer["classes"])
    made = answer["native"]
    return Converted(
        model=Path(answer["model"]), signature=Signature.model_validate(answer["signature"]), classes=classes,
        native=Native(Path(made["path"]), ModelFormat(made["format"])) if made else None,
    )  # fmt: skip


def answer(question: Json) -> Json:
    """Do the conversion; called in the other process."""
    factory = Factory.model_validate(question["factory"]) if question["factory"] else None
    columns = open_columns(
        Path(question["rows"]), DatasetFormat(question["rows_format"]), limit_bytes=question["limit_bytes"]
    )
    converted = convert(
        Delivered(
            native=Native(Path(question["path"]), ModelFormat(question["format"]), factory), uri=question["uri"],
            task=Task(question["task"]), columns=columns, label=question["label"],
        ),
        into=Path(question["into"]),
    )  # fmt: skip
    made = converted.native
    return {
        "model": str(converted.model), "signature": converted.signature.to_dict(), "classes": list(converted.classes),
        "native": {"path": str(made.path), "format": made.format} if made else None,
    }  # fmt: skip
