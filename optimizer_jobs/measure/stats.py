"""Intervals and tests by formula for shares of rows, and the number of rows that a judgement needs.

A number without an interval must never decide anything. The intervals here hold where simple textbook formulas fail:
for few rows, for shares near 0 or 1, and for two models that never disagree. Nothing here is random.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its interval, and the number of rows or calls that it is based on."""

    value: float
    low: float
    high: float
    samples: int

    @classmethod
    def exact(cls, value: float) -> "Interval":
        """Return an interval without width for an exact number, such as a size in bytes."""
        return cls(value=value, low=value, high=value, samples=1)

    @classmethod
    def around(cls, value: float, drawn: NDArray[np.float64], *, confidence: float, samples: int) -> "Interval":
        """Return the percentile interval of resampled estimates, widened to contain the estimate if necessary."""
        low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
        return cls(value=value, low=min(float(low), value), high=max(float(high), value), samples=samples)

    def widened(self, factor: float) -> "Interval":
        """Return the interval of a positive number with the ends moved outwards by a factor of at least 1."""
        return Interval(self.value, low=self.low / factor, high=self.high * factor, samples=self.samples)


@dataclass(frozen=True)
class PairedDifference:
    """The candidate's quality minus the champion's on the same rows, in the metric's unit."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided test of equal quality: exact McNemar for shares of rows, resampled for all other metrics."""
    gained: int
    """Rows that only the candidate gets right, or that it answers better."""
    lost: int
    """Rows that only the champion gets right, or that it answers better."""
    rows: int
    spread: float | None = None
    """Standard deviation of one row's contribution to the difference; None for a share of rows, where it follows from
    the discordant ones."""
    unit: str = "test rows"
    """What the rows are, in words."""

    @property
    def discordant(self) -> int:
        """Rows on which one of the two models is better."""
        return self.gained + self.lost

    @property
    def interval(self) -> Interval:
        """The difference as a plain interval."""
        return Interval(value=self.value, low=self.low, high=self.high, samples=self.rows)


def wilson(successes: int, rows: int, *, confidence: float) -> Interval:
    """Return the share of successes among rows with its Wilson score interval; raises ValueError for no rows."""
    if rows < 1:
        raise ValueError("a share needs at least one row")
    low, high = _wilson_bounds(successes, rows, confidence)
    share = successes / rows
    return Interval(value=share, low=min(low, share), high=max(high, share), samples=rows)


@lru_cache(maxsize=1024)
def _wilson_bounds(successes: int, rows: int, confidence: float) -> tuple[float, float]:
    """Return both ends; kept, because the columns of a window mostly ask for the same share of the same rows."""
    bounds = binomtest(successes, rows).proportion_ci(confidence_level=confidence, method="wilson")
    return float(bounds.low), float(bounds.high)


def paired_difference(
    champion_correct: BoolArray, candidate_correct: BoolArray, *, confidence: float
) -> PairedDifference:
    """Return the paired difference of two accuracies with Tango's score interval and the exact McNemar test.

    Source: T. Tango, Statistics in Medicine 17 (1998), 891-908.

    Args:
        champion_correct: Mask (N,) of the rows that the champion gets right.
        candidate_correct: Mask (N,) of the rows that the candidate gets right, in the same order.
        confidence: Confidence of the interval, 0..1.

    Raises:
        ValueError: The two have different lengths, or no rows.
    """
    if champion_correct.shape != candidate_correct.shape or champion_correct.size == 0:
        raise ValueError("paired accuracies need the same rows for both models, and at least one")
    gained = int(np.sum(candidate_correct & ~champion_correct))
    lost = int(np.sum(champion_correct & ~candidate_correct))
    rows = int(champion_correct.size)
    low, high = tango_interval(gained, lost, rows, confidence=confidence)
    discordant = gained + lost
    p_value = float(binomtest(lost, discordant).pvalue) if discordant else 1.0
    return PairedDifference(
        value=(gained - lost) / rows, low=low, high=high, p_value=p_value, gained=gained, lost=lost, rows=rows
    )


