"""Intervals of means and root means over rows that no formula covers, by resampling rows.

Seeded, so that the same rows give the same interval. Two models are always resampled together.
"""

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.stats import Interval, PairedDifference

Floats = NDArray[np.float64]
DRAWS = 2000
_AT_ONCE = 200
"""Draws held in memory at a time."""


def mean_interval(scores: Floats, *, confidence: float, root: bool = False) -> Interval:
    """Return the mean of scores (N,), or its square root, between percentiles of resampled means."""
    value = float(_figure(scores.mean(), root=root))
    drawn = _figure(_means(scores), root=root)
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), samples=len(scores))


def mean_difference(champion: Floats, candidate: Floats, *, confidence: float, root: bool = False) -> PairedDifference:
    """Return the difference of two means over the same rows (N,), candidate minus champion.

    `gained` and `lost` count rows where the candidate's score is higher and lower; the p-value is two-sided.
    """
    if champion.shape != candidate.shape or champion.size == 0:
        raise ValueError("a paired difference needs the same rows for both models, and at least one")
    value = float(_figure(candidate.mean(), root=root) - _figure(champion.mean(), root=root))
    both = np.stack([champion, candidate])
    drawn = np.diff(_figure(_means(both), root=root), axis=0)[0]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    beyond = 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return PairedDifference(
        value=value, low=min(float(low), value), high=max(float(high), value), p_value=min(1.0, beyond),
        gained=int((candidate > champion).sum()), lost=int((candidate < champion).sum()), rows=int(champion.size),
    )  # fmt: skip


def _means(scores: Floats) -> Floats:
    """Return (..., DRAWS) means of scores (..., N) over rows drawn with replacement, the same for every line."""
    generator, rows = np.random.default_rng(0), scores.shape[-1]
    parts = [scores[..., generator.integers(0, rows, (_AT_ONCE, rows))].mean(axis=-1) for _ in range(DRAWS // _AT_ONCE)]
    return np.concatenate(parts, axis=-1)


def _figure(mean: Floats, *, root: bool) -> Floats:
    return np.asarray(np.sqrt(np.maximum(mean, 0.0)) if root else mean)
