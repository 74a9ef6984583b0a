"""A model's answers to rows, read from its outputs as its signature says.

Answers are kept row by row, so that two models can be compared on the same rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.all_outputs import AllOutputs, all_outputs, likeness
from optimizer_jobs.measure.label_sets import LabelSets, label_sets_of
from optimizer_jobs.measure.scales import can_be_probabilities
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.models.engine import Session
from optimizer_jobs.models.layout import ask
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Task

Array = NDArray[np.generic]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

_ANYTHING = Reading()
_EVEN = 0.5
_TABLE_AXES = 2
_TWO_CLASSES = 2


class NotAClassifierError(UnfitAnswersError):
    """The model's outputs are neither labels nor scores for classes."""


@dataclass(frozen=True)
class Predictions:
    """A classifier's answers to N rows."""

    labels: Array
    """(N,): class index or class name."""
    scores: NDArray[np.floating] | None = None
    """(N, classes) as the model gives them, probabilities or logits; None when it gives labels only."""
    probabilities: Floats | None = None
    """(N, classes); None when the scores' scale is not known."""
    classes: tuple[object, ...] = ()
    """Label of each score column; empty when there are no scores."""
    positive: object | None = None
    """The class that metrics of two classes call positive."""

    def take(self, indices: Array) -> "Predictions":
        """Return the predictions for the rows at `indices`: integers (M,) or a mask (N,)."""
        scores = None if self.scores is None else self.scores[indices]
        probabilities = None if self.probabilities is None else self.probabilities[indices]
        return Predictions(self.labels[indices], scores, probabilities, self.classes, self.positive)


@dataclass(frozen=True)
class Answers:
    """A model's answers to N rows, in the form of its task."""

    predictions: Predictions | None = None
    """For classification."""
    values: Floats | None = None
    """(N,) or (N, outputs) for regression, (N, D) for an embedding; images and sequences are vectors of all their
    numbers."""
    is_embedding: bool = False
    """Whether the values of a row are one vector, whose direction counts."""
    label_sets: LabelSets | None = None
    """For several labels a row."""
    everything: AllOutputs | None = None
    """For a generic model: all outputs."""
    outputs: Mapping[str, Array] = field(default_factory=dict)
    """Every output by name, with shape (N, ...), for metrics of the owner's own; empty where nothing asks for them."""

    @property
    def numbers(self) -> Floats:
        """The values; raises ValueError for tasks that answer none."""
        if self.values is None:
            raise ValueError("these answers are no numbers")
        return self.values

    def take(self, indices: Array) -> "Answers":
        """Return the answers to the rows at `indices`: integers (M,) or a mask (N,)."""
        predictions = None if self.predictions is None else self.predictions.take(indices)
        values = None if self.values is None else self.values[indices]
        label_sets = None if self.label_sets is None else self.label_sets.take(indices)
        everything = None if self.everything is None else self.everything.take(indices)
        outputs = {name: output[indices] for name, output in self.outputs.items()}
        return Answers(predictions, values, self.is_embedding, label_sets, everything, outputs)


def answer(
    session: Session,
    rows: Rows,
    *,
    task: Task,
    classes: Sequence[object] | None = None,
    reading: Reading | None = None,
    batch: int = 256,
    keep_outputs: bool = False,
) -> Answers:
    """Return a model's answers to all rows.

    Args:
        session: The open model.
        rows: N rows.
        task: What the model does.
        classes: Label of each score column of a classifier; None when the column's index is the label.
        reading: Which outputs are the answer; None takes the first that fit.
        batch: Rows of one call; a model with a fixed batch is called with that size instead.
        keep_outputs: Whether every output is kept, as a metric of the owner's own needs. Else those that are no answer
            are dropped call by call, because hidden states may be larger than everything else together.

    Raises:
        UnfitAnswersError: The outputs do not fit the task.
    """
    if task is Task.GENERIC:
        singly = bool(reading and reading.singly)
        everything = all_outputs(session, rows, batch=batch, singly=singly)
        return Answers(everything=everything, outputs=everything.arrays if keep_outputs else {})
    read = None if keep_outputs or reading is None else {reading.label, reading.scores}
    outputs = outputs_of(session, rows, batch, only=read)
    return answers_of(outputs, rows=len(rows), task=task, classes=classes, reading=reading, keep_outputs=keep_outputs)


