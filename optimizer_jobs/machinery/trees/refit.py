"""Fit the leaves of an ensemble again: to the sums of a larger one, or to labels, by the loss that its answers have.

Trees and thresholds stay. All leaves are fitted together, by least squares or a few Newton steps, and are held back to
what they were, so that rows that are few or unlike the coming ones do not move them far.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from optimizer_jobs.machinery.trees.ensemble import Array, Ensemble

_STEPS = 3
_ROUNDS, _PRECISION = 60, 1e-4
"""When the solver of each step ends."""
_FLATTEST, _LONGEST = 1e-4, 4.0
"""Least curvature of a row's loss, and longest step of its sum, in units of the sum."""
_ALIKE = 1e-4
"""How far answers may be off what a link makes of the sums, as a share of the largest."""


class Link(StrEnum):
    """What a model makes of the sums of its trees."""

    VALUE = "the sums themselves"
    LOGISTIC = "the logistic function of one sum"
    SOFTMAX = "softmax of one sum for each class"
    EXP = "exp of the sums"


def link_of(sums: Array, scores: Array, *, classifies: bool) -> Link | None:
    """Return the link that makes these scores of these sums, or None when it is none of those with a loss here.

    Args:
        sums: Sums of the trees (N, K).
        scores: What the model answers, (N,) or (N, C).
        classifies: Whether the scores are for classes.
    """
    scores = np.asarray(scores, dtype=np.float64).reshape(len(sums), -1)
    if not classifies:
        return next((link for link in (Link.VALUE, Link.EXP) if _is_made(scores, _MEANS[link](sums))), None)
    link = Link.LOGISTIC if sums.shape[1] == 1 else Link.SOFTMAX
    scores = scores[:, -1:] if link is Link.LOGISTIC else scores
    is_raw = bool((sums < 0).any()) and _is_made(scores, sums)
    return link if is_raw or _is_made(scores, _MEANS[link](sums)) else None


def _is_made(scores: Array, expected: Array) -> bool:
    limit = _ALIKE * max(1.0, float(np.abs(expected).max(initial=0)))
    return scores.shape == expected.shape and bool((np.abs(scores - expected) <= limit).all())


def _softmax(sums: Array) -> Array:
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _logistic(sums: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(sums, -500, 500))))


_MEANS: dict[Link, Callable[[Array], Array]] = {
    Link.VALUE: lambda sums: sums,
    Link.LOGISTIC: _logistic,
    Link.SOFTMAX: _softmax,
    Link.EXP: lambda sums: np.exp(np.clip(sums, -500, 500)),
}
_CURVATURES: dict[Link, Callable[[Array], Array]] = {
    Link.VALUE: np.ones_like,
    Link.LOGISTIC: lambda mean: mean * (1 - mean),
    Link.SOFTMAX: lambda mean: mean * (1 - mean),
    Link.EXP: lambda mean: mean,
}
"""Second derivative of a row's loss by its sum, given what the model answers: of squares, log loss and Poisson loss."""


def to_answers(
    ensemble: Ensemble, leaves: Array, wanted: Array, *, hold: float, check_time: Callable[[], None]
) -> Ensemble:
    """Return the ensemble with leaves whose sums come as close as possible to wanted ones.

    Args:
        ensemble: The ensemble.
        leaves: Leaf of each row in each tree (N, T).
        wanted: Sums that are wanted (N, K).
        hold: How strongly leaves are held to what they were, as a multiple of the rows of a leaf.
        check_time: Called between pieces of work; it may raise to stop.
    """
    fit = _Fit(ensemble, leaves, hold=hold, check_time=check_time)
    return fit.step(ensemble, wanted - ensemble.sums(leaves), np.ones_like(wanted))


def to_labels(
    ensemble: Ensemble, leaves: Array, targets: Array, link: Link, *, hold: float, check_time: Callable[[], None]
) -> Ensemble:
    """Return the ensemble with leaves that fit the targets better by the loss of the link.

    Args:
        ensemble: The ensemble.
        leaves: Leaf of each row in each tree (N, T).
        targets: Numbers to predict, or 1 for the class of the row and 0 for others (N, K).
        link: What the model makes of the sums.
        hold: How strongly leaves are held to what they were, as a multiple of the rows of a leaf.
        check_time: Called between pieces of work; it may raise to stop.
    """
    fit = _Fit(ensemble, leaves, hold=hold, check_time=check_time)
    for _ in range(1 if link is Link.VALUE else _STEPS):
        mean = _MEANS[link](ensemble.sums(leaves))
        curvature = np.maximum(_CURVATURES[link](mean), _FLATTEST)
        step = (targets - mean) / curvature
        ensemble = fit.step(ensemble, step if link is Link.VALUE else np.clip(step, -_LONGEST, _LONGEST), curvature)
    return ensemble


@dataclass(frozen=True)
class _Fit:
    """Leaves and rows of one fit, from where it starts."""

    start: Ensemble
    leaves: Array
    hold: float
    check_time: Callable[[], None]

    def step(self, ensemble: Ensemble, missing: Array, weights: Array) -> Ensemble:
        """Return the ensemble after its sums (N, K) were moved towards what is missing, by the rows' weights (N, K)."""
        from scipy import sparse

        places, column = np.unique(self.leaves, return_inverse=True)
        rows, trees = self.leaves.shape
        ends = np.arange(0, rows * trees + 1, trees)
        table = sparse.csr_matrix((np.ones(rows * trees), column.ravel(), ends), shape=(rows, len(places)))
        values = ensemble.values.copy()
        for output in range(values.shape[1]):
            self.check_time()
            own = np.flatnonzero(ensemble.used[places, output])
            if len(own):
                moved = values[places[own], output] - self.start.values[places[own], output]
                values[places[own], output] += self._solved(
                    table[:, own], missing[:, output], weights[:, output], moved=moved
                )
        return replace(ensemble, values=values)

    def _solved(self, table: Any, missing: Array, weights: Array, *, moved: Array) -> Array:
        """Return by how much each leaf changes: ridge regression around where it started.

        The level of all rows is not held back: every tree gets its share of it.
        """
        from scipy.sparse.linalg import LinearOperator, cg

        trees = max(1.0, float(table.sum()) / len(missing))
        level = float(np.average(missing, weights=weights)) / trees
        ridge = self.hold * float(weights.sum()) * trees / table.shape[1]
        pull = table.T @ (weights * (missing - level * np.asarray(table.sum(axis=1)).ravel())) - ridge * moved
        normal = LinearOperator(
            (table.shape[1],) * 2, matvec=lambda change: table.T @ (weights * (table @ change)) + ridge * change
        )
        change, _ = cg(normal, pull, rtol=_PRECISION, maxiter=_ROUNDS)
        return np.asarray(level + change)
