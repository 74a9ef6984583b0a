"""Labels that come selectively: rows with a label that are unlike the others speak for these by their weights, or not.

Somebody labels what looks suspicious, or what was accepted. A classifier tells rows with a label from those without; if
it can, each labelled row counts by the inverse of its chance to be labelled, clipped. Labels that come at random are
hardly ever told apart, so nothing changes for them. What decides who is labelled must be in the inputs or in the
answers: what is in neither is not seen.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.drift import ANSWERS
from optimizer_jobs.measure.unlabelled.density import density_of
from optimizer_jobs.measure.unlabelled.features import Encoded, encoded
from optimizer_jobs.measure.unlabelled.support import support_of

SURE = 5.0
"""Standard errors by which labelled rows must be told apart from the others before anything changes.

The errors are those of two samples of given scores. Scores that were fitted out of fold spread wider by a fifth or
more, because folds that differ by chance train each other's models: four errors came in one of some thousand windows of
labels at random."""
MOST_OUTSIDE = 0.2
"""Largest share of the rows without a label that lie where no labelled row does."""
LEAST_EFFECTIVE = 50
"""Fewest labelled rows, by their weights."""
_LEAST_ROWS = 50
_MOST_ROWS = 3000


@dataclass(frozen=True)
class Selection:
    """How labelled rows speak for all."""

    weights: NDArray[np.float64]
    """(M,): how much each labelled row counts, with mean 1."""
    words: str
    """What is unlike, as a sentence."""
    wild: bool
    """Whether no weights make these rows speak for the others."""


def selection_of(rows: pd.DataFrame, labelled: NDArray[np.bool_], *, seed: int) -> Selection | None:
    """Return how labelled rows speak for a window; None where they are like the others, or too few to tell.

    Args:
        rows: Inputs and answers of all N rows of the window.
        labelled: Whether a row has a label (N,).
        seed: Seed of the random part of many rows.
    """
    known, others = np.flatnonzero(labelled), np.flatnonzero(~labelled)
    if min(len(known), len(others)) < _LEAST_ROWS:
        return None
    others = np.sort(np.random.default_rng(seed).permutation(others)[:_MOST_ROWS])
    both = _encoded(rows.iloc[known].reset_index(drop=True), rows.iloc[others].reset_index(drop=True))
    density = density_of(both.reference, both.window, seed=seed)
    if density.apart < SURE * density.chance:
        return None
    share = float(labelled.mean())
    weights = share + (1 - share) * density.weights
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    outside = support_of(both).share_outside
    words = (
        f" Labelled rows are unlike the others: by their weights they count as {effective:.0f}, and {outside:.0%} of "
        "the others lie where none has a label."
    )
    return Selection(weights / weights.mean(), words, effective < LEAST_EFFECTIVE or outside > MOST_OUTSIDE)


def _encoded(labelled: pd.DataFrame, others: pd.DataFrame) -> Encoded:
    """Return both as numbers: inputs and answers apart, for among many inputs answers would be lost.

    Whoever asks for labels where a model is unsure selects by its answers.
    """
    answers = [name for name in labelled if str(name).partition("[")[0] in ANSWERS]
    given, answered = (
        encoded(labelled[names], others[names])
        for names in ([name for name in labelled if name not in answers], answers)
    )
    return Encoded(
        np.concatenate([given.reference, answered.reference], axis=1),
        np.concatenate([given.window, answered.window], axis=1),
        given.unseen | answered.unseen,
    )
