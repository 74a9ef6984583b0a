"""Check the trees of an estimator from an untrusted file, because compiled code of scikit-learn follows them unchecked.

A child or feature number out of range would read memory outside of the arrays. Nothing here predicts.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class UnsoundError(ValueError):
    """Parts of the estimator do not fit together; the message says which."""


def make_sound(estimator: Any) -> None:
    """Check all trees, and switch off, in place, what cannot be checked.

    Search trees of neighbours are dropped, so that answers come from comparing with all rows. Caches of pipelines on
    disk are switched off, because they hold pickles.

    Raises:
        UnsoundError: A tree points outside of itself or of the inputs.
    """
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.neighbors._base import NeighborsBase
    from sklearn.pipeline import Pipeline
    from sklearn.tree import BaseDecisionTree

    for part in parts(estimator):
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            _check_tree(part.tree_, features=_width(part))
        elif isinstance(part, BaseForest | BaseGradientBoosting) and hasattr(part, "estimators_"):
            if any(_width(tree) != _width(part) for tree in np.ravel(part.estimators_)):
                raise UnsoundError(f"trees of {type(part).__name__} take another number of inputs than itself")
        elif isinstance(part, BaseHistGradientBoosting) and hasattr(part, "_predictors"):
            for tree in chain.from_iterable(part._predictors):  # noqa: SLF001 - its trees are nowhere else
                _check_predictor(tree, features=_width(part))
        elif isinstance(part, NeighborsBase) and getattr(part, "_tree", None) is not None:
            part._tree, part._fit_method = None, "brute"  # noqa: SLF001 - there is no other switch
        elif isinstance(part, Pipeline):
            part.memory = None


def parts(estimator: Any) -> Iterator[Any]:
    """Yield the estimator and every estimator inside it, in whatever list, array or attribute it is."""
    from sklearn.base import BaseEstimator

    stack, seen = [estimator], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, BaseEstimator):
            yield item
        if isinstance(item, BaseEstimator) or _holds_parts(item):
            stack.extend(vars(item).values())
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, np.ndarray) and item.dtype == object:
            stack.extend(item.ravel().tolist())


def _holds_parts(item: Any) -> bool:
    """Return whether an object of scikit-learn that is no estimator may hold some, as a calibrated classifier does."""
    return type(item).__module__.startswith("sklearn.") and hasattr(item, "__dict__") and not isinstance(item, type)


def _width(estimator: Any) -> int:
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int | np.integer) or width < 1:
        raise UnsoundError(f"{type(estimator).__name__} does not say how many inputs it takes")
    return int(width)


def _check_tree(tree: Any, *, features: int) -> None:
    if tree.n_features != features:
        raise UnsoundError(f"a tree takes {tree.n_features} inputs and its estimator {features}")
    if not 0 < tree.node_count <= tree.capacity:
        raise UnsoundError(f"a tree claims {tree.node_count} nodes and has {tree.capacity}")
    inner = tree.children_left != -1
    _check_nodes(
        tree.children_left[inner], tree.children_right[inner], tree.feature[inner], inner=inner, features=features
    )


def _check_predictor(predictor: Any, *, features: int) -> None:
    nodes, bitsets = predictor.nodes, len(predictor.raw_left_cat_bitsets)
    inner = nodes["is_leaf"] == 0
    split = nodes[inner]
    _check_nodes(split["left"], split["right"], split["feature_idx"], inner=inner, features=features)
    if (split["bitset_idx"][split["is_categorical"] != 0] >= bitsets).any():
        raise UnsoundError("a tree asks for categories that it does not have")


def _check_nodes(left: Array, right: Array, feature: Array, *, inner: Array, features: int) -> None:
    """Check that every child exists and comes after its parent, so that each walk ends in a leaf; and every feature.

    Args:
        left: Left child of each inner node.
        right: Right child of each inner node.
        feature: Feature that each inner node compares.
        inner: Whether each node of the tree is an inner one.
        features: Number of features.
    """
    numbers = np.flatnonzero(inner)
    for child in (left.astype(np.int64), right.astype(np.int64)):
        if (child <= numbers).any() or (child >= len(inner)).any():
            raise UnsoundError("a tree has a branch that leads nowhere")
    if not len(inner) or (feature < 0).any() or (feature >= features).any():
        raise UnsoundError("a tree is empty or asks for an input that does not exist")
