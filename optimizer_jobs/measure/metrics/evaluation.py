"""What one metric says of one model on N rows, for any weights of the rows.

A resample of the rows is a weight for each of them, so one function of weights gives the value and all its resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.weights import effective_rows

Floats = NDArray[np.float64]
Array = NDArray[np.generic]

ROWS = "test rows"
"""What an evaluation is made of, but where it says otherwise."""

At = Callable[[Floats], Floats]
"""Takes weights (D, N) of the rows and returns the metric's values (D,); NaN where these rows do not define it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A metric of one model on some rows."""

    value: float
    """The metric's value on the rows themselves."""
    scores: Floats
    """(N,): how good or bad each answer is, in the direction of the metric; for people, and where `root` says so."""
    at: At
    """The metric's values for other weights of the rows."""
    is_share: bool = False
    """Whether the metric is the mean of scores that are all 0 or 1, so that formulas for shares hold."""
    unit: str = ROWS
    """What the N rows are, in words."""
    blocks: NDArray[np.int64] | None = None
    """Block (N,) of each row, numbered from 0, where rows of a block depend on each other: whole blocks are drawn."""
    flip: float = 0.0
    """Most that one row's score can change by where scores are as coarse as right and wrong, so that rows without a
    change are little evidence that there is none; 0 where scores are fine."""
    mistake: float = 0.0
    """Most that the metric falls by when one more right answer becomes wrong, where labels alone decide: models that
    agree on every row show nothing of the rows on which they would not. 0 where `flip` or fine scores say more."""
    redrawn: Callable[[int], Floats] | None = None
    """Takes a number D of draws and returns the metric's values (D,) on them, or fewer where time is over; for metrics
    that are no function of weights. None where `at` gives them."""
    weights: Floats | None = None
    """How much each row counts (N,), which `value` and `at` already contain; None where all count alike."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.scores)

    @property
    def effective(self) -> int:
        """How many rows of equal weight are as much evidence."""
        return self.rows if self.weights is None else effective_rows(self.weights)

    @property
    def evidence(self) -> int:
        """How many independent pieces of evidence the rows are at most."""
        return self.effective if self.blocks is None else min(self.effective, int(self.blocks.max()) + 1)

    def weighed(self, weights: Floats) -> "Evaluation":
        """Return the metric of rows that count by these weights (N,), of which some are above 0."""
        at = self.at

        def weighed_at(times: Floats) -> Floats:
            return at(times * weights)

        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(weighed_at(np.ones((1, self.rows)))[0])
        return replace(self, value=value, at=weighed_at, is_share=False, weights=weights)


def mean_of(scores: Floats, *, is_share: bool = False, unit: str = ROWS, flip: float = 0.0) -> Evaluation:
    """Return the evaluation of a metric that is the mean of one score (N,) a row; `flip` is 1 for a share."""

    def at(weights: Floats) -> Floats:
        return np.asarray(weights @ scores / weights.sum(axis=1))

    most = 1.0 if is_share else flip
    return Evaluation(value=float(scores.mean()), scores=scores, at=at, is_share=is_share, unit=unit, flip=most)


def of_means(moments: Floats, figure: Callable[[Floats], Floats], *, scores: Floats, value: float) -> Evaluation:
    """Return the evaluation of a metric that is a function of means over rows.

    Args:
        moments: Values (N, M) of each row.
        figure: Takes means (D, M) and returns the metric's values (D,).
        scores: Scores (N,) for people.
        value: The metric's value as scikit-learn computes it.
    """

    def at(weights: Floats) -> Floats:
        return figure(weights @ moments / weights.sum(axis=1, keepdims=True))

    return Evaluation(value=value, scores=scores, at=at)


def root_mean_of(scores: Floats) -> Evaluation:
    """Return the evaluation of a metric that is the root of the mean of one score (N,) a row, none below 0."""
    value = float(np.sqrt(scores.mean()))
    return of_means(scores[:, np.newaxis], lambda means: np.asarray(np.sqrt(means[:, 0])), scores=scores, value=value)
