"""What can be compared of a window: each column with its kind, or why it cannot be, before a library sees it.

A column that cannot be compared is never called drifted: a broken pipeline is no change of the world.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check.independence import thinned
from optimizer_jobs.commands.check.statistics import Kind

FEW_VALUES = 10
"""Numbers with at most so many values are compared as categories."""
LEAST_ROWS = 50
"""Independent rows that a comparison needs on either side."""
_ROWS_PER_LEVEL = 10
_TEXT_LIMIT = 200
"""Characters of a text that tell categories apart."""


class Cause(StrEnum):
    """Why a column cannot be compared."""

    SCHEMA = "SchemaMismatch"
    NO_VALUES = "NoValues"
    TOO_FEW = "TooFewSamples"
    REFERENCE = "ReferenceTooSmall"
    FAILED = "ComparisonFailed"


@dataclass(frozen=True)
class Pair:
    """A column of the reference and of the window, without missing values; the window's rows nearly independent."""

    name: str
    kind: Kind
    reference: pd.Series
    current: pd.Series


@dataclass(frozen=True)
class Left:
    """A column that is not compared, and why."""

    name: str
    cause: Cause
    words: str


def pairs(reference: pd.DataFrame, current: pd.DataFrame, names: Sequence[str]) -> Iterable[Pair | Left]:
    """Return each named column, comparable or not. Rows of the window are in the order of time."""
    for name in names:
        yield _pair(name, reference, current)


def is_text(values: pd.Series) -> bool:
    """Whether a column holds text, or anything else that is no number; a column without values is neither."""
    return bool(values.notna().any()) and (
        pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values)
    )


def present(values: pd.Series) -> pd.Series:
    """Return the values that are there and finite, numbers as float64 and everything else as bounded text."""
    if is_text(values):
        return values.dropna().astype(str).str.slice(0, _TEXT_LIMIT)
    numbers = values.astype("float64")
    return numbers[np.isfinite(numbers)]


def _pair(name: str, reference: pd.DataFrame, current: pd.DataFrame) -> Pair | Left:
    if name not in reference or name not in current:
        where = "the reference" if name not in reference else "the window"
        return Left(name, Cause.SCHEMA, f"it is missing in {where}")
    before, now = reference[name], current[name]
    if before.notna().any() and now.notna().any() and is_text(before) != is_text(now):
        return Left(name, Cause.SCHEMA, f"it changed its type from {before.dtype} to {now.dtype}")
    before, now = present(before), present(now)
    if now.empty:
        return Left(name, Cause.NO_VALUES, "it has no finite value in the window")
    if len(before) < LEAST_ROWS:
        return Left(name, Cause.REFERENCE, f"the reference has {len(before)} values of it, {LEAST_ROWS} are needed")
    return _enough(name, _kind(before), before, now)


def _kind(reference: pd.Series) -> Kind:
    few = not pd.api.types.is_numeric_dtype(reference) or reference.nunique() <= FEW_VALUES
    return Kind.CATEGORICAL if few else Kind.NUMERIC


def _enough(name: str, kind: Kind, reference: pd.Series, current: pd.Series) -> Pair | Left:
    independent = thinned(current)
    levels = reference.nunique() if kind is Kind.CATEGORICAL else 0
    needed = max(LEAST_ROWS, _ROWS_PER_LEVEL * levels)
    if len(independent) >= needed:
        return Pair(name, kind, reference, independent)
    many = f" for its {levels} categories" if levels > LEAST_ROWS // _ROWS_PER_LEVEL else ""
    alike = f"it has {len(current)} values"
    if len(independent) < len(current):
        alike = f"its {len(current)} values, each like the one before, count as {len(independent)} independent ones"
    return Left(name, Cause.TOO_FEW, f"{alike}, {needed} are needed{many}")
