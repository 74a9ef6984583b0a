"""Which columns of a file hold the labels, and the label of each line: one value, a list, or one column a label.

A list may be long and a file hostile, so what a row group declares is looked at before anything is unpacked.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from optimizer_jobs.production.columns import is_text, kind_of, texts
from retune.api.production import Labels

Label = int | float | str | tuple[Any, ...]
"""A class, a number, or several numbers a row; lists of lists are tuples of tuples."""

LIST_LIMIT = 4096
"""Most numbers of one label."""

_EXACT = 1 << 53
"""Whole numbers below are the same as integers and as floats."""


def columns_of(spec: Labels) -> tuple[str, ...]:
    """Return the names of the columns with the labels."""
    return spec.columns or (spec.column,)


def are_there(schema: pa.Schema, spec: Labels) -> bool:
    """Return whether a file has the columns of labels, each of a type that labels can have."""
    kinds = [kind_of(schema, name) for name in columns_of(spec)]
    if spec.columns:
        return all(map(is_number, kinds))
    return is_scalar(kinds[0]) or is_number(_innermost(kinds[0]))


def width_of(file: parquet.ParquetFile, spec: Labels) -> int:
    """Return how many values a label has, as the file declares: the mean of the row group that has the longest."""
    meta, names = file.metadata, set(columns_of(spec))
    groups = (meta.row_group(index) for index in range(meta.num_row_groups))
    return max((math.ceil(_values(group, names) / max(1, group.num_rows)) for group in groups), default=1)


def _values(group: Any, names: set[str]) -> int:
    columns = (group.column(index) for index in range(group.num_columns))
    paths = ((column.path_in_schema, column.num_values) for column in columns)
    return sum(values for path, values in paths if any(path == name or path.startswith(f"{name}.") for name in names))


def labels_of(batch: pa.RecordBatch, spec: Labels) -> list[Label | None]:
    """Return the label of each line; None where there is none, or a part of it is missing."""
    if not spec.columns:
        return values_of(batch.column(spec.column))
    parts = zip(*(values_of(batch.column(name)) for name in spec.columns), strict=True)
    return [None if None in part else part for part in parts]


def values_of(column: pa.Array) -> list[Label | None]:
    """Return the values of a column; None for one that is missing, infinite or an empty text."""
    if is_text(column.type):
        return [label or None for label in texts(column)]
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Label | None:
    """Return a whole number as int and any other as float, so that 3 and 3.0 are the same label; a list as a tuple."""
    if isinstance(value, list):
        parts = tuple(map(_plain, value))
        return parts if parts and None not in parts and _are_alike(parts) else None
    if value is None or not np.isfinite(value):
        return None
    return int(value) if abs(value) < _EXACT and float(value).is_integer() else float(value)


def _are_alike(parts: tuple[Any, ...]) -> bool:
    return not any(isinstance(part, tuple) for part in parts) or len(set(map(form_of, parts))) == 1


def form_of(label: Label) -> tuple[Any, ...]:
    """Return what labels must share to be of one kind: text, a number, or lists of the same lengths."""
    if isinstance(label, tuple):
        return (len(label), *form_of(label[0]))
    return ("text" if isinstance(label, str) else "number",)


def is_scalar(kind: pa.DataType | None) -> bool:
    """Return whether a column of this type holds one number or text a line."""
    return is_number(kind) or is_text(kind)


def is_number(kind: pa.DataType | None) -> bool:
    """Return whether a column of this type holds one number a line."""
    known = kind is not None
    return known and bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _innermost(kind: pa.DataType | None) -> pa.DataType | None:
    """Return the type of the values of a list, or of a list of lists."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while kind is not None and any(is_list(kind) for is_list in lists):
        kind = kind.value_type
    return kind


def as_array(labels: list[Label]) -> np.ndarray:
    """Return M labels of one form: (M,) int64 where all are whole numbers, float64 where all are numbers, else text.

    Lists of numbers are (M, L), and lists of lists have an axis more.
    """
    if all(isinstance(label, int) for label in labels):
        return np.asarray(labels, dtype=np.int64)
    return np.asarray(labels)
