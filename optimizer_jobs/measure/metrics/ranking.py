"""Metrics of how a model orders the rows of each group: the items shown to a user, the answers to a query."""

from collections.abc import Callable, Mapping

import numpy as np

from optimizer_jobs.measure.answers import UnfitAnswersError
from optimizer_jobs.measure.metrics.evaluation import Array, Evaluation, Floats, mean_of
from retune.api.metrics import Metric

Gain = Callable[[Floats], float]
"""Takes the relevance (M,) of a group's rows, the best scored first, and returns the group's metric."""


def evaluate_order(metric: Metric, scores: Floats, relevance: Floats, groups: Array | None) -> Evaluation:
    """Return a ranking metric; groups without a relevant row do not count.

    Args:
        metric: A ranking metric.
        scores: Scores (N,) by which rows are ordered, the largest first.
        relevance: Relevance (N,) of each row, 0 or more.
        groups: Group (N,) of each row.

    Raises:
        UnfitAnswersError: There are no groups, or no group has a relevant row.
    """
    if groups is None:
        raise UnfitAnswersError(f"{metric} orders rows within groups: name their column in data.*.groupColumn")
    order = np.lexsort((-scores, groups))
    starts = np.flatnonzero(np.concatenate([[True], groups[order][1:] != groups[order][:-1]]))
    parts = np.split(relevance[order], starts[1:])
    gains = np.asarray([_GAINS[metric](part) for part in parts if (part > 0).any()])
    if not len(gains):
        raise UnfitAnswersError(f"no group has a relevant row, which {metric} needs")
    return mean_of(gains, is_share=metric in _HITS, unit="groups")


def _ndcg(relevance: Floats, count: int) -> float:
    discounts = 1 / np.log2(np.arange(2, len(relevance) + 2))
    discounts[count:] = 0
    best = float((np.sort(relevance)[::-1] * discounts).sum())
    return float((relevance * discounts).sum()) / best


def _recall(relevance: Floats, count: int) -> float:
    return float((relevance[:count] > 0).sum() / (relevance > 0).sum())


def _hit(relevance: Floats, count: int) -> float:
    return float((relevance[:count] > 0).any())


def _reciprocal(relevance: Floats) -> float:
    return 1.0 / (1 + int(np.argmax(relevance > 0)))


_GAINS: Mapping[Metric, Gain] = {
    Metric.NDCG_5: lambda relevance: _ndcg(relevance, 5),
    Metric.NDCG_10: lambda relevance: _ndcg(relevance, 10),
    Metric.RECALL_5: lambda relevance: _recall(relevance, 5),
    Metric.RECALL_10: lambda relevance: _recall(relevance, 10),
    Metric.HIT_RATE_5: lambda relevance: _hit(relevance, 5),
    Metric.HIT_RATE_10: lambda relevance: _hit(relevance, 10),
    Metric.MRR: _reciprocal,
}
_HITS = frozenset({Metric.HIT_RATE_5, Metric.HIT_RATE_10})
