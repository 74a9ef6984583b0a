"""Read a data set as rows that fit a model's inputs, or say exactly what is wrong with it.

Rows are never dropped, filled in or guessed: a silent repair would change what a model is judged by.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.cells import as_text, column_of, listed, missing_of, spelled
from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.data.label_columns import together
from optimizer_jobs.data.labels import labels_of
from optimizer_jobs.data.memory import room_for
from optimizer_jobs.data.readers import Columns, UnreadableDataError, open_columns
from optimizer_jobs.data.times import Times, times_of
from optimizer_jobs.data.weights import effective_rows, weights_of
from optimizer_jobs.errors import JobError
from optimizer_jobs.signature import TEXT, Signature, TensorSpec
from retune.api.model import Dataset, DatasetFormat, Task
from retune.contract.results import Reason

Array = NDArray[Any]

DATA_LIMIT_BYTES = 2 << 30
"""Bytes a data set may have, as a file and once expanded."""

SINGLE_INPUT = "x"
"""Name that the array of an NPZ file may have when the model has a single input."""

_TABLE_AXES, _LEAST_CLASSES = 2, 2
_FORMATS = {".npz": DatasetFormat.NPZ, ".parquet": DatasetFormat.PARQUET, ".csv": DatasetFormat.CSV}
_SHOWN, _CELL = 20, 40
"""Columns that a sentence names, and characters of a cell, at most."""
_FIX = "Correct the file and, where the spec gives a digest, the digest."


@dataclass(frozen=True)
class Rows:
    """N rows of a data set."""

    inputs: Mapping[str, Array]
    """Values by input name, with shape (N, ...)."""
    labels: Array | None
    """Shape (N,): int64 or text for classification, float64 for regression, where (N, K) is for K numbers a row; zeros
    and ones (N, L) as int64 for L labels a row; None for an embedding or generic model without labels."""
    digest: str
    """Digest of the file; of several joined data sets, their digests joined by `+`."""
    groups: Array | None = None
    """Group (N,) of each row, such as its user or query; None where the spec names no column of groups."""
    weights: NDArray[np.float64] | None = None
    """How much each row counts (N,), at least 0 and not all 0; None where the spec names no column of weights."""
    times: Times | None = None
    """Time (N,) of each row of a file; None where the spec names no column of times, and for parts of a file."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def answers(self) -> Array:
        """The labels; raises ValueError where there are none."""
        if self.labels is None:
            raise ValueError("these rows have no labels")
        return self.labels

    def take(self, indices: Array | slice) -> "Rows":
        """Return the rows at `indices`, in their order: integers (M,), a boolean mask (N,) or a slice."""
        inputs = {name: values[indices] for name, values in self.inputs.items()}
        labels = None if self.labels is None else self.labels[indices]
        groups = None if self.groups is None else self.groups[indices]
        weights = None if self.weights is None else self.weights[indices]
        return Rows(inputs=inputs, labels=labels, digest=self.digest, groups=groups, weights=weights)

    @property
    def effective(self) -> int:
        """How many rows of equal weight are as much evidence, by L. Kish (1965); at least 1."""
        return len(self) if self.weights is None else effective_rows(self.weights)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, in order. They have labels, groups or weights only if every part has."""
    inputs = {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs}
    labels = [part.labels for part in parts if part.labels is not None]
    groups = [part.groups for part in parts if part.groups is not None]
    weights = [part.weights for part in parts if part.weights is not None]
    return Rows(
        inputs=inputs,
        labels=np.concatenate(labels) if len(labels) == len(parts) else None,
        digest="+".join(part.digest for part in parts),
        groups=np.concatenate(groups) if len(groups) == len(parts) else None,
        weights=np.concatenate(weights) if len(weights) == len(parts) else None,
    )


def read_dataset(
    spec: Dataset,
    signature: Signature,
    *,
    into: Path,
    task: Task = Task.CLASSIFICATION,
    missing: bool = False,
    limit_bytes: int = DATA_LIMIT_BYTES,
) -> Rows:
    """Fetch a data set and return its rows in the shapes and element types of the model's inputs.

    Args:
        spec: URI, format, digest and label columns.
        signature: Inputs and outputs of the model.
        into: Folder for the private copy of the file.
        task: What the labels mean; a data set for an embedding or a generic model may have no labels.
        missing: Whether inputs may have missing values (NaN), because the model handles them itself.
        limit_bytes: Largest size of the file, and of its content once expanded.

    Raises:
        JobError: DataNotFound, DataForbidden, DataTooLarge, DigestMismatch, or DataInvalid naming column and rows.
    """
    file = fetch(spec.uri, digest=spec.digest, limit_bytes=limit_bytes, into=into, what="Data")
    try:
        with room_for(spec.uri):
            columns = _columns_of(file.path, spec, limit_bytes=limit_bytes)
            labels = labels_of(columns, name=spec.label, signature=signature, task=task, parts=spec.labels)
            groups = None if spec.group_column is None else _groups(columns, spec.group_column)
            name = spec.weight_column
            weights = None if name is None else weights_of(column_of(columns, name), name, place=columns.place)
            times = None if spec.time_column is None else times_of(columns, spec.time_column)
            inputs = _inputs(columns, signature, aside={spec.label, *spec.asides}, missing=missing)
            beside = {spec.group_column: groups, spec.weight_column: weights}
            _check_rows(
                inputs | {name: values for name, values in beside.items() if name and values is not None}, labels
            )
    except UnreadableDataError as error:
        raise JobError(Reason.DATA_INVALID, spec.uri, str(error), error.next_step or _FIX) from error
    return Rows(inputs=inputs, labels=labels, digest=file.digest, groups=groups, weights=weights, times=times)


def open_dataset(spec: Dataset, *, into: Path) -> Columns:
    """Fetch a data set and return its named arrays, which nothing has looked at yet.

    Args:
        spec: URI, format and digest.
        into: Folder for the private copy of the file.

    Raises:
        JobError: DataNotFound, DataForbidden, DataTooLarge, DigestMismatch or DataInvalid.
    """
    file = fetch(spec.uri, digest=spec.digest, limit_bytes=DATA_LIMIT_BYTES, into=into, what="Data")
    try:
        with room_for(spec.uri):
            return _columns_of(file.path, spec, limit_bytes=DATA_LIMIT_BYTES)
    except UnreadableDataError as error:
        raise JobError(Reason.DATA_INVALID, spec.uri, str(error), "Give Parquet, CSV or NPZ.") from error


def _columns_of(path: Path, spec: Dataset, *, limit_bytes: int) -> Columns:
    """Open a data file; several label columns are one there."""
    columns = open_columns(path, format_of(spec), limit_bytes=limit_bytes, csv_format=spec.csv)
    return together(columns, spec.label_columns or (), name=spec.label)


def format_of(spec: Dataset) -> DatasetFormat:
    """Return the format that the spec names, or else that of the file's extension; raises UnreadableDataError."""
    if spec.format is not None:
        return spec.format
    extension = Path(spec.uri).suffix.lower()
    if extension not in _FORMATS:
        raise UnreadableDataError(f"extension {extension!r} shows no format: set format, or use {', '.join(_FORMATS)}.")
    return _FORMATS[extension]


