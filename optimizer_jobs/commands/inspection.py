"""Look at a model and data files that nobody has described yet, for `retune init`.

Says what is there and guesses nothing that cannot be seen. Measures nothing and changes nothing.
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
from optimizer_jobs.machinery.formats.delivery import fetch_model, open_delivered
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.signature import Signature, TensorSpec
from optimizer_jobs.technique import Subject
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.model import Dataset, ModelFormat, Task
from retune.api.techniques import Technique
from retune.contract.requests import InspectRequest
from retune.contract.results import InspectedFile, InspectResult, Reason

LABELS = ("label", "target", "y", "class")
"""Names that a label column usually has, the likeliest first."""

_MOST_CLASSES = 1000
_WORD_LIMIT = 64


def run(request: InspectRequest) -> InspectResult:
    """Return what the model takes and gives, what each file holds, and which techniques can be used.

    Raises:
        JobError: The model or a file cannot be read, naming it.
    """
    with tempfile.TemporaryDirectory(prefix="inspect-") as scratch:
        return _inspect(request, Path(scratch))


def _inspect(request: InspectRequest, scratch: Path) -> InspectResult:
    model = fetch_model(request.model, scratch / "model")
    opened_model = open_delivered(request.model, model, _shown(request), scratch=scratch)
    signature = opened_model.signature
    opened = [_open(each, scratch / str(number)) for number, each in enumerate(request.data)]
    files = [_look(uri, columns, signature) for uri, columns in opened]
    task = _task(signature, [(columns, file) for (_, columns), file in zip(opened, files, strict=True)])
    subject = Subject(
        graph=onnx.load(opened_model.model, load_external_data=False),
        signature=signature,
        task=task,
        native=opened_model.native,
        training=bool(files),
        calibration=bool(files),
        cpu_flags=frozenset(fingerprint().features),
    )
    return InspectResult(
        task=task,
        inputs=tuple(_word(tensor) for tensor in signature.inputs[:8]),
        outputs=tuple(_word(tensor) for tensor in signature.outputs[:8]),
        files=tuple(files),
        techniques={
            kind.value: technique.unavailable(subject, Technique(name="step", type=kind))
            for kind, technique in TECHNIQUES.items()
        },
    )


def _shown(request: InspectRequest) -> Dataset:
    """Return the file that shows what the inputs are, which only a model that is not ONNX needs."""
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


def _open(data: Dataset, scratch: Path) -> tuple[str, Columns]:
    file = fetch(data.uri, limit_bytes=DATA_LIMIT_BYTES, into=scratch, what="Data")
    try:
        return data.uri, open_columns(file.path, format_of(data), limit_bytes=DATA_LIMIT_BYTES, csv_format=data.csv)
    except UnreadableDataError as error:
        raise JobError(Reason.DATA_INVALID, data.uri, str(error), "Give Parquet, CSV or NPZ.") from error


def _look(uri: str, columns: Columns, signature: Signature) -> InspectedFile:
    taken = {tensor.name for tensor in signature.inputs} | {SINGLE_INPUT}
    free = [name for name in columns.names if name not in taken]
    certain = [] if columns.tabular and len(signature.inputs) == 1 else free
    label = next((name for name in (*LABELS, *certain) if name in free), None)
    rows = len(columns.read(columns.names[0])) if columns.names else 0
    return InspectedFile(uri=uri, rows=rows, label_column=label)


def _task(signature: Signature, opened: list[tuple[Columns, InspectedFile]]) -> Task:
    """Return what the model does, as its outputs and the labels show it."""
    if signature.label_output is not None:
        return Task.CLASSIFICATION
    labels = next((columns.read(file.label_column) for columns, file in opened if file.label_column), None)
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


def _word(tensor: TensorSpec) -> str:
    return tensor.model_copy(update={"name": tensor.name[:32]}).words[:_WORD_LIMIT]
