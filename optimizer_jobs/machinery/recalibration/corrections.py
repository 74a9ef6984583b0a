"""Corrections of a classifier's probabilities, and how each is fitted to rows with labels, or without.

All work on log scores: logarithms of probabilities, or logits, whose differences are log-odds. Pure: no model, no file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

Floats = NDArray[np.float64]
Columns = NDArray[np.int64]

SMALLEST = float(np.finfo(np.float64).eps)
"""Smallest probability that counts, as in scikit-learn's log loss."""
LEAST_ROWS, LEAST_OF_CLASS = 50, 10
"""Labelled rows that a fit to labels needs, and those of each class."""
LEAST_OF_CURVE, LEAST_SIDE = 1000, 100
"""Labelled rows that isotonic regression needs, and those of each of the two classes."""

_SLOPES = (0.05, 20.0)
"""Bounds of what log-odds are multiplied by."""
_OFFSETS = (-20.0, 20.0)
_DIGITS = 6
"""Digits of what is fitted: beyond, it is chance and the order in which a processor adds."""
_TWO = 2
_ROUNDS, _PRECISION = 1000, 1e-7
_RAREST = 1e-6
"""Smallest share of a class that is estimated from answers."""


class Method(StrEnum):
    """How probabilities are corrected."""

    BOTH = "Both"
    TEMPERATURE = "Temperature"
    PRIOR_SHIFT = "PriorShift"
    ISOTONIC = "Isotonic"


class UnfitRowsError(ValueError):
    """The rows do not allow this correction; the message says why, as a sentence without a full stop."""


