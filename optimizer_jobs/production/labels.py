"""Labels that arrive later than the requests: they are joined with captured rows by request id and row number.

A newer file corrects an older one. Labels that contradict each other within one file are not used but counted, and so
are labels of requests that were not captured.
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
"""How much older than the first request a file of labels may look, because clocks differ."""

_BATCH_ROWS = 8192
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass
class Known:
    """The labels that were read."""

    answers: dict[Key, Label] = field(default_factory=dict)
    """Label by request id and row number."""
    set_aside: Counter[str] = field(default_factory=Counter)
    """How many labels or files were not used, by reason."""

    @property
    def request_ids(self) -> frozenset[str]:
        """Requests with a label."""
        return frozenset(request for request, _ in self.answers)


def join(captured: Captured, labels: Labels, *, into: Path, limit: int) -> tuple[Captured, Array, Mapping[str, int]]:
    """Read labels and join them with captured rows.

    Args:
        captured: Captured rows.
        labels: URI and column of the labels.
        into: Folder for private copies.
        limit: Most labels that are kept.

    Returns:
        As `match` does.

    Raises:
        JobError: The folder cannot be listed, or its server cannot be read.
    """
    since = float(captured.times.min().astype("datetime64[s]").astype(np.int64)) if len(captured) else 0.0
    known = read_labels(labels, since=since, into=into, limit=limit, among=set(captured.request_ids.tolist()))
    return match(captured, known)


def match(captured: Captured, known: Known) -> tuple[Captured, Array, Mapping[str, int]]:
    """Join labels with captured rows.

    Returns:
        The M captured rows with a label; their labels (M,), int64 when all are whole numbers, float64 when all are
        numbers, else text; and how many labels or files were not used, by reason.
    """
    keys = zip(captured.request_ids.tolist(), captured.rows.tolist(), strict=True)
    labels = [known.answers.get(key) for key in keys]
    textual = sum(isinstance(label, str) for label in labels)
    numeric = sum(isinstance(label, int | float) for label in labels)
    kind: Any = str if textual > numeric else (int, float)
    indices = np.flatnonzero([isinstance(label, kind) for label in labels])
    set_aside = Counter(known.set_aside)
    if min(textual, numeric):
        set_aside["labels of another type than most"] += min(textual, numeric)
    return captured.take(indices), _as_array([labels[index] for index in indices]), dict(set_aside)


def read_labels(labels: Labels, *, since: float, into: Path, limit: int, among: Collection[str] | None = None) -> Known:
    """Read labels. If several files have a label for the same row, the newest file's counts.

    Args:
        labels: URI and column of the labels.
        since: Files that were last changed before this time, in seconds since 1970, are skipped.
        into: Folder for private copies.
        limit: Most labels that are kept.
        among: Request ids whose labels are wanted; None takes all.

    Raises:
        JobError: The folder cannot be listed, or its server cannot be read.
    """
    recent = [file for file in files.under(labels.uri) if not 0 < file.changed < since - SKEW_SECONDS]
    newest = sorted(recent, key=lambda file: (file.changed, file.location.uri), reverse=True)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        gathering = _Gathering(labels.column, among, limit, Path(scratch))
        if len(newest) > files.FILES_LIMIT:
            gathering.set_aside["files of labels beyond the limit"] += len(newest) - files.FILES_LIMIT
        for file in newest[: files.FILES_LIMIT]:
            gathering.add(file)
    return gathering.known


class _Gathering:
    """Collects the labels of files, which come newest first."""

    def __init__(self, column: str, among: Collection[str] | None, limit: int, into: Path) -> None:
        self._column, self._among, self._limit, self._into = column, among, limit, into
        self._seen: set[Key] = set()
        self.known = Known()

    @property
    def set_aside(self) -> Counter[str]:
        """How many labels or files were not used, by reason."""
        return self.known.set_aside

    def add(self, file: files.ListedFile) -> None:
        """Take the labels of a file for rows that no newer file has labelled."""
        for key, label in self._labels(file).items():
            if len(self._seen) >= self._limit:
                self.set_aside["labels beyond the limit"] += 1
                continue
            self._seen.add(key)
            if label is None:
                self.set_aside[CONTRADICTING] += 1
            else:
                self.known.answers[key] = label

    def _labels(self, file: files.ListedFile) -> Mapping[Key, Label | None]:
        """Return a file's labels for rows that no newer file has; None for labels that contradict each other."""
        labels: dict[Key, Label | None] = {}
        if not 0 < file.size <= files.FILE_BYTES:
            self.set_aside["files of labels that are empty or too large"] += 1
            return labels
        try:
            with files.opened(file, into=self._into) as source:
                for key, label in _pairs(source, self._column, self.set_aside):
                    if self._among is not None and key[0] not in self._among:
                        self.set_aside[UNKNOWN] += 1
                    elif key not in self._seen:
                        labels[key] = label if labels.setdefault(key, label) == label else None
        except _UNREADABLE:
            self.set_aside["files of labels that cannot be read"] += 1
        return labels


def _pairs(source: IO[bytes], column: str, set_aside: Counter[str]) -> Iterator[tuple[Key, Label]]:
    """Yield request id, row number and label of every line that has all three."""
    with open_parquet(source, repetitive=[layout.REQUEST_ID]) as file:
        schema = file.schema_arrow
        if not _has_labels(schema, column):
            set_aside["files without labels"] += 1
            return
        row_kind = kind_of(schema, layout.ROW)
        numbered = row_kind is not None and pa.types.is_integer(row_kind)
        wanted = [layout.REQUEST_ID, column, *([layout.ROW] if numbered else [])]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted, use_threads=False):
            request_ids = texts(batch.column(layout.REQUEST_ID))
            rows = batch.column(layout.ROW).to_pylist() if numbered else [0] * len(batch)
            for request_id, row, label in zip(request_ids, rows, _values(batch.column(column)), strict=True):
                if not request_id or row is None or label is None:
                    set_aside["labels that are empty or of no row"] += 1
                else:
                    yield (request_id, row), label


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
    """Return a whole number as int and any other as float, so that 3 and 3.0 are the same label."""
    return int(number) if float(number).is_integer() else float(number)


def _as_array(labels: list[Label | None]) -> Array:
    if all(isinstance(label, int) for label in labels):
        return np.asarray(labels, dtype=np.int64)
    return np.asarray(labels)
