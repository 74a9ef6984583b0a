"""Two tables as numbers in one unit, so that rows of a window can be compared with rows of a reference.

Numbers are told in standard deviations of the reference, categories by columns of zeros and ones. A category that the
reference does not have is no number: it is told apart, because nothing is known of such rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FAR = 8.0
"""Standard deviations beyond which a number counts as no farther."""
DIMENSIONS = 12
"""Most dimensions; more columns are reduced to their principal components."""
_HUGE, _HUGE_UNIT = 1e100, 1e200
"""Numbers beyond the first are told in units of the second."""
_LEVELS = 8
"""Most categories of a column that have a column of their own, the most frequent ones."""
_FEW_VALUES = 10
"""A column of numbers with at most this many different values has unseen ones, too."""
_TEXT = 0.5
"""Share of different values from which a column is free text, of which every value is new."""


@dataclass(frozen=True)
class Encoded:
    """M rows of a reference and N rows of a window in the same D dimensions."""

    reference: Floats
    """(M, D)"""
    window: Floats
    """(N, D)"""
    unseen: Mask
    """(N,): whether a row has a category that the reference does not have."""


def encoded(reference: pd.DataFrame, window: pd.DataFrame) -> Encoded:
    """Return two tables with the same columns as numbers; columns that only one of them has are left out."""
    names = [name for name in reference if name in window]
    unseen = np.zeros(len(window), dtype=np.bool_)
    columns: list[tuple[Floats, Floats]] = []
    for name in names:
        before, now = reference[name], window[name]
        if _is_number(before) and _is_number(now):
            columns += _numbers(before, now)
            unseen |= _unseen_numbers(before, now)
        else:
            categories = _categories(before, now)
            if categories is not None:
                columns += categories[0]
                unseen |= categories[1]
    sides = [
        np.stack([column[side] for column in columns], axis=1) if columns else np.zeros((rows, 0))
        for side, rows in enumerate((len(reference), len(window)))
    ]
    return Encoded(*_reduced(*sides), unseen)


def _is_number(values: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _numbers(reference: pd.Series, window: pd.Series) -> Iterator[tuple[Floats, Floats]]:
    """Yield a column in standard deviations of the reference, and whether its values are missing where any is."""
    before, now = _moderate(*(np.asarray(values, dtype=np.float64) for values in (reference, window)))
    finite = [np.isfinite(values) for values in (before, now)]
    known = before[finite[0]]
    middle, scale = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
    scale = scale if scale > 0 else max(abs(middle), 1.0)
    scaled = [
        np.clip(np.where(mask, (np.where(mask, values, middle) - middle) / scale, 0.0), -FAR, FAR)
        for values, mask in zip((before, now), finite, strict=True)
    ]
    yield scaled[0], scaled[1]
    if not all(mask.all() for mask in finite):
        yield (~finite[0]).astype(np.float64), (~finite[1]).astype(np.float64)


def _moderate(reference: Floats, window: Floats) -> tuple[Floats, Floats]:
    """Return numbers (M,) and (N,) whose squares can be added up: very large ones in another unit."""
    largest = np.abs(np.concatenate([reference, window]))
    unit = _HUGE_UNIT if (largest[np.isfinite(largest)] > _HUGE).any() else 1.0
    return reference / unit, window / unit


def _unseen_numbers(reference: pd.Series, window: pd.Series) -> Mask:
    """Return a mask (N,) of values that a column of few different numbers has never had."""
    levels = np.unique(np.asarray(reference.dropna(), dtype=np.float64))
    if len(levels) > _FEW_VALUES:
        return np.zeros(len(window), dtype=np.bool_)
    values = np.asarray(window, dtype=np.float64)
    return np.asarray(np.isfinite(values) & ~np.isin(values, levels))


def _categories(reference: pd.Series, window: pd.Series) -> tuple[list[tuple[Floats, Floats]], Mask] | None:
    """Return a column for each frequent category, and a mask (N,) of unseen ones; None for free text."""
    before, now = (values.astype(object).where(values.notna(), "").astype(str) for values in (reference, window))
    counts = before.value_counts()
    if len(counts) > _TEXT * len(before):
        return None
    columns = [
        (np.asarray(before == level, dtype=np.float64), np.asarray(now == level, dtype=np.float64))
        for level in counts.index[:_LEVELS]
    ]
    return columns, np.asarray(~now.isin(counts.index))


def _reduced(reference: Floats, window: Floats) -> tuple[Floats, Floats]:
    """Return both samples in at most DIMENSIONS dimensions: the principal components of both together."""
    from sklearn.decomposition import PCA

    if reference.shape[1] <= DIMENSIONS:
        return reference, window
    if not np.ptp(np.concatenate([reference, window]), axis=0).any():  # all rows are one, which has no directions
        return reference[:, :DIMENSIONS], window[:, :DIMENSIONS]
    solver = PCA(n_components=min(DIMENSIONS, len(reference) + len(window)), svd_solver="covariance_eigh")
    together = solver.fit_transform(np.concatenate([reference, window]))
    return together[: len(reference)], together[len(reference) :]
