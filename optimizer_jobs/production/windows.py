"""Read the captured rows of a span of time. The files are hostile input.

Broken rows and files are counted and skipped, because bad production data must never stop monitoring. If there are more
rows than wanted, a random sample is kept; it depends on the rows and the seed only, not on the order of files.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production import files, foreign, kserve_files, layout, triton_traces
from optimizer_jobs.production.columns import Mask
from optimizer_jobs.production.reading import UNFIT, Part, Tally, joined, read_file
from optimizer_jobs.signature import Signature
from retune.api.production import CaptureFormat, Production

Array = NDArray[Any]

FUTURE_SECONDS = 300
"""How far the clock of a server may be ahead."""

SKEW_SECONDS = layout.HOUR
"""How far a row's time may lie outside the hour of its folder, because a server's clock was wrong."""

POOL_BYTES = 512 << 20
"""Most memory for the sampled rows; if rows are large, fewer are kept than wanted."""

VIOLATIONS_LIMIT = 8
"""Most sentences about rows that do not fit the model."""

_LOGS: dict[CaptureFormat, Callable[[foreign.Span, Signature, Tally], Iterator[foreign.Exchange]]] = {
    CaptureFormat.KSERVE: kserve_files.exchanges,
    CaptureFormat.TRITON: triton_traces.exchanges,
}
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Captured:
    """N captured rows in the order of time, without duplicates."""

    request_ids: Array
    """(N,) text."""
    rows: Array
    """(N,) int64: number of the row within its request."""
    times: Array
    """(N,) datetime64[us], UTC."""
    models: Array
    """(N,) text: digest of the model that answered."""
    inputs: Mapping[str, Array]
    """By name, with shape (N, ...), in the model's element type."""
    outputs: Mapping[str, Array]
    """By name, with shape (N, ...), in the model's element type."""
    violations: tuple[str, ...] = ()
    """How rows fail to fit the model, as sentences."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """How many rows or files were skipped, by reason."""
    seen: int = 0
    """Rows that were wanted and could be read; more than N when these rows are a sample."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Array | slice) -> "Captured":
        """Return the rows at `indices`, in their order: integers (M,), a boolean mask (N,) or a slice."""
        return Captured(
            self.request_ids[indices],
            self.rows[indices],
            self.times[indices],
            self.models[indices],
            {name: values[indices] for name, values in self.inputs.items()},
            {name: values[indices] for name, values in self.outputs.items()},
            self.violations,
            self.set_aside,
            self.seen,
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which captured rows are wanted."""

    start: int
    """Rows from this time on, in seconds since 1970."""
    end: int
    """Rows before this time, in seconds since 1970."""
    now: int
    """Current time in seconds since 1970; rows that lie in the future are wrong."""
    models: Collection[str] | None = None
    """Digests of the models that answered; None takes the rows of all models."""
    request_ids: Collection[str] | None = None
    """None takes the rows of all requests."""


def answering(manifest: Manifest, digest: str) -> frozenset[str]:
    """Return the digests by which captured rows name a bundle's model: the bundle's and its model file's."""
    return frozenset({digest, manifest.model_digest})


def read_window(
    production: Production, signature: Signature, selection: Selection, *, max_rows: int, into: Path, seed: int
) -> Captured:
    """Return the captured rows of a selection.

    Args:
        production: URI of the captured requests.
        signature: Inputs and outputs of the model.
        selection: Which rows are wanted.
        max_rows: Most rows that are returned; if there are more, a random sample of this size.
        into: Folder for private copies.
        seed: Seed of the sample.

    Raises:
        JobError: The folder cannot be listed, or its server cannot be read.
    """
    tally = Tally()
    sample = _Sample(max_rows, seed, selection, tally)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        read = _read_own if production.format is CaptureFormat.RETUNE else _read_foreign
        read(production, signature, sample, into=Path(scratch))
    rows = captured_of(sample.finish() or _none(signature), signature)
    seen = max(len(rows), sample.seen)
    return replace(rows, violations=tally.violations[:VIOLATIONS_LIMIT], set_aside=dict(+tally.set_aside), seen=seen)


def _read_own(production: Production, signature: Signature, sample: "_Sample", *, into: Path) -> None:
    """Read files in our own layout; the keys of unfit rows have been seen, so they are subtracted."""
    selection, tally = sample.selection, sample.tally
    hours = layout.partitions(selection.start - SKEW_SECONDS, selection.end + SKEW_SECONDS)
    listed = list(files.in_folders(production.uri, hours))
    if len(listed) > files.FILES_LIMIT:
        tally.set_aside["files beyond the limit"] += len(listed) - files.FILES_LIMIT
    for file in files.sample(listed, limit=files.FILES_LIMIT, seed=sample.seed):
        _read(file, signature, sample=sample, tally=tally, into=into)
    sample.seen -= tally.set_aside[UNFIT]


def _read_foreign(production: Production, signature: Signature, sample: "_Sample", *, into: Path) -> None:
    """Read what another server logs of its requests."""
    selection = sample.selection
    span = foreign.Span(
        uri=production.uri,
        start=selection.start,
        end=selection.end,
        request_ids=selection.request_ids,
        model=min(selection.models or (foreign.UNNAMED,)),
        seed=sample.seed,
        into=into,
    )
    exchanges = _LOGS[production.format](span, signature, sample.tally)
    for part in foreign.parts(exchanges, signature, sample.tally):
        chosen = part.take(sample.choose(part))
        if len(chosen):
            sample.add(chosen)


def _read(file: files.ListedFile, signature: Signature, *, sample: "_Sample", tally: Tally, into: Path) -> None:
    if not file.size:
        tally.set_aside["empty files"] += 1
        return
    if file.size > files.FILE_BYTES:
        tally.set_aside["files too large to read"] += 1
        return
    try:
        with memory_told(), files.opened(file, into=into) as source:
            name = "/".join(file.location.uri.split("/")[-3:])
            for part in read_file(source, signature, name=name, choose=sample.choose, tally=tally):
                sample.add(part)
    except OSError:
        tally.set_aside["files that cannot be read"] += 1


def _wanted(part: Part, selection: Selection, tally: Tally) -> Mask:
    """Return a mask (N,) of the rows of a part that belong to the selection; count rows that are odd."""
    seconds = part.times.astype("datetime64[us]").astype(np.int64) / 1e6
    future = seconds > selection.now + FUTURE_SECONDS
    wanted = (seconds >= selection.start) & (seconds < selection.end) & ~future
    tally.set_aside["rows of the future"] += int(future.sum())
    if selection.models is not None:
        ours = np.isin(part.models.astype(str), list(selection.models))
        tally.set_aside["rows of another model"] += int((wanted & ~ours).sum())
        wanted &= ours
    if selection.request_ids is not None:
        ids = selection.request_ids
        wanted &= np.fromiter((request_id in ids for request_id in part.request_ids), np.bool_, len(part))
    return np.asarray(wanted)


class _Sample:
    """Keeps the rows with the smallest hashes: a random sample that holds no row twice."""

    def __init__(self, size: int, seed: int, selection: Selection, tally: Tally) -> None:
        self.seed, self.selection, self.tally = seed, selection, tally
        self._size = size
        self._parts: list[Part] = []
        self._limit = np.uint64(np.iinfo(np.uint64).max)
        self._held = self._bytes = 0
        self.seen = 0

    def choose(self, part: Part) -> Mask:
        """Return a mask (N,) of the rows that may still become part of the sample."""
        mask = _wanted(part, self.selection, self.tally)
        self.seen += int(mask.sum())
        return np.asarray(mask & (self._ranked(part) <= self._limit))

    def add(self, part: Part) -> None:
        """Add rows that `choose` chose."""
        self._parts.append(part)
        self._held += len(part)
        self._bytes += _bytes_of(part)
        if self._held > 2 * self._size or self._bytes > 2 * POOL_BYTES:
            self._shrink()

    def finish(self) -> Part | None:
        """Return the sample in the order of time, or None when there are no rows."""
        if not self._parts:
            return None
        self._shrink()
        part = self._parts[0]
        return part.take(np.lexsort((part.rows, part.request_ids.astype(str), part.times)))

    def _shrink(self) -> None:
        """Drop duplicates, and all but the rows with the smallest hashes."""
        parts = _of_one_shape(self._parts, self.tally)
        ranks = np.concatenate([self._ranked(part) for part in parts])
        first = np.unique(ranks, return_index=True)[1]
        duplicates = len(ranks) - len(first)
        if duplicates:
            self.tally.set_aside["doubled rows"] += duplicates
            self.seen -= duplicates
        row_bytes = max(1, sum(map(_bytes_of, parts)) // len(ranks))
        kept = first[: min(self._size, POOL_BYTES // row_bytes)]
        if len(kept) < len(first):
            self._limit = np.uint64(ranks[kept[-1]]) if len(kept) else np.uint64(0)
        part = joined(parts).take(kept)
        self._parts = [part]
        self._held, self._bytes = len(part), _bytes_of(part)

    def _ranked(self, part: Part) -> NDArray[np.uint64]:
        """Return a hash (N,) of request id and row number for each row."""
        hashes = {request_id: _hash(request_id, self.seed) for request_id in set(part.request_ids.tolist())}
        mixed = np.fromiter((hashes[request_id] for request_id in part.request_ids), np.uint64, len(part))
        mixed = mixed + part.rows.astype(np.uint64) * _SPREAD
        for shift, factor in zip((30, 27), _MIX, strict=True):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _hash(request_id: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{request_id}".encode(), digest_size=8).digest(), "little")


def _bytes_of(part: Part) -> int:
    return sum(values.nbytes for values in part.tensors.values()) + 256 * len(part)


def _of_one_shape(parts: list[Part], tally: Tally) -> list[Part]:
    """Return the parts whose rows have the most frequent shapes; rows differ when the model leaves sizes free."""
    counts: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for part in parts:
        counts[_shapes(part)] += len(part)
    common = counts.most_common(1)[0][0]
    if len(counts) > 1:
        tally.set_aside["rows of a rarer shape"] += counts.total() - counts[common]
    return [part for part in parts if _shapes(part) == common]


def _shapes(part: Part) -> tuple[tuple[int, ...], ...]:
    return tuple(values.shape[1:] for values in part.tensors.values())


def captured_of(part: Part, signature: Signature) -> Captured:
    """Return the rows of a part, with inputs and outputs by the names that the model gives them."""
    inputs, outputs = (
        {spec.name: part.tensors[prefix + spec.name] for spec in specs}
        for prefix, specs in ((layout.INPUT, signature.inputs), (layout.OUTPUT, signature.outputs))
    )
    return Captured(part.request_ids, part.rows, part.times, part.models, inputs, outputs, seen=len(part))


def _none(signature: Signature) -> Part:
    texts = np.empty(0, dtype=object)
    tensors = {
        name: np.empty((0, *(max(size, 0) for size in spec.shape[1:])), dtype=_dtype(spec.dtype))
        for name, spec in layout.columns(signature).items()
    }
    return Part(texts, np.empty(0, np.int64), np.empty(0, "datetime64[us]"), texts, tensors)


def _dtype(name: str) -> Any:
    return object if name == "str" else name
