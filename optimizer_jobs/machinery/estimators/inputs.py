"""What an estimator is asked with: one matrix, or one column a name, as tables of a data frame are.

The ONNX file takes the same: input `x` (N, F), or an input (N, 1) for every column.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.readers import Columns
from optimizer_jobs.signature import TEXT, TensorSpec

Array = NDArray[Any]

MATRIX = "x"
"""Name of the single input of an estimator that takes a matrix."""


def inputs_of(estimator: Any, columns: Columns) -> tuple[TensorSpec, ...]:
    """Return the inputs that the ONNX file of this estimator has; text columns are those that are text in the data."""
    names = column_names(estimator)
    if names is None:
        return (TensorSpec(name=MATRIX, dtype="float32", shape=(-1, int(estimator.n_features_in_))),)
    return tuple(TensorSpec(name=name, dtype=_dtype(columns, name), shape=(-1, 1)) for name in names)


def column_names(estimator: Any) -> tuple[str, ...] | None:
    """Return the columns that the estimator tells apart by name, or None when it takes a matrix."""
    from sklearn.compose import ColumnTransformer

    from optimizer_jobs.machinery.estimators.soundness import parts

    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not any(isinstance(part, ColumnTransformer) for part in parts(estimator)):
        return None
    return tuple(str(name) for name in names)


def asked_with(estimator: Any, inputs: Mapping[str, Array]) -> Any:
    """Return rows by input name as the estimator takes them: a float64 matrix (N, F) or a table."""
    if column_names(estimator) is None:
        (matrix,) = inputs.values()
        return np.asarray(matrix, dtype=np.float64)
    import pyarrow as pa

    return pa.table({name: _plain(values) for name, values in inputs.items()})


def rows_of(columns: Columns, inputs: Sequence[TensorSpec], *, label: str, limit: int) -> dict[str, Array]:
    """Return at most `limit` rows of the data by input name; raises UnreadableDataError or ValueError."""
    if len(inputs) == 1 and inputs[0].name == MATRIX:
        return {MATRIX: _matrix(columns, label=label)[:limit].astype(np.float32)}
    return {one.name: _column(columns.read(one.name)[:limit], one.dtype) for one in inputs}


def _matrix(columns: Columns, *, label: str) -> Array:
    names = [name for name in columns.names if name != label]
    if columns.tabular:
        return np.stack([columns.read(name) for name in names], axis=1)
    return columns.read(MATRIX if MATRIX in names else names[0])


def _column(values: Array, dtype: str) -> Array:
    if dtype == TEXT:
        return np.asarray([str(value) for value in values.ravel()], dtype=object)[:, np.newaxis]
    return values.astype(np.dtype(dtype)).reshape(-1, 1)


def _dtype(columns: Columns, name: str) -> str:
    return TEXT if name in columns.names and columns.read(name).dtype.kind in "OUS" else "float32"


def _plain(values: Array) -> Array:
    flat = values.ravel()
    return flat if flat.dtype.kind in "OUS" else flat.astype(np.float64)
