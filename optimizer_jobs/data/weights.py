"""How much each row of a data set counts, and how much evidence rows of unequal weight are."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.readers import UnreadableDataError

Floats = NDArray[np.float64]

_ROUNDING = 1e-9
"""What an effective number of rows may be off by, so that equal weights count whole rows."""


def weights_of(values: NDArray[Any], name: str, *, place: Callable[[int], str]) -> Floats:
    """Return the weight (N,) of each row.

    Args:
        values: The column as it was read.
        name: Its name.
        place: Says where the row of an index is, in words.

    Raises:
        UnreadableDataError: It is no column of numbers of at least 0, or all of them are 0.
    """
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise UnreadableDataError(
            f"weight column {name!r} has type {values.dtype}{list(values.shape)}; it needs one number a row."
        )
    weights: Floats = values.astype(np.float64)
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        raise UnreadableDataError(
            f"weight column {name!r} is missing, infinite or below 0 in {bad.sum()} of {len(weights)} rows, first in "
            f"{place(int(np.argmax(bad)))}."
        )
    if not weights.any():
        raise UnreadableDataError(f"weight column {name!r} is 0 in all {len(weights)} rows, so nothing counts.")
    return weights


def effective_rows(weights: Floats) -> int:
    """Return how many rows of equal weight are as much evidence as rows of these weights (N,), at least 1.

    By L. Kish, Survey Sampling (1965): the square of the sum, divided by the sum of the squares.
    """
    largest = weights / max(float(weights.max()), float(np.finfo(np.float64).tiny))
    return max(1, int(largest.sum() ** 2 / max(float(np.square(largest).sum()), 1.0) + _ROUNDING))
