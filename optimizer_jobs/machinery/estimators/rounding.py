"""Round the thresholds of trees, and the edges of bins, to float32, so that an ONNX file decides like the estimator.

Rounded down, `x <= t` stays the same for each x that float32 holds. Rounded to the nearest number, it stays true for
each x of double precision for which it was true, because x is rounded the same way.
"""

import copy
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.machinery.estimators.soundness import parts


class Rounding(Enum):
    """How thresholds are rounded."""

    DOWN = "down"
    NEAREST = "nearest"
    SINGLE_TREES = "single trees"
    """Down, and only in trees that compare in float32 whatever they get; others keep double precision."""


def has_trees(estimator: Any) -> bool:
    """Return whether some part of the estimator is a tree or an ensemble of trees."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import BaseDecisionTree

    return any(isinstance(part, BaseDecisionTree | BaseHistGradientBoosting) for part in parts(estimator))


def rounded(estimator: Any, rounding: Rounding = Rounding.DOWN) -> Any:
    """Return the estimator, or a copy with rounded thresholds where it has trees or bins."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.preprocessing import KBinsDiscretizer
    from sklearn.tree import BaseDecisionTree

    if not has_trees(estimator) and not any(isinstance(part, KBinsDiscretizer) for part in parts(estimator)):
        return estimator
    estimator = copy.deepcopy(estimator)
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


_ROUND = {Rounding.DOWN: _down, Rounding.NEAREST: _nearest}
