"""Everything that a model answers, whatever it means, and how alike two models answer.

A row is as alike as its worst output: a box that moved is not made up for by a class that stayed. Nothing here needs
labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.engine import EngineError, Session
from optimizer_jobs.models.layout import ask

Array = NDArray[Any]
Floats = NDArray[np.float64]
Entries = Array | list[Array]
"""The answer to each of N rows: one array (N, ...), or a list where rows differ in shape."""

PROBED = 3
"""Rows of a request that shows whether a model answers several rows at once."""
_TINY = 1e-12


@dataclass(frozen=True)
class AllOutputs:
    """Every output of a model for N rows."""

    values: Mapping[str, Entries]
    """By output."""

    def take(self, indices: Array) -> "AllOutputs":
        """Return the answers to the rows at `indices`: integers (M,) or a mask (N,)."""
        places = np.flatnonzero(indices) if indices.dtype == np.bool_ else indices
        return AllOutputs({name: _taken(values, places) for name, values in self.values.items()})

    @property
    def arrays(self) -> dict[str, Array]:
        """Those outputs whose rows all have one shape, each (N, ...)."""
        return {name: values for name, values in self.values.items() if isinstance(values, np.ndarray)}

    @property
    def spread(self) -> float:
        """How much answers differ from row to row, the most of all outputs; 0 when all rows get the same answer."""
        return max((_spread(values) for values in self.values.values()), default=0.0)


def _taken(values: Entries, places: Array) -> Entries:
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places]


def all_outputs(session: Session, rows: Rows, *, batch: int, singly: bool) -> AllOutputs:
    """Return every output for all rows.

    Args:
        session: The open model.
        rows: N rows.
        batch: Rows of one call; a model with a fixed batch is called with that size instead.
        singly: Whether each row is asked by itself, because outputs do not have an entry for each row of a request.

    Raises:
        UnfitAnswersError: An output has not an entry for each row.
    """
    size = 1 if singly else session.signature.batch or batch
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(rows), size):
        count = min(size, len(rows) - start)
        places = np.arange(start, start + (session.signature.batch or count)) % len(rows)
        for name, values in ask(session, rows.take(places).inputs).items():
            answered = values[np.newaxis] if singly else values
            if not answered.ndim or len(answered) < count:
                raise UnfitAnswersError(f"output {name} has {list(values.shape)} for {count} rows, not one entry a row")
            parts.setdefault(name, []).append(answered[:count])
    return AllOutputs({name: _joined(values) for name, values in parts.items()})


def _joined(parts: list[Array]) -> Entries:
    shapes = {part.shape[1:] for part in parts}
    return np.concatenate(parts) if len(shapes) == 1 else [row for part in parts for row in part]


def answers_singly(session: Session, rows: Rows) -> bool:
    """Return whether rows must be asked one by one: an output has not an entry for each, or several are refused.

    Raises:
        UnfitAnswersError: The model fixes a number of rows, and has not that many entries in every output.
    """
    size = session.signature.batch or min(PROBED, len(rows))
    try:
        outputs = ask(session, rows.take(np.arange(size) % len(rows)).inputs)
    except EngineError:
        if session.signature.batch:
            raise
        return True
    apart = [name for name, values in outputs.items() if not values.ndim or len(values) != size]
    if apart and (session.signature.batch or 1) > 1:
        raise UnfitAnswersError(f"output {apart[0]} has not an entry for each of the {size} rows of a request")
    return bool(apart) or size == 1


def likeness(delivered: AllOutputs, mine: AllOutputs) -> Floats:
    """Return for each row how alike two models answer, (N,) from 0 (differently) to 1 (the same), by the worst output.

    Of floats, it is 1 minus the distance to the delivered answer, in units of the root mean square distance of the
    delivered answers from their mean over rows. Of everything else, it is the share of elements that are the same.
    """
    outputs = [_of_output(values, mine.values.get(name, [])) for name, values in delivered.values.items()]
    return np.asarray(np.min(outputs, axis=0), dtype=np.float64)


def _of_output(theirs: Entries, mine: Entries) -> Floats:
    if len(mine) != len(theirs):
        return np.zeros(len(theirs))
    if theirs[0].dtype.kind != "f":
        return np.asarray([_same(left, right) for left, right in zip(theirs, mine, strict=True)])
    unit = _unit(theirs)
    return np.asarray([_near(left, right, unit) for left, right in zip(theirs, mine, strict=True)])


def _same(theirs: Array, mine: Array) -> float:
    if theirs.shape != mine.shape:
        return 0.0
    return float((theirs == mine).mean()) if theirs.size else 1.0


def _near(theirs: Array, mine: Array, unit: float) -> float:
    """Return the likeness of two rows of floats; what is not finite must be the same."""
    if theirs.shape != mine.shape:
        return 0.0
    finite = np.isfinite(theirs)
    if not np.array_equal(theirs[~finite], mine[~finite], equal_nan=True) or not np.isfinite(mine[finite]).all():
        return 0.0
    distance = float(np.linalg.norm(mine[finite].astype(np.float64) - theirs[finite].astype(np.float64)))
    return max(0.0, 1.0 - distance / unit)


def _unit(rows: Entries) -> float:
    """Return the root mean square distance of rows from their mean; of rows that are all the same, their size."""
    centre = _mean(rows) if len({row.shape for row in rows}) == 1 else 0.0
    for about in (centre, 0.0):
        unit = float(np.sqrt(np.mean([np.square(_finite(row) - _finite_like(about, row)).sum() for row in rows])))
        if unit > _TINY * max(1.0, float(np.max([np.abs(_finite(row)).max(initial=0.0) for row in rows]))):
            return unit
    return _TINY


def _mean(rows: Entries) -> Floats:
    total = np.zeros(rows[0].shape)
    for row in rows:
        total += _finite(row)
    return total / len(rows)


def _finite(row: Array) -> Floats:
    """Return numbers with 0 for those that are not finite."""
    return np.nan_to_num(row.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _finite_like(about: Floats | float, row: Array) -> Floats | float:
    return about if isinstance(about, float) else np.where(np.isfinite(row), about, 0.0)


def _spread(rows: Entries) -> float:
    first = rows[0]
    if all(row.shape == first.shape and np.array_equal(row, first, equal_nan=row.dtype.kind == "f") for row in rows):
        return 0.0
    return _unit(rows) if first.dtype.kind == "f" else 1.0