def tango_interval(gained: int, lost: int, rows: int, *, confidence: float) -> tuple[float, float]:
    """Return the low and high end of Tango's score interval for (gained - lost) / rows."""
    z = float(norm.ppf(0.5 + confidence / 2))
    high = _tango_upper(gained, lost, rows, z)
    low = -_tango_upper(lost, gained, rows, z)
    return low, high


def _tango_upper(gained: int, lost: int, rows: int, z: float) -> float:
    """Return the largest difference that the score test does not reject at the quantile `z`."""
    estimate = (gained - lost) / rows

    def excess(delta: float) -> float:
        deviation = gained - lost - rows * delta
        return deviation + z * math.sqrt(rows * _score_variance(gained, lost, rows, delta))

    # At the estimate itself, a fitted variance of 0 (no row or every row is discordant) gives a meaningless root.
    start = estimate + 1e-9
    if start >= 1 or excess(start) <= 0:
        return estimate
    return float(brentq(excess, start, 1.0, xtol=1e-12))


def _score_variance(gained: int, lost: int, rows: int, delta: float) -> float:
    """Return the variance of one row's difference, with the share of lost rows fitted to a true difference `delta`."""
    a = 2 * rows
    b = -gained - lost + (2 * rows - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    lost_share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    return max(0.0, 2 * lost_share + delta * (1 - delta))


def required_rows(*, margin: float, discordance: float, confidence: float, power: float = 0.9) -> int:
    """Return the number of rows that is needed to show that an equally good candidate loses at most `margin`.

    Args:
        margin: Allowed drop of accuracy, as a share above 0.
        discordance: Share of rows on which exactly one of the two models is right.
        confidence: Confidence (0..1) of the two-sided interval whose lower end is judged.
        power: Probability (0..1) of success when the two models are equally good.

    Raises:
        ValueError: The margin is not above 0; no number of rows shows that two models are exactly equal.
    """
    if margin <= 0:
        raise ValueError("only a margin above 0 can be shown")
    z = float(norm.ppf(0.5 + confidence / 2))
    z_power = float(norm.ppf(power))
    spread = math.sqrt(_null_variance(discordance, margin)) * z + math.sqrt(discordance) * z_power
    without_any_flip = z * z * (1 - margin) / margin
    return math.ceil(max(spread * spread / (margin * margin), without_any_flip))


def required_rows_of_mean(*, margin: float, spread: float, confidence: float, power: float = 0.9) -> int:
    """Return the number of rows that is needed to show that a mean gets worse by at most `margin`.

    Args:
        margin: Allowed loss, above 0, in the unit of the mean.
        spread: Standard deviation of one row's contribution to the mean.
        confidence: Confidence (0..1) of the two-sided interval whose bad end is judged.
        power: Probability (0..1) of success when the mean does not change.

    Raises:
        ValueError: The margin is not above 0.
    """
    if margin <= 0:
        raise ValueError("only a margin above 0 can be shown")
    z_sum = float(norm.ppf(0.5 + confidence / 2)) + float(norm.ppf(power))
    return max(1, math.ceil((z_sum * spread / margin) ** 2))


def _null_variance(discordance: float, margin: float) -> float:
    """Return the score variance at a true drop of `margin`, for equal models that disagree on a share of rows."""
    scale = 10**9
    half = round(discordance * scale / 2)
    return _score_variance(half, half, scale, margin)


def holm_confidences(
    lower_end: Mapping[str, Callable[[float], float]], *, limit: float, confidence: float
) -> dict[str, float]:
    """Return the confidence at which each of several candidates is judged against the same limit (Holm's step-down).

    If every candidate is judged at the returned confidence, the chance of accepting any bad candidate stays at
    1 - `confidence`, however many candidates there are.

    Args:
        lower_end: By candidate, a function from a confidence to the lower end of the candidate's interval.
        limit: Value that the lower end must reach.
        confidence: Confidence for all candidates together, 0..1.

    Returns:
        Confidence by candidate.
    """
    confidences: dict[str, float] = {}
    waiting = dict(lower_end)
    while waiting:
        strict = 1 - (1 - confidence) / len(waiting)
        passing = [name for name, low in waiting.items() if low(strict) >= limit]
        settled = passing or list(waiting)
        confidences |= dict.fromkeys(settled, strict)
        waiting = {name: low for name, low in waiting.items() if name not in confidences}
    return confidences
