"""Intervals of means and root means over rows that no formula covers, by resampling rows.

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
    """A figure, and what it comes out as on resampled rows: intervals of any confidence without drawing anew."""

    value: float
    drawn: Floats
    """(DRAWS,)"""
    influence: Floats
    """(N,) what each row adds to the figure, around 0."""

    @property
    def spread(self) -> float:
        """Standard deviation of one row's part."""
        return float(self.influence.std())

    def interval(self, confidence: float) -> Interval:
        """Return the BCa interval, made to contain the figure."""
        ends = self._levels(confidence)
        low, high = np.quantile(self.drawn, ends)
        return Interval(
            value=self.value,
            low=min(float(low), self.value),
            high=max(float(high), self.value),
            samples=len(self.influence),
        )

    @property
    def p_value(self) -> float:
        """How far 0 is from being the figure, two-sided, by the draws; 1 when nothing differs."""
        beyond = min(float((self.drawn <= 0).mean()), float((self.drawn >= 0).mean()))
        return min(1.0, max(2 * beyond, 1 / DRAWS))

    def _levels(self, confidence: float) -> Floats:
        """Return the two quantiles of the draws, moved for the bias of their median and the skew of the rows."""
        below = float((self.drawn < self.value).mean() + (self.drawn == self.value).mean() / 2)
        bias = float(norm.ppf(min(max(below, 1 / DRAWS), 1 - 1 / DRAWS)))
        skew = float((self.influence**3).sum() / max(6 * float((self.influence**2).sum()) ** 1.5, _TINY))
        moved = bias + norm.ppf([0.5 - confidence / 2, 0.5 + confidence / 2])
        return np.asarray(norm.cdf(bias + moved / np.maximum(1 - skew * moved, 0.1)))


def resampled(scores: Floats, *, root: bool = False) -> Resampled:
    """Return the mean of scores (N,), or its square root, with its draws."""
    return Resampled(
        value=float(_figure(scores.mean(), root=root)),
        drawn=_figure(_means(scores), root=root),
        influence=_influence(scores, root=root),
    )


def resampled_difference(champion: Floats, candidate: Floats, *, root: bool = False) -> Resampled:
    """Return the difference of two means over the same rows (N,), candidate minus champion, with its draws."""
    if champion.shape != candidate.shape or champion.size == 0:
        raise ValueError("a paired difference needs the same rows for both models, and at least one")
    drawn = _figure(_means(np.stack([champion, candidate])), root=root)
    return Resampled(
        value=float(_figure(candidate.mean(), root=root) - _figure(champion.mean(), root=root)),
        drawn=drawn[1] - drawn[0],
        influence=_influence(candidate, root=root) - _influence(champion, root=root),
    )


def paired(found: Resampled, *, confidence: float, gained: int, lost: int) -> PairedDifference:
    """Return a resampled difference at one confidence; `gained` and `lost` count rows answered better and worse."""
    ends = found.interval(confidence)
    return PairedDifference(
        value=found.value,
        low=ends.low,
        high=ends.high,
        p_value=found.p_value,
        gained=gained,
        lost=lost,
        rows=ends.samples,
        spread=found.spread,
    )


def _means(scores: Floats) -> Floats:
    """Return (..., DRAWS) means of scores (..., N) over rows drawn with replacement, the same for every line."""
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
    """Return (N,) how the figure moves with the weight of each row."""
    mean = float(scores.mean())
    around = scores - mean
    return np.asarray(around / max(2 * math.sqrt(max(mean, 0.0)), 1e-12) if root else around)
