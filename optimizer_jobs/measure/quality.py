"""What a classifier answers, and whether that is right, row by row.

Everything is kept per row so that two models can be compared on the same rows. Nothing here averages before pairing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.engine import Session

Array = NDArray[np.generic]
BoolArray = NDArray[np.bool_]


class NotAClassifierError(ValueError):
    """The model's outputs are neither labels nor scores per class."""


@dataclass(frozen=True)
class Predictions:
    """One answer a row."""

    labels: Array
    """(N,) class index or class name."""
    scores: NDArray[np.floating] | None = None
    """(N, classes) as the model gives them: probabilities or logits."""


def predict(session: Session, rows: Rows, *, batch: int = 256, classes: Sequence[object] | None = None) -> Predictions:
    """Return the model's answer to every row, asked in batches of at most `batch`.

    `classes` names the columns of the scores; without it the label is the column's index. A model with a fixed batch
    is asked in that size. Raises NotAClassifierError when the outputs cannot be read as classes.
    """
    size = session.signature.batch or batch
    parts = [_ask(session, rows, start, size) for start in range(0, len(rows), size)]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _read(outputs, rows=len(rows), classes=classes)


def correct(predictions: Predictions, rows: Rows) -> BoolArray:
    """Return (N,) whether each answer is the row's label; names and numbers are compared as what they spell."""
    given, wanted = predictions.labels, rows.labels
    if given.dtype.kind in "iufb" and wanted.dtype.kind in "iufb":
        return np.asarray(given == wanted, dtype=np.bool_)
    return np.asarray(_spelled(given) == _spelled(wanted), dtype=np.bool_)


def agreement(champion: Predictions, candidate: Predictions) -> BoolArray:
    """Return (N,) whether two models give the same answer; needs no labels."""
    return np.asarray(_spelled(champion.labels) == _spelled(candidate.labels), dtype=np.bool_)


def _ask(session: Session, rows: Rows, start: int, size: int) -> dict[str, Array]:
    """Return the outputs for one batch; a short last batch of a fixed-size model is padded, then cut again."""
    index = np.arange(start, min(start + size, len(rows)))
    asked = np.resize(index, size) if session.signature.batch else index
    outputs = session.run(rows.take(asked).inputs)
    return {name: np.asarray(values)[: len(index)] for name, values in outputs.items()}


def _read(outputs: Mapping[str, Array], *, rows: int, classes: Sequence[object] | None) -> Predictions:
    scores = next((values.astype(np.float64) for values in outputs.values() if _is_scores(values, rows)), None)
    labels = next((values.reshape(rows) for values in outputs.values() if _is_labels(values, rows)), None)
    if labels is not None:
        return Predictions(labels=labels, scores=scores)
    if scores is None:
        shapes = ", ".join(f"{name} {values.dtype}{list(values.shape)}" for name, values in outputs.items())
        raise NotAClassifierError(f"outputs are neither one label a row nor scores for two or more classes: {shapes}")
    winners = np.argmax(scores, axis=-1)
    return Predictions(labels=winners if classes is None else np.asarray(classes)[winners], scores=scores)


def _is_labels(values: Array, rows: int) -> bool:
    return values.size == rows and values.dtype.kind in "iuOUSb"


def _is_scores(values: Array, rows: int) -> bool:
    return values.ndim == 2 and values.shape[0] == rows and values.shape[1] > 1 and values.dtype.kind == "f"


def _spelled(labels: Array) -> NDArray[np.str_]:
    """Return labels as text, so that 3, 3.0 and "3" are one class."""
    if labels.dtype.kind == "f" and np.all(labels == np.round(labels.astype(np.float64))):
        labels = labels.astype(np.int64)
    return labels.astype(str)
