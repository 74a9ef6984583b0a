"""Read one captured file in parts. Rows that cannot be used are counted by reason, and never raise an error.

A file is read in two steps: first the keys, which decide which rows are wanted, then the tensors of the wanted rows.
The sizes that the file declares are checked against the model before anything is unpacked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.production import layout
from optimizer_jobs.production.columns import Mask, is_text, kind_of, open_parquet, short, texts
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

Array = NDArray[Any]

GROUP_ROWS = 5_000_000
"""Most rows in one Parquet row group; larger groups are not read."""

UNFIT = "rows that do not fit the model"

_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 8192
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass
class Tally:
    """Counts what was not used, by reason, and remembers how rows fail to fit the model."""

    set_aside: Counter[str] = field(default_factory=Counter)
    """How many rows or files were not used, by reason."""
    _faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By fault, the number of rows and the file where it was first seen."""

    def unfit(self, fault: str, *, rows: int, file: str) -> None:
        """Count rows that do not fit the model; `fault` says why, such as `input.x is missing`."""
        self.set_aside[UNFIT] += rows
        count, first_file = self._faults.get(fault, (0, file))
        self._faults[fault] = (count + rows, first_file)

    @property
    def violations(self) -> tuple[str, ...]:
        """One sentence for each fault, the most frequent first."""
        ordered = sorted(self._faults.items(), key=lambda fault: -fault[1][0])
        return tuple(f"{fault} ({rows} rows, such as in {file})." for fault, (rows, file) in ordered)


