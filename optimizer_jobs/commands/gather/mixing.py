"""Mix recent rows with original training data, so that a model learns from the new without forgetting the old. Pure."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

REPEATS = 8
"""How often a row may be repeated in a training set, so that the smaller part gets its share."""


def mix(recent: int, original: int, *, share: float, limit: int, seed: int) -> tuple[Indices, Indices]:
    """Choose the rows of a training set from recent and original data.

    If one part is too small for its share, its rows are repeated up to REPEATS times; if that is not enough, not all
    rows of the other part are used.

    Args:
        recent: Number of recent rows.
        original: Number of original rows.
        share: Wanted share of recent rows, between 0 and 1.
        limit: Most rows in the training set.
        seed: Seed of the choice when not all rows are used.

    Returns:
        Indices of the recent rows and indices of the original rows.
    """
    complete = (recent / share, original / (1 - share))
    total = min(limit, max(complete), REPEATS * min(complete))
    rng = np.random.default_rng(seed)
    recent_rows = _drawn(recent, round(total * share), rng)
    return recent_rows, _drawn(original, round(total * (1 - share)), rng)


def newest(count: int, *, limit: int) -> Indices:
    """Return the indices of the last `limit` of `count` rows."""
    return np.arange(max(0, count - limit), count)


def _drawn(have: int, want: int, rng: np.random.Generator) -> Indices:
    """Return `want` indices out of `have` rows, each row as often as any other, and the remainder at random."""
    times, rest = divmod(want, have)
    return np.concatenate([np.tile(np.arange(have), times), np.sort(rng.permutation(have)[:rest])]).astype(np.int64)
