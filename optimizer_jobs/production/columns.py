"""Columns of Parquet files of others: what type one has, and its texts, bounded."""

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
"""Bytes of a text that is read."""


def open_parquet(source: IO[bytes], *, often_same: Collection[str]) -> parquet.ParquetFile:
    """Open a Parquet file; texts of `often_same` columns are kept once each. Raises pyarrow's errors and OSError."""
    meta = parquet.read_metadata(source)
    source.seek(0)
    leaves = (meta.schema.column(place) for place in range(meta.num_columns))
    texts_there = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
    return parquet.ParquetFile(source, metadata=meta, read_dictionary=sorted(texts_there & set(often_same)))


def kind_of(schema: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column; None for one that is not there, or there twice."""
    index = schema.get_field_index(name)
    return None if index < 0 else schema.field(index).type


def is_text(kind: pa.DataType | None) -> bool:
    """Whether a column of that type holds text."""
    if kind is None:
        return False
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def short(column: pa.Array) -> Mask:
    """Return which texts are short enough to be read."""
    if pa.types.is_dictionary(column.type):
        words = short(column.dictionary)
        indices = np.asarray(pc.fill_null(column.indices, 0))
        return np.asarray(words[indices]) if len(words) else np.ones(len(column), dtype=np.bool_)
    return np.asarray(pc.less_equal(pc.fill_null(pc.binary_length(column), 0), TEXT_LIMIT))


def texts(column: pa.Array) -> Array:
    """Return texts as objects; one that is too long is empty."""
    if pa.types.is_dictionary(column.type):
        return np.asarray(texts(column.dictionary)[np.asarray(column.indices)])
    bounded = pc.if_else(pc.less_equal(pc.binary_length(column), TEXT_LIMIT), column, pa.scalar("", column.type))
    found = np.empty(len(column), dtype=object)
    found[:] = bounded.to_pylist()
    return found
