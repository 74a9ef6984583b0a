"""Columns of Parquet files that others wrote: their types, and their texts with a limit on length."""

from collections.abc import Collection
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

Array = NDArray[Any]
Mask = NDArray[np.bool_]

TEXT_LIMIT = 1 << 16
"""Longest text that is read, in bytes."""


def open_parquet(source: IO[bytes], *, repetitive: Collection[str]) -> parquet.ParquetFile:
    """Open a Parquet file.

    Args:
        source: The open file.
        repetitive: Text columns with few distinct values; each distinct value is held in memory only once.

    Raises:
        pa.ArrowException: The file is no Parquet file.
        OSError: The file cannot be read.
    """
    meta = parquet.read_metadata(source)
    source.seek(0)
    leaves = (meta.schema.column(index) for index in range(meta.num_columns))
    text_columns = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
    return parquet.ParquetFile(source, metadata=meta, read_dictionary=sorted(text_columns & set(repetitive)))


def kind_of(schema: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column, or None when the file has no such column, or has it twice."""
    index = schema.get_field_index(name)
    return None if index < 0 else schema.field(index).type


def is_text(kind: pa.DataType | None) -> bool:
    """Return whether a column of this type holds text."""
    if kind is None:
        return False
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def short(column: pa.Array) -> Mask:
    """Return a mask (N,) of the texts that are short enough to be read."""
    if pa.types.is_dictionary(column.type):
        distinct = short(column.dictionary)
        indices = np.asarray(pc.fill_null(column.indices, 0))
        return np.asarray(distinct[indices]) if len(distinct) else np.ones(len(column), dtype=np.bool_)
    return np.asarray(pc.less_equal(pc.fill_null(pc.binary_length(column), 0), TEXT_LIMIT))


def texts(column: pa.Array) -> Array:
    """Return the texts of a column as an object array (N,); a text that is too long becomes empty."""
    if pa.types.is_dictionary(column.type):
        return np.asarray(texts(column.dictionary)[np.asarray(column.indices)])
    bounded = pc.if_else(pc.less_equal(pc.binary_length(column), TEXT_LIMIT), column, pa.scalar("", column.type))
    values = np.empty(len(column), dtype=object)
    values[:] = bounded.to_pylist()
    return values
