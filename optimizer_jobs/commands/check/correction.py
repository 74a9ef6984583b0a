"""A quick learner that corrects a model's answers: what labelled rows know that the model does not.

It learns what the model's answers are off by, from the inputs and the answers themselves, so it begins where the model
ends and asks nothing of how that was made. Where there is nothing to learn, it leaves the answers nearly as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.labelled_quality import BEYOND
from optimizer_jobs.commands.check.sources import answers as table_of
from optimizer_jobs.measure.answers import Predictions, answers_of, spelled
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import is_wide
from optimizer_jobs.production.labels import Truth
from optimizer_jobs.production.windows import Captured
from retune.api.model import Task

Floats = NDArray[np.float64]

MOST_CLASSES = 10
"""Classes whose probabilities are corrected, the most frequent ones; each takes a learner of its own."""
_ROUNDS, _LEAVES, _LEAST_LEAF, _RATE, _SHRINKAGE = 40, 8, 100, 0.1, 5.0
"""Trees that are too small to learn single rows by heart."""
_DIGITS = 4
"""Digits after the point by which answers are the same."""
_CATEGORIES = 200
"""Most texts of a column that are told apart; scikit-learn's trees take up to 255."""


@dataclass(frozen=True)
class Lesson:
    """N labelled rows with a model's answers, as the learner takes them."""

    table: pd.DataFrame
    """(N, F): inputs that are single numbers or texts, and the answers."""
    answered: Floats
    """(N, K): the probability of each class, of two classes of the second one alone; or the numbers answered."""
    truth: Floats
    """(N, K): what would have been right."""

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def joined(cls, lessons: Sequence["Lesson"]) -> "Lesson":
        """Return the rows of several lessons, one after the other."""
        parts = [lesson for lesson in lessons if len(lesson)]
        return cls(
            pd.concat([lesson.table for lesson in parts], ignore_index=True),
            np.concatenate([lesson.answered for lesson in parts]),
            np.concatenate([lesson.truth for lesson in parts]),
        )

    def newest(self, rows: int) -> "Lesson":
        """Return the last rows."""
        return self.take(slice(max(0, len(self) - rows), None))

    def unlike(self, other: "Lesson") -> "Lesson":
        """Return the rows that do not occur in another lesson, as far as the table and the answers tell."""
        return self.take(~np.isin(self.keys(), other.keys()))

    def keys(self) -> NDArray[np.uint64]:
        """Return a number (N,) that equal rows share; engines differ in the last digits of an answer."""
        answers = {f"answered {place}": np.round(column, _DIGITS) for place, column in enumerate(self.answered.T)}
        table = self.table.reset_index(drop=True).assign(**answers)
        return np.asarray(pd.util.hash_pandas_object(table, index=False), dtype=np.uint64)

    def take(self, kept: slice | NDArray[np.bool_]) -> "Lesson":
        """Return some of the rows: a mask (N,) or a slice."""
        return Lesson(self.table.iloc[kept], self.answered[kept], self.truth[kept])

    def losses(self, answered: Floats) -> Floats:
        """Return the squared error (N,) of answers (N, K) to each row, over all columns: Brier of classes."""
        return np.asarray(np.square(answered - self.truth).sum(axis=1))


def lesson_of(captured: Captured, truth: Truth, manifest: Manifest) -> Lesson:
    """Return captured rows and their labels as a lesson, without those whose error is no number that can be told.

    Raises:
        UnfitAnswersError: The model answers neither probabilities nor numbers, or the labels are of another kind.
    """
    read = answers_of(
        captured.outputs,
        rows=len(captured),
        task=manifest.task,
        classes=manifest.classes or None,
        reading=manifest.signature.reading,
    )
    if manifest.task is Task.CLASSIFICATION and read.predictions is not None:
        answered, true = _of_classes(read.predictions, truth)
    else:
        answered, true = _of_numbers(read.numbers, truth)
    narrow = [spec for spec in manifest.signature.inputs if not is_wide(captured.inputs[spec.name])]
    with np.errstate(over="ignore", invalid="ignore"):
        told = np.asarray((np.abs(answered - true) < BEYOND).all(axis=1))
    return Lesson(_readable(table_of(captured, manifest, narrow)), answered, true).take(told)


