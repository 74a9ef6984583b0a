"""What a model answers, and how good each answer is, row by row, for every task.

Everything is kept per row so that two models can be compared on the same rows. Nothing here averages before pairing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.engine import Session
from retune.api.model import Task
from retune.api.objectives import Metric

Array = NDArray[np.generic]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

_NEIGHBORS_AT_ONCE = 1024


class UnfitAnswersError(ValueError):
    """The model's outputs are not what its task asks for."""


class NotAClassifierError(UnfitAnswersError):
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
    return predictions_of(outputs_of(session, rows, batch), rows=len(rows), classes=classes)


def correct(predictions: Predictions, rows: Rows) -> BoolArray:
    """Return (N,) whether each answer is the row's label; names and numbers are compared as what they spell."""
    given, wanted = predictions.labels, rows.answers
    if given.dtype.kind in "iufb" and wanted.dtype.kind in "iufb":
        return np.asarray(given == wanted, dtype=np.bool_)
    return np.asarray(_spelled(given) == _spelled(wanted), dtype=np.bool_)


def agreement(champion: Predictions, candidate: Predictions) -> BoolArray:
    """Return (N,) whether two models give the same answer; needs no labels."""
    return np.asarray(_spelled(champion.labels) == _spelled(candidate.labels), dtype=np.bool_)


MAIN = {
    Task.CLASSIFICATION: (Metric.ACCURACY,),
    Task.REGRESSION: (Metric.RMSE, Metric.MAE),
    Task.EMBEDDING: (Metric.COSINE, Metric.NEIGHBOR_AGREEMENT),
}
"""Quality metrics that every model of a task is measured by, the one that stands for it first."""

SHARES = frozenset({Metric.ACCURACY, Metric.ROBUST_ACCURACY, Metric.NEIGHBOR_AGREEMENT})
"""Metrics that count rows which are right."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to some rows, as its task understands them."""

    predictions: Predictions | None = None
    """Of a classification."""
    values: Floats | None = None
    """(N,) of a regression, (N, D) of an embedding."""

    @property
    def numbers(self) -> Floats:
        """The values; raises ValueError for a classification."""
        if self.values is None:
            raise ValueError("these are answers of a classification")
        return self.values

    def take(self, index: Array) -> "Answers":
        """Return the answers to the rows at `index`."""
        labels = None if self.predictions is None else Predictions(labels=self.predictions.labels[index])
        return Answers(predictions=labels, values=None if self.values is None else self.values[index])


def answer(
    session: Session, rows: Rows, *, task: Task, classes: Sequence[object] | None = None, batch: int = 256
) -> Answers:
    """Return the model's answers; raises UnfitAnswersError when its outputs do not fit the task."""
    if task is Task.CLASSIFICATION:
        return Answers(predictions=predict(session, rows, batch=batch, classes=classes))
    outputs = outputs_of(session, rows, batch)
    found = next((each for each in outputs.values() if each.dtype.kind == "f" and each.ndim <= 2), None)
    if found is None:
        raise UnfitAnswersError(f"a model of task {task} needs a floating point output of one row a row")
    values = found.astype(np.float64)
    if task is Task.REGRESSION:
        if values.size != len(rows):
            raise UnfitAnswersError(f"a regression answers one number a row, not {list(values.shape)}")
        values = values.reshape(len(rows))
    if not np.isfinite(values).all():
        raise UnfitAnswersError(f"{int((~np.isfinite(values)).sum())} of its answers are not finite numbers")
    return Answers(values=values)


def scores(metric: Metric, found: Answers, rows: Rows, *, reference: Answers | None = None) -> Floats:
    """Return (N,) what a metric's figure is the mean of; `reference` is how the model as delivered answers."""
    if found.predictions is not None:
        right: Floats = correct(found.predictions, rows).astype(np.float64)
        return right
    values = found.numbers
    if metric in {Metric.MAE, Metric.RMSE}:
        missed = values - rows.answers
        return np.asarray(np.abs(missed) if metric is Metric.MAE else np.square(missed))
    wanted = values if reference is None else reference.numbers
    if metric is Metric.COSINE:
        return _cosine(values, wanted)
    same: Floats = (_neighbors(values) == _neighbors(wanted)).astype(np.float64)
    return same


def figure(metric: Metric, found: Floats) -> float:
    """Return the number that people know a metric by, from its scores."""
    mean = float(found.mean())
    return mean**0.5 if metric is Metric.RMSE else mean


def alike(champion: Answers, candidate: Answers) -> Floats:
    """Return (N,) from 0 to 1 how much two models answer the same; needs no labels."""
    if champion.predictions is not None and candidate.predictions is not None:
        return agreement(champion.predictions, candidate.predictions).astype(np.float64)
    mine, theirs = candidate.numbers, champion.numbers
    if mine.ndim == 1:
        return np.clip(1 - np.abs(mine - theirs) / max(float(theirs.std()), 1e-12), 0.0, 1.0)
    return np.clip(_cosine(mine, theirs), 0.0, 1.0)


def _cosine(one: Floats, other: Floats) -> Floats:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(lengths, 1e-12))


def _neighbors(vectors: Floats) -> NDArray[np.int64]:
    """Return (N,) the row nearest to each by cosine, itself left out."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest = np.empty(len(unit), dtype=np.int64)
    for start in range(0, len(unit), _NEIGHBORS_AT_ONCE):
        near = unit[start : start + _NEIGHBORS_AT_ONCE] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        nearest[start : start + len(near)] = near.argmax(axis=1)
    return nearest


def outputs_of(session: Session, rows: Rows, batch: int) -> dict[str, Array]:
    """Return every output for all rows, each (N, ...), asked in batches of at most `batch`."""
    size = session.signature.batch or batch
    parts = [_ask(session, rows, start, size) for start in range(0, len(rows), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ask(session: Session, rows: Rows, start: int, size: int) -> dict[str, Array]:
    """Return the outputs for one batch; a short last batch of a fixed-size model is padded, then cut again."""
    index = np.arange(start, min(start + size, len(rows)))
    asked = np.resize(index, size) if session.signature.batch else index
    outputs = session.run(rows.take(asked).inputs)
    return {name: np.asarray(values)[: len(index)] for name, values in outputs.items()}


def predictions_of(outputs: Mapping[str, Array], *, rows: int, classes: Sequence[object] | None) -> Predictions:
    """Return the answers in a model's outputs for that many rows; raises NotAClassifierError when there are none."""
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
