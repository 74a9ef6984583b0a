"""The columns whose segments tell most of a champion's quality, found on its reference where nobody names any. Pure.

What is chosen because its numbers are extreme is so partly by chance, and would be less so on other rows: every such
segment would look changed. So columns are chosen on other rows of the reference than those that windows are compared
with.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.segment_cuts import LEAST_ROWS, Cut, cut_of

Floats = NDArray[np.float64]

COLUMNS = 3
"""Columns that are chosen."""
_CATEGORIES = 10
"""Most segments of a column that is chosen."""
_ALIKE = 0.8
"""Cramér's V from which two columns make almost the same segments."""


def halves(rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows (N,) columns are chosen on, and which rows windows are compared with."""
    first = np.arange(rows) % 2 == 0
    return first, ~first


def choose(frame: pd.DataFrame, scores: Floats, carried: Mapping[str, float]) -> list[str]:
    """Return the columns in whose segments the scores differ most, three at most.

    Args:
        frame: Inputs (N, ...) of the rows that columns are chosen on.
        scores: A number (N,) of each row that shows how good its answer is.
        carried: What each column carries of the answers (0..1), where that is known, for columns that tell alike.
    """
    ranks = np.asarray(pd.Series(scores).rank(), dtype=np.float64)
    found = [(str(name), cut_of(frame[name], most=_CATEGORIES)) for name in frame]
    places = {name: cut.place_of(frame[name]) for name, cut in found if cut is not None and _divides(cut, frame)}
    told = {name: max(0.0, _epsilon_squared(place, ranks)) for name, place in places.items()}
    order = sorted(places, key=lambda name: (told[name], carried.get(name, 0.0)), reverse=True)
    chosen: list[str] = []
    for name in order:
        if len(chosen) < COLUMNS and all(_likeness(places[name], places[other]) < _ALIKE for other in chosen):
            chosen.append(name)
    return chosen


def _divides(cut: Cut, frame: pd.DataFrame) -> bool:
    """Return whether a column has two segments with enough rows."""
    return int((np.bincount(cut.place_of(frame[cut.column])) >= LEAST_ROWS).sum()) > 1


def _epsilon_squared(places: NDArray[np.int64], scores: Floats) -> float:
    """Return the share of the variance that lies between segments of enough rows, less that of chance."""
    enough = np.flatnonzero(np.bincount(places) >= LEAST_ROWS)
    inside = np.isin(places, enough)
    groups = [scores[inside & (places == place)] for place in enough]
    kept = scores[inside]
    total = float(((kept - kept.mean()) ** 2).sum())
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    if total <= 0 or len(kept) <= len(groups):
        return 0.0
    by_chance = (len(groups) - 1) * within / (len(kept) - len(groups))
    return (total - within - by_chance) / total


def _likeness(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return Cramér's V of two divisions of the same rows: 1 where one tells the other."""
    (rows, row_of), (columns, column_of) = (np.unique(places, return_inverse=True) for places in (one, other))
    flat = np.bincount(row_of * len(columns) + column_of, minlength=len(rows) * len(columns))
    table = flat.reshape(len(rows), len(columns)).astype(np.float64)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    smaller = min(table.shape) - 1
    return float(np.sqrt(((table - expected) ** 2 / expected).sum() / (table.sum() * smaller))) if smaller else 1.0
