"""Read one captured file in parts, and say what does not fit instead of failing.

A file is looked at twice: first its keys, which decide which rows are wanted at all, then the tensors of those. Sizes
that the file promises are held against the model's before anything is unpacked.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.production import layout
from optimizer_jobs.production.columns import Mask, is_text, kind_of, open_parquet, short, texts
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

Array = NDArray[Any]

GROUP_ROWS = 5_000_000
"""Rows of a row group that is read."""

UNFIT = "rows that do not fit the model"

_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 8192
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass
class Tally:
    """What was set aside, by reason, and what does not fit the model."""

    set_aside: Counter[str] = field(default_factory=Counter)
    _unfit: dict[str, list[Any]] = field(default_factory=dict)

    def unfit(self, what: str, *, rows: int, file: str) -> None:
        """Note rows that do not fit the model, in words such as `input.x is missing`."""
        self.set_aside[UNFIT] += rows
        known = self._unfit.setdefault(what, [0, file])
        known[0] += rows

    @property
    def violations(self) -> tuple[str, ...]:
        """One sentence for each kind, the most frequent first."""
        ordered = sorted(self._unfit.items(), key=lambda item: -item[1][0])
        return tuple(f"{what} ({rows} rows, such as in {file})." for what, (rows, file) in ordered)


@dataclass(frozen=True)
class Part:
    """Some rows of a file. `tensors` by column, each (N, ...); empty while only the keys are read."""

    request_ids: Array
    rows: NDArray[np.int64]
    times: Array
    models: Array
    tensors: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Array) -> "Part":
        """Return the rows at `chosen`, a mask or whole numbers."""
        return Part(
            self.request_ids[chosen],
            self.rows[chosen],
            self.times[chosen],
            self.models[chosen],
            {name: values[chosen] for name, values in self.tensors.items()},
        )


def joined(parts: Sequence[Part]) -> Part:
    """Return the rows of all parts in one; there is at least one part, and rows have one shape."""
    return Part(
        np.concatenate([part.request_ids for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.models for part in parts]),
        {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors},
    )


Choose = Callable[[Part], Mask]
"""Says which rows are wanted, from their keys."""


def read_file(source: IO[bytes], signature: Signature, *, name: str, choose: Choose, tally: Tally) -> Iterator[Part]:
    """Yield the wanted rows of a captured file; what is wrong with it goes into `tally`."""
    try:
        wanted = layout.columns(signature)
        words = [column for column, spec in wanted.items() if spec.dtype == TEXT and layout.scalar(spec)]
        with open_parquet(source, often_same=[layout.REQUEST_ID, layout.MODEL, *words]) as file:
            if not _is_capture(file.schema_arrow):
                tally.set_aside["files of another layout"] += 1
            elif not file.metadata.num_rows:
                tally.set_aside["empty files"] += 1
            else:
                yield from _Reader(file, wanted, name, tally).parts(choose)
    except _UNREADABLE:
        tally.set_aside["files that cannot be read"] += 1


def _is_capture(schema: pa.Schema) -> bool:
    """Whether the keys are there, with types that can be read as theirs."""
    kinds = {name: kind_of(schema, name) for name in layout.KEYS}
    if None in kinds.values():
        return False
    textual = all(is_text(kinds[name]) for name in (layout.REQUEST_ID, layout.MODEL))
    return textual and pa.types.is_integer(kinds[layout.ROW]) and pa.types.is_timestamp(kinds[layout.TIME])


class _Reader:
    """One open file of the layout."""

    def __init__(self, file: parquet.ParquetFile, wanted: Mapping[str, TensorSpec], name: str, tally: Tally) -> None:
        self._file, self._wanted, self._name, self._tally = file, wanted, name, tally
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._fault = self._unfit()

    def parts(self, choose: Choose) -> Iterator[Part]:
        """Yield the wanted rows of one row group after the other."""
        for group in range(self._file.metadata.num_row_groups):
            promised = self._file.metadata.row_group(group).num_rows
            if promised > GROUP_ROWS:
                self._tally.set_aside["rows in parts too large to read"] += promised
                continue
            yield from self._group(group, choose)

    def _group(self, group: int, choose: Choose) -> Iterator[Part]:
        keys = [self._chosen(batch, choose) for batch in self._batches(group, list(layout.KEYS), _BATCH_ROWS)]
        wanted = np.concatenate([mask for mask, _ in keys]) if keys else np.zeros(0, dtype=np.bool_)
        if not wanted.any():
            return
        fault = self._fault or self._oversized(group)
        if fault is not None:
            self._tally.unfit(fault, rows=int(wanted.sum()), file=self._name)
            return
        part = joined([part for _, part in keys])
        yield from self._with_tensors(group, wanted, part)

    def _with_tensors(self, group: int, wanted: Mask, part: Part) -> Iterator[Part]:
        start = taken = 0
        for batch in self._batches(group, list(self._wanted), self._batch_rows):
            here = wanted[start : start + len(batch)]
            start += len(batch)
            count = int(here.sum())
            if not count:
                continue
            keys = part.take(np.arange(taken, taken + count))
            taken += count
            yield from self._decoded(batch.filter(pa.array(here)), keys)

    def _decoded(self, batch: pa.RecordBatch, keys: Part) -> Iterator[Part]:
        good = np.ones(len(keys), dtype=np.bool_)
        for name, spec in self._wanted.items():
            sound = _sound(batch.column(name), spec, layout.size_of(self._shapes[name]))
            if not sound.all():
                self._tally.unfit(
                    f"{name} has missing values or another number of them",
                    rows=int((good & ~sound).sum()),
                    file=self._name,
                )
            good &= sound
        if not good.all():
            batch, keys = batch.filter(pa.array(good)), keys.take(good)
        if not len(keys):
            return
        tensors = {}
        for name, spec in self._wanted.items():
            try:
                tensors[name] = _array(batch.column(name), spec, self._shapes[name])
            except (pa.ArrowException, ValueError):
                what = f"{name} has values that do not fit the model's {spec.dtype}"
                self._tally.unfit(what, rows=len(keys), file=self._name)
                return
        yield Part(keys.request_ids, keys.rows, keys.times, keys.models, tensors)

    def _chosen(self, batch: pa.RecordBatch, choose: Choose) -> tuple[Mask, Part]:
        """Return which rows of a batch are wanted, and their keys."""
        whole = np.ones(len(batch), dtype=np.bool_)
        for name in layout.KEYS:
            whole &= ~np.asarray(batch.column(name).is_null())
        part = _keys(batch.filter(pa.array(whole)))
        named = np.asarray(part.request_ids != "", dtype=np.bool_)
        nameless = len(batch) - int(named.sum())
        if nameless:
            self._tally.set_aside["rows without id, row, time or model"] += nameless
        wanted = named & choose(part)
        whole[whole] = wanted
        return whole, part.take(wanted)

    def _batches(self, group: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            batch_size=rows, row_groups=[group], columns=columns, use_threads=False
        )
        return batches

    @property
    def _batch_rows(self) -> int:
        size = sum(8 * layout.size_of(self._shapes[name]) for name in self._wanted)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(size, 1)))

    def _unfit(self) -> str | None:
        """Return what about the file's columns does not fit the model, or None; learn their shapes."""
        schema = self._file.schema_arrow
        for name, spec in self._wanted.items():
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
        """Return a shape with its free size as the file's number of values implies."""
        if -1 not in shape:
            return shape
        known = -layout.size_of(shape)
        rows = max(self._file.metadata.num_rows, 1)
        free = self._values(name, range(self._file.metadata.num_row_groups)) // (rows * max(known, 1))
        return tuple(free if size == -1 else size for size in shape)

    def _oversized(self, group: int) -> str | None:
        """Return which column promises more values than its rows have, or None."""
        rows = self._file.metadata.row_group(group).num_rows
        for name in self._wanted:
            if self._values(name, [group]) > rows * max(1, layout.size_of(self._shapes[name])):
                return f"{name} has more values than rows of shape {list(self._shapes[name])} have"
        return None

    def _values(self, name: str, groups: Any) -> int:
        meta = self._file.metadata
        total = 0
        for group in groups:
            for index in range(meta.num_columns):
                column = meta.row_group(group).column(index)
                if column.path_in_schema == name or column.path_in_schema.startswith(f"{name}."):
                    total += column.num_values
        return total


def _can_be(kind: pa.DataType, spec: TensorSpec) -> bool:
    """Whether a column of that type can hold the tensor."""
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
    """Return which rows have all their values; a missing number of a float is no value but NaN."""
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
    """Return sound rows as (N, ...) of the model's element type; raises for values that it cannot hold."""
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