@dataclass(frozen=True)
class Evidence:
    """N rows with a model's log scores, and what turned out to be true."""

    logs: Floats
    """(N, C): log scores of the classes."""
    columns: Columns
    """(N,): column of the true class."""
    weights: Floats
    """(N,): how much each row counts, at least 0."""
    blocks: Columns
    """(N,): number of the group that a row belongs to; rows of one group are no evidence of their own."""

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, indices: NDArray[np.bool_]) -> "Evidence":
        """Return the rows of a mask (N,)."""
        return Evidence(self.logs[indices], self.columns[indices], self.weights[indices], self.blocks[indices])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each class that count for anything (C,)."""
        return np.bincount(self.columns[self.weights > 0], minlength=self.logs.shape[1])


@dataclass(frozen=True)
class Affine:
    """Log-odds are multiplied by `slope`, and each class gets an offset."""

    slope: float
    """One divided by the temperature, above 0."""
    offsets: Floats
    """(C,): what is added to the log score of each class, in nats."""

    def probabilities(self, logs: Floats) -> Floats:
        """Return corrected probabilities (N, C) of log scores (N, C)."""
        return np.asarray(softmax(self.slope * logs + self.offsets, axis=1))

    @property
    def moves_labels(self) -> bool:
        """Whether another class than before may come first in a row."""
        return bool((self.offsets != 0).any())

    @property
    def words(self) -> str:
        """The correction in words, such as `temperature 1.3, classes weighed by 1 to 0.25`."""
        weights = np.exp(self.offsets - self.offsets.max())
        heated = [f"temperature {1 / self.slope:.3g}"] if self.slope != 1 else []
        weighed = [f"classes weighed by {weights.max():.3g} to {weights.min():.3g}"] if self.moves_labels else []
        return ", ".join([*heated, *weighed]) or "nothing"


@dataclass(frozen=True)
class Curve:
    """The probability of the second of two classes by its log-odds: straight lines between points that never fall."""

    places: Floats
    """(M,): log-odds of the points, rising, M at least 2."""
    heights: Floats
    """(M,): probabilities there, never falling."""

    def probabilities(self, logs: Floats) -> Floats:
        """Return corrected probabilities (N, 2) of log scores (N, 2)."""
        second = np.interp(logs[:, 1] - logs[:, 0], self.places, self.heights)
        return np.stack([1 - second, second], axis=1)

    @property
    def moves_labels(self) -> bool:
        """Whether another class than before may come first in a row."""
        return True

    @property
    def words(self) -> str:
        """The correction in words, such as `isotonic curve of 24 points`."""
        return f"isotonic curve of {len(self.places)} points"


Correction = Affine | Curve


def log_scores(scores: Floats, *, are_logits: bool) -> Floats:
    """Return log scores (N, C) of scores (N, C), or of scores (N, 1) of the second of two classes."""
    if scores.shape[1] > 1:
        return scores if are_logits else np.log(np.maximum(scores, SMALLEST))
    second = scores[:, 0]
    odds = second if are_logits else np.log(np.maximum(second, SMALLEST)) - np.log(np.maximum(1 - second, SMALLEST))
    return np.stack([np.zeros(len(scores)), odds], axis=1)


Fit = Callable[[Evidence], Correction]


def fit_of(method: Method, evidence: Evidence, *, before: Floats | None = None) -> Fit:
    """Return what fits a correction to these rows, or to most of them, by log loss.

    Args:
        method: What may be corrected.
        evidence: The rows.
        before: Shares of the classes (C,) that the model has learned, for a shift without labels; None if not known.

    Raises:
        UnfitRowsError: There are too few rows, or too few of a class.
    """
    fewest = int(evidence.counts.min())
    if method is Method.ISOTONIC:
        _check_curve(evidence, fewest)
        return _curve
    if len(evidence) < LEAST_ROWS:
        raise UnfitRowsError(f"it needs {LEAST_ROWS} labelled rows for validation, and there are {len(evidence)}")
    if method is Method.PRIOR_SHIFT and fewest < LEAST_OF_CLASS:
        return partial(_without_labels, before=_known(before, fewest))
    if method is Method.BOTH and fewest < LEAST_OF_CLASS:
        raise UnfitRowsError(f"it needs {LEAST_OF_CLASS} rows of each class for validation, and one has {fewest}")
    return partial(_affine, heats=method is not Method.PRIOR_SHIFT, weighs=method is not Method.TEMPERATURE)


def _affine(evidence: Evidence, *, heats: bool, weighs: bool) -> Affine:
    """Return slope and offsets of the least log loss, which is convex in them; the first class has no offset."""
    logs, columns = evidence.logs, evidence.columns
    weights = evidence.weights / evidence.weights.sum()
    classes, line = logs.shape[1], np.arange(len(columns))
    truth = np.bincount(columns, weights=weights, minlength=classes)

    def loss(values: Floats) -> tuple[float, Floats]:
        sums = values[0] * logs + np.concatenate([[0.0], values[1:]])
        logged = log_softmax(sums, axis=1)
        shares = weights[:, np.newaxis] * np.exp(logged)
        by_slope = (shares * logs).sum() - weights @ logs[line, columns]
        by_offset = shares.sum(axis=0) - truth
        return float(-weights @ logged[line, columns]), np.concatenate([[by_slope], by_offset[1:]])

    start = np.concatenate([[1.0], np.zeros(classes - 1)])
    bounds = [_SLOPES if heats else (1.0, 1.0), *[_OFFSETS if weighs else (0.0, 0.0)] * (classes - 1)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ROUNDS})
    values = np.round(np.asarray(found.x, dtype=np.float64), _DIGITS)
    return Affine(float(values[0]), np.concatenate([[0.0], values[1:]]) + 0.0)


def _known(before: Floats | None, fewest: int) -> Floats:
    if before is None or not (before > 0).all():
        raise UnfitRowsError(
            f"a class has {fewest} rows for validation where {LEAST_OF_CLASS} are needed, and without training rows of "
            "each class nothing says how frequent classes were"
        )
    return before


def _without_labels(evidence: Evidence, *, before: Floats) -> Affine:
    now = shares_now(softmax(evidence.logs, axis=1), before, evidence.weights)
    offsets = np.log(now / before)
    return Affine(1.0, np.round(np.clip(offsets - offsets[0], *_OFFSETS), _DIGITS) + 0.0)


def shares_now(probabilities: Floats, before: Floats, weights: Floats | None = None) -> Floats:
    """Return how frequent classes are among rows without labels, by what a model answers to them.

    Expectation and maximization of Saerens et al. (2002): the likelihood of the rows never falls from round to round.

    Args:
        probabilities: What the model answers (N, C), calibrated where classes have the shares `before`.
        before: Shares (C,) that the model has learned, all above 0.
        weights: How much each row counts (N,); None where all count alike.

    Returns:
        Shares (C,), which sum to 1 and are all above 0.
    """
    counts = np.ones(len(probabilities)) if weights is None else weights
    shares = before / before.sum()
    for _ in range(_ROUNDS):
        weighed = probabilities * (shares / before)
        weighed /= weighed.sum(axis=1, keepdims=True)
        following = np.maximum(counts @ weighed / counts.sum(), _RAREST)
        following /= following.sum()
        moved, shares = float(np.abs(following - shares).max()), following
        if moved < _PRECISION:
            break
    return np.asarray(shares)


def _check_curve(evidence: Evidence, fewest: int) -> None:
    if evidence.logs.shape[1] != _TWO:
        raise UnfitRowsError("isotonic regression is for two classes")
    if len(evidence) < LEAST_OF_CURVE or fewest < LEAST_SIDE:
        raise UnfitRowsError(
            f"isotonic regression needs {LEAST_OF_CURVE} labelled rows for validation, {LEAST_SIDE} of each class: "
            f"there are {len(evidence)}, {fewest} of one"
        )


def _curve(evidence: Evidence) -> Curve:
    """Return isotonic regression of the second class on its log-odds."""
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (len(evidence) + _TWO)
    regression = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    regression.fit(evidence.logs[:, 1] - evidence.logs[:, 0], evidence.columns, sample_weight=evidence.weights)
    return _points(np.asarray(regression.X_thresholds_), np.asarray(regression.y_thresholds_))


def _points(places: Floats, heights: Floats) -> Curve:
    """Return the curve through points that a 32-bit float can tell apart."""
    narrow = np.asarray(places, dtype=np.float32)
    apart = np.concatenate([[True], np.diff(narrow) > 0])
    if apart.sum() < _TWO:
        raise UnfitRowsError("all rows have the same score")
    return Curve(narrow[apart].astype(np.float64), heights[apart].astype(np.float64))
