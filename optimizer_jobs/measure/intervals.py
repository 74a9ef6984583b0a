"""Which kind of interval each quality metric gets, for one model and for two models on the same rows.

Rows are resampled once; the returned functions then give the interval at any confidence.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from optimizer_jobs.measure.bootstrap import paired, resampled, resampled_difference
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.stats import Interval, PairedDifference, paired_difference, wilson
from retune.api.metrics import Metric

OwnInterval = Callable[[float], Interval]
"""Returns the interval at a confidence (0..1)."""
Difference = Callable[[float], PairedDifference]
"""Returns the difference with its interval at a confidence (0..1)."""


def own_interval(evaluation: Evaluation) -> OwnInterval:
    """Return the interval of a metric: Wilson's for shares of rows, resampled for all others."""
    if evaluation.is_share:
        right, rows = int(evaluation.scores.sum()), evaluation.rows
        return lambda confidence: wilson(right, rows, confidence=confidence)
    return resampled(evaluation).interval


def difference(metric: Metric, champion: Evaluation, candidate: Evaluation) -> Difference:
    """Return candidate minus champion with its interval: Tango's for shares of rows, resampled for all others.

    Args:
        metric: The quality metric.
        champion: The metric of the champion.
        candidate: The metric of the candidate on the same rows, in the same order.
    """
    before, after = champion.scores, candidate.scores
    if champion.is_share and candidate.is_share:
        shares = partial(paired_difference, before > 0, after > 0)
        return lambda confidence: replace(shares(confidence=confidence), unit=champion.unit)
    rises = metric.higher_is_better
    better, worse = (after > before, after < before) if rises else (after < before, after > before)
    resamples = resampled_difference(champion, candidate)
    at = partial(paired, resamples, gained=int(better.sum()), lost=int(worse.sum()), unit=champion.unit)
    return lambda confidence: at(confidence=confidence)
