"""The interval that each quality metric gets, alone and compared with another model on the same rows."""

from optimizer_jobs.measure.bootstrap import mean_difference, mean_interval
from optimizer_jobs.measure.quality import SHARES, Floats
from optimizer_jobs.measure.stats import Interval, PairedDifference, paired_difference, wilson
from retune.api.objectives import Metric


def own_interval(metric: Metric, scores: Floats, *, confidence: float) -> Interval:
    """Return a metric's figure from its scores (N,): Wilson's for a share of rows, resampled for everything else."""
    if metric in SHARES:
        return wilson(int(scores.sum()), len(scores), confidence=confidence)
    return mean_interval(scores, confidence=confidence, root=metric is Metric.RMSE)


def difference(metric: Metric, champion: Floats, candidate: Floats, *, confidence: float) -> PairedDifference:
    """Return candidate minus champion on the same rows: Tango's for a share of rows, resampled for everything else."""
    if metric in SHARES:
        return paired_difference(champion > 0, candidate > 0, confidence=confidence)
    return mean_difference(champion, candidate, confidence=confidence, root=metric is Metric.RMSE)
