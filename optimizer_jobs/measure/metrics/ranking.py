"""Metrics of how a model orders the rows of each group: the items shown to a user, the answers to a query."""

from collections.abc import Callable, Mapping

import numpy as np

from optimizer_jobs.measure.metrics.evaluation import Array, Evaluation, Floats, mean_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from retune.api.metrics import Metric

Gain = Callable[[Floats, Floats], float]
"""Takes the relevance (M,) of a group's rows, the best scored first, shared over equal scores and as it is, and returns
the group's metric."""


def evaluate_order(
    metric: Metric, scores: Floats, relevance: Floats, groups: Array | None, weights: Floats | None = None
) -> Evaluation:
    """Return a ranking metric; groups without a relevant row do not count.

    Rows with equal scores have no order, so the order of the file must not decide: the metrics that are means over
    places take the mean over all orders of them, as scikit-learn does, and the others the worst one.

    Args:
        metric: A ranking metric.
        scores: Scores (N,) by which rows are ordered, the largest first.
        relevance: Relevance (N,) of each row, 0 or more.
        groups: Group (N,) of each row.
        weights: How much each row counts (N,); a group counts by the mean of its rows' weights.

    Raises:
        UnfitAnswersError: There are no groups, or no group has a relevant row.
    """
    if groups is None:
        raise UnfitAnswersError(f"{metric} orders rows within groups: name their column in data.*.groupColumn")
    order = np.lexsort((relevance, -scores, groups))
    ordered = _shared_over_ties(metric, relevance[order], scores[order], groups[order])
    ends = np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1
    parts = list(zip(np.split(ordered, ends), np.split(relevance[order], ends), strict=True))
    counted = np.asarray([(whole > 0).any() for _, whole in parts])
    if not counted.any():
        raise UnfitAnswersError(f"no group has a relevant row, which {metric} needs")
    gains = np.asarray(
        [_GAINS[metric](part, whole) for (part, whole), counts in zip(parts, counted, strict=True) if counts]
    )
    evaluation = mean_of(gains, is_share=metric in _HITS, unit="groups")
    if weights is None:
        return evaluation
    of_groups = np.asarray([part.mean() for part in np.split(weights[order], ends)])[counted]
    if not of_groups.any():
        raise UnfitAnswersError(f"no group with a relevant row has a weight above 0, which {metric} needs")
    return evaluation.weighed(of_groups)


def _shared_over_ties(metric: Metric, relevance: Floats, scores: Floats, groups: Array) -> Floats:
    """Return the relevance (N,) of sorted rows; for means over places, the mean over rows of one group and score."""
    if metric not in _MEANS:
        return relevance
    gains = relevance if metric in _GRADED else (relevance > 0).astype(np.float64)
    changes = (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1])
    ties = np.concatenate([[0], np.cumsum(changes)])
    return np.asarray((np.bincount(ties, gains) / np.bincount(ties))[ties])


def _ndcg(shared: Floats, relevance: Floats, count: int) -> float:
    discounts = 1 / np.log2(np.arange(2, len(relevance) + 2))
    discounts[count:] = 0
    best = float((np.sort(relevance)[::-1] * discounts).sum())
    return float((shared * discounts).sum()) / best


def _recall(shared: Floats, relevance: Floats, count: int) -> float:
    return float(shared[:count].sum() / (relevance > 0).sum())


def _hit(relevance: Floats, count: int) -> float:
    return float((relevance[:count] > 0).any())


def _reciprocal(relevance: Floats) -> float:
    return 1.0 / (1 + int(np.argmax(relevance > 0)))


_GAINS: Mapping[Metric, Gain] = {
    Metric.NDCG_5: lambda shared, relevance: _ndcg(shared, relevance, 5),
    Metric.NDCG_10: lambda shared, relevance: _ndcg(shared, relevance, 10),
    Metric.RECALL_5: lambda shared, relevance: _recall(shared, relevance, 5),
    Metric.RECALL_10: lambda shared, relevance: _recall(shared, relevance, 10),
    Metric.HIT_RATE_5: lambda _, relevance: _hit(relevance, 5),
    Metric.HIT_RATE_10: lambda _, relevance: _hit(relevance, 10),
    Metric.MRR: lambda _, relevance: _reciprocal(relevance),
}
_HITS = frozenset({Metric.HIT_RATE_5, Metric.HIT_RATE_10})
_GRADED = frozenset({Metric.NDCG_5, Metric.NDCG_10})
_MEANS = _GRADED | {Metric.RECALL_5, Metric.RECALL_10}
"""Metrics that are sums over places, whose mean over orders follows from the mean relevance."""
