"""Areas under curves over all thresholds, for many weightings of the same rows at once."""

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.metrics.evaluation import At, Floats
from retune.api.metrics import Metric

_TINY = 1e-300


def curve(metric: Metric, scores: Floats, positive: NDArray[np.bool_]) -> At:
    """Return ROC AUC or average precision as a function of weights.

    Rows are sorted once. Rows with equal scores share a threshold, as in scikit-learn.

    Args:
        metric: ROC_AUC or AVERAGE_PRECISION.
        scores: Score (N,) of each row.
        positive: Mask (N,) of the positive rows.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, is_positive = scores[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    area = _roc_auc if metric is Metric.ROC_AUC else _average_precision

    def at(weights: Floats) -> Floats:
        weighed = weights[:, order]
        positives = np.add.reduceat(weighed * is_positive, starts, axis=1)
        negatives = np.add.reduceat(weighed * (1 - is_positive), starts, axis=1)
        return area(positives, negatives)

    return at


def _roc_auc(positives: Floats, negatives: Floats) -> Floats:
    """Return the areas (D,) from weights (D, T) of positive and negative rows by falling score."""
    below = negatives.sum(axis=1, keepdims=True) - np.cumsum(negatives, axis=1)
    won = (positives * (below + negatives / 2)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.asarray(np.where(pairs > 0, won / np.maximum(pairs, _TINY), np.nan))


def _average_precision(positives: Floats, negatives: Floats) -> Floats:
    hits = np.cumsum(positives, axis=1)
    precision = hits / np.maximum(hits + np.cumsum(negatives, axis=1), _TINY)
    total = positives.sum(axis=1)
    return np.asarray(np.where(total > 0, (positives * precision).sum(axis=1) / np.maximum(total, _TINY), np.nan))
