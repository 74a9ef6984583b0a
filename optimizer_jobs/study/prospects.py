"""How likely the judge is to see a candidate's quality proven, by what its validation rows say.

A search picks what looks best on few rows, and much of that is luck: what is worth judging is what a limit can be shown
for with the test rows there are. Knows their number and never looks at them.
"""

import math
from dataclasses import dataclass

from scipy.stats import norm

from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.quality import SHARES, Floats
from optimizer_jobs.study.trials import Found
from retune.api.objectives import GoalType, Metric, Objective

_CONFIDENCE = 0.95
"""Of the interval that a standard error is taken from."""


def standard_error(objective: Objective, champion: Floats, candidate: Floats) -> float:
    """Return the standard error, in the metric's unit, of what the judge holds against the objective's goal.

    Intervals of shares are not symmetric; it is taken from their bad end, which decides. For all other metrics it comes
    from the spread of the rows: resampling, as the judge does it, takes too long for every trial.

    Args:
        objective: One with a goal on quality.
        champion: Scores (N,) of the champion's answers to some rows.
        candidate: Scores (N,) of the candidate's answers to the same rows.
    """
    absolute = objective.goal is not None and objective.goal.type is GoalType.THRESHOLD
    metric = objective.metric
    if metric not in SHARES:
        each = _shares_of(metric, candidate) - (0.0 if absolute else _shares_of(metric, champion))
        return float(each.std() / math.sqrt(len(each)))
    found = (own_interval(metric, candidate) if absolute else difference(metric, champion, candidate))(_CONFIDENCE)
    return (found.value - found.low) / _quantile(_CONFIDENCE)


def _shares_of(metric: Metric, scores: Floats) -> Floats:
    """Return (N,) what each row adds to the figure: to a mean its score, to a root of a mean to first order."""
    if metric is not Metric.RMSE:
        return scores
    root = math.sqrt(scores.mean())
    return scores / (2 * root) if root else scores


@dataclass(frozen=True)
class Hurdle:
    """What a finalist has to take."""

    rows: int
    """Test rows."""
    confidence: float
    """Of the judge's interval, whose bad end has to keep the limit."""

    def chance(self, found: Found) -> float:
        """Return how likely the bad ends of all intervals are to keep their limits; 1 where nothing is known."""
        rows = found.rows or self.rows
        return min((self._of(_slack(found, name), error, rows) for name, error in found.errors.items()), default=1.0)

    def _of(self, slack: float, seen: float, rows: int) -> float:
        """Return the chance by the distance to the limit on validation, its standard error there, and their rows."""
        coming = seen * math.sqrt(rows / self.rows)
        left, spread = slack - _quantile(self.confidence) * coming, math.hypot(seen, coming)
        return float(norm.cdf(left / spread)) if spread else float(left >= 0)


def _slack(found: Found, name: str) -> float:
    """Return how far a candidate keeps a limit, what it is better than the champion by not counted.

    It was chosen among many for being good on these rows, so its lead is luck for the most part.
    """
    slack, lead = -found.shortfalls[name], found.values.get(name, 0.0) - found.champion.get(name, 0.0)
    lead = max(0.0, lead if Metric(name).higher_is_better else -lead)
    return slack - lead if slack >= lead else slack  # a limit that the champion misses itself asks for a lead


def _quantile(confidence: float) -> float:
    return float(norm.ppf(0.5 + confidence / 2))
