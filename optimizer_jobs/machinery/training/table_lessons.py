"""What a student of tables learns from its teacher and the labels, and how good it is at that.

A student learns logits and numbers by least squares, so the soft answers of the teacher count and not only its labels.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.training.table_columns import NotLearnableError
from optimizer_jobs.measure.answers import Answers, Predictions, answers_of, outputs_of, spelled
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Scale
from optimizer_jobs.technique import Context

Floats = NDArray[np.floating]

_ASKED = 2048
"""Rows for which the teacher is asked at once, between two looks at the time."""
_LEAST_SHARE = 0.01
"""Probability below which all are alike to a student: their logits would count most, and mean least."""
_SUMS_TO_ONE = 1e-3
"""What probabilities of a row may miss 1 by."""
_SAME_LABEL = 0.999
"""Share of the rows on which the teacher's label must be the class of its largest score."""
_TINY = 1e-12


@dataclass(frozen=True)
class Lesson:
    """What a student learns: a number for each output column."""

    targets: Floats
    """Centred logits, or plain numbers, (N, K)."""
    closing: str | None = None
    """Operator that makes the answer of what was learned: Softmax, Sigmoid or none."""
    compared: bool = True
    """Whether the columns are compared with each other, as scores are, so that all have one unit; numbers have none."""


def answers_to(rows: Rows, model: Path, context: Context) -> Answers:
    """Return what the teacher, an ONNX file, answers; raises UnfitAnswersError where that is no finite number."""
    session = open_model(model, EngineOptions(threads=context.threads))
    parts = []
    for start in range(0, len(rows), _ASKED):
        context.check_time()
        parts.append(outputs_of(session, rows.take(slice(start, start + _ASKED)), _ASKED))
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    classes, reading = context.classes or None, context.signature.reading
    return answers_of(outputs, rows=len(rows), task=context.task, classes=classes, reading=reading)


def lesson_of(answers: Answers, rows: Rows, context: Context, *, weight: float) -> Lesson:
    """Return what a student learns, of which the share `weight` comes from the teacher and the rest from labels.

    Raises:
        NotLearnableError: The answers are not such that a student can give them.
    """
    share = 1.0 if rows.labels is None else weight
    if answers.predictions is not None:
        return _of_classes(answers.predictions, rows, context, share)
    numbers = answers.numbers.reshape(len(rows), -1)
    if share < 1.0:
        numbers = share * numbers + (1 - share) * rows.answers.astype(np.float64).reshape(numbers.shape)
    return Lesson(numbers, compared=False)


def _of_classes(answered: Predictions, rows: Rows, context: Context, share: float) -> Lesson:
    if answered.scores is None:
        raise NotLearnableError("the model has no scores to learn from")
    _check_label(answered, context)
    probabilities = _probabilities(answered)
    if probabilities is None:
        return Lesson(np.asarray(answered.scores, dtype=np.float64))
    if share < 1.0:
        labels = spelled(rows.answers)[:, np.newaxis] == spelled(np.asarray(answered.classes))
        probabilities = share * probabilities + (1 - share) * labels
    logits = np.log(np.clip(probabilities, _LEAST_SHARE, 1.0))
    reading, single = context.signature.reading, answered.scores.shape[1] == 1
    closing = None if reading and reading.scale is Scale.LOGITS else "Sigmoid" if single else "Softmax"
    return Lesson(logits[:, 1:] - logits[:, :1] if single else logits - logits.mean(axis=1, keepdims=True), closing)


def _probabilities(answered: Predictions) -> Floats | None:
    """Return the teacher's probabilities (N, C); None where its scores are none and nothing says what they are."""
    if answered.probabilities is not None or answered.scores is None:
        return answered.probabilities
    scores = answered.scores
    are_shares = (scores >= 0).all() and bool((np.abs(scores.sum(axis=1) - 1) < _SUMS_TO_ONE).all())
    return scores if are_shares else None


def _check_label(answered: Predictions, context: Context) -> None:
    """Raise NotLearnableError where the teacher's label is not the class of its largest score."""
    if context.signature.label_output is None or answered.scores is None:
        return
    largest = np.asarray(answered.classes)[answered.scores.argmax(axis=1)]
    same = float(np.mean(spelled(largest) == spelled(answered.labels)))
    if same < _SAME_LABEL:
        raise NotLearnableError(
            f"on {100 * same:.3g} % of the rows the model's label is the class of its largest score, as it is of a "
            "student on all of them"
        )


class Judge:
    """Says how good answers to the validation rows are: by labels where there are some, else by the teacher's."""

    def __init__(self, rows: Rows, teacher: Answers) -> None:
        self._rows, self._teacher = rows, teacher
        self._classes = None if teacher.predictions is None else spelled(np.asarray(teacher.predictions.classes))

    @property
    def before(self) -> float:
        """The teacher's own quality."""
        if self._teacher.predictions is not None:
            return self._accuracy(spelled(self._teacher.predictions.labels))
        return self._explained(self._teacher.numbers.reshape(len(self._rows), -1))

    def quality(self, learned: Floats) -> float:
        """Return accuracy or R squared of a student that gives these numbers (N, K); higher is better."""
        if self._classes is None:
            return self._explained(learned)
        places = learned.argmax(axis=1) if learned.shape[1] > 1 else (learned[:, 0] > 0).astype(np.int64)
        return self._accuracy(self._classes[places])

    def _accuracy(self, labels: NDArray[np.str_]) -> float:
        predictions = self._teacher.predictions
        if predictions is None:
            raise ValueError("these answers are no classes")
        expected = spelled(predictions.labels if self._rows.labels is None else self._rows.answers)
        return float(np.average(labels == expected, weights=self._rows.weights))

    def _explained(self, numbers: Floats) -> float:
        """Return R squared, the mean over columns; a column that never changes counts by its size."""
        labels = self._teacher.numbers if self._rows.labels is None else self._rows.answers.astype(np.float64)
        mean = partial(np.average, axis=0, weights=self._rows.weights)
        expected = labels.reshape(numbers.shape)
        errors, size = mean(np.square(numbers - expected)), mean(np.square(expected))
        spread = mean(np.square(expected - mean(expected)))
        spread = np.where(spread > _TINY * size, spread, size)
        return float(np.mean(1 - errors / np.maximum(spread, _TINY)))
