"""Bootstrap intervals of means and square roots of means over rows, for metrics without a formula for their interval.

Bias-corrected and accelerated (BCa), because errors are skewed. Seeded, so that the same rows give the same interval,
and two models are always resampled together. Source: B. Efron, JASA 82 (1987), 171-185.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from optimizer_jobs.measure.stats import Interval, PairedDifference

Floats = NDArray[np.float64]
DRAWS = 2000
_NUMBERS_AT_ONCE = 2_000_000
"""Numbers drawn at a time, so that memory does not grow with the rows."""
_TINY = 1e-300


@dataclass(frozen=True)
class Resampled:
    """An estimate and its values on resampled rows, from which intervals of any confidence can be computed."""

    value: float
    """The estimate on the rows themselves."""
    draws: Floats
    """(DRAWS,): the estimate on each resample."""
    influence: Floats
    """(N,): contribution of each row to the estimate, centred on 0."""

    @property
    def spread(self) -> float:
        """Standard deviation of one row's contribution."""
        return float(self.influence.std())

    def interval(self, confidence: float) -> Interval:
        """Return the BCa interval at a confidence (0..1), widened to contain the estimate if necessary."""
        low, high = np.quantile(self.draws, self._levels(confidence))
        rows = len(self.influence)
        return Interval(self.value, low=min(float(low), self.value), high=max(float(high), self.value), samples=rows)

    @property
    def p_value(self) -> float:
        """Two-sided p-value, from the draws, of the hypothesis that the true value is 0."""
        beyond = min(float((self.draws <= 0).mean()), float((self.draws >= 0).mean()))
        return min(1.0, max(2 * beyond, 1 / DRAWS))

    def _levels(self, confidence: float) -> Floats:
        """Return the two quantiles of the draws that are the ends, corrected for the draws' bias and the rows' skew."""
        below = float((self.draws < self.value).mean() + (self.draws == self.value).mean() / 2)
        bias = float(norm.ppf(min(max(below, 1 / DRAWS), 1 - 1 / DRAWS)))
        skew = float((self.influence**3).sum() / max(6 * float((self.influence**2).sum()) ** 1.5, _TINY))
        shifted = bias + norm.ppf([0.5 - confidence / 2, 0.5 + confidence / 2])
        return np.asarray(norm.cdf(bias + shifted / np.maximum(1 - skew * shifted, 0.1)))


def resampled(scores: Floats, *, root: bool = False) -> Resampled:
    """Resample the mean of scores (N,), or with `root` the square root of the mean."""
    return Resampled(
        value=float(_figure(scores.mean(), root=root)),
        draws=_figure(_means(scores), root=root),
        influence=_influence(scores, root=root),
    )


def resampled_difference(champion: Floats, candidate: Floats, *, root: bool = False) -> Resampled:
    """Resample the difference of two means over the same rows, candidate minus champion.

    Args:
        champion: Scores (N,) of the champion.
        candidate: Scores (N,) of the candidate on the same rows, in the same order.
        root: Whether to compare the square roots of the means.

    Raises:
        ValueError: The two have different lengths, or no rows.
    """
    if champion.shape != candidate.shape or champion.size == 0:
        raise ValueError("a paired difference needs the same rows for both models, and at least one")
    draws = _figure(_means(np.stack([champion, candidate])), root=root)
    return Resampled(
        value=float(_figure(candidate.mean(), root=root) - _figure(champion.mean(), root=root)),
        draws=draws[1] - draws[0],
        influence=_influence(candidate, root=root) - _influence(champion, root=root),
    )


def paired(difference: Resampled, *, confidence: float, gained: int, lost: int) -> PairedDifference:
    """Return a resampled difference with its interval at a confidence.

    Args:
        difference: The resampled difference.
        confidence: Confidence of the interval, 0..1.
        gained: Rows that the candidate answers better.
        lost: Rows that the champion answers better.
    """
    interval = difference.interval(confidence)
    return PairedDifference(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        p_value=difference.p_value,
        gained=gained,
        lost=lost,
        rows=interval.samples,
        spread=difference.spread,
    )


def _means(scores: Floats) -> Floats:
    """Return means (..., DRAWS) of scores (..., N) over rows drawn with replacement; all lines share the same draws."""
    generator, rows = np.random.default_rng(0), scores.shape[-1]
    at_once = max(1, min(DRAWS, _NUMBERS_AT_ONCE // rows))
    parts = [
        scores[..., generator.integers(0, rows, (min(at_once, DRAWS - start), rows))].mean(axis=-1)
        for start in range(0, DRAWS, at_once)
    ]
    return np.concatenate(parts, axis=-1)


def _figure(mean: Floats, *, root: bool) -> Floats:
    return np.asarray(np.sqrt(np.maximum(mean, 0.0)) if root else mean)


def _influence(scores: Floats, *, root: bool) -> Floats:
    """Return the contribution (N,) of each row: the derivative of the estimate by the row's weight."""
    mean = float(scores.mean())
    centred = scores - mean
    return np.asarray(centred / max(2 * math.sqrt(max(mean, 0.0)), 1e-12) if root else centred)
