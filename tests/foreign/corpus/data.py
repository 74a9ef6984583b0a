"""Rows of scikit-learn's generators that several families of the corpus learn from."""

import numpy as np
from sklearn import datasets

from tests.foreign.delivered import Array


def classes(count: int = 3, *, rows: int = 4000, rare: float | None = None, seed: int = 1) -> tuple[Array, Array]:
    """Return rows of classes that overlap; with `rare`, the second of two has that share of the rows."""
    X, y = datasets.make_classification(
        rows,
        12,
        n_informative=8,
        n_classes=2 if rare else count,
        weights=[1 - rare, rare] if rare else None,
        flip_y=0.0 if rare else 0.05,
        class_sep=1.6,
        random_state=seed,
    )
    return X.astype(np.float32), y


def words() -> tuple[Array, Array]:
    """Return rows whose labels are text."""
    X, y = classes()
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


def holes() -> tuple[Array, Array]:
    """Return rows in which every fifth number is missing."""
    X, y = classes(2)
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    return X, y


def digits() -> tuple[Array, Array]:
    """Return pictures of digits (N, 64) between 0 and 1."""
    X, y = datasets.load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def numbers(*, targets: int = 1) -> tuple[Array, Array]:
    """Return rows with one or more numbers to predict, which depend on them in straight lines."""
    X, y = datasets.make_regression(4000, 12, n_informative=6, n_targets=targets, noise=5.0, random_state=0)
    return X.astype(np.float32), y


def friedman() -> tuple[Array, Array]:
    """Return rows with a number to predict, which depends on them in curves."""
    X, y = datasets.make_friedman1(4000, noise=1.0, random_state=0)
    return X.astype(np.float32), y


def curve() -> tuple[Array, Array]:
    """Return rows of one number, with its root and some noise."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 10, 4000)
    return x.astype(np.float32).reshape(-1, 1), np.sqrt(x) + random.normal(0, 0.2, 4000)


def noise() -> tuple[Array, Array]:
    """Return rows that say nothing about their labels."""
    random = np.random.default_rng(0)
    return random.normal(size=(3000, 6)).astype(np.float32), random.integers(0, 2, 3000)


def amounts() -> tuple[Array, Array]:
    """Return rows with an amount to predict, which is never negative, and 0 where little happens."""
    X, y = friedman()
    random = np.random.default_rng(0)
    return X, np.where(y + random.normal(0, 3, len(y)) < np.quantile(y, 0.3), 0.0, np.exp(y / 8))
