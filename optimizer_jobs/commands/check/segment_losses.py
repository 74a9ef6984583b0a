"""How much quality each segment has lost against its own rows of the reference, and how surely. Pure.

A segment has few rows, and there are many segments, so nothing here relies on large numbers: the proof for a share of
rows is Fisher's exact test, and for any other metric a permutation test, in which rows of reference and window change
places. Both hold for every number of rows. Holm's method adjusts for the number of segments, whatever rows they share.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import hypergeom

from optimizer_jobs.commands.check.independence import stride
from optimizer_jobs.commands.check.segment_cuts import LEAST_ROWS, Mask
from optimizer_jobs.commands.check.watched_quality import Answered, in_time
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.yardstick import Yardstick
from retune.api.metrics import Metric

Places = NDArray[np.int64]

LEVEL = 0.001
"""Probability that a window without a loss names any segment."""
_FIRST, _MORE = 100, 4
"""Draws of the first batch, and how many times as many the next ones have."""
_EXCEEDED = 20
"""Draws as bad as what is seen after which no more are made."""
_CELLS, _CELLS_IN_ALL = 2_000_000, 500_000_000
"""Most numbers drawn at a time, and for all segments of a window; a test that is cut short proves less."""


@dataclass(frozen=True)
class Standing:
    """How a segment, or the whole, stands beside the reference."""

    value: float
    reference: float
    loss: float
    """Positive is worse; of a metric that is at most 1 the difference, else a share of the reference's value."""
    samples: int
    """Independent labelled rows of the window."""
    adjusted: float = 1.0
    """p-value adjusted for the number of segments; 1 where the loss does not count anyhow."""


@dataclass(frozen=True)
class Labels:
    """Labelled rows of the reference, B of them, and behind them the N of the window, in the order of time."""

    answered: Answered
    before: int
    """B."""
    metric: Metric
    yardstick: Yardstick

    def numbers(self) -> NDArray[np.float64]:
        """Return a number (B + N,) of each row that shows how good its answer is."""
        return in_time(self.answered)

    def evaluation(self, places: Places) -> Evaluation:
        """Return the metric on the rows at these places; raises UnfitAnswersError."""
        part = self.answered.take(places)
        return evaluate(self.metric, part.answers, part.rows, yardstick=self.yardstick)

    def standing(self, before: Places, now: Places) -> Standing | None:
        """Return how the rows of the window at some places stand; None where the metric has no value."""
        return self.standings({"": (before, now)}).get("")

    def standings(self, places: Mapping[str, tuple[Places, Places]]) -> dict[str, Standing]:
        """Return how rows of the window stand beside rows of the reference, by name, where the metric has a value."""
        weights = np.zeros((2 * len(places), len(self.answered.rows)))
        for row, indices in enumerate(each for pair in places.values() for each in pair):
            weights[row, indices] = 1.0
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.all_rows.at(weights).reshape(-1, 2).tolist()
        found = {
            name: Standing(value, reference, self.lost(reference, value), len(pair[1]))
            for (name, pair), (reference, value) in zip(places.items(), values, strict=True)
        }
        return {name: standing for name, standing in found.items() if math.isfinite(standing.loss)}

    @cached_property
    def all_rows(self) -> Evaluation:
        """The metric on all rows; raises UnfitAnswersError."""
        return self.evaluation(np.arange(len(self.answered.rows)))

    def lost(self, before: float, now: float) -> float:
        """Return the loss from one value of the metric to another; NaN where there is none."""
        base = 1.0 if self.metric.is_share else before
        if not base > 0:  # NaN, too
            return float("nan")
        return (before - now if self.metric.higher_is_better else now - before) / base


def whole(labels: Labels) -> Standing | None:
    """Return how all rows together stand; None where the metric has no value on them."""
    rows = len(labels.answered.rows)
    every = np.arange(rows)
    return labels.standing(every[: labels.before], every[labels.before :])


