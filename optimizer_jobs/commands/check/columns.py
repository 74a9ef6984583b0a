"""Which columns of a window can be compared with the reference, and why the others cannot.

A column that cannot be compared is never called drifted, because it mostly comes from a broken pipeline.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check import guard
from optimizer_jobs.commands.check.column_statistics import Kind
from optimizer_jobs.commands.check.independence import thinned

FEW_VALUES = 10
"""A column of numbers with at most this many different values is compared as categories."""
LEAST_ROWS = 50
"""Smallest number of independent rows in the reference and in the window."""
_ROWS_PER_LEVEL = 10
"""Smallest number of independent rows for each category."""
_OUTER = 0.05
"""Share of the reference in whose region hardly anything is known: at its ends, or in its rarest categories."""
_MOVED_THERE = 0.25
"""Share of a window in that region from which its column has moved there."""
_TEXT_LIMIT = 200
"""Characters of a text that distinguish categories; the rest is cut off."""


class Cause(StrEnum):
    """Why a column cannot be compared."""

    SCHEMA = "SchemaMismatch"
    NO_VALUES = "NoValues"
    TOO_FEW = "TooFewSamples"
    REFERENCE = "ReferenceTooSmall"
    FAILED = guard.FAILED


@dataclass(frozen=True)
class Pair:
    """A column of the reference and of the window, without missing values."""

    name: str
    kind: Kind
    reference: pd.Series
    """(M,)"""
    current: pd.Series
    """(N,), thinned to rows that are nearly independent."""


@dataclass(frozen=True)
class NotCompared:
    """A column that is not compared, and why."""

    name: str
    cause: Cause
    words: str


def pairs(reference: pd.DataFrame, current: pd.DataFrame, names: Sequence[str]) -> Iterable[Pair | NotCompared]:
    """Yield each named column as a pair, or why it is not compared.

    Args:
        reference: Rows of the reference.
        current: Rows of the window in the order of time.
        names: Names of the columns.
    """
    for name in names:
        yield _pair(name, reference, current)


def is_text(values: pd.Series) -> bool:
    """Return whether a column holds text or anything else that is no number; False for a column without values."""
    other = pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values)
    return other and bool(values.notna().any())


def present(values: pd.Series) -> pd.Series:
    """Return the values that are neither missing nor infinite: numbers as float64, all others as text, cut if long."""
    if is_text(values):
        return values.dropna().astype(str).str.slice(0, _TEXT_LIMIT)
    numbers = values.astype("float64")
    finite = np.isfinite(numbers.to_numpy())
    return numbers if finite.all() else numbers[finite]


def moved_away(pair: Pair) -> bool:
    """Return whether a quarter of a column's values or more lie where the reference has hardly any rows."""
    if pair.kind is Kind.NUMERIC:
        values = pair.current.to_numpy()
        low, high = np.quantile(pair.reference.to_numpy(), [_OUTER / 2, 1 - _OUTER / 2])
        outside = (values < low) | (values > high)
    else:
        shares = pair.reference.value_counts(normalize=True, ascending=True)
        outside = ~pair.current.isin(shares.index[shares.cumsum() > _OUTER]).to_numpy()
    return bool(outside.mean() >= _MOVED_THERE)


def _pair(name: str, reference: pd.DataFrame, current: pd.DataFrame) -> Pair | NotCompared:
    if name not in reference or name not in current:
        where = "the reference" if name not in reference else "the window"
        return NotCompared(name, Cause.SCHEMA, f"it is missing in {where}")
    before, now = reference[name], current[name]
    if before.notna().any() and now.notna().any() and is_text(before) != is_text(now):
        return NotCompared(name, Cause.SCHEMA, f"it changed its type from {before.dtype} to {now.dtype}")
    before, now = present(before), present(now)
    if now.empty:
        return NotCompared(name, Cause.NO_VALUES, "it has no finite value in the window")
    if len(before) < LEAST_ROWS:
        words = f"the reference has {len(before)} values of it, {LEAST_ROWS} are needed"
        return NotCompared(name, Cause.REFERENCE, words)
    return _independent_pair(name, _kind(before), before, now)


def _kind(reference: pd.Series) -> Kind:
    few = not pd.api.types.is_numeric_dtype(reference) or reference.nunique() <= FEW_VALUES
    return Kind.CATEGORICAL if few else Kind.NUMERIC


def _independent_pair(name: str, kind: Kind, reference: pd.Series, current: pd.Series) -> Pair | NotCompared:
    """Return the pair with the window's independent rows, or that these are too few."""
    independent = thinned(current)
    levels = reference.nunique() if kind is Kind.CATEGORICAL else 0
    needed = max(LEAST_ROWS, _ROWS_PER_LEVEL * levels)
    if len(independent) >= needed:
        return Pair(name, kind, reference, independent)
    purpose = f" for its {levels} categories" if levels > LEAST_ROWS // _ROWS_PER_LEVEL else ""
    available = f"it has {len(current)} values"
    if len(independent) < len(current):
        available = f"its {len(current)} values, each like the one before, count as {len(independent)} independent ones"
    return NotCompared(name, Cause.TOO_FEW, f"{available}, {needed} are needed{purpose}")
