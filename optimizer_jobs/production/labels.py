"""Labels that arrive later than the requests: they are joined with captured rows by request id and row number.

A newer file corrects an older one. Labels that contradict each other within one file are not used but counted, and so
are labels of requests that are not among the rows: of other times, or never captured.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.production import files, layout
from optimizer_jobs.production.columns import is_text, kind_of, open_parquet, texts
from optimizer_jobs.production.label_columns import (
    LIST_LIMIT,
    Label,
    are_there,
    as_array,
    columns_of,
    form_of,
    is_number,
    is_scalar,
    labels_of,
    values_of,
    width_of,
)
from optimizer_jobs.production.windows import Captured
from retune.api.production import Labels

Array = NDArray[Any]
Key = tuple[str, int]

CONTRADICTING = "labels that contradict each other"
UNKNOWN = "labels of requests of other times, or that were not captured"

UNWEIGHTED = "labels without a weight of at least 0"

OTHERS = "labels of another type than most"
"""Lists of another length are of another type, too."""

SKEW_SECONDS = 3600
"""How much older than the first request a file of labels may look, because clocks differ."""

_BATCH_ROWS, _BATCH_NUMBERS = 8192, 1 << 20
_NUMBERS_PER_LABEL = 16
"""Numbers of a list that take as much memory as a label of one value."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


class Entry(NamedTuple):
    """What a file of labels says of one row."""

    label: Label
    group: str | None = None
    """What the row belongs to; None where the spec names no column of groups."""
    weight: float | None = None
    """How much the row counts; None where the spec names no column of weights."""


@dataclass(frozen=True)
class Truth:
    """What is known by now of M captured rows."""

    labels: Array
    """(M,): int64 when all are whole numbers, float64 when all are numbers, else text; (M, L) for several a row."""
    groups: Array | None = None
    """(M,): what each row belongs to; None where the spec names no column of groups."""
    weights: NDArray[np.float64] | None = None
    """(M,): how much each row counts; None where the spec names no column of weights."""

    def take(self, kept: Array) -> "Truth":
        """Return what is known of some of the rows: a mask (M,), or their places."""
        groups, weights = (None if values is None else values[kept] for values in (self.groups, self.weights))
        return Truth(self.labels[kept], groups, weights)


@dataclass
class Known:
    """The labels that were read."""

    answers: dict[Key, Entry] = field(default_factory=dict)
    """What is said of a row, by request id and row number."""
    set_aside: Counter[str] = field(default_factory=Counter)
    """How many labels or files were not used, by reason."""

    @property
    def request_ids(self) -> frozenset[str]:
        """Requests with a label."""
        return frozenset(request for request, _ in self.answers)


def join(captured: Captured, labels: Labels, *, into: Path, limit: int) -> tuple[Captured, Truth, Mapping[str, int]]:
    """Read labels and join them with captured rows.

    Args:
        captured: Captured rows.
        labels: URI and columns of the labels.
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


def match(captured: Captured, known: Known) -> tuple[Captured, Truth, Mapping[str, int]]:
    """Join labels with captured rows.

    Returns:
        The M captured rows with a label; what is known of them; and how many labels or files were not used, by reason.
    """
    keys = zip(captured.request_ids.tolist(), captured.rows.tolist(), strict=True)
    entries = [known.answers.get(key) for key in keys]
    forms = [form_of(entry.label) if entry else None for entry in entries]
    counts = Counter(form for form in forms if form)
    most = max(counts, key=lambda form: (counts[form], form != form_of("")), default=None)
    indices = [at for at, form in enumerate(forms) if form and form == most]
    set_aside = Counter(known.set_aside)
    if len(counts) > 1:
        set_aside[OTHERS] += counts.total() - len(indices)
    chosen = [entry for at in indices if (entry := entries[at]) is not None]
    return captured.take(np.asarray(indices, dtype=np.int64)), _truth(chosen), dict(set_aside)


def _truth(entries: list[Entry]) -> Truth:
    groups = [entry.group for entry in entries if entry.group is not None]
    weights = [entry.weight for entry in entries if entry.weight is not None]
    return Truth(
        labels=as_array([entry.label for entry in entries]),
        groups=np.asarray(groups) if groups else None,
        weights=np.asarray(weights, dtype=np.float64) if weights else None,
    )


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
        gathering = _Gathering(labels, among, limit, Path(scratch))
        if len(newest) > files.FILES_LIMIT:
            gathering.set_aside["files of labels beyond the limit"] += len(newest) - files.FILES_LIMIT
        for file in newest[: files.FILES_LIMIT]:
            gathering.add(file)
    return gathering.known


class _Gathering:
    """Collects the labels of files, which come newest first."""

    def __init__(self, spec: Labels, among: Collection[str] | None, limit: int, into: Path) -> None:
        self._spec, self._among, self._limit, self._into = spec, among, limit, into
        self._seen: set[Key] = set()
        self._kept = 0
        self.known = Known()

    @property
    def set_aside(self) -> Counter[str]:
        """How many labels or files were not used, by reason."""
        return self.known.set_aside

    def add(self, file: files.ListedFile) -> None:
        """Take the labels of a file for rows that no newer file has labelled."""
        for key, label in self._labels(file).items():
            if self._kept >= self._limit:
                self.set_aside["labels beyond the limit"] += 1
                continue
            self._seen.add(key)
            self._kept += 1 if label is None else _size(label)
            if label is None:
                self.set_aside[CONTRADICTING] += 1
            else:
                self.known.answers[key] = label

    def _labels(self, file: files.ListedFile) -> Mapping[Key, Entry | None]:
        """Return a file's labels for rows that no newer file has; None for labels that contradict each other."""
        labels: dict[Key, Entry | None] = {}
        if not 0 < file.size <= files.FILE_BYTES:
            self.set_aside["files of labels that are empty or too large"] += 1
            return labels
        try:
            with memory_told(), files.opened(file, into=self._into) as source:
                for key, label in _pairs(source, self._spec, self.set_aside):
                    if self._among is not None and key[0] not in self._among:
                        self.set_aside[UNKNOWN] += 1
                    elif key not in self._seen:
                        labels[key] = label if labels.setdefault(key, label) == label else None
        except _UNREADABLE:
            self.set_aside["files of labels that cannot be read"] += 1
        return labels


