"""What captured files tell by themselves, where no bundle is at hand: inputs and outputs, the version, the newest row.

The files are hostile input: one that tells nothing is passed over, and so many are tried at most.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.errors import JobError
from optimizer_jobs.production import files, layout
from optimizer_jobs.production.columns import is_text, open_parquet, texts
from optimizer_jobs.production.reading import is_capture
from optimizer_jobs.production.windows import FUTURE_SECONDS
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

TRIES = 100
"""Most hours that are looked into, and most files of an hour."""
_DATES = re.compile(r"date=\d{4}-\d{2}-\d{2}")
_HOURS = re.compile(r"hour=\d{2}")
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass(frozen=True)
class Told:
    """What the newest file with rows tells."""

    signature: Signature
    """Inputs and outputs in the file's types; which outputs are the answer is not known."""
    model: str
    """Digest of the version that answered the newest row."""
    newest: int
    """When the newest row was captured, in seconds since 1970."""


def told_by(uri: str, *, now: int, into: Path) -> Told | None:
    """Return what captured files in our own layout tell; None where none of them can be read.

    Args:
        uri: URI of their folder, on this machine.
        now: Current time in seconds since 1970; rows that lie in the future are wrong.
        into: Folder for private copies.

    Raises:
        JobError: The folder cannot be listed.
    """
    newest: Told | None = None
    for number, listed in enumerate(_hours(uri, now)):
        if newest is not None or number == TRIES:
            break
        for file in listed[:TRIES]:
            with suppress(*_UNREADABLE, JobError), memory_told(), files.opened(file, into=into) as source:
                told = _told(source, now)
                newest = max(filter(None, (newest, told)), key=lambda each: each.newest, default=None)
    return newest


def _hours(uri: str, now: int) -> Iterator[list[files.ListedFile]]:
    """Yield the files of each hour, the newest hour first."""
    base = files.folder(uri).local
    names = (f"{date.name}/{hour.name}" for date in _below(base, _DATES) for hour in _below(date, _HOURS))
    begins = {name: moment for name in names if (moment := layout.hour_of(name)) is not None}
    for name in sorted(begins, key=lambda name: -begins[name]):
        if begins[name] <= now + FUTURE_SECONDS:
            yield sorted(files.in_folders(uri, [name]), key=lambda file: file.location.uri)


def _below(folder: Path, names: re.Pattern[str]) -> Iterator[Path]:
    """Yield the folders in a folder that have such a name; symbolic links are not followed."""
    with suppress(OSError):
        for path in folder.iterdir():
            if names.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _told(source: IO[bytes], now: int) -> Told | None:
    with open_parquet(source, repetitive=[layout.REQUEST_ID, layout.MODEL]) as file:
        signature = signature_of(file.schema_arrow)
        if not is_capture(file.schema_arrow) or not file.metadata.num_rows or not signature.inputs:
            return None
        return _newest_row(file, signature, now)


def _newest_row(file: parquet.ParquetFile, signature: Signature, now: int) -> Told | None:
    newest: Told | None = None
    for batch in file.iter_batches(columns=[layout.TIME, layout.MODEL], use_threads=False):
        times = np.asarray(batch.column(layout.TIME).cast(pa.timestamp("us"), safe=False))
        seconds = times.astype("datetime64[s]").astype(np.int64)
        known = ~np.isnat(times) & (seconds <= now + FUTURE_SECONDS) & ~np.asarray(batch.column(layout.MODEL).is_null())
        if not known.any():
            continue
        place = int(np.flatnonzero(known)[np.argmax(seconds[known])])
        if newest is None or seconds[place] > newest.newest:
            newest = Told(signature, str(texts(batch.column(layout.MODEL))[place]), int(seconds[place]))
    return newest


def signature_of(schema: pa.Schema) -> Signature:
    """Return the inputs and outputs that a file's columns hold; columns of types that no tensor has are left out."""
    found: dict[str, list[TensorSpec]] = {layout.INPUT: [], layout.OUTPUT: []}
    for field in schema:
        prefix = next((prefix for prefix in found if field.name.startswith(prefix)), None)
        spec = None if prefix is None else _spec(field, field.name.removeprefix(prefix))
        if prefix is not None and spec is not None and schema.names.count(field.name) == 1:
            found[prefix].append(spec)
    return Signature(inputs=tuple(found[layout.INPUT]), outputs=tuple(found[layout.OUTPUT]))


def _spec(field: pa.Field, name: str) -> TensorSpec | None:
    kind = field.type
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    element = _element(kind.value_type if nested else kind)
    if element is None or not name:
        return None
    return TensorSpec(name=name, dtype=element, shape=(-1, *_shape(field)) if nested else (-1,))


def _shape(field: pa.Field) -> tuple[int, ...]:
    """Return the shape of a row by the field's metadata; one free size where that says nothing that can be used."""
    written = (field.metadata or {}).get(layout.SHAPE.encode(), b"")
    with suppress(ValueError):
        shape = tuple(int(size) for size in written.decode().split(",") if size)
        if any(size != 1 for size in shape) and all(size > 0 for size in shape):
            return shape
    return (-1,)


def _element(kind: pa.DataType) -> str | None:
    """Return NumPy's name of a column's type, or that of text; None where no tensor has such values."""
    if is_text(kind):
        return TEXT
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return str(np.dtype(kind.to_pandas_dtype()).name)
    return None