def answer_as(manifest: Manifest, session: Session, rows: Rows, *, batch: int, keep_outputs: bool = False) -> Answers:
    """Return the answers of a session of a bundle as its manifest says; arguments and errors are those of `answer`."""
    return answer(
        session,
        rows,
        task=manifest.task,
        classes=manifest.classes or None,
        reading=manifest.signature.reading,
        batch=batch,
        keep_outputs=keep_outputs,
    )


def answers_of(
    outputs: Mapping[str, Array],
    *,
    rows: int,
    task: Task,
    classes: Sequence[object] | None = None,
    reading: Reading | None = None,
    keep_outputs: bool = False,
) -> Answers:
    """Return the answers in values of every output (rows, ...) by name; arguments and errors are those of `answer`."""
    kept = outputs if keep_outputs else {}
    if task is Task.CLASSIFICATION:
        predictions = predictions_of(outputs, rows=rows, classes=classes, reading=reading)
        return Answers(predictions=predictions, outputs=kept)
    if task is Task.MULTI_LABEL:
        label_sets = label_sets_of(outputs, rows=rows, reading=reading or _ANYTHING)
        return Answers(label_sets=label_sets, outputs=kept)
    if task is Task.GENERIC:
        return Answers(everything=AllOutputs(outputs), outputs=kept)
    values = _numbers_of(outputs, rows=rows, task=task, reading=reading or _ANYTHING)
    return Answers(values=values, is_embedding=task is Task.EMBEDDING, outputs=kept)


def predict(
    session: Session,
    rows: Rows,
    *,
    batch: int = 256,
    classes: Sequence[object] | None = None,
    reading: Reading | None = None,
) -> Predictions:
    """Return a classifier's answers to all rows; arguments and errors are those of `answer`."""
    outputs = outputs_of(session, rows, batch)
    return predictions_of(outputs, rows=len(rows), classes=classes, reading=reading)


def predictions_of(
    outputs: Mapping[str, Array],
    *,
    rows: int,
    classes: Sequence[object] | None,
    reading: Reading | None = None,
) -> Predictions:
    """Find a classifier's answers among its outputs.

    Args:
        outputs: Values of every output by name, with shape (rows, ...).
        rows: Number of rows.
        classes: Label of each score column; None when the column's index is the label.
        reading: Which outputs are the answer; None takes the first label and the first scores.

    Raises:
        NotAClassifierError: The outputs are neither labels nor scores for classes.
    """
    how = reading or _ANYTHING
    label = how.label if reading else next((name for name in outputs if _is_label(outputs[name], rows)), None)
    name = how.scores if reading else next((name for name in outputs if _is_scores(outputs[name], rows)), None)
    scores = None if name is None else _score_table(_output(outputs, name), rows)
    if label is not None and how.threshold is None:
        return _with_scores(_output(outputs, label).reshape(rows), scores, classes, how)
    if scores is None:
        shapes = ", ".join(f"{name} {values.dtype}{list(values.shape)}" for name, values in outputs.items())
        raise NotAClassifierError(f"outputs are neither one label a row nor scores of classes: {shapes}")
    if scores.shape[1] == 1 and how.scale is None:
        raise NotAClassifierError(f"output {name} has one number a row, and nothing says what it is")
    read = _with_scores(np.zeros(rows), scores, classes, how)
    columns = _columns_of(read, scores, how)
    labels = columns if classes is None else np.asarray(classes)[columns]
    return Predictions(labels, read.scores, read.probabilities, read.classes, read.positive)


def _columns_of(read: Predictions, scores: Floats, how: Reading) -> NDArray[np.int64]:
    """Return the column (N,) of the class that each row is answered with."""
    probabilities = read.probabilities
    by_threshold = how.threshold is not None or scores.shape[1] == 1
    if by_threshold and probabilities is not None and probabilities.shape[1] == _TWO_CLASSES:
        threshold = _EVEN if how.threshold is None else how.threshold
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    return np.asarray(scores.argmax(axis=1))


