"""Bootstrap intervals of metrics, for one model and for two models on the same rows.

Bias-corrected and accelerated (BCa), because errors are skewed. Seeded, so that the same rows give the same interval,
and two models are always resampled together. Source: B. Efron, JASA 82 (1987), 171-185.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from optimizer_jobs.measure.metrics.evaluation import At, Evaluation
from optimizer_jobs.measure.stats import Interval, PairedDifference

Floats = NDArray[np.float64]
DRAWS = 2000
DRAWS_OF_CODE = 200
"""Most draws on which code is called that returns one number for all rows."""
_GLANCE = 40
"""Draws of such code for a standard error."""
_NUMBERS_AT_ONCE = 2_000_000
"""Weights drawn at a time, so that memory does not grow with the rows."""
_PARTS = 200
"""Most parts of the rows that are left out in turn to find how much each contributes."""
_LEAST_DEFINED = 0.5
"""Share of the draws that must define the metric; below, nothing is known of it."""
_TINY = 1e-300
_USUAL_QUANTILE = 2.0
"""Quantile of the normal distribution near which the judge's confidence lies."""
_SEARCHED = 8
"""Parts in which the row that changes an estimate most is looked for, on each side."""


@dataclass(frozen=True)
class Resampled:
    """An estimate and its values on resampled rows, from which intervals of any confidence can be computed."""

    value: float
    """The estimate on the rows themselves."""
    draws: Floats
    """(M,): the estimate on each resample that defines it."""
    influence: Floats
    """(P,): contribution of each part of the rows to the estimate, centred on 0."""
    rows: int
    """The number of rows of equal weight that are as much evidence."""
    flip: float = 0.0
    """Most that one row can change by, where most rows do not change; 0 where all do a little."""
    evidence: int = 1
    """The number of independent pieces of evidence: of rows, or of blocks of them."""
    least: float = -math.inf
    """Smallest value that is possible."""
    most: float = math.inf
    """Largest value that is possible."""
    worst: tuple[float, float] = (0.0, 0.0)
    """How much a row like the one that lowers the estimate most takes from it, and how much one adds to it; 0 where one
    row's contribution has a limit of its own."""

    @property
    def standard_error(self) -> float:
        """Standard error of the estimate, from the contributions of the parts."""
        return float(self.influence.std() / math.sqrt(len(self.influence)))

    @property
    def spread(self) -> float:
        """Standard deviation of one row's contribution at most; not below that of one row that changes.

        With it, an interval for another number of rows is estimated, so what unseen rows may add is part of it. Where
        few rows contribute much, how many of them are among these rows is chance, so the variance is taken at the upper
        end of its own interval. That is too low still where hardly any of them were seen.
        """
        seen = math.sqrt(_upper_variance(self.influence) * self.rows / len(self.influence))
        unseen = _USUAL_QUANTILE * max(self.worst) * math.sqrt(self.rows)
        return max(seen + unseen, self.flip / math.sqrt(self.evidence + 1))

    def interval(self, confidence: float) -> Interval:
        """Return the BCa interval at a confidence (0..1), widened to contain the estimate if necessary.

        Resampling cannot see what no row shows: without a single changed row, each resample is the same. So where rows
        change rarely, the ends are at least as far off as Tango's and Wilson's are for rows that do not change. Where
        one row may change by any amount, a few rows may carry the whole loss, and a sample with too few of them shows a
        small loss and a narrow interval. So the ends allow for as many more rows like the worst one that was seen as
        could stay unseen, the square of the normal quantile: 2.7 rows for 5 % on one side, near the rule of three.
        """
        if not len(self.draws):
            return Interval(self.value, low=-math.inf, high=math.inf, samples=self.rows)
        low, high = np.quantile(self.draws, self._levels(confidence))
        squared = float(norm.ppf(0.5 + confidence / 2)) ** 2
        unseen = self.flip * squared / (self.evidence + squared)
        low, high = min(float(low), self.value - unseen), max(float(high), self.value + unseen)
        low, high = low - squared * self.worst[0], high + squared * self.worst[1]
        return Interval(self.value, low=max(low, self.least), high=min(high, self.most), samples=self.rows)

    @property
    def p_value(self) -> float:
        """Two-sided p-value, from the draws, of the hypothesis that the true value is 0."""
        beyond = min(float((self.draws <= 0).mean()), float((self.draws >= 0).mean())) if len(self.draws) else 1.0
        return min(1.0, max(2 * beyond, 1 / DRAWS))

    def _levels(self, confidence: float) -> Floats:
        """Return the two quantiles of the draws that are the ends, corrected for the draws' bias and the rows' skew."""
        below = float((self.draws < self.value).mean() + (self.draws == self.value).mean() / 2)
        bias = float(norm.ppf(min(max(below, 1 / DRAWS), 1 - 1 / DRAWS)))
        skew = float((self.influence**3).sum() / max(6 * float((self.influence**2).sum()) ** 1.5, _TINY))
        shifted = bias + norm.ppf([0.5 - confidence / 2, 0.5 + confidence / 2])
        return np.asarray(norm.cdf(bias + shifted / np.maximum(1 - skew * shifted, 0.1)))


