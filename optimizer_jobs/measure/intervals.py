"""Which kind of interval each quality metric gets, for one model and for two models on the same rows.

Rows are resampled once; the returned functions then give the interval at any confidence.
"""

from collections.abc import Callable
from functools import partial

from optimizer_jobs.measure.bootstrap import paired, resampled, resampled_difference
from optimizer_jobs.measure.quality import SHARES, Floats
from optimizer_jobs.measure.stats import Interval, PairedDifference, paired_difference, wilson
from retune.api.objectives import Metric

OwnInterval = Callable[[float], Interval]
"""Returns the interval at a confidence (0..1)."""
Difference = Callable[[float], PairedDifference]
"""Returns the difference with its interval at a confidence (0..1)."""


def own_interval(metric: Metric, scores: Floats) -> OwnInterval:
    """Return the interval of a metric from its scores (N,): Wilson's for shares of rows, resampled for all others."""
    if metric in SHARES:
        right, rows = int(scores.sum()), len(scores)
        return lambda confidence: wilson(right, rows, confidence=confidence)
    return resampled(scores, root=metric is Metric.RMSE).interval


def difference(metric: Metric, champion: Floats, candidate: Floats) -> Difference:
    """Return candidate minus champion with its interval: Tango's for shares of rows, resampled for all others.

    Args:
        metric: A quality metric.
        champion: Scores (N,) of the champion.
        candidate: Scores (N,) of the candidate on the same rows, in the same order.
    """
    if metric in SHARES:
        champion_right, candidate_right = champion > 0, candidate > 0
        return lambda confidence: paired_difference(champion_right, candidate_right, confidence=confidence)
    better = candidate > champion if metric.higher_is_better else candidate < champion
    worse = candidate < champion if metric.higher_is_better else candidate > champion
    resamples = resampled_difference(champion, candidate, root=metric is Metric.RMSE)
    at = partial(paired, resamples, gained=int(better.sum()), lost=int(worse.sum()))
    return lambda confidence: at(confidence=confidence)