def _with_scores(labels: Array, scores: Floats | None, classes: Sequence[object] | None, how: Reading) -> Predictions:
    if scores is None:
        return Predictions(labels=labels, positive=how.positive)
    if how.scale is Scale.PROBABILITIES and not can_be_probabilities(scores):
        raise NotAClassifierError("scores that are read as probabilities are not between 0 and 1")
    probabilities = None if how.scale is None else _probabilities(scores, how.scale)
    width = max(scores.shape[1], _TWO_CLASSES)
    named = tuple(range(width)) if not classes else tuple(classes)
    return Predictions(labels, scores, probabilities, named, how.positive)


def _probabilities(scores: Floats, scale: Scale) -> Floats:
    """Return scores (N, C), or (N, 1) of the second of two classes, as probabilities (N, C)."""
    if scores.shape[1] == 1:
        positive = np.clip(scores[:, 0], 0.0, 1.0) if scale is Scale.PROBABILITIES else _sigmoid(scores[:, 0])
        return np.stack([1 - positive, positive], axis=1)
    if scale is Scale.PROBABILITIES:
        shares = np.clip(scores, 0.0, 1.0)
        return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))


def _score_table(values: Array, rows: int) -> Floats:
    """Return scores as (N, C); a single number a row is (N, 1)."""
    if values.dtype.kind != "f" or values.size % rows or values.ndim > _TABLE_AXES or len(values) != rows:
        raise NotAClassifierError(f"an output of {values.dtype}{list(values.shape)} holds no scores of classes")
    scores: Floats = values.astype(np.float64).reshape(rows, -1)
    if not np.isfinite(scores).all():
        raise NotAClassifierError(f"{int((~np.isfinite(scores)).any(axis=1).sum())} rows have scores without a value")
    return scores


def _numbers_of(outputs: Mapping[str, Array], *, rows: int, task: Task, reading: Reading) -> Floats:
    named = None if reading.scores is None else _output(outputs, reading.scores)
    floats = (output for output in outputs.values() if output.dtype.kind == "f" and len(output) == rows)
    numbers = named if named is not None else next(floats, None)
    if numbers is None:
        raise UnfitAnswersError(f"a model of task {task} needs a floating point output of one row a row")
    values = numbers.astype(np.float64)
    if len(values) != rows:
        raise UnfitAnswersError(f"a model of task {task} answers every row, not {list(values.shape)} for {rows} rows")
    values = values.reshape(rows) if task is Task.REGRESSION and values.size == rows else values.reshape(rows, -1)
    if not np.isfinite(values).all():
        raise UnfitAnswersError(f"{int((~np.isfinite(values)).sum())} of its answers are not finite numbers")
    return values


def _output(outputs: Mapping[str, Array], name: str) -> Array:
    if name not in outputs:
        raise UnfitAnswersError(f"output {name} is missing; the model has {', '.join(outputs)}")
    return np.asarray(outputs[name])


def outputs_of(
    session: Session, rows: Rows, batch: int, *, only: Collection[str | None] | None = None
) -> dict[str, Array]:
    """Return outputs by name for all rows, with shape (N, ...), called with at most `batch` rows at a time.

    Args:
        session: The open model.
        rows: N rows.
        batch: Rows of one call; a model with a fixed batch is called with that size instead.
        only: Names of the outputs to return; None, or names that are no outputs, return all.
    """
    size = session.signature.batch or batch
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(rows), size):
        outputs = _ask(session, rows, start, size)
        wanted = (only or set()) & outputs.keys() or outputs.keys()
        for name in outputs:
            if name in wanted:
                parts.setdefault(name, []).append(outputs[name])
    return {name: np.concatenate(parts.pop(name)) for name in list(parts)}


