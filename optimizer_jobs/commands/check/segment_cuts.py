"""Segments of rows: each category of a column, and of numbers what lies between two quartiles of the reference. Pure.

Segments depend on the reference alone, never on the window that is judged. Names hold values of production data: they
are cut and printable, and categories that are shown alike are one segment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.columns import FEW_VALUES, is_text, present
from optimizer_jobs.errors import printable

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

SEGMENTS = 32
"""Most segments of all columns together."""
LEAST_ROWS = 30
"""Fewest rows of the reference in a category of its own."""
OTHER, MISSING = "other", "missing"
_COLUMN, _VALUE, _NAME = 32, 24, 58
"""Characters of a column's name, of a category, and of a segment's name before it is told apart from another."""
_DIGITS = (3, 6, 9, 17)


@dataclass(frozen=True)
class Cut:
    """How the values of one column divide rows; every row is in exactly one segment."""

    column: str
    names: tuple[str, ...]
    """Name of each segment."""
    place_of: Callable[[pd.Series], Places]
    """Takes values (N,) and returns the number of each row's segment (N,)."""

    def masks(self, frame: pd.DataFrame) -> dict[str, Mask]:
        """Return which rows (N,) of a table are in each segment, by its name."""
        places = self.place_of(frame[self.column])
        return {name: np.asarray(places == place) for place, name in enumerate(self.names)}


def cut_of(reference: pd.Series, *, most: int = SEGMENTS) -> Cut | None:
    """Return how a column divides rows; None where it leaves them together.

    Args:
        reference: Values (M,) of the reference.
        most: Most segments.
    """
    values = present(reference)
    if values.empty or values.nunique() < 2:
        return None
    column = str(reference.name)
    numbers = not is_text(reference) and values.nunique() > FEW_VALUES
    return _by_quartiles(column, values) if numbers else _by_category(column, values, most=most)


def cuts(reference: pd.DataFrame, columns: Sequence[str]) -> list[Cut]:
    """Return how each column divides rows, of those that do."""
    each = max(4, SEGMENTS // max(1, len(columns)))
    found = (cut_of(reference[name], most=each) for name in columns)
    return [cut for cut in found if cut is not None]


def masks(all_cuts: Sequence[Cut], frame: pd.DataFrame) -> dict[str, Mask]:
    """Return which rows of a table are in each segment of all cuts, by its name, which is unique.

    Two columns whose names are shown alike are told apart by a number.
    """
    named: dict[str, Mask] = {}
    for cut in all_cuts:
        for name, mask in cut.masks(frame).items():
            named[_unlike(name, named)] = mask
    return named


def largest(named: dict[str, Mask]) -> list[str]:
    """Return the names of the segments with the most rows, 32 at most, in their order."""
    kept = set(sorted(named, key=lambda name: int(named[name].sum()), reverse=True)[:SEGMENTS])
    return [name for name in named if name in kept]


def _unlike(name: str, taken: dict[str, Mask]) -> str:
    shown = printable(name, limit=_NAME)
    again = (f"{shown} ({count})" for count in range(2, len(taken) + 3))
    return shown if shown not in taken else next(other for other in again if other not in taken)


def _by_quartiles(column: str, values: pd.Series) -> Cut:
    edges = np.unique(np.quantile(values.to_numpy(np.float64), [0.25, 0.5, 0.75]))

    def place_of(series: pd.Series) -> Places:
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        found = np.searchsorted(edges, numbers, side="left")
        return np.where(np.isnan(numbers), len(edges) + 1, found).astype(np.int64)

    shown, start = _shown_apart(edges), _column(column)
    names = [f"{start}<={shown[0]}", *(f"{start}>{low} to {high}" for low, high in pairwise(shown))]
    return Cut(column, (*names, f"{start}>{shown[-1]}", f"{start} {MISSING}"), place_of)


def _by_category(column: str, values: pd.Series, *, most: int) -> Cut:
    """Keep the most frequent categories that are no rare ones; the rest is one segment."""
    shown = values.map(_category)
    counts = shown.value_counts()
    kept = [str(name) for name in counts.index[counts >= LEAST_ROWS] if name != OTHER][: most - 2]
    places = {name: place for place, name in enumerate(kept)}

    def place_of(series: pd.Series) -> Places:
        known = series.notna().to_numpy()
        found = series.map(_category, na_action="ignore").map(lambda name: places.get(name, len(kept)))
        return np.where(known, found.fillna(-1), len(kept) + 1).astype(np.int64)

    start = _column(column)
    return Cut(column, (*(f"{start}={name}" for name in (*kept, OTHER)), f"{start} {MISSING}"), place_of)


def _category(value: object) -> str:
    """Return a category as it is shown, so that 3, 3.0 and "3" are the same one."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, float, np.number)):
        return f"{float(value):.6g}"
    return printable(str(value), limit=_VALUE) or "-"


def _column(name: str) -> str:
    return printable(name, limit=_COLUMN) or "-"


def _shown_apart(edges: NDArray[np.float64]) -> list[str]:
    """Return numbers in ascending order with as few digits as tell them apart."""
    texts = ([f"{edge:.{digits}g}" for edge in edges] for digits in _DIGITS)
    return next(found for found in texts if len(set(found)) == len(edges))
