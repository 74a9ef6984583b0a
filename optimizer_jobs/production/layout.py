"""The capture format: where captured requests lie and which columns they have. The only definition of it.

    <folder>/date=YYYY-MM-DD/hour=HH/<writer>-<sequence>.parquet

A folder is the UTC hour of the request. A file is written under a name that begins with a dot, renamed when it is
whole, and never written again. One line is one row of a request:

    request_id        string                  the request's id, as its sender and the labels know it
    row               int32                   row within the request, from 0
    time              timestamp[us, UTC]      when the request came
    model             string                  sha256:... of the bundle that answered, or of the model file as delivered
    input.<name>      the input's element     one value a row; else list<element>, row-major, with the row's shape in
    output.<name>     the same of an output   the field's metadata, such as shape=1,8,8

All rows of a file have the same shapes. Further columns are ignored. File metadata: retune.capture=1.
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
"""What the columns of tensors begin with."""

FORMAT = {"retune.capture": "1"}
"""Metadata of a file."""

SHAPE = "shape"
"""Metadata of a field: the shape of one row."""

HOUR = 3600
SUFFIX = ".parquet"

_HOUR_FOLDER = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})")

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of one row by column."""


def columns(signature: Signature) -> dict[str, TensorSpec]:
    """Return the tensors of a model by the name of their column."""
    inputs = {f"{INPUT}{spec.name}": spec for spec in signature.inputs}
    return inputs | {f"{OUTPUT}{spec.name}": spec for spec in signature.outputs}


def schema(signature: Signature, shapes: Shapes | None = None) -> pa.Schema:
    """Return the schema of files for a model.

    Args:
        signature: What the model takes and answers.
        shapes: Shape of one row by column, where the signature leaves sizes free.

    Raises:
        ValueError: An element type has no place in Parquet.
    """
    fields = [pa.field(name, kind, nullable=False) for name, kind in KEYS.items()]
    for name, spec in columns(signature).items():
        shape = (shapes or {}).get(name, spec.shape[1:])
        fields.append(_field(name, spec, shape))
    return pa.schema(fields, metadata=FORMAT)


def element(spec: TensorSpec) -> pa.DataType:
    """Return the type of one value of a tensor; raises ValueError when Parquet has none."""
    if spec.dtype == TEXT:
        return pa.string()
    try:
        return pa.from_numpy_dtype(np.dtype(spec.dtype))
    except (TypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{spec.name!r} holds {spec.dtype}, which Parquet has no type for") from error


def scalar(spec: TensorSpec) -> bool:
    """Whether a tensor has one value a row by its signature, and so a plain column."""
    return all(size == 1 for size in spec.shape[1:])


def folder_of(time: float) -> str:
    """Return the folder of the hour in which a request came, in seconds since 1970."""
    return datetime.fromtimestamp(time, UTC).strftime("date=%Y-%m-%d/hour=%H")


def hour_of(folder: str) -> int | None:
    """Return when the hour of a folder such as `date=2026-01-31/hour=07` begins; None for any other path."""
    named = _HOUR_FOLDER.fullmatch(folder)
    if named is None:
        return None
    try:
        moment = datetime.strptime(f"{named[1]} {named[2]}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp())


def partitions(start: int, end: int) -> Iterator[str]:
    """Yield the folders of all hours that overlap [start, end), the oldest first."""
    for hour in range(start - start % HOUR, end, HOUR):
        yield folder_of(hour)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a row's shape as it is written into a field's metadata."""
    return ",".join(map(str, shape))


def shape_of(field: Any, spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of one row in a file's column: as the file says, else as the signature does.

    At most one size of the result may be -1. Raises ValueError with words for a shape that does not fit the model.
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
    """Return how many values a row of a known shape has."""
    return prod(shape)


def _field(name: str, spec: TensorSpec, shape: tuple[int, ...]) -> pa.Field:
    if scalar(spec):
        return pa.field(name, element(spec))
    return pa.field(name, pa.list_(element(spec)), metadata={SHAPE: shape_text(shape)})