def _groups(columns: Columns, name: str) -> Array:
    """Return the group (N,) of each row as text; refuse missing ones."""
    values = column_of(columns, name)
    missing = int(missing_of(values).sum())
    if values.ndim != 1 or missing:
        raise UnreadableDataError(f"group column {name!r} needs one value a row; {missing} of {len(values)} are empty.")
    return np.asarray([str(value) for value in values])


def _check_rows(inputs: Mapping[str, Array], labels: Array | None) -> None:
    """Refuse inputs and labels of different lengths, and a data set without rows."""
    lengths = {name: len(values) for name, values in inputs.items()}
    for name, rows in lengths.items():
        if labels is not None and rows != len(labels):
            raise UnreadableDataError(f"input {name!r} has {rows} rows, but there are {len(labels)} labels.")
    if len(set(lengths.values())) > 1:
        raise UnreadableDataError(f"the inputs have different numbers of rows: {lengths}.")
    if not min(lengths.values(), default=0):
        raise UnreadableDataError("the data set has no rows.")


def _inputs(columns: Columns, signature: Signature, *, aside: Collection[str], missing: bool) -> dict[str, Array]:
    """Return the values of every model input by name, each with shape (N, ...), in the model's order."""
    fills = {name: value for name, value in (signature.fills or {}).items() if name not in columns.names}
    axes, as_taken = signature.input_axes, {tensor.name: tensor for tensor in signature.inputs}
    taken = [tensor for tensor in signature.rows_first.inputs if tensor.name not in fills]
    settings, inputs = {}, {}
    for tensor in taken:
        values = _values(columns, tensor, single=len(taken) == 1, aside=aside, missing=missing)
        if axes[tensor.name] is None and _has_shape(values, as_taken[tensor.name].shape):
            settings[tensor.name] = values
            continue
        turned = axes[tensor.name] or 0
        if turned and _has_shape(values, as_taken[tensor.name].shape):
            values = np.moveaxis(values, turned, 0)
        inputs[tensor.name] = _fitted(values, tensor, columns, missing=missing)
    rows = len(next(iter(inputs.values()), ()))
    return {
        tensor.name: inputs[tensor.name]
        if tensor.name in inputs
        else _constant(settings.get(tensor.name, fills.get(tensor.name)), tensor, rows)
        for tensor in signature.rows_first.inputs
    }


