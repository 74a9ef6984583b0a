"""The rows that a check compares: the reference, the names of its columns, and both samples as tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from optimizer_jobs.commands.check.columns import Cause, NotCompared
from optimizer_jobs.commands.check.components import components
from optimizer_jobs.commands.check.drift import ANSWERS
from optimizer_jobs.commands.check.several_answers import columns_of, wide_of
from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, format_of
from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.data.readers import UnreadableDataError, open_columns
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import PREDICTION, input_columns, is_wide, table
from optimizer_jobs.production.reference import Reference, of_bundle, read_reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from optimizer_jobs.signature import TensorSpec
from retune.api.model import Task
from retune.contract.requests import CheckRequest
from retune.contract.results import Reason

Array = NDArray[Any]


@dataclass(frozen=True)
class Tables:
    """Both samples as tables."""

    reference: pd.DataFrame
    current: pd.DataFrame
    wide: Mapping[str, tuple[str, ...]]
    """Names of the components of each wide input or answer, by its name."""
    answered: tuple[str, ...] = ()
    """Columns that the model answers, wide ones by their own name."""
    unlike: tuple[NotCompared, ...] = ()
    """Wide columns whose rows have another shape than in the reference."""
    carried: Mapping[str, float] = field(default_factory=dict)
    """What each input carries of the answers (0..1), where that is known; wide inputs by their own name."""

    @property
    def names(self) -> list[str]:
        """All columns of either table."""
        return [str(name) for name in self.reference.columns.union(self.current.columns, sort=False)]

    def parts_of(self, name: str) -> tuple[str, ...]:
        """Return the columns that a name stands for: components, the answers of one kind, or the column itself."""
        several = [column for column in self.answered if name in ANSWERS and column.startswith(f"{name}[")]
        return tuple(part for column in several or [name] for part in self.wide.get(column, (column,)))


def reference_of(request: CheckRequest, manifest: Manifest, *, into: Path) -> Reference:
    """Return the champion's reference; `into` is a folder for a private copy.

    Raises:
        JobError: There is none, it cannot be read, or it is not the one that was written for the champion.
    """
    uri = of_bundle(request.store, request.champion.digest)
    return read_reference(uri, manifest.signature, into=into / "reference", digest=request.reference_digest)


def names_of(request: CheckRequest, *, into: Path) -> tuple[str, ...] | None:
    """Return the names of the feature columns in spec.data; None when the data is no table or does not exist any more.

    Raises:
        JobError: The data cannot be reached now. Columns must not have other names in a single window.
    """
    data = request.reference
    try:
        file = fetch(data.uri, digest=data.digest, limit_bytes=DATA_LIMIT_BYTES, into=into / "names", what="Data")
        columns = open_columns(file.path, format_of(data), limit_bytes=DATA_LIMIT_BYTES, csv_format=data.csv)
    except (JobError, UnreadableDataError, OSError, pa.ArrowException) as error:
        if isinstance(error, MemoryError) or (
            isinstance(error, JobError) and error.reason is Reason.SOURCE_UNREACHABLE
        ):
            raise
        say(f"  inputs have no names: {printable(str(error), limit=300)}")
        return None
    aside = {*data.labels, *data.asides}
    return tuple(name for name in columns.names if name not in aside) if columns.tabular else None


def tables(
    reference: Reference, current: Captured, manifest: Manifest, *, names: Sequence[str] | None = None, seed: int = 0
) -> Tables:
    """Return both samples as tables.

    Args:
        reference: The reference.
        current: Rows of the window.
        manifest: Manifest of the champion.
        names: Names of the feature columns, if they are known.
        seed: Seed of the components.

    Returns:
        Tables in which tensors and wide inputs are represented by their principal components.
    """
    wide = _wide(reference.rows, current, manifest)
    unlike = {name: words for name, samples in wide.items() if (words := _unlike(*samples))}
    narrow = tuple(spec for spec in manifest.signature.inputs if spec.name not in wide)
    before, now = (answers(rows, manifest, narrow, names) for rows in (reference.rows, current))
    answered = {*wide_of(reference.rows, manifest), *answers(reference.rows, manifest), *answers(current, manifest)}
    groups = {}
    for name, samples in wide.items():
        if name in unlike:
            continue
        before_parts, now_parts = components(name, *samples, seed=seed)
        before, now = pd.concat([before, before_parts], axis=1), pd.concat([now, now_parts], axis=1)
        groups[name] = tuple(map(str, before_parts.columns))
    left = tuple(NotCompared(name, Cause.SCHEMA, words) for name, words in unlike.items())
    carried = dict(carried_by_column(reference, manifest, narrow, names))
    return Tables(before, now, groups, tuple(sorted(answered)), left, carried)


def carried_by_column(
    reference: Reference, manifest: Manifest, narrow: Sequence[TensorSpec], names: Sequence[str] | None
) -> Iterator[tuple[str, float]]:
    """Yield each input's column, or the whole wide input, with what it carries, as the reference says."""
    signature = manifest.signature.model_copy(update={"inputs": tuple(narrow)})
    for spec in manifest.signature.inputs:
        shares = reference.carried.inputs.get(spec.name, ())
        shape, wide = reference.rows.inputs[spec.name].shape[1:], spec not in narrow
        columns = [spec.name] if wide else input_columns(spec, shape, signature, names)
        if len(columns) == len(shares):
            yield from ((name, share) for name, share in zip(columns, shares, strict=True) if share is not None)


def _wide(reference: Captured, current: Captured, manifest: Manifest) -> dict[str, tuple[Array, Array]]:
    """Return both samples of each wide input by its name, and those of wide answers."""
    wide: dict[str, tuple[Array, Array]] = {
        name: (values, current.inputs[name]) for name, values in reference.inputs.items() if is_wide(values)
    }
    before, now = (wide_of(rows, manifest) for rows in (reference, current))
    return wide | {name: (values, now[name]) for name, values in before.items() if name in now}


def _unlike(reference: Array, current: Array) -> str:
    """Return that rows of both samples differ in shape; empty where they have the same one."""
    before, now = (list(values.shape[1:]) for values in (reference, current))
    return f"its rows have shape {now} in the window and {before} in the reference" if before != now else ""


def answers(
    rows: Captured, manifest: Manifest, inputs: Sequence[Any] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the model's answers to captured rows as a table, with the given inputs.

    Args:
        rows: Captured rows.
        manifest: Manifest of the champion.
        inputs: Specs of the inputs to include.
        names: Names of the feature columns, if they are known.

    Returns:
        A table in which classes are text, so that they are compared as categories.
    """
    chosen = replace(rows, inputs={spec.name: rows.inputs[spec.name] for spec in inputs})
    signature = manifest.signature.model_copy(update={"inputs": tuple(inputs)})
    frame = table(chosen, signature, names, task=manifest.task, classes=manifest.classes)
    if manifest.task is Task.CLASSIFICATION and PREDICTION in frame:
        frame[PREDICTION] = frame[PREDICTION].astype(str)
    return frame.assign(**columns_of(rows, manifest))
