"""The interval that each quality metric gets, alone and compared with another model on the same rows.

What is drawn at random is drawn once; the functions returned then give the interval at any confidence.
"""

from collections.abc import Callable
from functools import partial

from optimizer_jobs.measure.bootstrap import paired, resampled, resampled_difference
from optimizer_jobs.measure.quality import SHARES, Floats
from optimizer_jobs.measure.stats import Interval, PairedDifference, paired_difference, wilson
from retune.api.objectives import Metric

OwnInterval = Callable[[float], Interval]
"""Takes a confidence."""
Difference = Callable[[float], PairedDifference]
"""Takes a confidence."""


def own_interval(metric: Metric, scores: Floats) -> OwnInterval:
    """Return a metric's figure from its scores (N,): Wilson's for a share of rows, resampled for everything else."""
    if metric in SHARES:
        right, rows = int(scores.sum()), len(scores)
        return lambda confidence: wilson(right, rows, confidence=confidence)
    return resampled(scores, root=metric is Metric.RMSE).interval


def difference(metric: Metric, champion: Floats, candidate: Floats) -> Difference:
    """Return candidate minus champion on the same rows: Tango's for a share of rows, resampled for everything else."""
    if metric in SHARES:
        both = champion > 0, candidate > 0
        return lambda confidence: paired_difference(*both, confidence=confidence)
    better = candidate > champion if metric.higher_is_better else candidate < champion
    worse = candidate < champion if metric.higher_is_better else candidate > champion
    found = resampled_difference(champion, candidate, root=metric is Metric.RMSE)
    tell = partial(paired, found, gained=int(better.sum()), lost=int(worse.sum()))
    return lambda confidence: tell(confidence=confidence)