def _has_shape(values: Array, shape: Sequence[int]) -> bool:
    """Return whether an array has the form in which the model takes it; -1 is any size."""
    return values.ndim == len(shape) and all(want in {-1, have} for want, have in zip(shape, values.shape, strict=True))


def _constant(value: Any, tensor: TensorSpec, rows: int) -> Array:
    """Return a number, or an array, as an input (N, ...) that is the same for all rows."""
    shape = (rows, *tensor.shape[1:])
    if any(size < 0 for size in tensor.shape[1:]):
        raise UnreadableDataError(f"input {tensor.name!r} has a free size, so the data must have it: {_shown(tensor)}.")
    values = np.broadcast_to(np.asarray(value), shape)
    fitted = values.astype(object if tensor.dtype == TEXT else np.dtype(tensor.dtype))
    if tensor.dtype != TEXT and (fitted != values).any():
        raise UnreadableDataError(f"input {tensor.name!r} is {tensor.dtype}, which {value} is not.")
    return np.ascontiguousarray(fitted)


def _values(columns: Columns, tensor: TensorSpec, *, single: bool, aside: Collection[str], missing: bool) -> Array:
    """Return the array of the file that holds one model input; `single` when the model has no other input.

    Columns in `aside` are no inputs.
    """
    if columns.tabular and single and len(tensor.shape) == 2:
        features = [name for name in columns.names if name not in aside]
        if tensor.shape[1] != 1 or tensor.name not in features:
            return _feature_matrix(columns, features, tensor, missing=missing)
    if not columns.tabular and single and tensor.name not in columns.names:
        return column_of(columns, SINGLE_INPUT, instead=f"or {tensor.name!r} ")
    values = column_of(columns, tensor.name)
    if tensor.dtype == TEXT:
        values = columns.read_text(tensor.name)
    return values[:, np.newaxis] if values.ndim == 1 and len(tensor.shape) == 2 else values


def _feature_matrix(columns: Columns, names: list[str], tensor: TensorSpec, *, missing: bool) -> Array:
    width = tensor.shape[1]
    if not names or (width >= 0 and len(names) != width):
        raise UnreadableDataError(
            f"the table has {len(names)} feature columns, but input {tensor.name!r} takes {width}"
            f"{_surplus(columns, names, width)}."
        )
    if tensor.dtype == TEXT:
        return np.stack([columns.read_text(name) for name in names], axis=1)
    matrix = []
    for name in names:
        values = spelled(columns.read(name), f"column {name!r}")
        _check_numbers(values, f"column {name!r}", tensor, columns, missing=missing)
        matrix.append(values)
    return np.stack(matrix, axis=1)


