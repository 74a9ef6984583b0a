"""How much each row of a reference counts where the rows of a window are what is asked about.

The weight is the ratio of both densities, from a classifier that tells the rows of one from those of the other (S.
Bickel and others, 2009). It is cross-fitted, so that no row is weighed by a model that has learnt it, and clipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.unlabelled.features import Floats

CLIP = 20.0
"""Largest ratio that is believed."""
_FOLDS = 3
_CHANCE = 2.5
"""Standard errors by which the classifier must be better than chance for rows to be weighed at all."""


@dataclass(frozen=True)
class Density:
    """The ratio of densities on the rows of a reference."""

    weights: Floats
    """(M,), with mean 1."""
    apart: float
    """How well both samples are told apart: 0 where that is chance, 1 where it is certain (Gini)."""
    chance: float
    """Standard error of that, where both samples are of one kind."""

    @property
    def effective(self) -> float:
        """How many rows of equal weight are as much evidence (L. Kish, 1965)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())


def density_of(reference: Floats, window: Floats, *, seed: int) -> Density:
    """Return the weights of rows (M, D), so that together they resemble rows (N, D)."""
    sizes = len(reference), len(window)
    if min(sizes) < 2 * _FOLDS or not reference.shape[1]:
        return Density(np.ones(sizes[0]), 0.0, 1.0)
    rows = np.concatenate([reference, window])
    belongs = np.repeat([0, 1], sizes)
    chance = _out_of_fold(rows, belongs, seed)
    apart = _gini(chance[: sizes[0]], chance[sizes[0] :])
    error = 2 * float(np.sqrt((sum(sizes) + 1) / (12 * sizes[0] * sizes[1])))
    if apart < _CHANCE * error:
        return Density(np.ones(sizes[0]), max(0.0, apart), error)
    ratio = chance[: sizes[0]] / (1 - chance[: sizes[0]])
    weights = np.clip(ratio, 1 / CLIP**2, CLIP)
    return Density(weights / weights.mean(), apart, error)


def _out_of_fold(rows: Floats, belongs: NDArray[np.int64], seed: int) -> Floats:
    """Return the chance (M + N,) that each row is of the window, by a model that has not learnt it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    curved = np.concatenate([rows, rows**2], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=200))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    chance = cross_val_predict(model, curved, belongs, cv=folds, method="predict_proba")[:, 1]
    return np.asarray(np.clip(chance, 1e-6, 1 - 1e-6))


def _gini(reference: Floats, window: Floats) -> float:
    """Return 2 AUC - 1 of the window's scores (N,) against the reference's (M,)."""
    order = np.sort(reference)
    below, upto = (np.searchsorted(order, window, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / len(reference) - 1)
