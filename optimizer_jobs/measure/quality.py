"""The answers of a model, and a score for each answer, for every task.

Scores are kept for each row, so that two models can be compared on the same rows. Never averages before two models are
paired.
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
    """The model's outputs do not fit its task."""


class NotAClassifierError(UnfitAnswersError):
    """The model's outputs are neither labels nor scores for classes."""


@dataclass(frozen=True)
class Predictions:
    """A classifier's answers to N rows."""

    labels: Array
    """(N,): class index or class name."""
    scores: NDArray[np.floating] | None = None
    """(N, classes) as the model gives them, probabilities or logits; None when it gives labels only."""


def predict(session: Session, rows: Rows, *, batch: int = 256, classes: Sequence[object] | None = None) -> Predictions:
    """Return a classifier's answers to all rows.

    Args:
        session: The open model.
        rows: N rows.
        batch: Rows of one call; a model with a fixed batch is called with that size instead.
        classes: Label of each score column; None when the column's index is the label.

    Raises:
        NotAClassifierError: The outputs are neither labels nor scores for classes.
    """
    return predictions_of(outputs_of(session, rows, batch), rows=len(rows), classes=classes)


def correct(predictions: Predictions, rows: Rows) -> BoolArray:
    """Return a mask (N,) of the correct answers; a number and a text are equal when they are written alike."""
    predicted, expected = predictions.labels, rows.answers
    if predicted.dtype.kind in "iufb" and expected.dtype.kind in "iufb":
        return np.asarray(predicted == expected, dtype=np.bool_)
    return np.asarray(_spelled(predicted) == _spelled(expected), dtype=np.bool_)


def agreement(champion: Predictions, candidate: Predictions) -> BoolArray:
    """Return a mask (N,) of the rows on which two models give the same answer; needs no labels."""
    return np.asarray(_spelled(champion.labels) == _spelled(candidate.labels), dtype=np.bool_)


MAIN = {
    Task.CLASSIFICATION: (Metric.ACCURACY,),
    Task.REGRESSION: (Metric.RMSE, Metric.MAE),
    Task.EMBEDDING: (Metric.COSINE, Metric.NEIGHBOR_AGREEMENT),
}
"""Quality metrics that are measured for every model of a task, the most important first."""

SHARES = frozenset({Metric.ACCURACY, Metric.ROBUST_ACCURACY, Metric.NEIGHBOR_AGREEMENT})
"""Metrics that are a share of rows: each row is either right (1) or wrong (0)."""


@dataclass(frozen=True)
class Answers:
    """A model's answers to N rows, in the form of its task."""

    predictions: Predictions | None = None
    """For classification."""
    values: Floats | None = None
    """(N,) for regression, (N, D) for an embedding; images and sequences are vectors of all their numbers."""

    @property
    def numbers(self) -> Floats:
        """The values; raises ValueError for a classification."""
        if self.values is None:
            raise ValueError("these are answers of a classification")
        return self.values

    def take(self, indices: Array) -> "Answers":
        """Return the answers to the rows at `indices`: integers (M,) or a mask (N,). Scores of classes are dropped."""
        labels = None if self.predictions is None else Predictions(labels=self.predictions.labels[indices])
        return Answers(predictions=labels, values=None if self.values is None else self.values[indices])


def answer(
    session: Session, rows: Rows, *, task: Task, classes: Sequence[object] | None = None, batch: int = 256
) -> Answers:
    """Return a model's answers to all rows.

    Args:
        session: The open model.
        rows: N rows.
        task: What the model does.
        classes: Label of each score column of a classifier; None when the column's index is the label.
        batch: Rows of one call.

    Raises:
        UnfitAnswersError: The outputs do not fit the task.
    """
    if task is Task.CLASSIFICATION:
        return Answers(predictions=predict(session, rows, batch=batch, classes=classes))
    outputs = outputs_of(session, rows, batch).values()
    numbers = next((output for output in outputs if output.dtype.kind == "f" and len(output) == len(rows)), None)
    if numbers is None:
        raise UnfitAnswersError(f"a model of task {task} needs a floating point output of one row a row")
    values: Floats = numbers.astype(np.float64).reshape(len(rows), -1)
    if task is Task.REGRESSION:
        if values.size != len(rows):
            raise UnfitAnswersError(f"a regression answers one number a row, not {list(values.shape)}")
        values = values.reshape(len(rows))
    if not np.isfinite(values).all():
        raise UnfitAnswersError(f"{int((~np.isfinite(values)).sum())} of its answers are not finite numbers")
    return Answers(values=values)


