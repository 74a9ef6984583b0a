"""Round the thresholds of trees down to float32, so that an ONNX file decides like the trees for every float32 number.

`x <= t` then stays the same for each x that float32 holds. Rounding to the nearest number would not guarantee that.
"""

import copy
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.machinery.estimators.soundness import parts


def rounded(estimator: Any) -> Any:
    """Return the estimator, or a copy with rounded thresholds where it has trees."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import BaseDecisionTree

    kinds = (BaseDecisionTree, BaseHistGradientBoosting)
    if not any(isinstance(part, kinds) for part in parts(estimator)):
        return estimator
    estimator = copy.deepcopy(estimator)
    for part in parts(estimator):
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            _down(part.tree_.threshold)
        elif isinstance(part, BaseHistGradientBoosting) and hasattr(part, "_predictors"):
            for tree in chain.from_iterable(part._predictors):  # noqa: SLF001 - its trees are nowhere else
                _down(tree.nodes["num_threshold"])
    return estimator


def _down(thresholds: NDArray[np.float64]) -> None:
    """Replace each number, in place, by the largest float32 number that is not above it."""
    near = thresholds.astype(np.float32)
    thresholds[:] = np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
