"""Labels that come late: what turned out to be true of captured rows, joined by request id and row.

A newer file corrects an older one. Labels that contradict each other within a file say nothing, so they are counted
and set aside, as are those of requests that nobody captured.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from optimizer_jobs.production import files, layout
from optimizer_jobs.production.columns import is_text, kind_of, open_parquet, texts
from optimizer_jobs.production.windows import Captured
from retune.api.monitoring import Labels

Array = NDArray[Any]
Label = int | float | str
Key = tuple[str, int]

CONTRADICTING = "labels that contradict each other"
UNKNOWN = "labels of requests that were not captured"

SKEW_SECONDS = 3600
"""How much older than the first request a file of labels may seem, because clocks differ."""

_BATCH_ROWS = 8192
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass
class Known:
    """What is known to be true, by request id and row."""

    answers: dict[Key, Label] = field(default_factory=dict)
    set_aside: Counter[str] = field(default_factory=Counter)

    @property
    def request_ids(self) -> frozenset[str]:
        """Requests with a label."""
        return frozenset(request for request, _ in self.answers)


def join(captured: Captured, labels: Labels, *, into: Path, limit: int) -> tuple[Captured, Array, Mapping[str, int]]:
    """Return the captured rows that have a label, their labels, and what was set aside, by reason.

    Args:
        captured: Rows, perhaps none.
        labels: Where labels lie.
        into: Folder for private copies.
        limit: Labels that are kept at most.

    Raises:
        JobError: The folder cannot be listed or its server not be read.
    """
    since = float(captured.times.min().astype("datetime64[s]").astype(np.int64)) if len(captured) else 0.0
    known = read_labels(labels, since=since, into=into, limit=limit, among=set(captured.request_ids.tolist()))
    return match(captured, known)


def match(captured: Captured, known: Known) -> tuple[Captured, Array, Mapping[str, int]]:
    """Return the captured rows with a label, their labels (M,), and what was set aside, by reason.

    Labels are int64 where all are whole numbers, float64 where they are numbers, and text otherwise.
    """
    keys = zip(captured.request_ids.tolist(), captured.rows.tolist(), strict=True)
    found = [known.answers.get(key) for key in keys]
    textual = sum(isinstance(label, str) for label in found)
    numeric = sum(isinstance(label, int | float) for label in found)
    kind: Any = str if textual > numeric else (int, float)
    index = np.flatnonzero([isinstance(label, kind) for label in found])
    set_aside = Counter(known.set_aside)
    if min(textual, numeric):
        set_aside["labels of another type than most"] += min(textual, numeric)
    return captured.take(index), _as_array([found[place] for place in index]), dict(set_aside)


def read_labels(labels: Labels, *, since: float, into: Path, limit: int, among: Collection[str] | None = None) -> Known:
    """Return labels, the newest file's for each row.

    Args:
        labels: Where they lie.
        since: Files that were not changed since then, in seconds since 1970, are passed over.
        into: Folder for private copies.
        limit: Labels that are kept at most.
        among: Requests whose labels are wanted; None takes all.

    Raises:
        JobError: The folder cannot be listed or its server not be read.
    """
    found = [each for each in files.anywhere(labels.uri) if not 0 < each.changed < since - SKEW_SECONDS]
    newest = sorted(found, key=lambda each: (each.changed, each.location.uri), reverse=True)
    known, seen = Known(), set[Key]()
    if len(newest) > files.FILES_LIMIT:
        known.set_aside["files of labels beyond the limit"] += len(newest) - files.FILES_LIMIT
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        for each in newest[: files.FILES_LIMIT]:
            fresh = _of_file(each, labels.column, known=known, into=Path(scratch), among=among, seen=seen)
            _add(fresh, known, seen, limit=limit)
    return known


def _add(fresh: Mapping[Key, Label | None], known: Known, seen: set[Key], *, limit: int) -> None:
    for key, label in fresh.items():
        if len(seen) >= limit:
            known.set_aside["labels beyond the limit"] += 1
            continue
        seen.add(key)
        if label is None:
            known.set_aside[CONTRADICTING] += 1
        else:
            known.answers[key] = label


def _of_file(
    each: files.Found, column: str, *, known: Known, into: Path, among: Collection[str] | None, seen: set[Key]
) -> Mapping[Key, Label | None]:
    """Return the labels of one file that no newer one has; None for those that contradict each other."""
    fresh: dict[Key, Label | None] = {}
    if not 0 < each.size <= files.FILE_BYTES:
        known.set_aside["files of labels that are empty or too large"] += 1
        return fresh
    try:
        with files.opened(each, into=into) as source:
            for key, label in _pairs(source, column, known.set_aside):
                if among is not None and key[0] not in among:
                    known.set_aside[UNKNOWN] += 1
                elif key not in seen:
                    fresh[key] = label if fresh.setdefault(key, label) == label else None
    except _UNREADABLE:
        known.set_aside["files of labels that cannot be read"] += 1
    return fresh


def _pairs(source: IO[bytes], column: str, set_aside: Counter[str]) -> Iterator[tuple[Key, Label]]:
    """Yield request id, row and label of every line that has all of them."""
    with open_parquet(source, often_same=[layout.REQUEST_ID]) as file:
        schema = file.schema_arrow
        if not _has_labels(schema, column):
            set_aside["files without labels"] += 1
            return
        row_kind = kind_of(schema, layout.ROW)
        numbered = row_kind is not None and pa.types.is_integer(row_kind)
        wanted = [layout.REQUEST_ID, column, *([layout.ROW] if numbered else [])]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted, use_threads=False):
            names = texts(batch.column(layout.REQUEST_ID))
            rows = batch.column(layout.ROW).to_pylist() if numbered else [0] * len(batch)
            for name, row, label in zip(names, rows, _values(batch.column(column)), strict=True):
                if not name or row is None or label is None:
                    set_aside["labels that are empty or of no row"] += 1
                else:
                    yield (name, row), label


def _has_labels(schema: pa.Schema, column: str) -> bool:
    kind, row = kind_of(schema, column), kind_of(schema, layout.ROW)
    if kind is None or not is_text(kind_of(schema, layout.REQUEST_ID)):
        return False
    if row is not None and not (pa.types.is_integer(row) or pa.types.is_null(row)):
        return False
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(number or is_text(kind))


def _values(column: pa.Array) -> list[Label | None]:
    if is_text(column.type):
        return [label or None for label in texts(column)]
    numbers: list[Any] = column.to_pylist()
    return [None if number is None or not np.isfinite(number) else _plain(number) for number in numbers]


def _plain(number: float) -> int | float:
    """Return a whole number as one, whatever it was written as, so that 3 and 3.0 are the same label."""
    return int(number) if float(number).is_integer() else float(number)


def _as_array(labels: list[Label | None]) -> Array:
    if all(isinstance(label, int) for label in labels):
        return np.asarray(labels, dtype=np.int64)
    return np.asarray(labels)
