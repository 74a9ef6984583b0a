"""Columns and cells of a data file: found by name, listed in sentences, and read as text or as numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.readers import Columns, UnreadableDataError
from optimizer_jobs.data.spellings import words_as_numbers
from optimizer_jobs.progress import say

Array = NDArray[Any]

_SHOWN = 20
"""Columns that a sentence names, at most."""


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence, the first ones only where they are many."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") or "none"


def spelled(values: Array, where: str) -> Array:
    """Return numbers for a column of yes and no, or the like, and say so; other values as they are."""
    spelled = words_as_numbers(values) if values.dtype.kind in "OUS" and values.ndim == 1 else None
    if spelled is None:
        return values
    numbers, word = spelled
    say(f"  {where} is read as 1 for {word} and 0 for its opposite")
    return numbers


def column_of(columns: Columns, name: str, *, instead: str = "") -> Array:
    """Return the array of a name; raises UnreadableDataError, with the names that there are."""
    if name not in columns.names:
        raise UnreadableDataError(f"column {name!r} {instead}is missing; found: {listed(columns.names)}.")
    return columns.read(name)


def as_text(cell: Any) -> str:
    """Return a cell as text, which is empty for a missing one."""
    if cell is None or cell != cell:  # noqa: PLR0124 - NaN alone differs from itself
        return ""
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)


def missing_of(values: Array) -> NDArray[np.bool_]:
    """Return a mask (N, ...) of the cells that are empty or NaN."""
    if values.dtype.kind in "OUS":
        return np.asarray([value in (None, "", b"") or value != value for value in values])  # noqa: PLR0124
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
