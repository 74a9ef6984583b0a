"""The chance that an answer is right, learnt from the reference: from its confidence and how near the reference is.

Two ways to learn it are tried where there are enough rows, a logistic curve (J. Platt, 1999) and isotonic regression
(B. Zadrozny and C. Elkan, 2002); the one that does better on rows that it has not learnt is used.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.unlabelled.features import Floats

Classes = NDArray[np.int64]

_EDGE = 1e-4
_MANY = 10
"""More classes than this have no part of their own in the curve."""
_ISOTONIC_ROWS = 1000
_FOLDS = 3


@dataclass(frozen=True)
class Judged:
    """What an answer's chance to be right is read from, for N answers."""

    confidence: Floats
    """(N,): probability that the model gives to its answer."""
    answered: Classes
    """(N,): number of the class that it answers."""
    distance: Floats
    """(N,): logarithm of the distance to the reference."""
    classes: int

    @property
    def table(self) -> Floats:
        """The inputs (N, F) of the curve."""
        clipped = np.clip(self.confidence, _EDGE, 1 - _EDGE)
        columns = [np.log(clipped / (1 - clipped)), self.distance]
        if self.classes <= _MANY:
            columns += [(self.answered == number).astype(np.float64) for number in range(1, self.classes)]
        return np.stack(columns, axis=1)


class Curve:
    """A learnt curve."""

    def __init__(self, *, isotonic: bool = False) -> None:
        self._isotonic = isotonic
        self._middle = self._scale = np.zeros(0)
        self._constant: float | None = None

    def fit(self, table: Floats, right: Floats, weights: Floats) -> "Curve":
        """Learn from rows (M, F), whether they are right (M,), and how much they count (M,)."""
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression

        counted = weights > 0
        if len(np.unique(right[counted])) < 2:
            rows = weights.sum() ** 2 / (weights**2).sum()
            self._constant = float((weights @ right / weights.sum() * rows + 0.5) / (rows + 1))
            return self
        if self._isotonic:
            self._model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
            self._model.fit(table[:, 0], right, sample_weight=weights)
            return self
        self._middle, self._scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
        self._model = LogisticRegression(C=1.0, max_iter=100, tol=1e-3)
        self._model.fit((table - self._middle) / self._scale, right, sample_weight=weights)
        return self

    def chance(self, table: Floats) -> Floats:
        """Return the chance (N,) that answers are right."""
        if self._constant is not None:
            return np.full(len(table), self._constant)
        if self._isotonic:
            return np.asarray(self._model.predict(table[:, 0]))
        return np.asarray(self._model.predict_proba((table - self._middle) / self._scale)[:, 1])


def held_out(table: Floats, right: Floats, weights: Floats, *, isotonic: bool, seed: int) -> Floats:
    """Return the chance (M,) of each row by a curve that has not learnt it."""
    parts = np.random.default_rng(seed).permutation(len(right)) % _FOLDS
    chance = np.empty(len(right))
    for part in range(_FOLDS):
        left = parts == part
        curve = Curve(isotonic=isotonic).fit(table[~left], right[~left], weights[~left])
        chance[left] = curve.chance(table[left])
    return chance


def prefers_isotonic(table: Floats, right: Floats, weights: Floats, *, seed: int) -> bool:
    """Return whether isotonic regression has the smaller loss on rows left out; never for few rows."""
    if len(right) < _ISOTONIC_ROWS:
        return False
    losses = [
        _loss(held_out(table, right, weights, isotonic=isotonic, seed=seed), right, weights)
        for isotonic in (False, True)
    ]
    return losses[1] < losses[0]


def _loss(chance: Floats, right: Floats, weights: Floats) -> float:
    clipped = np.clip(chance, _EDGE, 1 - _EDGE)
    of_rows = -(right * np.log(clipped) + (1 - right) * np.log(1 - clipped))
    return float(weights @ of_rows / weights.sum())
