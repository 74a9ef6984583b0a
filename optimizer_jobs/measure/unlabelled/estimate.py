"""An estimate of quality without labels, with an interval that contains the estimator's own error.

Labels of the window are drawn many times from chances that were calibrated on the reference, and the metric is computed
of each drawing. Each time the reference counts anew (a Bayesian bootstrap), weighted to resemble the window, and the
chances are moved by as much as calibration learnt in some regions of the reference is wrong in its others.
It cannot see that the meaning of equal inputs has changed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from optimizer_jobs.measure.unlabelled.calibration import Classes, Curve, Judged, prefers_isotonic
from optimizer_jobs.measure.unlabelled.density import Density, density_of
from optimizer_jobs.measure.unlabelled.features import Encoded, Floats, encoded
from optimizer_jobs.measure.unlabelled.support import Support, support_of

DRAWS = 40
FLATTENED = 0.5
"""Power of the weights: at 0 estimates keep a bias, at 1 they vary most (H. Shimodaira, 2000)."""
_REGIONS = 6
_REGION_ROWS = 25

Measure = Callable[[Classes], float]
"""Takes drawn classes (N,) and returns the metric; NaN where they do not define it."""


@dataclass(frozen=True)
class Answered:
    """A classifier's answers to N rows."""

    inputs: pd.DataFrame
    probabilities: Floats
    """(N, C)"""
    answered: Classes
    """(N,): the class that each row is answered with."""

    @property
    def confidence(self) -> Floats:
        """Probability (N,) of what is answered."""
        return np.asarray(self.probabilities[np.arange(len(self.answered)), self.answered])


@dataclass(frozen=True)
class Basis:
    """What an estimate stands on."""

    rows: Encoded
    support: Support
    density: Density


@dataclass(frozen=True)
class Estimate:
    """A metric without labels."""

    value: float
    deviation: float
    """Standard deviation of what labels would show, around the value."""
    drawn: int
    """Drawings that define the metric."""


def basis_of(reference: Answered, window: Answered, *, seed: int) -> Basis:
    """Return where the window lies, seen from the reference."""
    rows = encoded(reference.inputs, window.inputs)
    support = support_of(rows)
    seen = [
        np.column_stack([inputs, np.log((side.confidence + 1e-4) / (1 - side.confidence + 1e-4))])
        for inputs, side in ((rows.reference, reference), (rows.window, window))
    ]
    return Basis(rows, support, density_of(*seen, seed=seed))


def estimated(
    reference: Answered, right: Floats, window: Answered, basis: Basis, measure: Measure, *, seed: int
) -> Estimate:
    """Return the estimate of a metric on the window.

    Args:
        reference: Answers to M rows with labels.
        right: 1 or 0 (M,), whether they are right.
        window: Answers to N rows without labels.
        basis: Where the window lies.
        measure: The metric of the window's answers.
        seed: Seed of all drawings.
    """
    before, now = _judged(reference, basis.support.reference), _judged(window, basis.support.window)
    generator = np.random.default_rng(seed)
    tables, weights = (before.table, now.table), basis.density.weights**FLATTENED
    isotonic = prefers_isotonic(tables[0], right, weights, seed=seed)
    transfer = _transfer(basis.rows.reference, tables[0], right, isotonic=isotonic, seed=seed)
    moved = transfer * max(0.0, basis.density.apart)
    others = _others(window)
    values = np.empty(DRAWS)
    for place in range(DRAWS):
        counted = weights * generator.exponential(size=len(right))
        chance = Curve(isotonic=isotonic).fit(tables[0], right, counted).chance(tables[1])
        chance = _shifted(chance, moved * generator.standard_normal())
        values[place] = measure(_labels(chance, others, window.answered, generator))
    known = values[np.isfinite(values)]
    if len(known) < DRAWS // 2:
        return Estimate(float("nan"), float("nan"), len(known))
    return Estimate(float(known.mean()), float(known.std(ddof=1)), len(known))


def _judged(side: Answered, distance: Floats) -> Judged:
    return Judged(side.confidence, side.answered, distance, side.probabilities.shape[1])


def _shifted(chance: Floats, by: float) -> Floats:
    clipped = np.clip(chance, 1e-6, 1 - 1e-6)
    return np.asarray(1 / (1 + np.exp(-(np.log(clipped / (1 - clipped)) + by))))


def _others(window: Answered) -> Floats:
    """Return cumulative shares (N, C) of the classes that are not answered, as the model sees them."""
    shares = window.probabilities + 1e-9
    shares[np.arange(len(shares)), window.answered] = 0.0
    return np.asarray(np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1))


def _labels(chance: Floats, others: Floats, answered: Classes, generator: np.random.Generator) -> Classes:
    """Return drawn classes (N,): what is answered with its chance, else one of the others."""
    rows = len(chance)
    other = np.minimum((others < generator.random(rows)[:, np.newaxis]).sum(axis=1), others.shape[1] - 1)
    return np.asarray(np.where(generator.random(rows) < chance, answered, other))


def _transfer(rows: Floats, table: Floats, right: Floats, *, isotonic: bool, seed: int) -> float:
    """Return by how much calibration that was learnt elsewhere is off in a region, as a deviation of log-odds.

    It is the part that chance does not explain (R. DerSimonian and N. Laird, 1986).
    """
    from sklearn.cluster import KMeans

    count = min(_REGIONS, len(rows) // (2 * _REGION_ROWS))
    if count < 2 or not rows.shape[1]:
        return 0.5
    regions = KMeans(count, n_init=1, random_state=seed).fit_predict(rows)
    off, noise = [], []
    for region in range(count):
        inside = regions == region
        if inside.sum() < _REGION_ROWS or inside.all():
            continue
        curve = Curve(isotonic=isotonic).fit(table[~inside], right[~inside], np.ones(int((~inside).sum())))
        expected = np.clip(curve.chance(table[inside]), 1e-3, 1 - 1e-3)
        information = float((expected * (1 - expected)).sum())
        off.append(float((right[inside] - expected).sum()) / max(information, 0.5))
        noise.append(1 / max(information, 0.5))
    if not off:
        return 0.5
    weights = 1 / np.asarray(noise)
    excess = float((weights * np.square(off)).sum() - len(off))
    between = excess / float(weights.sum())
    return float(np.sqrt(max(0.0, between)))