class Coarse(Resampled):
    """An estimate and few resamples, which tell how far it spreads: its interval is a normal one (Student's t)."""

    @classmethod
    def of(cls, value: float, draws: Floats, *, rows: int) -> "Coarse":
        """Return an estimate with its values (D,) on resamples, NaN where those do not define it."""
        defined = draws[np.isfinite(draws)]
        known = defined if len(defined) >= max(2, _LEAST_DEFINED * len(draws)) else defined[:0]
        return cls(value=value, draws=known, influence=known, rows=rows)

    @property
    def standard_error(self) -> float:
        """Standard deviation of the draws."""
        return float(self.draws.std(ddof=1)) if len(self.draws) else math.inf

    @property
    def spread(self) -> float:
        """Standard deviation of one row's contribution, as if the metric were a mean."""
        return self.standard_error * math.sqrt(self.rows)

    def interval(self, confidence: float) -> Interval:
        """Return the interval at a confidence (0..1)."""
        if not len(self.draws):
            return Interval(self.value, low=-math.inf, high=math.inf, samples=self.rows)
        half = float(t.ppf(0.5 + confidence / 2, len(self.draws) - 1)) * self.standard_error
        return Interval(self.value, low=self.value - half, high=self.value + half, samples=self.rows)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the true value is 0."""
        if not len(self.draws) or self.value == 0:
            return 1.0
        return float(2 * t.sf(abs(self.value) / max(self.standard_error, _TINY), len(self.draws) - 1))


def _redrawn(evaluation: Evaluation, draws: int) -> Floats:
    if evaluation.redrawn is None:
        raise ValueError("two metrics of the same code are compared: one number for all rows, or one a row for both")
    return evaluation.redrawn(draws)


def _redrawn_difference(champion: Evaluation, candidate: Evaluation, draws: int) -> Floats:
    """Return the differences (D,) on the draws that both models were asked on."""
    before, after = _redrawn(champion, draws), _redrawn(candidate, draws)
    both = min(len(before), len(after))
    return after[:both] - before[:both]


def resampled(evaluation: Evaluation) -> Resampled:
    """Resample a metric of one model."""
    if evaluation.redrawn is not None:
        return Coarse.of(evaluation.value, evaluation.redrawn(DRAWS_OF_CODE), rows=evaluation.rows)
    drawn = _resampled(evaluation.at, evaluation, value=evaluation.value)
    return replace(drawn, least=0.0, most=evaluation.flip) if evaluation.flip else drawn


def resampled_difference(champion: Evaluation, candidate: Evaluation) -> Resampled:
    """Resample the difference of a metric of two models on the same rows, candidate minus champion.

    Raises:
        ValueError: The two have different numbers of rows, or none.
    """
    if champion.rows != candidate.rows or not champion.rows:
        raise ValueError("a paired difference needs the same rows for both models, and at least one")
    if champion.redrawn is not None or candidate.redrawn is not None:
        draws = _redrawn_difference(champion, candidate, DRAWS_OF_CODE)
        return Coarse.of(candidate.value - champion.value, draws, rows=champion.rows)
    at, value, flip = _minus(candidate, champion), candidate.value - champion.value, max(champion.flip, candidate.flip)
    worst = (0.0, 0.0) if flip else _unseen(champion, candidate)
    return replace(_resampled(at, champion, value=value), flip=flip, worst=worst)


def standard_error(evaluation: Evaluation, champion: Evaluation | None = None) -> float:
    """Return the standard error of a metric, or of its difference to the champion's, with little or no resampling."""
    if evaluation.redrawn is not None and champion is None:
        return Coarse.of(evaluation.value, evaluation.redrawn(_GLANCE), rows=evaluation.rows).standard_error
    if evaluation.redrawn is not None and champion is not None:
        draws = _redrawn_difference(champion, evaluation, _GLANCE)
        return Coarse.of(evaluation.value - champion.value, draws, rows=evaluation.rows).standard_error
    at = evaluation.at if champion is None else _minus(evaluation, champion)
    value = evaluation.value - (0.0 if champion is None else champion.value)
    influence = _influence(_of_blocks(at, evaluation), value=value, rows=_blocks(evaluation))
    return float(influence.std() / math.sqrt(len(influence)))


def allowance(champion: Evaluation, candidate: Evaluation) -> float:
    """Return what the interval of a difference allows for unseen rows, as if it were part of its standard error."""
    if champion.redrawn or candidate.redrawn or max(champion.flip, candidate.flip) > 0:
        return 0.0
    return _USUAL_QUANTILE * sum(_unseen(champion, candidate)) / 2


def _unseen(champion: Evaluation, candidate: Evaluation) -> tuple[float, float]:
    """Return how much one unseen row may take from the difference, and how much it may add.

    It may be like the worst one that was seen, or one on which only one of the two models is wrong.
    """
    at, value = _minus(candidate, champion), candidate.value - champion.value
    taken, added = _worst(_of_blocks(at, champion), value=value, rows=_blocks(champion))
    return max(taken, _mistake(candidate)), max(added, _mistake(champion))


