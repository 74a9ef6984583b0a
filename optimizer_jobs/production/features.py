"""Rows as a table of scalar columns, which is what drift is measured on: one a value, with the prediction beside."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.quality import UnfitAnswersError, predictions_of
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Task

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

PREDICTION, CONFIDENCE = "prediction", "confidence"


def table(
    rows: Captured | Rows,
    signature: Signature,
    names: Sequence[str] | None = None,
    *,
    task: Task = Task.CLASSIFICATION,
    classes: Sequence[int | str] = (),
) -> "pd.DataFrame":
    """Return (N, columns): every value of every input, and of captured rows the prediction.

    Args:
        rows: Captured rows, or those of a data set.
        signature: What the model takes and answers.
        names: Columns of the data set, where the model has one input of that many values a row.
        task: What the model does. A classification has a `prediction` and, where there are scores, a `confidence`
            between 0 and 1; a regression has a `prediction`; an embedding neither.
        classes: Label of each score, as the bundle's manifest has them.
    """
    import pandas as pd

    found = dict(_inputs(rows, signature, names))
    if isinstance(rows, Captured):
        found |= _predicted(rows, task, classes)
    return pd.DataFrame(found, copy=False)


def column_names(spec: TensorSpec, shape: tuple[int, ...]) -> list[str]:
    """Return the name of each value of a row of that shape: `age`, `x[3]` or `pixels[0,7,7]`."""
    if all(size == 1 for size in shape):
        return [spec.name]
    return [f"{spec.name}[{','.join(map(str, place))}]" for place in product(*map(range, shape))]


def _inputs(rows: Captured | Rows, signature: Signature, names: Sequence[str] | None) -> list[tuple[str, Array]]:
    columns: list[tuple[str, Array]] = []
    for spec in signature.inputs:
        values = rows.inputs[spec.name]
        flat = values.reshape(len(values), -1) if len(values) else values.reshape(0, spec.row_size)
        own = column_names(spec, values.shape[1:])
        fits = names is not None and len(signature.inputs) == 1 and len(names) == len(own)
        columns += zip(names if names is not None and fits else own, flat.T, strict=True)
    return columns


def _predicted(rows: Captured, task: Task, classes: Sequence[int | str]) -> dict[str, Array]:
    if task is Task.EMBEDDING or not len(rows):
        return {}
    if task is Task.REGRESSION:
        values = next((each for each in rows.outputs.values() if each.size == len(rows)), None)
        return {} if values is None else {PREDICTION: values.reshape(len(rows))}
    try:
        found = predictions_of(rows.outputs, rows=len(rows), classes=classes or None)
    except UnfitAnswersError:
        return {}
    predicted: dict[str, Array] = {PREDICTION: np.asarray(found.labels)}
    if found.scores is not None:
        predicted[CONFIDENCE] = _shares(np.asarray(found.scores, dtype=np.float64)).max(axis=1)
    return predicted


def _shares(scores: Array) -> Array:
    """Return scores as shares of one: as they are where they are that already, else by softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
