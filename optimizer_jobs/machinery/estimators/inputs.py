"""What an estimator takes: one matrix, or a table with named columns.

The ONNX file takes the same: input `x` (N, F), or one input (N, 1) for each column.
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
    """Return the inputs that the ONNX file of this estimator has; columns that are text in the data are text inputs."""
    names = column_names(estimator)
    if names is None:
        return (TensorSpec(name=MATRIX, dtype="float32", shape=(-1, int(estimator.n_features_in_))),)
    return tuple(TensorSpec(name=name, dtype=_dtype(columns, name), shape=(-1, 1)) for name in names)


def column_names(estimator: Any) -> tuple[str, ...] | None:
    """Return the columns that the estimator finds by name, or None when it takes a matrix."""
    from sklearn.compose import ColumnTransformer

    from optimizer_jobs.machinery.estimators.soundness import parts

    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not any(isinstance(part, ColumnTransformer) for part in parts(estimator)):
        return None
    return tuple(str(name) for name in names)


def asked_with(estimator: Any, inputs: Mapping[str, Array]) -> Any:
    """Return rows as the estimator takes them: a float64 matrix (N, F), or a table with the columns.

    Args:
        estimator: The fitted estimator.
        inputs: Values by input name, as the ONNX file takes them.
    """
    if column_names(estimator) is None:
        (matrix,) = inputs.values()
        return np.asarray(matrix, dtype=np.float64)
    import pyarrow as pa

    return pa.table({name: _plain(values) for name, values in inputs.items()})


def rows_of(columns: Columns, inputs: Sequence[TensorSpec], *, label: str, limit: int) -> dict[str, Array]:
    """Return rows of the data by input name.

    Args:
        columns: The data file.
        inputs: Inputs of the ONNX file.
        label: Name of the label column, which is no input.
        limit: Rows to return, at most.

    Raises:
        UnreadableDataError: A column is missing or cannot be read.
        ValueError: A column does not hold what its input takes.
    """
    if len(inputs) == 1 and inputs[0].name == MATRIX:
        return {MATRIX: _matrix(columns, label=label)[:limit].astype(np.float32)}
    return {tensor.name: _column(columns.read(tensor.name)[:limit], tensor.dtype) for tensor in inputs}


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
