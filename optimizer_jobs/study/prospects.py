"""The probability that the judge can prove a candidate's quality, estimated from its results on validation.

A search chooses what looks best on few rows, and much of that is luck. A candidate is worth judging only if the test
rows are enough to prove that it keeps the limits. Uses the number of test rows and never looks at them.
"""

import math
from dataclasses import dataclass

from scipy.stats import norm

from optimizer_jobs.measure import bootstrap
from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.study.trials import TrialResult
from retune.api.metrics import Metric
from retune.api.objectives import GoalType, Objective

_CONFIDENCE = 0.95
"""Confidence of the interval that a standard error is computed from."""
_LUCK = 2.5
"""Standard errors by which the best of up to a hundred equal candidates is expected to lead on the rows of a search."""


def standard_error(objective: Objective, champion: Evaluation, candidate: Evaluation) -> float:
    """Return the standard error of the number that the judge compares with the objective's goal.

    The intervals of shares are not symmetric, so their bad end is used, because it decides. For all other metrics, rows
    are left out in turn, because resampling, which the judge uses, takes too long for every trial. What the judge
    allows for unseen rows is part of it, so that a candidate is not hoped for whose loss few rows carry.

    Args:
        objective: An objective with a goal on quality.
        champion: The metric of the champion.
        candidate: The metric of the candidate on the same rows.

    Returns:
        The standard error in the metric's unit.
    """
    absolute = objective.goal is not None and objective.goal.type is GoalType.THRESHOLD
    if not candidate.is_share and absolute:
        return bootstrap.standard_error(candidate)
    if not candidate.is_share:
        return bootstrap.standard_error(candidate, champion) + bootstrap.allowance(champion, candidate)
    at = own_interval(candidate) if absolute else difference(objective.metric, champion, candidate)
    interval = at(_CONFIDENCE)
    return (interval.value - interval.low) / _quantile(_CONFIDENCE)


@dataclass(frozen=True)
class Hurdle:
    """What the judge requires of a finalist."""

    rows: int
    """Number of test rows."""
    confidence: float
    """Confidence (0..1) of the judge's intervals, whose bad ends must keep the limits."""

    def chance(self, result: TrialResult) -> float:
        """Return the probability (0..1) that the bad ends of all intervals keep their limits; 1 if nothing is known."""
        rows = result.rows or self.rows
        slacks = ((_slack(result, name, error), error) for name, error in result.errors.items())
        return min((self._chance(slack, error, rows) for slack, error in slacks), default=1.0)

    def _chance(self, slack: float, error: float, rows: int) -> float:
        """Return the probability for one limit.

        Args:
            slack: By how much the candidate keeps the limit on validation.
            error: Standard error of this number.
            rows: Number of validation rows.
        """
        test_error = error * math.sqrt(rows / self.rows)
        margin = slack - _quantile(self.confidence) * test_error
        spread = math.hypot(error, test_error)
        return float(norm.cdf(margin / spread)) if spread else float(margin >= 0)


def _slack(result: TrialResult, name: str, error: float) -> float:
    """Return by how much a candidate keeps a limit, without what may be luck of its lead over the champion.

    The candidate was chosen among many because it is good on these rows, so that a small lead is mostly luck. A lead of
    many standard errors, as that of one which has learned new data, is not.
    """
    slack, lead = -result.shortfalls[name], result.values.get(name, 0.0) - result.champion.get(name, 0.0)
    lead = max(0.0, lead if Metric(name).higher_is_better else -lead)
    is_required = slack < lead  # the champion misses the limit
    return slack if is_required else slack - min(lead, _LUCK * error)


def _quantile(confidence: float) -> float:
    return float(norm.ppf(0.5 + confidence / 2))
