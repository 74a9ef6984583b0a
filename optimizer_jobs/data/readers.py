"""Open a data file of one of the known formats as named columns, within a size limit and without running code.

Declared sizes are checked before memory is taken, and pickled objects are never loaded.
"""

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.csv_dialect import Dialect, UnknownDialectError, dialect_of, line_of
from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.data.spellings import grouped_numbers
from optimizer_jobs.progress import say
from retune.api.model import CsvFormat, DatasetFormat

Array = NDArray[Any]

_ENTRIES_LIMIT = 256
_COLUMNS_LIMIT = 20_000
_HEADER_LIMIT = 10_000


class UnreadableDataError(ValueError):
    """The file is not valid in its format, or is too large; the message is a sentence."""

    def __init__(self, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.next_step = next_step
        """What to do, as a sentence, where it is something else than to correct the file."""


@dataclass(frozen=True)
class Columns:
    """The named arrays of one file."""

    names: tuple[str, ...]
    read: Callable[[str], Array]
    """Reads the array of a name, with shape (N, ...)."""
    tabular: bool
    """Whether every array is (N,): one number or text in each row, as in a table."""
    as_written: Callable[[str], Array] | None = None
    """Reads a column of a text file as the text that it holds, such as `007`; None where files keep types."""
    line: Callable[[int], int] | None = None
    """Finds the line of a row in a text file, both counted from where they start: rows from 0, lines from 1."""

    def read_text(self, name: str) -> Array:
        """Return the array of a name for an input that takes text: as it is written, where the file is text."""
        return (self.as_written or self.read)(name)

    def place(self, row: int) -> str:
        """Return where the row at index `row` is, in words: `line 3` of a text file, else `row 2`."""
        return f"row {row + 1}" if self.line is None else f"line {self.line(row)}"


def open_columns(
    path: Path, format_: DatasetFormat, *, limit_bytes: int, csv_format: CsvFormat | None = None
) -> Columns:
    """Open a data file.

    Args:
        path: The file.
        format_: Its format.
        limit_bytes: Largest size of its content once expanded.
        csv_format: How a CSV file is written, where the spec says so.

    Raises:
        UnreadableDataError: The file is not valid in its format, or is too large.
        MemoryError: There is too little memory for it.
    """
    if format_ is DatasetFormat.CSV:
        columns = _open_csv(path, limit_bytes, csv_format)
    else:
        columns = _READERS[format_](path, limit_bytes)
    as_written = columns.as_written and _telling_memory(columns.as_written)
    return replace(columns, read=_telling_memory(columns.read), as_written=as_written)


def _telling_memory(read: Callable[[str], Array]) -> Callable[[str], Array]:
    def told(name: str) -> Array:
        with memory_told():
            return read(name)

    return told


def _open_npz(path: Path, limit_bytes: int) -> Columns:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {_array_name(entry): entry for entry in _bounded(archive.infolist(), limit_bytes)}
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UnreadableDataError(f"this is not a readable NPZ archive ({error}).") from error

    def read(name: str) -> Array:
        with zipfile.ZipFile(path) as archive:
            return _read_npy(archive, entries[name])

    return Columns(names=tuple(entries), read=read, tabular=False)


def _bounded(entries: list[zipfile.ZipInfo], limit_bytes: int) -> list[zipfile.ZipInfo]:
    if len(entries) > _ENTRIES_LIMIT:
        raise UnreadableDataError(f"the archive has {len(entries)} entries; at most {_ENTRIES_LIMIT} are read.")
    total = sum(entry.file_size for entry in entries)
    if total > limit_bytes:
        raise UnreadableDataError(f"the archive expands to {total} bytes; the limit is {limit_bytes}.")
    return entries


def _array_name(entry: zipfile.ZipInfo) -> str:
    if not entry.filename.endswith(".npy") or "/" in entry.filename or entry.flag_bits & 0x1:
        raise UnreadableDataError(f"the archive holds {entry.filename!r}, which is not a plain .npy array.")
    return entry.filename.removesuffix(".npy")


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    """Read one array, after comparing the size in its header with the entry's declared size."""
    try:
        with archive.open(entry) as file:
            _check_header(file, entry)
        with archive.open(entry) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False, max_header_size=_HEADER_LIMIT))
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableDataError(f"array {entry.filename!r} cannot be read ({error}).") from error


def _check_header(file: IO[bytes], entry: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file, max_header_size=_HEADER_LIMIT)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    promised = prod(shape) * dtype.itemsize
    if promised > entry.file_size:
        raise ValueError(f"it promises {promised} bytes and has {entry.file_size}")


