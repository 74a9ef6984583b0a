"""Rows as a table of numbers, for learners that answer in seconds which training set or which rows are nearer. Pure.

A table is made for comparisons only: no model that is served ever sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows

Array = NDArray[Any]
Floats = NDArray[np.float32]

MOST_CATEGORIES = 250
"""Texts of a column that have a number of their own, the most frequent first; all others share one."""
MOST_COLUMNS = 1024
"""Columns of a table, at most."""
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Tables:
    """How rows of one kind become a table."""

    categories: Mapping[str, tuple[Mapping[str, int], ...]]
    """The number of each text, by input and by place within a row."""
    is_category: NDArray[np.bool_]
    """Which columns (D,) hold categories."""

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.is_category)

    @classmethod
    def of(cls, rows: Rows) -> "Tables | None":
        """Return the form of tables of rows like these; None where they have too many columns, or none."""
        categories: dict[str, tuple[Mapping[str, int], ...]] = {}
        kinds = list[bool]()
        for name, values in rows.inputs.items():
            flat = _flat(values)
            is_text = flat.dtype.kind in "OUS"
            if is_text:
                categories[name] = tuple(_numbered(column) for column in flat.T)
            kinds += [is_text] * flat.shape[1]
        return cls(categories, np.asarray(kinds)) if 0 < len(kinds) <= MOST_COLUMNS else None

    def table(self, rows: Rows) -> Floats:
        """Return the table (N, D) of rows; a text without a number of its own is the last category."""
        parts = [self._part(name, _flat(values)) for name, values in rows.inputs.items()]
        return np.concatenate(parts, axis=1)

    def _part(self, name: str, flat: Array) -> Floats:
        if name not in self.categories:
            return np.clip(flat.astype(np.float64), -_MOST, _MOST).astype(np.float32)
        return np.stack(
            [
                np.asarray([numbers.get(str(cell), len(numbers)) for cell in column.tolist()], dtype=np.float32)
                for numbers, column in zip(self.categories[name], flat.T, strict=True)
            ],
            axis=1,
        )


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _numbered(column: Sequence[Any]) -> dict[str, int]:
    """Return a number for each of the most frequent texts; of equally frequent ones the first in the alphabet first."""
    texts, counts = np.unique([str(cell) for cell in column], return_counts=True)
    order = np.lexsort((texts, -counts))[:MOST_CATEGORIES]
    return {str(texts[place]): number for number, place in enumerate(order)}
