"""Mix recent rows with the original training data, so that a model learns the new without forgetting the old. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

REPEATS = 8
"""How often a row may be in a training set, to give the smaller part its share."""


def mix(recent: int, original: int, *, share: float, limit: int, seed: int) -> tuple[Places, Places]:
    """Return which rows of the recent and of the original data a training set has, at most `limit` in all.

    The part that is too small for its share is repeated, up to REPEATS times; then not all of the other part is taken.

    Args:
        recent: Recent rows there are.
        original: Original rows there are.
        share: Share of recent rows that is wanted, between 0 and 1.
        limit: Most rows of the training set.
        seed: Chooses rows where not all are taken.
    """
    whole = (recent / share, original / (1 - share))
    total = min(limit, max(whole), REPEATS * min(whole))
    rng = np.random.default_rng(seed)
    wanted = (round(total * share), round(total * (1 - share)))
    return tuple(_drawn(have, want, rng) for have, want in zip((recent, original), wanted, strict=True))  # type: ignore[return-value]


def newest(count: int, *, limit: int) -> Places:
    """Return the places of the last `limit` of `count` rows."""
    return np.arange(max(0, count - limit), count)


def _drawn(have: int, want: int, rng: Any) -> Places:
    """Return `want` of `have` places: each as often as any other, but for the rest that is drawn."""
    whole, rest = divmod(want, have)
    return np.concatenate([np.tile(np.arange(have), whole), np.sort(rng.permutation(have)[:rest])]).astype(np.int64)
