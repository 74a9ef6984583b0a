"""Where a check finds its rows: the reference as captured rows, a window's, and a table of columns made of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from optimizer_jobs.commands.check.embeddings import components, is_wide
from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, format_of
from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.data.readers import UnreadableDataError, open_columns
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import PREDICTION, table
from optimizer_jobs.production.reference import Reference, of_bundle, read_reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from retune.api.model import Task
from retune.contract.requests import CheckRequest
from retune.contract.results import Reason

Array = NDArray[Any]


@dataclass(frozen=True)
class Tables:
    """Both samples as columns, and which of these are parts of one wide input."""

    reference: pd.DataFrame
    current: pd.DataFrame
    wide: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> list[str]:
        """All columns of either."""
        return [str(name) for name in self.reference.columns.union(self.current.columns, sort=False)]


def reference_of(request: CheckRequest, manifest: Manifest, *, into: Path) -> Reference:
    """Return the reference: rows that the champion was proven on, with its answers.

    Raises:
        JobError: It is not there, or cannot be read.
    """
    uri = of_bundle(request.store, request.champion.digest)
    return read_reference(uri, manifest.signature, into=into / "reference")


def names_of(request: CheckRequest, *, into: Path) -> tuple[str, ...] | None:
    """Return the names of the feature columns that spec.data has; None where it is no table, or is gone.

    Raises:
        JobError: It cannot be reached now: a column must not change its name for one window.
    """
    data = request.reference
    try:
        file = fetch(data.uri, digest=data.digest, limit_bytes=DATA_LIMIT_BYTES, into=into / "names", what="Data")
        columns = open_columns(file.path, format_of(data), limit_bytes=DATA_LIMIT_BYTES, csv_format=data.csv)
    except (JobError, UnreadableDataError, OSError, pa.ArrowException) as error:
        if isinstance(error, JobError) and error.reason is Reason.SOURCE_UNREACHABLE:
            raise
        say(f"  inputs have no names: {printable(str(error), limit=300)}")
        return None
    return tuple(name for name in columns.names if name != data.label_column) if columns.tabular else None


def tables(
    reference: Reference, current: Captured, manifest: Manifest, *, names: Sequence[str] | None = None, seed: int = 0
) -> Tables:
    """Return both samples as columns: tensors and wide inputs by their components."""
    wide: dict[str, tuple[Array, Array]] = {
        name: (values, current.inputs[name]) for name, values in reference.rows.inputs.items() if is_wide(values)
    }
    narrow = tuple(spec for spec in manifest.signature.inputs if spec.name not in wide)
    frames = [answers(each, manifest, narrow, names) for each in (reference.rows, current)]
    if manifest.task is Task.EMBEDDING:
        name = next((each for each, values in reference.rows.outputs.items() if values.dtype.kind == "f"), None)
        wide |= {} if name is None else {PREDICTION: (reference.rows.outputs[name], current.outputs[name])}
    groups = {}
    for name, (before, now) in wide.items():
        found = components(name, before, now, seed=seed)
        frames = [pd.concat([frame, part], axis=1) for frame, part in zip(frames, found, strict=True)]
        groups[name] = tuple(map(str, found[0].columns))
    return Tables(frames[0], frames[1], groups)


def answers(
    rows: Captured, manifest: Manifest, inputs: Sequence[Any] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return what the model answered, and these inputs, as columns; classes are text, so that none is a number."""
    some = replace(rows, inputs={spec.name: rows.inputs[spec.name] for spec in inputs})
    signature = manifest.signature.model_copy(update={"inputs": tuple(inputs)})
    frame = table(some, signature, names, task=manifest.task, classes=manifest.classes)
    if manifest.task is Task.CLASSIFICATION and PREDICTION in frame:
        frame[PREDICTION] = frame[PREDICTION].astype(str)
    return frame