def _open_parquet(path: Path, limit_bytes: int) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with memory_told(), parquet.ParquetFile(path) as file:
            _check_table_size(rows=file.metadata.num_rows, columns=file.metadata.num_columns, limit_bytes=limit_bytes)
            batches, total = [], 0
            for batch in file.iter_batches():
                total += batch.nbytes
                if total > limit_bytes:
                    raise UnreadableDataError(f"the file expands to more than {limit_bytes} bytes.")
                batches.append(batch)
            table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableDataError(f"this is not a readable Parquet file ({error}).") from error
    return _table_columns(table)


def _open_csv(path: Path, limit_bytes: int, csv_format: CsvFormat | None) -> Columns:
    """Open a text table. Dates stay text, as they are written, because the file does not say what they are for."""
    import pyarrow as pa

    try:
        with memory_told():
            dialect = dialect_of(path, csv_format)
            table = _typed_table(path, dialect)
    except UnknownDialectError as error:
        raise UnreadableDataError(str(error)) from error
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise UnreadableDataError(f"this is not a readable CSV file with a header line ({error}).") from error
    _check_table_size(rows=table.num_rows, columns=table.num_columns, limit_bytes=limit_bytes)
    typed = _table_columns(table)

    def read(name: str) -> Array:
        values = typed.read(name)
        numbers = grouped_numbers(values, decimal=dialect.decimal) if values.dtype.kind == "O" else None
        return values if numbers is None else numbers

    def as_written(name: str) -> Array:
        return np.asarray(_read_csv(path, dialect, texts=[name]).column(name).to_numpy())

    return Columns(typed.names, read, tabular=True, as_written=as_written, line=lambda row: line_of(path, dialect, row))


def _typed_table(path: Path, dialect: Dialect) -> Any:
    """Return the Arrow table of a text file, with dates as text."""
    import pyarrow as pa

    if dialect != Dialect():
        say(f"  the table is read as {dialect.words}")
    table = _read_csv(path, dialect)
    dates = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    return _read_csv(path, dialect, texts=dates) if dates else table


def _read_csv(path: Path, dialect: Dialect, *, texts: Sequence[str] = ()) -> Any:
    """Return the Arrow table of a text file; the columns `texts` as they are written."""
    import pyarrow as pa
    from pyarrow import csv

    with pa.OSFile(str(path)) as file:  # given a path, pyarrow would unpack files by their extension
        return csv.read_csv(
            file,
            read_options=csv.ReadOptions(use_threads=False, encoding=dialect.encoding),
            parse_options=csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                decimal_point=dialect.decimal, column_types=dict.fromkeys(texts, pa.string())
            ),
        )


def _check_table_size(*, rows: int, columns: int, limit_bytes: int) -> None:
    if columns > _COLUMNS_LIMIT:
        raise UnreadableDataError(f"the table has {columns} columns; at most {_COLUMNS_LIMIT} are read.")
    if rows * columns * 8 > limit_bytes:
        raise UnreadableDataError(f"the table has {rows} rows of {columns} columns; the limit is {limit_bytes} bytes.")


def _table_columns(table: Any) -> Columns:
    import pyarrow as pa

    try:
        names = tuple(str(name) for name in table.column_names)
    except UnicodeDecodeError as error:
        raise UnreadableDataError(f"the names of its columns are not UTF-8 text ({error}).") from error
    duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
    if duplicate is not None:
        raise UnreadableDataError(f"column {duplicate!r} appears more than once.")

    def read(name: str) -> Array:
        column = table.column(name)
        if _is_list(column.type):
            with memory_told():
                return _array_of_lists(column, name)
        if column.type.num_fields:
            raise UnreadableDataError(
                f"column {name!r} holds {column.type}; give lists of numbers, or arrays of an NPZ file."
            )
        if pa.types.is_null(column.type) or pa.types.is_boolean(column.type) or pa.types.is_decimal(column.type):
            column = column.cast(pa.float64()) if column.null_count or not pa.types.is_boolean(column.type) else column
        try:
            with memory_told():
                return np.asarray(column.to_numpy())
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise UnreadableDataError(f"column {name!r} cannot be read; is its text UTF-8? ({error}).") from error

    return Columns(names=names, read=read, tabular=not any(_is_list(field.type) for field in table.schema))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _array_of_lists(column: Any, name: str) -> Array:
    """Return a column of lists of one length as an array (N, L), and of lists of lists as one of more axes."""
    from pyarrow import compute

    values, shape = column.combine_chunks(), [len(column)]
    while _is_list(values.type):
        if values.null_count:
            raise UnreadableDataError(f"column {name!r} has no list in {values.null_count} places.")
        lengths = np.unique(compute.list_value_length(values).to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise UnreadableDataError(
                f"column {name!r} has lists of {lengths[0]} to {lengths[-1]} values: pad them to one length, and where "
                "the model takes a mask, write 0 into it there."
            )
        shape.extend(map(int, lengths))
        values = values.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


_READERS: Mapping[DatasetFormat, Callable[[Path, int], Columns]] = {
    DatasetFormat.NPZ: _open_npz,
    DatasetFormat.PARQUET: _open_parquet,
}