def _surplus(columns: Columns, names: Sequence[str], width: int) -> str:
    """Return in words which columns may be too many: those with another value in every row, as ids have."""
    if len(names) <= width:
        return f"; it has {listed(names)}"
    ids = [name for name in names if _is_id(columns.read(name))]
    if not ids and len(names) == len(columns.names):
        return f"; it has {listed(names)}: name the one with the labels in labelColumn (--label)"
    if not ids:
        return f"; it has {listed(names)}, and the label column"
    verb = "has" if len(ids) == 1 else "have"
    return f"; {listed(ids)} {verb} another value in every row, as ids have: leave out what the model does not take"


def _is_id(values: Array) -> bool:
    """Return whether a column holds whole numbers or text, another one in every row."""
    return values.dtype.kind in "iuOUS" and len({str(value) for value in values}) == len(values) > 1


def _fitted(values: Array, tensor: TensorSpec, columns: Columns, *, missing: bool) -> Array:
    """Return `values` with the input's element type, after checking shape and finiteness.

    A tensor of text cannot say that a cell is missing, so that such a cell is an empty text.
    """
    where = f"input {tensor.name!r}"
    if len(values.shape) != len(tensor.shape) or any(
        want not in (-1, have) for want, have in zip(tensor.shape[1:], values.shape[1:], strict=True)
    ):
        raise UnreadableDataError(f"{where} has shape {values.shape}, but the model takes {_shown(tensor)}.")
    if tensor.dtype == TEXT:
        texts = [as_text(cell) for cell in values.ravel()]
        return np.asarray(texts, dtype=object).reshape(values.shape)
    if values.dtype.kind in "OUS" and values.ndim == 2 and values.shape[1] == 1:
        values = spelled(values[:, 0], where)[:, np.newaxis]
    _check_numbers(values, where, tensor, columns, missing=missing)
    with np.errstate(over="ignore"):
        fitted = np.ascontiguousarray(values, dtype=np.dtype(tensor.dtype))
    allowed = np.isnan(fitted) if missing and tensor.is_float else False
    if not (np.isfinite(fitted) | allowed).all() or (not tensor.is_float and (fitted != values).any()):
        raise UnreadableDataError(f"{where} has values that do not fit the model's {tensor.dtype}.")
    return fitted


def _check_numbers(values: Array, where: str, tensor: TensorSpec, columns: Columns, *, missing: bool) -> None:
    """Refuse text and infinite values in a numeric input, and missing values unless the model handles them."""
    if values.dtype.kind not in "biuf":
        raise UnreadableDataError(
            f"{where} has type {values.dtype}, but the model takes {tensor.dtype}{_example(values, columns)}."
        )
    bad = np.isinf(values) if missing and tensor.is_float else ~np.isfinite(values)
    if bad.any():
        rows = np.flatnonzero(bad.reshape(len(values), -1).any(axis=1))
        raise UnreadableDataError(
            f"{where} is missing or infinite in {len(rows)} of {len(values)} rows, "
            f"the first in {columns.place(int(rows[0]))}."
        )


def _example(values: Array, columns: Columns) -> str:
    """Return in words the first cell that is no number, and where it is."""
    if values.dtype.kind == "M":
        return "; dates are no numbers: write them as such, or leave the column out"
    cells = values.reshape(len(values), -1)
    for row, row_cells in enumerate(cells):
        for cell in row_cells:
            if not _is_number(cell):
                return f"; {columns.place(row)} holds {as_text(cell)[:_CELL]!r}"
    return ""


def _is_number(cell: Any) -> bool:
    try:
        float(cell or "nan")
    except (TypeError, ValueError):
        return False
    return True


def _shown(tensor: TensorSpec) -> str:
    return "(" + ", ".join("N" if size < 0 else str(size) for size in tensor.shape) + ")"
