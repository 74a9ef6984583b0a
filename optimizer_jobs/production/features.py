"""Rows as a table of scalar columns, on which drift is measured: a column for every input value and the prediction."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import predictions_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.signature import Reading, Signature, TensorSpec
from retune.api.model import Task

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

PREDICTION, CONFIDENCE = "prediction", "confidence"
WIDE = 100
"""An input with more values in a row counts as one column."""


def is_wide(values: Array) -> bool:
    """Return whether an input (N, ...) counts as one column: a numeric tensor, or more than WIDE columns."""
    numeric = values.dtype.kind in "biuf"
    return numeric and (values.ndim > 2 or (values.ndim == 2 and values.shape[1] > WIDE))


def table(
    rows: Captured | Rows,
    signature: Signature,
    names: Sequence[str] | None = None,
    *,
    task: Task = Task.CLASSIFICATION,
    classes: Sequence[int | str] = (),
) -> "pd.DataFrame":
    """Return a table with a column for every value of every input and, for captured rows, columns for the prediction.

    Args:
        rows: N captured rows, or N rows of a data set.
        signature: Inputs and outputs of the model.
        names: Column names of the data set; used when the model has a single input with as many values in a row.
        task: What the model does. Classification adds a column `prediction` and, when there are scores, a column
            `confidence` between 0 and 1. Regression adds `prediction` only, and other tasks add nothing.
        classes: Label of each score column, as in the bundle's manifest.

    Returns:
        A table of N rows.
    """
    import pandas as pd

    columns = dict(_inputs(rows, signature, names))
    if isinstance(rows, Captured):
        columns |= _predicted(rows, task, classes, signature.reading)
    return pd.DataFrame(columns, copy=False)


def column_names(spec: TensorSpec, shape: tuple[int, ...]) -> list[str]:
    """Return a name for each value of a row of this shape: `age`, `x[3]` or `pixels[0,7,7]`."""
    if all(size == 1 for size in shape):
        return [spec.name]
    return [f"{spec.name}[{','.join(map(str, index))}]" for index in product(*map(range, shape))]


def _inputs(rows: Captured | Rows, signature: Signature, names: Sequence[str] | None) -> list[tuple[str, Array]]:
    columns: list[tuple[str, Array]] = []
    for spec in signature.inputs:
        values = rows.inputs[spec.name]
        flat = values.reshape(len(values), -1) if len(values) else values.reshape(0, spec.row_size)
        columns += zip(input_columns(spec, values.shape[1:], signature, names), flat.T, strict=True)
    return columns


def input_columns(
    spec: TensorSpec, shape: tuple[int, ...], signature: Signature, names: Sequence[str] | None
) -> Sequence[str]:
    """Return the name of each column of an input.

    Args:
        spec: The input.
        shape: Shape of a row.
        signature: The inputs that the table has.
        names: Column names of the data set, if they are known.
    """
    generated = column_names(spec, shape)
    fits = names is not None and len(signature.inputs) == 1 and len(names) == len(generated)
    return names if names is not None and fits else generated


def _predicted(rows: Captured, task: Task, classes: Sequence[int | str], reading: Reading | None) -> dict[str, Array]:
    if task not in {Task.CLASSIFICATION, Task.REGRESSION} or not len(rows):
        return {}
    if task is Task.REGRESSION:
        named = None if reading is None or reading.scores is None else rows.outputs.get(reading.scores)
        outputs = rows.outputs.values() if named is None else (named,)
        values = next((output for output in outputs if output.size == len(rows)), None)
        return {} if values is None else {PREDICTION: values.reshape(len(rows))}
    try:
        predictions = predictions_of(rows.outputs, rows=len(rows), classes=classes or None, reading=reading)
    except UnfitAnswersError:
        return {}
    columns: dict[str, Array] = {PREDICTION: np.asarray(predictions.labels)}
    if predictions.probabilities is not None:
        columns[CONFIDENCE] = predictions.probabilities.max(axis=1)
    elif predictions.scores is not None:
        columns[CONFIDENCE] = _probabilities(np.asarray(predictions.scores, dtype=np.float64)).max(axis=1)
    return columns


def _probabilities(scores: Array) -> Array:
    """Return scores (N, C) as probabilities: unchanged when they are probabilities already, else by softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
