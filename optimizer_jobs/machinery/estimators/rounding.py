"""Round the thresholds of trees, and the edges of bins, to float32, so that an ONNX file decides like the estimator.

Rounded down, `x <= t` stays the same for each x that float32 holds. Rounded to the nearest number, it stays true for
each x of double precision for which it was true, because x is rounded the same way.
"""

import copy
import warnings
from collections.abc import Iterator
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.machinery.estimators.inputs import final, steps_before
from optimizer_jobs.machinery.estimators.soundness import parts

_REACH, _SMALL = 1e-6, 1e-9
"""How near a computed number is to a threshold to lie on it, as a share of the threshold, and the smallest size."""


class Rounding(Enum):
    """How thresholds are rounded."""

    DOWN = "down"
    NEAREST = "nearest"
    BY_ROWS = "by rows"
    """To the side on which few of the rows change theirs, for numbers that earlier steps computed."""
    SINGLE_TREES = "single trees"
    """Down, and only in trees that compare in float32 whatever they get; others keep double precision."""


def has_trees(estimator: Any) -> bool:
    """Return whether some part of the estimator is a tree or an ensemble of trees."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import BaseDecisionTree

    return any(isinstance(part, BaseDecisionTree | BaseHistGradientBoosting) for part in parts(estimator))


def rounded(estimator: Any, rounding: Rounding = Rounding.DOWN, X: Any = None) -> Any:
    """Return the estimator, or a copy with rounded thresholds where it has trees or bins.

    Args:
        estimator: The fitted estimator.
        rounding: How it is rounded.
        X: Rows as the estimator takes them, to round by.
    """
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.preprocessing import KBinsDiscretizer
    from sklearn.tree import BaseDecisionTree

    if not has_trees(estimator) and not any(isinstance(part, KBinsDiscretizer) for part in parts(estimator)):
        return estimator
    estimator = copy.deepcopy(estimator)
    if rounding is Rounding.BY_ROWS:
        _by_rows(estimator, X)
    for part in parts(estimator):
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            _down(part.tree_.threshold)
        elif isinstance(part, BaseHistGradientBoosting) and rounding is not Rounding.SINGLE_TREES:
            for tree in chain.from_iterable(getattr(part, "_predictors", ())):
                _ROUND[rounding](tree.nodes["num_threshold"])
        elif isinstance(part, KBinsDiscretizer) and rounding is Rounding.DOWN:
            for edges in getattr(part, "bin_edges_", ()):
                _up(edges)
    return estimator


def _by_rows(estimator: Any, X: Any) -> None:
    """Move thresholds of the last step's trees, in place, away from the rows that lie on them.

    Numbers that were computed lie on a threshold by the last digits of double precision, which single precision does
    not have. All of them then take the branch that most of them took.
    """
    rows = _arriving(estimator, X)
    for part in parts(final(estimator)):
        if getattr(part, "n_features_in_", None) != rows.shape[1]:
            continue
        for features, thresholds in _splits(part):
            for place, (feature, threshold) in enumerate(zip(features, thresholds, strict=True)):
                reach = _REACH * max(abs(threshold), _SMALL)
                near = rows[np.abs(rows[:, feature] - threshold) <= reach, feature]
                if len(near) and np.isfinite(threshold):
                    thresholds[place] += reach if np.mean(near <= threshold) >= 0.5 else -reach


def _arriving(estimator: Any, X: Any) -> NDArray[np.float64]:
    """Return the rows as they arrive at the last step, (N, F)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in steps_before(estimator):
            X = step.transform(X)
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)


def _splits(part: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield features and thresholds of each tree, as they are kept."""
    if hasattr(part, "tree_"):
        yield np.maximum(part.tree_.feature, 0), part.tree_.threshold
    for tree in chain.from_iterable(getattr(part, "_predictors", ())):
        yield tree.nodes["feature_idx"].astype(np.int64), tree.nodes["num_threshold"]


def _down(thresholds: NDArray[np.float64]) -> None:
    """Replace each number, in place, by the largest float32 number that is not above it."""
    near = thresholds.astype(np.float32)
    thresholds[:] = np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _up(edges: NDArray[np.float64]) -> None:
    """Replace each number, in place, by the smallest float32 number that is not below it: a bin includes its edge."""
    negative = -edges
    _down(negative)
    edges[:] = -negative


def _nearest(thresholds: NDArray[np.float64]) -> None:
    thresholds[:] = thresholds.astype(np.float32)


_ROUND = {Rounding.DOWN: _down, Rounding.NEAREST: _nearest, Rounding.BY_ROWS: _nearest}