def _ask(session: Session, rows: Rows, start: int, size: int) -> dict[str, Array]:
    """Return the outputs of one batch. For a model with a fixed batch, a short last batch is filled up, then cut.

    An output without rows is left out, and one of more rows than were asked is not cut: it is no answer to them.
    """
    indices = np.arange(start, min(start + size, len(rows)))
    asked = np.resize(indices, size) if session.signature.batch else indices
    outputs = {name: np.asarray(values) for name, values in ask(session, rows.take(asked).inputs).items()}
    return {
        name: values[: len(indices)] if len(values) == len(asked) else values
        for name, values in outputs.items()
        if values.ndim
    }


def _is_label(values: Array, rows: int) -> bool:
    return values.size == rows and values.dtype.kind in "iuOUSb"


def _is_scores(values: Array, rows: int) -> bool:
    return values.ndim == _TABLE_AXES and values.shape[0] == rows and values.shape[1] > 1 and values.dtype.kind == "f"


def correct(predictions: Predictions, rows: Rows) -> BoolArray:
    """Return a mask (N,) of the correct answers; a number and a text are equal when they are written alike."""
    predicted, expected = predictions.labels, rows.answers
    if predicted.dtype.kind in "iufb" and expected.dtype.kind in "iufb":
        return np.asarray(predicted == expected, dtype=np.bool_)
    return np.asarray(spelled(predicted) == spelled(expected), dtype=np.bool_)


def spelled(labels: Array) -> NDArray[np.str_]:
    """Return labels as text, so that 3, 3.0 and "3" are the same class."""
    if labels.dtype.kind == "f" and np.all(labels == np.round(labels.astype(np.float64))):
        labels = labels.astype(np.int64)
    return labels.astype(str)


def agreement(champion: Predictions, candidate: Predictions) -> BoolArray:
    """Return a mask (N,) of the rows on which two models give the same answer; needs no labels."""
    return np.asarray(spelled(champion.labels) == spelled(candidate.labels), dtype=np.bool_)


def alike(champion: Answers, candidate: Answers) -> Floats:
    """Return for each row how alike two models answer, as (N,) from 0 (differently) to 1 (the same); needs no labels.

    For a regression it is 1 minus the difference in units of the champion's standard deviation, the mean over outputs;
    for an embedding it is the cosine; for several labels a row, the share of labels that are the same; for a generic
    model, the likeness of its worst output.
    """
    if champion.everything is not None and candidate.everything is not None:
        return likeness(champion.everything, candidate.everything)
    if champion.label_sets is not None and candidate.label_sets is not None:
        return np.asarray((champion.label_sets.decided == candidate.label_sets.decided).mean(axis=1))
    if champion.predictions is not None and candidate.predictions is not None:
        return agreement(champion.predictions, candidate.predictions).astype(np.float64)
    mine, theirs = candidate.numbers, champion.numbers
    if champion.is_embedding and mine.ndim > 1:
        return np.clip(cosines(mine, theirs), 0.0, 1.0)
    mine, theirs = mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1)
    apart = np.abs(mine - theirs) / np.maximum(theirs.std(axis=0), 1e-12)
    return np.asarray(np.clip(1 - apart, 0.0, 1.0).mean(axis=1))


def cosines(left: Floats, right: Floats) -> Floats:
    """Return the cosine (N,) between the rows of two arrays (N, D)."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / np.maximum(lengths, 1e-12))


def spread(answers: Answers) -> float:
    """Return how much the answers differ from row to row; 0 when all rows get the same answer.

    It is the standard deviation of the probabilities or numbers, the mean over columns; for labels alone, the share of
    rows without the most frequent one.
    """
    if answers.everything is not None:
        return answers.everything.spread
    if (sets := answers.label_sets) is not None:
        numbers = sets.decided.astype(np.float64) if sets.probabilities is None else sets.probabilities
        return float(numbers.std(axis=0).mean())
    predictions = answers.predictions
    if predictions is None:
        return float(answers.numbers.std(axis=0).mean())
    if predictions.probabilities is not None:
        return float(predictions.probabilities.std(axis=0).mean())
    counts = np.unique(spelled(predictions.labels), return_counts=True)[1]
    return float(1 - counts.max() / counts.sum())