def standings(
    labels: Labels,
    before: Mapping[str, Mask],
    now: Mapping[str, Mask],
    *,
    counts_from: float,
    min_labels: int,
    seed: int,
) -> dict[str, Standing]:
    """Return how each segment stands that has enough rows.

    Rows that depend on each other are thinned where a loss counts, before it is asked whether it is proven.

    Args:
        labels: The labelled rows.
        before: Rows (B,) of the reference in each segment, by its name.
        now: Rows (N,) of the window in each segment.
        counts_from: Loss from which it is asked whether it is proven.
        min_labels: Fewest independent labelled rows of a segment in the window.
        seed: Seed of the permutations.
    """
    places = {name: (np.flatnonzero(before[name]), labels.before + np.flatnonzero(mask)) for name, mask in now.items()}
    enough = {name: each for name, each in places.items() if len(each[0]) >= LEAST_ROWS and len(each[1]) >= min_labels}
    if not enough:
        return {}
    found = labels.standings(enough)
    thinning = _Thinning(labels)
    for name in [name for name, standing in found.items() if standing.loss >= counts_from]:
        enough[name] = (enough[name][0], thinning.thinned(enough[name][1]))
        standing = labels.standing(*enough[name]) if len(enough[name][1]) >= min_labels else None
        found = {**found, name: standing} if standing else {other: found[other] for other in found if other != name}
    proof = _Proof(labels, tests=len(enough), generator=np.random.default_rng(seed))
    order = sorted(found, key=lambda name: -found[name].loss)
    p = [proof(found[name], enough[name]) if found[name].loss >= counts_from else 1.0 for name in order]
    adjusted = dict(zip(order, holm([*p, *[1.0] * (len(enough) - len(p))]), strict=False))
    return {name: replace(standing, adjusted=adjusted[name]) for name, standing in found.items()}


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted by S. Holm's method (1979), which holds whatever the dependence between the tests."""
    order, adjusted, largest = np.argsort(p, kind="stable"), [1.0] * len(p), 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


class _Thinning:
    """Leaves of a segment's rows so few that they are nearly independent."""

    def __init__(self, labels: Labels) -> None:
        self._numbers, self._before = labels.numbers(), labels.before
        self._apart = stride(pd.Series(self._numbers[labels.before :]))

    def thinned(self, places: Places) -> Places:
        """Return every k-th of the places of a segment's rows in the window."""
        own = stride(pd.Series(self._numbers[places]))
        share = len(places) / (len(self._numbers) - self._before)
        return places[:: max(own, math.ceil(self._apart * share))]


class _Proof:
    """Returns the p-value of a segment's loss; all segments of a window share what may be drawn."""

    def __init__(self, labels: Labels, *, tests: int, generator: np.random.Generator) -> None:
        self._labels, self._generator = labels, generator
        self._most, self._cells = math.ceil(2 * tests / LEVEL), _CELLS_IN_ALL

    def __call__(self, standing: Standing, places: tuple[Places, Places]) -> float:
        both = self._labels.evaluation(np.concatenate(places))
        if both.is_share:
            return _exact(both.scores, len(places[0]), falls=self._labels.metric.higher_is_better)
        return self._permuted(both, len(places[1]), standing)

    def _permuted(self, both: Evaluation, rows: int, standing: Standing) -> float:
        """Return how often a loss is as large where the window's rows are any of all."""
        exceeded = drawn = 0
        batch = _FIRST
        while drawn < self._most and exceeded < _EXCEEDED and self._cells > 0:
            count = min(batch, self._most - drawn, max(1, _CELLS // both.rows))
            losses = self._losses(both, rows, count)
            exceeded += int((~(losses < standing.loss - 1e-12)).sum())  # one without a value counts as bad
            drawn, batch, self._cells = drawn + count, batch * _MORE, self._cells - count * both.rows
        return (exceeded + 1) / (drawn + 1)

    def _losses(self, both: Evaluation, rows: int, count: int) -> NDArray[np.float64]:
        """Return the losses (D,) of so many draws."""
        order = self._generator.random((count, both.rows)).argpartition(rows - 1, axis=1)[:, :rows]
        inside = np.zeros((count, both.rows))
        np.put_along_axis(inside, order, 1.0, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            now, before = both.at(inside), both.at(1.0 - inside)
        return np.array([self._labels.lost(*pair) for pair in zip(before.tolist(), now.tolist(), strict=True)])


def _exact(scores: NDArray[np.float64], before: int, *, falls: bool) -> float:
    """Return the p-value of R. Fisher's test that a share of rows fell, or rose, from the first rows to the others."""
    bad = scores < 0.5 if falls else scores >= 0.5
    return float(hypergeom.sf(int(bad[before:].sum()) - 1, len(bad), int(bad.sum()), len(bad) - before))
