"""How much more often rows like each one are asked now than in a pool of older rows: weights by a domain classifier.

A classifier learns to tell the newest rows from the pool. Its odds, times the ratio of their numbers, are the ratio of
the two densities (S. Bickel, M. Brückner and T. Scheffer, JMLR 2009). Labels are among what it sees, so that an old
row counts where its answer, too, is one that is given now. Rows are judged by classifiers that have not seen them, and
weights are bounded, because few rows of a huge weight teach noise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST = 8.0
"""Largest weight, where 1 is a row that is asked as often now as in the pool."""
_FOLDS = 3
_TREES, _LEAVES, _LEAST_ROWS = 40, 8, 40
_NEVER = 1e-6


def weights(pool: NDArray[np.float32], newest: NDArray[np.float32], *, categories: Any, seed: int) -> Floats:
    """Return the weight (N,) of each row of the pool, between 0 and MOST.

    Args:
        pool: Table (N, D) of rows, labels among their columns.
        newest: Table (M, D) of the newest rows.
        categories: Which columns (D,) hold categories.
        seed: Seed of the folds.
    """
    from sklearn.model_selection import StratifiedKFold

    X = np.concatenate([pool, newest])
    is_new = np.repeat([0, 1], [len(pool), len(newest)])
    chances = np.zeros(len(X))
    for seen, unseen in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(X, is_new):
        learner = _learner(categories, seed).fit(X[seen], is_new[seen])
        chances[unseen] = learner.predict_proba(X[unseen])[:, 1]
    odds = chances[: len(pool)] / np.maximum(1 - chances[: len(pool)], _NEVER)
    return np.clip(odds * len(pool) / len(newest), 0.0, MOST)


def drawn(weights_of: Floats, count: int, *, seed: int) -> Indices:
    """Return `count` indices, each about as often as its weight says: systematic resampling, for any learner.

    Args:
        weights_of: Weight (N,) of each row, at least one above 0.
        count: Number of indices.
        seed: Seed of the offset.
    """
    ends = np.cumsum(weights_of) / np.sum(weights_of)
    marks = (np.arange(count) + np.random.default_rng(seed).random()) / count
    return np.minimum(np.searchsorted(ends, marks, side="right"), len(weights_of) - 1).astype(np.int64)


def _learner(categories: Any, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=_TREES,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=_LEAST_ROWS,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=categories,
        random_state=seed,
    )
