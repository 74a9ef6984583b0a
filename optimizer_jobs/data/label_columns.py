"""Several columns that are together the labels of a row: they are read as one array (rows, labels).

Everything that reads labels then deals with one name. No value is filled in: a column that is absent, named twice or of
another form is refused by its own name.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.cells import column_of, spelled
from optimizer_jobs.data.readers import Columns, UnreadableDataError

Array = NDArray[Any]


def together(columns: Columns, parts: Sequence[str], *, name: str) -> Columns:
    """Return the columns with `parts` as one, which comes last; without any of them, or with no parts, as they are.

    Args:
        columns: An open data file.
        parts: Label columns, in the order of the labels.
        name: Name of the array (N, labels) that takes their place.

    Raises:
        UnreadableDataError: Some of the parts are absent, or one is named twice.
    """
    if not set(parts).intersection(columns.names):
        return columns
    for number, part in enumerate(parts):
        if part not in columns.names:
            column_of(columns, part)
        if part in parts[:number]:
            raise UnreadableDataError(f"label column {part!r} is named twice: name each once, in the model's order.")
    others = tuple(column for column in columns.names if column not in parts)
    if name in others:
        raise UnreadableDataError(f"column {name!r} has the name that several label columns get: give it another one.")

    def read(wanted: str) -> Array:
        return _stacked(columns, parts) if wanted == name else columns.read(wanted)

    return replace(columns, names=(*others, name), read=read)


def _stacked(columns: Columns, parts: Sequence[str]) -> Array:
    """Return the values of all parts side by side, (N, parts)."""
    arrays = [_numbers(columns, part) for part in parts]
    lengths = dict(zip(parts, map(len, arrays), strict=True))
    if len(set(lengths.values())) > 1:
        raise UnreadableDataError(f"the label columns have different numbers of rows: {lengths}.")
    return np.stack(arrays, axis=1)


def _numbers(columns: Columns, part: str) -> Array:
    """Return one number a row (N,); yes and no count as 1 and 0."""
    values = columns.read(part)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UnreadableDataError(
            f"label column {part!r} has shape {values.shape}; each of several label columns needs one number a row."
        )
    values = spelled(values, f"label column {part!r}")
    if values.dtype.kind not in "biuf":
        raise UnreadableDataError(f"label column {part!r} has type {values.dtype}; several labels a row are numbers.")
    missing = np.flatnonzero(~np.isfinite(values))
    if len(missing):
        raise UnreadableDataError(
            f"label column {part!r} is missing or infinite in {len(missing)} of {len(values)} rows, the first in "
            f"{columns.place(int(missing[0]))}."
        )
    return values