def scores(metric: Metric, answers: Answers, rows: Rows, *, reference: Answers | None = None) -> Floats:
    """Return a score for each row, of which `figure` computes the metric.

    Args:
        metric: A quality metric of the answers' task.
        answers: A model's answers to the rows.
        rows: N rows with labels; an embedding needs no labels.
        reference: Answers of the model as delivered, with which an embedding is compared; None compares with itself.

    Returns:
        Scores (N,): 1 or 0 for metrics in SHARES, absolute or squared errors for MAE and RMSE, cosines for COSINE.
    """
    if answers.predictions is not None:
        right: Floats = correct(answers.predictions, rows).astype(np.float64)
        return right
    values = answers.numbers
    if metric in {Metric.MAE, Metric.RMSE}:
        errors = values - rows.answers
        return np.asarray(np.abs(errors) if metric is Metric.MAE else np.square(errors))
    expected = values if reference is None else reference.numbers
    if metric is Metric.COSINE:
        return _cosine(values, expected)
    same: Floats = (_neighbors(values) == _neighbors(expected)).astype(np.float64)
    return same


def figure(metric: Metric, scores: Floats) -> float:
    """Return a metric's value from its scores (N,): their mean, or for RMSE the square root of their mean."""
    mean = float(scores.mean())
    return mean**0.5 if metric is Metric.RMSE else mean


def alike(champion: Answers, candidate: Answers) -> Floats:
    """Return for each row how alike two models answer, as (N,) from 0 (differently) to 1 (the same); needs no labels.

    For a regression it is 1 minus the difference in units of the champion's standard deviation; for an embedding it is
    the cosine.
    """
    if champion.predictions is not None and candidate.predictions is not None:
        return agreement(champion.predictions, candidate.predictions).astype(np.float64)
    mine, theirs = candidate.numbers, champion.numbers
    if mine.ndim == 1:
        return np.clip(1 - np.abs(mine - theirs) / max(float(theirs.std()), 1e-12), 0.0, 1.0)
    return np.clip(_cosine(mine, theirs), 0.0, 1.0)


def _cosine(left: Floats, right: Floats) -> Floats:
    """Return the cosine (N,) between the rows of two arrays (N, D)."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / np.maximum(lengths, 1e-12))


def _neighbors(vectors: Floats) -> NDArray[np.int64]:
    """Return for each row the index (N,) of the nearest other row, by cosine."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest = np.empty(len(unit), dtype=np.int64)
    for start in range(0, len(unit), _NEIGHBORS_AT_ONCE):
        near = unit[start : start + _NEIGHBORS_AT_ONCE] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        nearest[start : start + len(near)] = near.argmax(axis=1)
    return nearest


def outputs_of(session: Session, rows: Rows, batch: int) -> dict[str, Array]:
    """Return every output by name for all rows, with shape (N, ...), called with at most `batch` rows at a time."""
    size = session.signature.batch or batch
    parts = [_ask(session, rows, start, size) for start in range(0, len(rows), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ask(session: Session, rows: Rows, start: int, size: int) -> dict[str, Array]:
    """Return the outputs of one batch. For a model with a fixed batch, a short last batch is filled up, then cut."""
    indices = np.arange(start, min(start + size, len(rows)))
    asked = np.resize(indices, size) if session.signature.batch else indices
    outputs = session.run(rows.take(asked).inputs)
    return {name: np.asarray(values)[: len(indices)] for name, values in outputs.items()}


def predictions_of(outputs: Mapping[str, Array], *, rows: int, classes: Sequence[object] | None) -> Predictions:
    """Find a classifier's answers among its outputs.

    Args:
        outputs: Values of every output by name, with shape (rows, ...).
        rows: Number of rows.
        classes: Label of each score column; None when the column's index is the label.

    Raises:
        NotAClassifierError: The outputs are neither labels nor scores for classes.
    """
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
    """Return labels as text, so that 3, 3.0 and "3" are the same class."""
    if labels.dtype.kind == "f" and np.all(labels == np.round(labels.astype(np.float64))):
        labels = labels.astype(np.int64)
    return labels.astype(str)
