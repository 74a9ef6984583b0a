"""Compare the answers of an ONNX file with those of the estimator that it was made of, number by number.

Labels alone would hide most differences: two files may agree on all labels and give other probabilities.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.machinery.estimators.soundness import Array

CLOSE = 1e-4
"""How far a number may be off: a probability by this much, other numbers by this share of their standard deviation.
Single precision stays a hundred times below it."""
SHARE = 1e-3
"""Share of rows that may be further off, and at least one row: sums of many numbers differ in their last digits."""
FAR = 0.02
"""How far no row may be off, but where the last digit of double precision may decide, and so libraries and processors:
in trees on numbers that earlier steps computed, and among neighbours that are equally near."""
_MISSED, _MISSED_SHARE = 0.1, 0.01
"""How far a row of a new candidate may be off, and the share of rows that may be further: its file is judged anyway."""
_NOISE = 1e-9
"""Share of its size below which the spread of a number is noise."""
_OTHER_LABEL = FAR
"""How far a row with another label is off where labels are all there is."""


@dataclass(frozen=True)
class Answers:
    """What a model answers to N rows."""

    labels: Array | None
    """(N,) or None for a regression and for several targets."""
    numbers: NDArray[np.float64] | None
    """(N, K): probabilities, scores, or predicted numbers; None where a classifier gives labels only."""
    probabilities: bool = False


@dataclass(frozen=True)
class Difference:
    """How far two models' answers to the same rows are apart."""

    rows: int
    off: int
    """Rows that are off by more than `CLOSE`."""
    missed: int
    """Rows that are off by more than `_MISSED`."""
    worst: float
    """How far the worst row is off, as a probability or in standard deviations; infinite for another label."""
    probabilities: bool

    def is_tolerable(self, *, jumps: bool) -> bool:
        """Return whether the two may pass for the same model; `jumps` says that the last digit may decide."""
        return self.off <= max(1, SHARE * self.rows) and (jumps or self.worst <= FAR)

    @property
    def is_kin(self) -> bool:
        """Whether the one may stand for the other where it is judged by itself."""
        return self.missed <= max(1, _MISSED_SHARE * self.rows)

    def words(self, kind: str) -> str:
        """Return it in words, such as `answers 12 of 500 rows differently, by up to 0.3 in probability`."""
        unit = "in probability" if self.probabilities else "standard deviations"
        by = f", by up to {self.worst:.2g} {unit}" if np.isfinite(self.worst) else ""
        return f"answers {self.off} of {self.rows} {kind} differently{by}"


def asked(estimator: Any, X: Any) -> Answers:
    """Return what the estimator answers; raises what it raises for rows that it does not take."""
    from sklearn.base import is_classifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not is_classifier(estimator):
            return Answers(None, _columns(estimator.predict(X)))
        labels = np.asarray(estimator.predict(X))
        labels = labels.astype(np.int64) if labels.dtype.kind in "bf" else labels
        several = labels.ndim == 2
        if hasattr(estimator, "predict_proba"):
            scores = estimator.predict_proba(X)
            numbers = np.stack([s[:, 1] for s in scores], axis=1) if isinstance(scores, list) else _columns(scores)
            return Answers(None if several else labels, numbers, probabilities=True)
        scores = estimator.decision_function(X) if hasattr(estimator, "decision_function") else None
    return Answers(labels, None if scores is None else _columns(scores))


def difference(expected: Sequence[Answers], written: Answers, *, unit: Array | None = None) -> Difference:
    """Return how far the answers of a file are from those that are expected, row by row from the nearest ones.

    Args:
        expected: Answers that are right, each of them.
        written: Answers of the file.
        unit: Spread of each number that is no probability, (K,); by default, that of the expected numbers.
    """
    apart = np.min([_rows_apart(answers, written, unit) for answers in expected], axis=0)
    return Difference(
        rows=len(apart),
        off=int((apart > CLOSE).sum()),
        missed=int((apart > _MISSED).sum()),
        worst=float(apart.max(initial=0.0)),
        probabilities=expected[0].probabilities,
    )


def unit_of(answers: Answers) -> Array:
    """Return the spread of each number, (K,): 1 for probabilities, else its standard deviation over the rows."""
    if answers.numbers is None or answers.probabilities:
        return np.ones(1)
    finite = np.where(np.isfinite(answers.numbers), answers.numbers, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spread, size = np.nanstd(finite, axis=0), np.nanmax(np.abs(finite), axis=0)
    return np.asarray(np.where(spread > _NOISE * size, spread, np.fmax(size, 1.0)))


def _rows_apart(expected: Answers, written: Answers, unit: Array | None) -> NDArray[np.float64]:
    """Return how far each row is off, (N,): infinitely, where it has another label, and not by the last digit alone."""
    unit = unit_of(expected) if unit is None else unit
    apart = _apart(expected, written, unit)
    if expected.labels is not None and written.labels is not None:
        other = expected.labels.astype(str) != written.labels.reshape(-1).astype(str)
        distance = _OTHER_LABEL if expected.numbers is None else np.inf
        luck = _undecided(expected, unit) & ~_tied(written)
        apart = np.where(other & ~luck, distance, apart)
    return apart


def _apart(expected: Answers, written: Answers, unit: Array) -> NDArray[np.float64]:
    """Return the largest difference (N,) of each row's numbers, as a probability or in standard deviations."""
    if expected.numbers is None or written.numbers is None or not _comparable(expected.numbers, written.numbers):
        labels = expected.labels if expected.labels is not None else expected.numbers
        return np.zeros(0 if labels is None else len(labels))
    numbers = written.numbers[:, -expected.numbers.shape[1] :]
    with np.errstate(invalid="ignore"):
        apart = np.abs(numbers - expected.numbers) / unit
    same = (np.isnan(numbers) & np.isnan(expected.numbers)) | (numbers == expected.numbers)
    return np.asarray(np.where(same, 0.0, np.nan_to_num(apart, nan=np.inf)).max(axis=1))


def _comparable(expected: Array, written: Array) -> bool:
    """Whether both have as many columns, or one is the score of the second of two classes."""
    return written.shape == expected.shape or (expected.shape[1] == 1 and written.shape[1] <= 2)


def _undecided(expected: Answers, unit: Array) -> NDArray[np.bool_]:
    """Return a mask (N,) of rows whose two best classes are so near that either label is right."""
    numbers = expected.numbers
    if numbers is None:
        return np.zeros(0 if expected.labels is None else len(expected.labels), dtype=bool)
    if numbers.shape[1] == 1:
        return np.asarray(np.abs(numbers[:, 0]) <= CLOSE * unit)
    best = np.sort(numbers, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] <= 2 * CLOSE * unit.max())


def _tied(written: Answers) -> NDArray[np.bool_]:
    """Return a mask (N,) of rows whose best classes have the very same number in the file.

    No last digit decides there. Another label than the estimator's means that the estimator breaks the tie by something
    that its probabilities do not show.
    """
    numbers = written.numbers
    if numbers is None or numbers.shape[1] == 1:
        return np.zeros(0 if written.labels is None else len(written.labels), dtype=bool)
    best = np.sort(numbers, axis=1)[:, -2:]
    return np.asarray(best[:, 1] == best[:, 0])


def _columns(numbers: Any) -> NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    return values.reshape(len(values), -1)