def _mistake(evaluation: Evaluation) -> float:
    """Return what one wrong piece of evidence more costs; rows of a block, and heavy ones, go wrong together."""
    return evaluation.mistake * evaluation.rows / evaluation.evidence


def _minus(candidate: Evaluation, champion: Evaluation) -> At:
    return lambda weights: candidate.at(weights) - champion.at(weights)


def _resampled(at: At, evaluation: Evaluation, *, value: float) -> Resampled:
    of_blocks, blocks = _of_blocks(at, evaluation), _blocks(evaluation)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.concatenate([of_blocks(weights) for weights in times_drawn(blocks, rows=evaluation.rows)])
    defined = draws[np.isfinite(draws)]
    known = defined if len(defined) >= _LEAST_DEFINED * DRAWS else defined[:0]
    return Resampled(
        value=value,
        draws=known,
        influence=_influence(of_blocks, value=value, rows=blocks),
        rows=evaluation.effective,
        flip=evaluation.flip,
        evidence=evaluation.evidence,
    )


def _upper_variance(influence: Floats) -> float:
    """Return the upper end of a one-sided interval, nominally of 90 %, of the variance of contributions (P,) around 0.

    Its standard error is that of large samples, from the fourth moment.
    """
    variance = float((influence**2).mean())
    if variance <= _TINY:
        return 0.0
    kurtosis = float(((influence / math.sqrt(variance)) ** 4).mean())
    return variance * (1 + float(norm.ppf(0.9)) * math.sqrt(max(0.0, kurtosis - 1) / len(influence)))


def _blocks(evaluation: Evaluation) -> int:
    """Return the number of blocks, which is that of the rows where every row is one."""
    return evaluation.rows if evaluation.blocks is None else int(evaluation.blocks.max()) + 1


def _of_blocks(at: At, evaluation: Evaluation) -> At:
    """Return a function of rows' weights as a function of blocks' weights."""
    blocks = evaluation.blocks
    return at if blocks is None else lambda weights: at(weights[:, blocks])


def paired(difference: Resampled, *, confidence: float, gained: int, lost: int, unit: str) -> PairedDifference:
    """Return a resampled difference with its interval at a confidence.

    Args:
        difference: The resampled difference.
        confidence: Confidence of the interval, 0..1.
        gained: Rows that the candidate answers better.
        lost: Rows that the champion answers better.
        unit: What the rows are, in words.
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
        unit=unit,
    )


def times_drawn(blocks: int, *, rows: int) -> Iterator[Floats]:
    """Yield how often each block is drawn, (D, blocks), for DRAWS resamples; the same ones for the same numbers."""
    generator = np.random.default_rng(0)
    at_once = max(1, min(DRAWS, _NUMBERS_AT_ONCE // rows))
    for start in range(0, DRAWS, at_once):
        draws = min(at_once, DRAWS - start)
        drawn = generator.integers(0, blocks, (draws, blocks)) + np.arange(draws)[:, np.newaxis] * blocks
        yield np.bincount(drawn.ravel(), minlength=draws * blocks).reshape(draws, blocks).astype(np.float64)


def _influence(at: At, *, value: float, rows: int) -> Floats:
    """Return the contribution (P,) of each of at most _PARTS parts of the rows, by leaving each out in turn."""
    part = _parts(rows)
    count = int(part.max()) + 1
    if count == 1:
        return np.zeros(1)
    left_out = np.ones((count, rows))
    left_out[part, np.arange(rows)] = 0.0
    influence = (count - 1) * _lost_without(at, left_out, value)
    return np.asarray(influence - influence.mean())


def _parts(rows: int) -> NDArray[np.int64]:
    """Return the part (N,) that each row is in, at random."""
    return np.asarray(np.random.default_rng(1).permutation(rows) % min(rows, _PARTS))


def _lost_without(at: At, left_out: Floats, value: float) -> Floats:
    """Return by how much the estimate falls (P,) where rows are left out; 0 where that leaves it undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        without = at(left_out)
    return np.asarray(np.where(np.isfinite(without), value - without, 0.0))


def _worst(at: At, *, value: float, rows: int) -> tuple[float, float]:
    """Return how much the row that lowers an estimate most takes from it, and the one that raises it most adds to it.

    It is looked for in the parts of the rows that change the estimate most.
    """
    part, influence = _parts(rows), _influence(at, value=value, rows=rows)
    order = np.argsort(influence)
    searched = np.flatnonzero(np.isin(part, [*order[:_SEARCHED], *order[-_SEARCHED:]]))
    lost: list[Floats] = [np.zeros(1)]
    at_once = max(1, _NUMBERS_AT_ONCE // rows)
    for start in range(0, len(searched) if rows > 1 else 0, at_once):
        chosen = searched[start : start + at_once]
        left_out = np.ones((len(chosen), rows))
        left_out[np.arange(len(chosen)), chosen] = 0.0
        lost.append(_lost_without(at, left_out, value))
    added = np.concatenate(lost)
    return max(0.0, float(-added.min())), max(0.0, float(added.max()))
