"""Write some rows of a data file as a file of the same format, in a given order, with every cell as it was.

A text table keeps its encoding, its delimiter and the text of its cells, so that it is read like the whole table.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.csv_dialect import UnknownDialectError, dialect_of
from optimizer_jobs.data.readers import UnreadableDataError, open_columns
from retune.api.model import CsvFormat, DatasetFormat

Indices = NDArray[np.int64]


def write_subsets(
    source: Path, targets: Mapping[Path, Indices], *, rows: int, format_: DatasetFormat, csv_format: CsvFormat | None
) -> None:
    """Write one file for each set of rows.

    Args:
        source: The whole file.
        targets: Indices of rows, in the order in which they are written, by the file to write.
        rows: Rows of the whole file.
        format_: Its format, and that of the files.
        csv_format: How a CSV file is written, where the spec says so.

    Raises:
        UnreadableDataError: The file cannot be divided; the message is a sentence.
    """
    if format_ is DatasetFormat.CSV:
        _write_csv(source, targets, rows=rows, csv_format=csv_format)
    elif format_ is DatasetFormat.PARQUET:
        _write_parquet(source, targets)
    else:
        _write_npz(source, targets, rows=rows)


def _write_csv(source: Path, targets: Mapping[Path, Indices], *, rows: int, csv_format: CsvFormat | None) -> None:
    try:
        dialect = dialect_of(source, csv_format)
        with source.open(encoding=dialect.encoding, newline="") as file:
            header, *lines = (cells for cells in csv.reader(file, delimiter=dialect.delimiter) if cells)
    except (csv.Error, UnicodeError, UnknownDialectError) as error:
        raise UnreadableDataError(f"its lines cannot be divided ({error}).") from error
    if len(lines) != rows:
        raise UnreadableDataError(f"its {rows} rows cannot be told from its {len(lines)} lines: write it as Parquet.")
    for target, indices in targets.items():
        with target.open("w", encoding=dialect.encoding, newline="") as file:
            writer = csv.writer(file, delimiter=dialect.delimiter, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(lines[index] for index in indices.tolist())


def _write_parquet(source: Path, targets: Mapping[Path, Indices]) -> None:
    from pyarrow import parquet

    table = parquet.read_table(source)
    for target, indices in targets.items():
        parquet.write_table(table.take(indices), target)


def _write_npz(source: Path, targets: Mapping[Path, Indices], *, rows: int) -> None:
    """Write the rows of every array; one value stays one value, and arrays with their rows elsewhere are refused."""
    columns = open_columns(source, DatasetFormat.NPZ, limit_bytes=_NO_LIMIT)
    arrays: dict[str, NDArray[Any]] = {name: columns.read(name) for name in columns.names}
    for name, values in arrays.items():
        if values.size != 1 and len(values) != rows:
            raise UnreadableDataError(
                f"array {name!r} has shape {values.shape}, and the table has {rows} rows: divide the file by hand."
            )
    for target, indices in targets.items():
        chosen = {name: values if values.size == 1 else values[indices] for name, values in arrays.items()}
        np.savez_compressed(target, allow_pickle=False, **chosen)


_NO_LIMIT = 1 << 62
"""The whole file was read within its limit before."""
