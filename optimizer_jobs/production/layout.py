"""The capture format: names and columns of the files with captured requests. The only definition of it.

    <folder>/date=YYYY-MM-DD/hour=HH/<writer>-<sequence>.parquet

A folder holds the requests of one UTC hour. A file is written under a name that begins with a dot, renamed when it is
complete, and never changed again. Every line of the table is one row of a request:

    request_id        string                  the request's id, as its sender and the labels know it
    row               int32                   number of the row within the request, from 0
    time              timestamp[us, UTC]      when the request arrived
    model             string                  sha256:... of the bundle that answered, or of the model file as delivered
    input.<name>      the input's type        plain when a row has one value; otherwise list<type> in row-major order,
    output.<name>     the output's type       with the shape of a row in the field's metadata, such as shape=1,8,8

All rows of a file have the same shapes. Other columns are ignored. The file's metadata has retune.capture=1.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from optimizer_jobs.signature import TEXT, Signature, TensorSpec

REQUEST_ID, ROW, TIME, MODEL = "request_id", "row", "time", "model"
KEYS = {REQUEST_ID: pa.string(), ROW: pa.int32(), TIME: pa.timestamp("us", tz="UTC"), MODEL: pa.string()}
"""Columns that every file has, with their types."""

INPUT, OUTPUT = "input.", "output."
"""Prefixes of the columns with inputs and outputs."""

FORMAT = {"retune.capture": "1"}
"""Metadata of every file."""

SHAPE = "shape"
"""Key of the field's metadata that holds the shape of one row."""

HOUR = 3600
SUFFIX = ".parquet"

_HOUR_FOLDER = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})")

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of one row, by column."""


def columns(signature: Signature) -> dict[str, TensorSpec]:
    """Return the inputs and outputs of a model by the name of their column."""
    inputs = {f"{INPUT}{spec.name}": spec for spec in signature.inputs}
    return inputs | {f"{OUTPUT}{spec.name}": spec for spec in signature.outputs}


def schema(signature: Signature, shapes: Shapes | None = None) -> pa.Schema:
    """Return the schema of the files for a model.

    Args:
        signature: Inputs and outputs of the model.
        shapes: Shape of one row by column; needed where the signature leaves sizes free.

    Raises:
        ValueError: Parquet has no type for one of the element types.
    """
    fields = [pa.field(name, kind, nullable=False) for name, kind in KEYS.items()]
    for name, spec in columns(signature).items():
        shape = (shapes or {}).get(name, spec.shape[1:])
        fields.append(_field(name, spec, shape))
    return pa.schema(fields, metadata=FORMAT)


def element(spec: TensorSpec) -> pa.DataType:
    """Return the Parquet type of one value of a tensor; raises ValueError when there is none."""
    if spec.dtype == TEXT:
        return pa.string()
    try:
        return pa.from_numpy_dtype(np.dtype(spec.dtype))
    except (TypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{spec.name!r} holds {spec.dtype}, which Parquet has no type for") from error


def scalar(spec: TensorSpec) -> bool:
    """Return whether every row of a tensor has exactly one value, which makes its column plain."""
    return all(size == 1 for size in spec.shape[1:])


def folder_of(time: float) -> str:
    """Return the folder for a request that arrived at `time`, in seconds since 1970."""
    return datetime.fromtimestamp(time, UTC).strftime("date=%Y-%m-%d/hour=%H")


def hour_of(folder: str) -> int | None:
    """Return when the hour of a folder such as `date=2026-01-31/hour=07` begins, in seconds since 1970.

    None for any other path.
    """
    parts = _HOUR_FOLDER.fullmatch(folder)
    if parts is None:
        return None
    try:
        moment = datetime.strptime(f"{parts[1]} {parts[2]}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp())


def partitions(start: int, end: int) -> Iterator[str]:
    """Yield the folders of all hours that overlap [start, end), in seconds since 1970, the oldest first."""
    for hour in range(start - start % HOUR, end, HOUR):
        yield folder_of(hour)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return the shape of one row as text for the field's metadata, such as `1,8,8`."""
    return ",".join(map(str, shape))


def shape_of(field: Any, spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of one row of a file's column: that of the field's metadata, or else the model's.

    Args:
        field: The column's field in the file's schema.
        spec: The model's input or output.

    Returns:
        The shape; at most one of its sizes is -1, which means unknown.

    Raises:
        ValueError: The shape does not fit the model; the message continues a sentence that begins with the column.
    """
    written = (field.metadata or {}).get(SHAPE.encode())
    wanted = spec.shape[1:]
    try:
        shape = wanted if written is None else tuple(int(size) for size in written.decode().split(",") if size)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError("has a shape in its metadata that is none") from error
    fits = len(shape) == len(wanted) and all(want in {-1, have} for want, have in zip(wanted, shape, strict=True))
    if not fits or any(size < -1 for size in shape) or shape.count(-1) > 1:
        raise ValueError(f"has rows of shape {list(shape)}, but the model's are {list(wanted)}")
    return shape


def size_of(shape: tuple[int, ...]) -> int:
    """Return the number of values in a row of this shape."""
    return prod(shape)


def _field(name: str, spec: TensorSpec, shape: tuple[int, ...]) -> pa.Field:
    if scalar(spec):
        return pa.field(name, element(spec))
    return pa.field(name, pa.list_(element(spec)), metadata={SHAPE: shape_text(shape)})
