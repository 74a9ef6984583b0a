"""Rows of a window from what other servers log of their requests, without any capturing of our own.

A log names the model that answered by chance only. Rows that name none count as those of the model that is looked at,
which is right because a window is judged only while one version serves.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.production import files, layout
from optimizer_jobs.production.reading import Part, Tally, joined
from optimizer_jobs.signature import Signature, TensorSpec

Array = NDArray[Any]

UNNAMED = "unknown"
"""In place of a digest where neither the log nor the caller names a model."""

LATE_SECONDS = layout.HOUR
"""How long after a request the file with it may be written, and how far clocks may differ."""

_PART_ROWS = 2048
_PART_BYTES = 32 << 20

_Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Span:
    """Which requests are wanted."""

    uri: str
    """URI of the folder with the files."""
    start: int
    """Requests from this time on, in seconds since 1970."""
    end: int
    """Requests before this time, in seconds since 1970."""
    request_ids: Collection[str] | None
    """None takes all requests."""
    model: str
    """Digest for rows that do not name the model that answered."""
    seed: int
    """Seed of the sample, where there are too many files."""
    into: Path
    """Folder for private copies."""

    def has(self, time: float) -> bool:
        """Return whether the span has a moment, in seconds since 1970."""
        return self.start <= time < self.end

    def wants(self, request_id: str) -> bool:
        """Return whether a request of this id is wanted."""
        return self.request_ids is None or request_id in self.request_ids


@dataclass(frozen=True)
class Exchange:
    """A request of N rows with its answer."""

    request_id: str
    time: float
    """When it came, in seconds since 1970."""
    model: str
    """Digest of the model that answered."""
    inputs: Mapping[str, Array]
    """By name, with shape (N, ...), in the model's element type."""
    outputs: Mapping[str, Array]
    """By name, with shape (N, ...), in the model's element type."""
    file: str
    """Name of the file that it is from, as people know it."""

    @property
    def tensors(self) -> dict[str, Array]:
        """Inputs and outputs by column."""
        inputs = {layout.INPUT + name: values for name, values in self.inputs.items()}
        return inputs | {layout.OUTPUT + name: values for name, values in self.outputs.items()}


def listed(span: Span, names: re.Pattern[str], tally: Tally, *, largest: int) -> list[files.ListedFile]:
    """Return the files that may have requests of a span, the oldest first.

    Args:
        span: Which requests are wanted.
        names: Pattern of the files' whole names.
        tally: Counts the files that are too large, and those beyond the limit on names.
        largest: Largest file that is read, in bytes.

    Raises:
        JobError: The folder cannot be listed.
    """
    found = []
    for number, file in enumerate(files.under(span.uri, names=names), start=1):
        if number == files.NAMES_LIMIT:
            tally.set_aside["folders with more files than are considered"] += 1
        if file.changed and not span.start - LATE_SECONDS <= file.changed <= span.end + LATE_SECONDS:
            continue
        if file.size > largest:
            tally.set_aside["files too large to read"] += 1
        elif file.size:
            found.append(file)
    return sorted(found, key=lambda file: (file.changed, file.location.uri))


def short_name(file: files.ListedFile) -> str:
    """Return the name by which people know a file."""
    return "/".join(file.location.uri.split("/")[-3:])


def parts(exchanges: Iterable[Exchange], signature: Signature, tally: Tally) -> Iterator[Part]:
    """Yield the rows of requests that fit the model; the others are counted as unfit."""
    columns = layout.columns(signature)
    waiting: dict[_Shapes, list[Part]] = {}
    rows = size = 0
    for exchange in exchanges:
        tensors = exchange.tensors
        fault = _fault(tensors, columns)
        if fault is not None:
            rows_of = max(len(values) if values.ndim else 1 for values in tensors.values())
            tally.unfit(fault, rows=rows_of, file=exchange.file)
            continue
        part = _part(exchange, {name: tensors[name] for name in columns})
        waiting.setdefault(tuple(tensors[name].shape[1:] for name in columns), []).append(part)
        rows, size = rows + len(part), size + sum(values.nbytes for values in tensors.values())
        if rows >= _PART_ROWS or size >= _PART_BYTES:
            yield from map(joined, waiting.values())
            waiting, rows, size = {}, 0, 0
    yield from map(joined, waiting.values())


def _fault(tensors: Mapping[str, Array], columns: Mapping[str, TensorSpec]) -> str | None:
    """Return why a request does not fit the model, or None when it does."""
    counts: Counter[int] = Counter()
    for name, spec in columns.items():
        values = tensors.get(name)
        if values is None:
            return f"{name} is missing"
        wanted = spec.shape[1:]
        if values.ndim != len(wanted) + 1:
            return f"{name} has shape {list(values.shape)}, but the model's is {list(spec.shape)}"
        if any(want not in {-1, have} for want, have in zip(wanted, values.shape[1:], strict=True)):
            return f"{name} has rows of shape {list(values.shape[1:])}, but the model's are {list(wanted)}"
        counts[len(values)] += 1
    return None if len(counts) == 1 else "inputs and outputs have different numbers of rows"


def _part(exchange: Exchange, tensors: Mapping[str, Array]) -> Part:
    count = len(next(iter(tensors.values())))
    moment = np.datetime64(round(exchange.time * 1e6), "us")
    ids, models = np.empty(count, dtype=object), np.empty(count, dtype=object)
    ids[:], models[:] = exchange.request_id, exchange.model
    return Part(ids, np.arange(count, dtype=np.int64), np.full(count, moment), models, tensors)