def _size(entry: Entry) -> int:
    """Return how many labels of one value take as much memory."""
    return 1 + int(np.size(entry.label)) // _NUMBERS_PER_LABEL if isinstance(entry.label, tuple) else 1


def _pairs(source: IO[bytes], spec: Labels, set_aside: Counter[str]) -> Iterator[tuple[Key, Entry]]:
    """Yield request id, row number and what is said of the row, for every line that has all of them."""
    with open_parquet(source, repetitive=[layout.REQUEST_ID]) as file:
        schema = file.schema_arrow
        width = width_of(file, spec)
        lacking = _lacking(schema, spec) or ("files of labels that are too long" if width > LIST_LIMIT else "")
        if lacking:
            set_aside[lacking] += 1
            return
        row_kind = kind_of(schema, layout.ROW)
        numbered = row_kind is not None and pa.types.is_integer(row_kind)
        named = (*columns_of(spec), spec.group_column, spec.weight_column, layout.ROW if numbered else None)
        wanted = list(dict.fromkeys([layout.REQUEST_ID, *(name for name in named if name)]))
        rows_at_once = min(_BATCH_ROWS, _BATCH_NUMBERS // max(1, width))
        for batch in file.iter_batches(batch_size=rows_at_once, columns=wanted, use_threads=False):
            request_ids = texts(batch.column(layout.REQUEST_ID))
            rows = batch.column(layout.ROW).to_pylist() if numbered else [0] * len(batch)
            for request_id, row, entry in zip(request_ids, rows, _entries(batch, spec), strict=True):
                if not request_id or row is None or entry is None:
                    set_aside["labels that are empty or of no row"] += 1
                elif entry.weight is not None and not (np.isfinite(entry.weight) and entry.weight >= 0):
                    set_aside[UNWEIGHTED] += 1
                else:
                    yield (request_id, row), entry


def _entries(batch: pa.RecordBatch, spec: Labels) -> list[Entry | None]:
    """Return what each line says of its row; None where it has no label, or no group though there is a column of it."""
    labels, count = labels_of(batch, spec), len(batch)
    groups = [None] * count if spec.group_column is None else values_of(batch.column(spec.group_column))
    weights = [None] * count if spec.weight_column is None else batch.column(spec.weight_column).to_pylist()
    entries: list[Entry | None] = []
    for label, group, weight in zip(labels, groups, weights, strict=True):
        if label is None or (group is None and spec.group_column is not None):
            entries.append(None)
        else:
            number = None if spec.weight_column is None else float("nan") if weight is None else float(weight)
            entries.append(Entry(label, None if group is None else str(group), number))
    return entries


def _lacking(schema: pa.Schema, spec: Labels) -> str:
    """Return why a file cannot be used, as what is counted; empty where it can."""
    if not _has_labels(schema, spec):
        return "files without labels"
    if spec.group_column is not None and not is_scalar(kind_of(schema, spec.group_column)):
        return "files of labels without groups"
    weight = None if spec.weight_column is None else kind_of(schema, spec.weight_column)
    if spec.weight_column is not None and not is_number(weight):
        return "files of labels without weights"
    return ""


def _has_labels(schema: pa.Schema, spec: Labels) -> bool:
    row = kind_of(schema, layout.ROW)
    if not is_text(kind_of(schema, layout.REQUEST_ID)):
        return False
    if row is not None and not (pa.types.is_integer(row) or pa.types.is_null(row)):
        return False
    return are_there(schema, spec)
