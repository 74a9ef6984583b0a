"""The inspect Job: it describes a model and data files for `retune init`, before there is a spec.

It reports only what the files show. It measures nothing and changes nothing.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, SINGLE_INPUT, format_of
from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.data.readers import Columns, UnreadableDataError, open_columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened, fetch_model, open_delivered
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.signature import Signature, TensorSpec
from optimizer_jobs.technique import Subject
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.model import Dataset, ModelFormat, Task
from retune.api.techniques import Technique
from retune.contract.requests import InspectRequest
from retune.contract.results import InspectedFile, InspectResult, Reason

LABELS = ("label", "target", "y", "class")
"""Usual names of a label column, the most likely first."""

_MOST_CLASSES = 1000
_WORD_LIMIT = 64


def run(request: InspectRequest) -> InspectResult:
    """Return the model's inputs and outputs, the content of each file, and which techniques can be used.

    Raises:
        JobError: The model or a file cannot be read; it is named.
    """
    with tempfile.TemporaryDirectory(prefix="inspect-") as scratch:
        return _inspect(request, Path(scratch))


def _inspect(request: InspectRequest, scratch: Path) -> InspectResult:
    model = fetch_model(request.model, scratch / "model")
    opened = open_delivered(request.model, model, _example(request), scratch=scratch, task_is_known=False)
    signature = opened.signature
    tables = [_open(data, scratch / str(number)) for number, data in enumerate(request.data)]
    files = [_described(data.uri, columns, signature) for data, columns in zip(request.data, tables, strict=True)]
    task = Task.REGRESSION if opened.is_regressor else _task(signature, list(zip(tables, files, strict=True)))
    return InspectResult(
        task=task,
        inputs=tuple(_words(tensor) for tensor in signature.inputs[:8]),
        outputs=tuple(_words(tensor) for tensor in signature.outputs[:8]),
        files=tuple(files),
        techniques=_techniques(opened, task, data=bool(files)),
    )


def _techniques(opened: Opened, task: Task, *, data: bool) -> dict[str, str | None]:
    """Return by technique why it cannot be used, or None when it can; `data` says whether there are any rows."""
    subject = Subject(
        graph=onnx.load(opened.model, load_external_data=False),
        signature=opened.signature,
        task=task,
        native=opened.native,
        training=data,
        calibration=data,
        cpu_flags=frozenset(fingerprint().features),
    )
    return {
        kind.value: technique.unavailable(subject, Technique(name="step", type=kind))
        for kind, technique in TECHNIQUES.items()
    }


def _example(request: InspectRequest) -> Dataset:
    """Return a file with example rows, from which the inputs of a model that is not ONNX are recognized."""
    if request.data:
        return request.data[0]
    if request.model.format is ModelFormat.ONNX:
        return Dataset(uri=request.model.uri)
    raise JobError(
        Reason.DATA_NOT_FOUND,
        request.model.uri,
        f"a model of format {request.model.format} needs rows to look at.",
        "Name a data file.",
    )


def _open(data: Dataset, scratch: Path) -> Columns:
    file = fetch(data.uri, limit_bytes=DATA_LIMIT_BYTES, into=scratch, what="Data")
    try:
        return open_columns(file.path, format_of(data), limit_bytes=DATA_LIMIT_BYTES, csv_format=data.csv)
    except UnreadableDataError as error:
        raise JobError(Reason.DATA_INVALID, data.uri, str(error), "Give Parquet, CSV or NPZ.") from error


def _described(uri: str, columns: Columns, signature: Signature) -> InspectedFile:
    """Return the number of rows, and the label column if it can be recognized.

    Without a usual name, the only column that is no input is taken for the label, except in a table of features.
    """
    inputs = {tensor.name for tensor in signature.inputs} | {SINGLE_INPUT}
    others = [name for name in columns.names if name not in inputs]
    certain = [] if columns.tabular and len(signature.inputs) == 1 else others
    label = next((name for name in (*LABELS, *certain) if name in others), None)
    rows = len(columns.read(columns.names[0])) if columns.names else 0
    return InspectedFile(uri=uri, rows=rows, label_column=label)


def _task(signature: Signature, tables: list[tuple[Columns, InspectedFile]]) -> Task:
    """Return the task that the model's outputs and the labels suggest."""
    if signature.label_output is not None:
        return Task.CLASSIFICATION
    labels = next((columns.read(file.label_column) for columns, file in tables if file.label_column), None)
    scores = signature.score_output
    width = scores.row_size if scores is not None else 1
    if labels is None:
        return Task.EMBEDDING
    return Task.REGRESSION if width == 1 and not _are_classes(labels) else Task.CLASSIFICATION


def _are_classes(labels: NDArray[np.generic]) -> bool:
    if labels.dtype.kind != "f":
        return True
    values = labels[np.isfinite(labels)]
    return bool((values == np.round(values)).all()) and len(np.unique(values)) < _MOST_CLASSES


def _words(tensor: TensorSpec) -> str:
    return tensor.model_copy(update={"name": tensor.name[:32]}).words[:_WORD_LIMIT]