@dataclass(frozen=True)
class Part:
    """N rows of a file."""

    request_ids: Array
    """(N,) text."""
    rows: NDArray[np.int64]
    """(N,): number of the row within its request."""
    times: Array
    """(N,) datetime64[us], UTC."""
    models: Array
    """(N,) text: digest of the model that answered."""
    tensors: Mapping[str, Array] = field(default_factory=dict)
    """By column, with shape (N, ...); empty while only the keys are read."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Array) -> "Part":
        """Return the rows at `indices`: a boolean mask (N,) or integers (M,)."""
        return Part(
            self.request_ids[indices],
            self.rows[indices],
            self.times[indices],
            self.models[indices],
            {name: values[indices] for name, values in self.tensors.items()},
        )


def joined(parts: Sequence[Part]) -> Part:
    """Return the rows of all parts as one part. At least one part is needed, and all must have the same shapes."""
    return Part(
        np.concatenate([part.request_ids for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.models for part in parts]),
        {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors},
    )


Choose = Callable[[Part], Mask]
"""Decides from the keys of N rows which of them are wanted; returns a mask (N,)."""


def read_file(source: IO[bytes], signature: Signature, *, name: str, choose: Choose, tally: Tally) -> Iterator[Part]:
    """Yield the wanted rows of a captured file.

    Args:
        source: The open file.
        signature: Inputs and outputs of the model.
        name: Name by which people know the file.
        choose: Decides which rows are wanted.
        tally: Counts the rows and files that cannot be used.
    """
    try:
        columns = layout.columns(signature)
        words = [column for column, spec in columns.items() if spec.dtype == TEXT and layout.scalar(spec)]
        with memory_told(), open_parquet(source, repetitive=[layout.REQUEST_ID, layout.MODEL, *words]) as file:
            if not is_capture(file.schema_arrow):
                tally.set_aside["files of another layout"] += 1
            elif not file.metadata.num_rows:
                tally.set_aside["empty files"] += 1
            else:
                yield from _Reader(file, columns, name, tally).parts(choose)
    except _UNREADABLE:
        tally.set_aside["files that cannot be read"] += 1


def is_capture(schema: pa.Schema) -> bool:
    """Return whether a file has the key columns, with types that can be converted to theirs."""
    kinds = {name: kind_of(schema, name) for name in layout.KEYS}
    if None in kinds.values():
        return False
    textual = all(is_text(kinds[name]) for name in (layout.REQUEST_ID, layout.MODEL))
    return textual and pa.types.is_integer(kinds[layout.ROW]) and pa.types.is_timestamp(kinds[layout.TIME])


class _Reader:
    """One open file in the capture format."""

    def __init__(self, file: parquet.ParquetFile, columns: Mapping[str, TensorSpec], name: str, tally: Tally) -> None:
        self._file, self._columns, self._name, self._tally = file, columns, name, tally
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._fault = self._unfit()

    def parts(self, choose: Choose) -> Iterator[Part]:
        """Yield the wanted rows of one row group after the other."""
        for group in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if rows > GROUP_ROWS:
                self._tally.set_aside["rows in parts too large to read"] += rows
                continue
            yield from self._group(group, choose)

    def _group(self, group: int, choose: Choose) -> Iterator[Part]:
        chosen = [self._chosen(batch, choose) for batch in self._batches(group, list(layout.KEYS), _BATCH_ROWS)]
        wanted = np.concatenate([mask for mask, _ in chosen]) if chosen else np.zeros(0, dtype=np.bool_)
        if not wanted.any():
            return
        fault = self._fault or self._oversized(group)
        if fault is not None:
            self._tally.unfit(fault, rows=int(wanted.sum()), file=self._name)
            return
        yield from self._with_tensors(group, wanted, joined([keys for _, keys in chosen]))

    def _with_tensors(self, group: int, wanted: Mask, keys: Part) -> Iterator[Part]:
        """Yield the wanted rows of a row group with their tensors; `keys` are those of the wanted rows."""
        start = taken = 0
        for batch in self._batches(group, list(self._columns), self._batch_rows):
            mask = wanted[start : start + len(batch)]
            start += len(batch)
            count = int(mask.sum())
            if not count:
                continue
            batch_keys = keys.take(np.arange(taken, taken + count))
            taken += count
            yield from self._decoded(batch.filter(pa.array(mask)), batch_keys)

    def _decoded(self, batch: pa.RecordBatch, keys: Part) -> Iterator[Part]:
        complete = self._complete(batch)
        if not complete.all():
            batch, keys = batch.filter(pa.array(complete)), keys.take(complete)
        if not len(keys):
            return
        tensors = self._tensors(batch)
        if tensors is not None:
            yield Part(keys.request_ids, keys.rows, keys.times, keys.models, tensors)

    def _complete(self, batch: pa.RecordBatch) -> Mask:
        """Return a mask (N,) of the rows that have all their values in every column; count the others."""
        complete = np.ones(len(batch), dtype=np.bool_)
        for name, spec in self._columns.items():
            sound = _sound(batch.column(name), spec, layout.size_of(self._shapes[name]))
            if not sound.all():
                fault = f"{name} has missing values or another number of them"
                self._tally.unfit(fault, rows=int((complete & ~sound).sum()), file=self._name)
            complete &= sound
        return complete

    def _tensors(self, batch: pa.RecordBatch) -> Mapping[str, Array] | None:
        """Return the tensors of a batch by column, or None when the model's types cannot hold the values."""
        tensors = {}
        for name, spec in self._columns.items():
            try:
                with memory_told():
                    tensors[name] = _array(batch.column(name), spec, self._shapes[name])
            except (pa.ArrowException, ValueError):
                fault = f"{name} has values that do not fit the model's {spec.dtype}"
                self._tally.unfit(fault, rows=len(batch), file=self._name)
                return None
        return tensors

    def _chosen(self, batch: pa.RecordBatch, choose: Choose) -> tuple[Mask, Part]:
        """Return a mask (N,) of the wanted rows of a batch, and the keys of the wanted rows."""
        mask = np.ones(len(batch), dtype=np.bool_)
        for name in layout.KEYS:
            mask &= ~np.asarray(batch.column(name).is_null())
        keys = _keys(batch.filter(pa.array(mask)))
        identified = np.asarray(keys.request_ids != "", dtype=np.bool_)
        incomplete = len(batch) - int(identified.sum())
        if incomplete:
            self._tally.set_aside["rows without id, row, time or model"] += incomplete
        wanted = identified & choose(keys)
        mask[mask] = wanted
        return mask, keys.take(wanted)

    def _batches(self, group: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            batch_size=rows, row_groups=[group], columns=columns, use_threads=False
        )
        return batches

    @property
    def _batch_rows(self) -> int:
        row_bytes = sum(8 * layout.size_of(self._shapes[name]) for name in self._columns)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(row_bytes, 1)))

    def _unfit(self) -> str | None:
        """Find the shapes of the columns; return why a column does not fit the model, or None when all do."""
        schema = self._file.schema_arrow
        for name, spec in self._columns.items():
            kind = kind_of(schema, name)
            if kind is None:
                return f"{name} is missing"
            if not _can_be(kind, spec):
                return f"{name} holds {kind}, but the model's holds {spec.dtype}"
            try:
                shape = layout.shape_of(schema.field(name), spec)
            except ValueError as error:
                return f"{name} {error}"
            self._shapes[name] = self._closed(name, shape)
        return None

    def _closed(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape whose unknown size (-1) is computed from the number of values in the file."""
        if -1 not in shape:
            return shape
        known = -layout.size_of(shape)
        rows = max(self._file.metadata.num_rows, 1)
        unknown = self._declared[name] // (rows * max(known, 1))
        return tuple(unknown if size == -1 else size for size in shape)

    def _oversized(self, group: int) -> str | None:
        """Return which column of a row group declares more values than its rows can have, or None."""
        rows, declared = self._file.metadata.row_group(group).num_rows, self._values([group])
        for name in self._columns:
            if declared[name] > rows * max(1, layout.size_of(self._shapes[name])):
                return f"{name} has more values than rows of shape {list(self._shapes[name])} have"
        return None

    @cached_property
    def _declared(self) -> Counter[str]:
        """How many values each column declares in the whole file."""
        return self._values(range(self._file.metadata.num_row_groups))

    def _values(self, groups: Iterable[int]) -> Counter[str]:
        """Return how many values each column of the model declares in these row groups, all its parts together."""
        lengths = sorted({len(name) for name in self._columns}, reverse=True)
        declared: Counter[str] = Counter()
        for group in groups:
            meta = self._file.metadata.row_group(group)
            for part in map(meta.column, range(meta.num_columns)):
                path = f"{part.path_in_schema}."
                begins = (path[:length] for length in lengths if path[length : length + 1] == ".")
                name = next((name for name in begins if name in self._columns), None)
                if name is not None:  # the longest: one name may go on after another's, as a and a.b do
                    declared[name] += part.num_values
        return declared


def _can_be(kind: pa.DataType, spec: TensorSpec) -> bool:
    """Return whether a column of this type can hold the tensor."""
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if nested is layout.scalar(spec):
        return False
    inner = kind.value_type if nested else kind
    if spec.dtype == TEXT:
        return is_text(inner)
    if spec.is_float:
        return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner))
    same = pa.types.is_boolean if spec.dtype == "bool" else pa.types.is_integer
    return bool(same(inner))


def _sound(column: pa.Array, spec: TensorSpec, size: int) -> Mask:
    """Return a mask (N,) of the rows that have all their values; a missing float counts as the value NaN."""
    if spec.is_float and layout.scalar(spec):
        return np.ones(len(column), dtype=np.bool_)
    sound: Mask = ~np.asarray(column.is_null())
    if layout.scalar(spec):
        return np.asarray(sound & short(column)) if spec.dtype == TEXT else sound
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
    sound &= lengths == size
    inner = column.filter(pa.array(sound)).flatten()
    if (inner.null_count and not spec.is_float) or spec.dtype == TEXT:
        bad = np.asarray(inner.is_null()).copy()
        bad |= ~short(inner) if spec.dtype == TEXT else False
        sound[sound] = ~bad.reshape(-1, max(size, 1)).any(axis=1)
    return sound


def _array(column: pa.Array, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Return the values of complete rows, with shape (N, ...), in the model's element type.

    Raises pyarrow's errors or ValueError for values that the type cannot hold.
    """
    inner = column if layout.scalar(spec) else column.flatten()
    target = (len(column), *(spec.shape[1:] if layout.scalar(spec) else shape))
    if spec.dtype == TEXT:
        return texts(inner).reshape(target)
    kind = layout.element(spec)
    cast = inner.cast(kind, safe=not (spec.is_float and pa.types.is_floating(inner.type)))
    return np.asarray(cast.to_numpy(zero_copy_only=False), dtype=spec.dtype).reshape(target)


def _keys(batch: pa.RecordBatch) -> Part:
    return Part(
        request_ids=texts(batch.column(layout.REQUEST_ID)),
        rows=np.asarray(batch.column(layout.ROW).cast(pa.int64())),
        times=np.asarray(batch.column(layout.TIME).cast(pa.timestamp("us"), safe=False)),
        models=texts(batch.column(layout.MODEL)),
    )
