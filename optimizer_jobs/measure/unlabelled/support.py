"""Which rows of a window lie where the reference has rows, and how near.

A row is outside where its neighbours in the reference are farther away than those of almost all rows of the reference
are among themselves, or where it has a category that the reference does not have.
"""

from dataclasses import dataclass

import numpy as np

from optimizer_jobs.measure.unlabelled.features import Encoded, Floats, Mask

NEIGHBOURS = 5
_USUAL = 0.99
"""Share of the reference's own rows that is inside."""
_TINY = 1e-6


@dataclass(frozen=True)
class Support:
    """How near the reference is."""

    reference: Floats
    """(M,): logarithm of the distance of each row of the reference to its neighbours among the others."""
    window: Floats
    """(N,): the same of each row of the window."""
    outside: Mask
    """(N,): whether a row of the window lies outside."""

    @property
    def share_outside(self) -> float:
        """Share (0..1) of the window's rows that lie outside."""
        return float(self.outside.mean()) if len(self.outside) else 0.0


def support_of(rows: Encoded) -> Support:
    """Return how near each row is to the reference."""
    if not rows.reference.shape[1]:
        nothing = np.zeros(len(rows.reference)), np.zeros(len(rows.window))
        return Support(*nothing, rows.unseen.copy())
    own, other = _distances(rows)
    limit = float(np.quantile(own, _USUAL))
    return Support(np.log(own + _TINY), np.log(other + _TINY), rows.unseen | (other > limit + _TINY))


def _distances(rows: Encoded) -> tuple[Floats, Floats]:
    """Return the mean distances (M,) and (N,) to the nearest rows of the reference, without a row itself."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(rows.reference) - 1)
    index = NearestNeighbors(n_neighbors=count).fit(rows.reference)
    own, _ = index.kneighbors()
    other, _ = index.kneighbors(rows.window)
    return own.mean(axis=1), other.mean(axis=1)
