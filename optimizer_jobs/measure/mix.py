"""Requests of several sizes: in which order they are asked, and quantiles of a stream in which sizes have shares.

Everything here is the same for all models that are compared: nothing may depend on what a model answers, or how fast.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.signature import Signature
from retune.api.search import Serving

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mix = tuple[tuple[int, Fraction], ...]
"""The rows of a request and the share of the requests that have as many; shares add up to 1."""

_ROUNDING = 1e-9
"""What sums of weights may be off by."""


def only(size: int) -> Mix:
    """Return the mix of requests that all have `size` rows."""
    return ((size, Fraction(1)),)


ONE_ROW = only(1)


def served_mix(serving: Serving, signature: Signature) -> Mix:
    """Return the mix that a model is asked in: that of the spec, or the one size that the model fixes."""
    return only(signature.batch) if signature.batch else serving.mix


def typical_request(rows: Rows, signature: Signature, *, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input, by name, of a request with `batch` rows.

    Args:
        rows: Rows that typical requests look like.
        signature: Inputs and outputs of the model.
        batch: Rows of a request; a model with a fixed batch has that size instead.

    Returns:
        Shapes by input name; empty when the signature fixes all shapes already, or has rows on other axes.
    """
    if not signature.is_rows_first or all(size > 0 for spec in signature.inputs for size in spec.shape):
        return {}
    return {name: (signature.batch or batch, *values.shape[1:]) for name, values in rows.inputs.items()}


def usual_size(mix: Mix) -> int:
    """Return the most frequent size of a request; the smallest of equally frequent ones."""
    return max(mix, key=lambda part: (part[1], -part[0]))[0]


def mean_rows(mix: Mix) -> float:
    """Return the mean number of rows of a request."""
    return float(sum(size * share for size, share in mix))


def schedule(mix: Mix, requests: int) -> tuple[int, ...]:
    """Return the sizes of `requests` requests in turn.

    Of the first n, each size has less than one request more or less than its share of n, for every n. Source: R.
    Tijdeman, Discrete Mathematics 32 (1980), 323-330.
    """
    least = Fraction(1, max(1, 2 * len(mix) - 2))
    asked = dict.fromkeys((size for size, _ in mix), 0)
    order = []
    for number in range(1, requests + 1):
        behind = {size: share * number - asked[size] for size, share in mix}
        due = ((size, share) for size, share in mix if behind[size] >= least)
        size, _ = min(due, key=lambda part: (1 - least - behind[part[0]]) / part[1])
        asked[size] += 1
        order.append(size)
    return tuple(order)


def at_least_once(mix: Mix, requests: int) -> Mix:
    """Return the mix in which every size comes at least once in `requests` requests; rare sizes get a larger share.

    Raises:
        ValueError: There are more sizes than requests.
    """
    if requests < len(mix):
        raise ValueError(f"{requests} requests cannot have {len(mix)} sizes")
    least, rare = Fraction(1, requests), frozenset[int]()
    while True:
        usual = sum(share for size, share in mix if size not in rare)
        scale = (1 - len(rare) * least) / usual if usual else Fraction(0)
        raised = tuple((size, least if size in rare else share * scale) for size, share in mix)
        below = frozenset(size for size, share in raised if share < least)
        if not below:
            return raised
        rare |= below


def weights(mix: Mix, order: Sequence[int]) -> Floats | None:
    """Return what each request of `order` counts for, so that each size counts by its share; None where all are alike.

    Args:
        mix: The mix.
        order: Sizes of requests (N,), each size of the mix at least once.

    Returns:
        Weights (N,) that add up to 1.
    """
    if len(mix) == 1:
        return None
    shares = {size: float(share) / order.count(size) for size, share in mix}
    return np.asarray([shares[size] for size in order])


def quantile_of_each(values: Floats, q: float, *, weighing: Floats | None) -> Floats:
    """Return the quantile `q` (0..1) of each row of `values` (R, N), as (R,); columns may have weights (N,)."""
    if weighing is None:
        return np.asarray(np.quantile(values, q, axis=1))
    order = np.argsort(values, axis=1)
    passed = weighing[order].cumsum(axis=1)
    at = (passed >= q * passed[:, -1:] - _ROUNDING).argmax(axis=1)
    rows = np.arange(len(values))
    return np.asarray(values[rows, order[rows, at]])


class Pooled:
    """All values of a table (R, N), for quantiles of tables with the same rows, each drawn any number of times."""

    def __init__(self, values: Floats, weighing: Floats | None) -> None:
        self._table, self._weighing = values, weighing
        if weighing is not None:
            order = np.argsort(values, axis=None)
            self._values, self._row = values.ravel()[order], order // values.shape[1]
            self._weights = weighing[order % values.shape[1]]

    def quantile(self, q: float, drawn: Integers | None = None) -> float:
        """Return the quantile `q` (0..1) of the rows `drawn` (D,), or of all rows once."""
        if self._weighing is None:
            return float(np.quantile(self._table if drawn is None else self._table[drawn], q))
        rows = len(self._table)
        times = np.ones(rows) if drawn is None else np.bincount(drawn, minlength=rows)
        passed = (self._weights * times[self._row]).cumsum()
        return float(self._values[np.searchsorted(passed, (q - _ROUNDING) * passed[-1])])