def _of_classes(predictions: Predictions, truth: Truth) -> tuple[Floats, Floats]:
    probabilities = predictions.probabilities
    if probabilities is None or not predictions.classes:
        raise UnfitAnswersError("the model answers no probabilities (model.outputs.scores and model.outputs.scale)")
    names = spelled(np.asarray(predictions.classes))
    true = (spelled(truth.labels)[:, np.newaxis] == names).astype(np.float64)
    return (probabilities[:, 1:], true[:, 1:]) if len(names) == 2 else (probabilities, true)


def _of_numbers(values: Floats, truth: Truth) -> tuple[Floats, Floats]:
    labels = truth.labels
    if labels.dtype.kind not in "biuf" or labels.shape != values.shape:
        raise UnfitAnswersError("the labels are no numbers of the shape that the model answers")
    return values.reshape(len(values), -1), labels.astype(np.float64).reshape(len(labels), -1)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns a learner takes: numbers, and texts as they are."""
    return pd.DataFrame({str(name): _numbers(table[name]) for name in table})


def _numbers(column: pd.Series) -> "pd.Series[Any]":
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.astype(np.float64)
        return numbers.where(np.isfinite(numbers))
    return column.astype(str)


def corrected(taught: Lesson, asked: Lesson, *, seed: int) -> Floats:
    """Return the answers (N, K) to the rows of one lesson, corrected by what another one teaches.

    Args:
        taught: Rows to learn from; only what they say is known.
        asked: Rows of the same model.
        seed: Seed of the learner.
    """
    found, columns = asked.answered.copy(), _frequent(taught)
    rows, later = _alike(taught, asked)
    for column in columns:
        off = taught.truth[:, column] - taught.answered[:, column]
        found[:, column] += _taught(rows, off, seed=seed).predict(later)
    return found


def _frequent(taught: Lesson) -> Sequence[int]:
    count = taught.truth.shape[1]
    if count <= MOST_CLASSES:
        return range(count)
    return sorted(np.argsort(-taught.truth.sum(axis=0), kind="stable")[:MOST_CLASSES].tolist())


def _alike(taught: Lesson, asked: Lesson) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables with the columns of both, of the same types, texts as categories that were taught.

    A column without any value among what is taught is left out: it teaches nothing, and no tree can divide it.
    """
    shared = [name for name in taught.table if name in asked.table and taught.table[name].notna().any()]
    before, now = taught.table[shared].copy(), asked.table[shared].copy()
    for name in shared:
        if pd.api.types.is_numeric_dtype(before[name]) and pd.api.types.is_numeric_dtype(now[name]):
            continue
        known = before[name].astype(str).value_counts().index[:_CATEGORIES]
        before[name], now[name] = (_among(known, table[name]) for table in (before, now))
    for place, answered in ((before, taught.answered), (now, asked.answered)):
        place[[f"answered {index}" for index in range(answered.shape[1])]] = answered
    return before, now


def _among(known: "pd.Index[Any]", column: pd.Series) -> pd.Series:
    """Return texts as categories; those that are not known are missing."""
    texts = column.astype(str)
    return texts.where(texts.isin(known)).astype(pd.CategoricalDtype(known))


def _taught(rows: pd.DataFrame, off: Floats, *, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    learner = HistGradientBoostingRegressor(
        learning_rate=_RATE,
        max_iter=_ROUNDS,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=min(_LEAST_LEAF, max(1, len(rows) // 10)),
        l2_regularization=_SHRINKAGE,
        early_stopping=False,
        random_state=seed,
    )
    return learner.fit(rows, off)
