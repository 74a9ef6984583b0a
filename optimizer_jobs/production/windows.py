"""Read the captured rows of a span of time, as they are: bounded, each once, and nothing of them is believed.

What is broken is counted and passed over, because production data must never stop whoever watches it. Of more rows
than wanted, a random sample is kept that depends on the rows and the seed only, not on the order of files.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production import files, layout
from optimizer_jobs.production.columns import Mask
from optimizer_jobs.production.reading import UNFIT, Part, Tally, joined, read_file
from optimizer_jobs.signature import Signature
from retune.api.monitoring import Production

Array = NDArray[Any]

FUTURE_SECONDS = 300
"""How far ahead a server's clock may be."""

SKEW_SECONDS = layout.HOUR
"""How far from its folder's hour a row may lie, because a server's clock or its name for the hour was off."""

POOL_BYTES = 512 << 20
"""Bytes of rows that are kept at most; where rows are large, fewer than asked for."""

VIOLATIONS_LIMIT = 8

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Captured:
    """Captured rows in the order of time, each once."""

    request_ids: Array
    """(N,) text."""
    rows: Array
    """(N,) int64: row within the request."""
    times: Array
    """(N,) datetime64[us], UTC."""
    models: Array
    """(N,) text: digest of what answered."""
    inputs: Mapping[str, Array]
    """By name, each (N, ...), in the model's element type."""
    outputs: Mapping[str, Array]
    violations: tuple[str, ...] = ()
    """What does not fit the model, as sentences."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """How many rows or files were passed over, by reason."""
    seen: int = 0
    """Rows of the span that could be read; more than are here when these are a sample."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Array | slice) -> "Captured":
        """Return the rows at `indices` (whole numbers, a mask or a slice), in that order."""
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


def answering(manifest: Manifest, digest: str) -> frozenset[str]:
    """Return what captured rows of a bundle name as their model: the bundle, or its model file where served bare."""
    return frozenset({digest, manifest.model_digest})


def read_window(  # noqa: PLR0913 - each by name
    production: Production,
    *,
    start: int,
    end: int,
    signature: Signature,
    model: str | Collection[str] | None,
    now: int,
    max_rows: int,
    into: Path,
    seed: int,
    among: Collection[str] | None = None,
) -> Captured:
    """Return the rows captured in [start, end), seconds since 1970.

    Args:
        production: Where they lie.
        start: Begin of the span.
        end: End of the span.
        signature: What the model takes and answers.
        model: Digests of the model whose rows are wanted; None takes those of every model.
        now: The time, to know what is of the future.
        max_rows: Rows that are wanted; of more, a random sample.
        into: Folder for private copies.
        seed: Makes the sample.
        among: Request ids that are wanted; None takes all.

    Raises:
        JobError: The folder cannot be listed or its server not be read.
    """
    tally = Tally()
    wanted = _Wanted(start, end, now, _digests(model), among, tally)
    sample = _Sample(max_rows, seed, wanted)
    found = list(files.below(production.uri, layout.partitions(start - SKEW_SECONDS, end + SKEW_SECONDS)))
    if len(found) > files.FILES_LIMIT:
        tally.set_aside["files beyond the limit"] += len(found) - files.FILES_LIMIT
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        for each in files.some(found, limit=files.FILES_LIMIT, seed=seed):
            _read(each, signature, sample=sample, tally=tally, into=Path(scratch))
    rows = captured_of(sample.finish() or _none(signature), signature)
    seen = max(len(rows), sample.seen - tally.set_aside[UNFIT])
    return replace(rows, violations=tally.violations[:VIOLATIONS_LIMIT], set_aside=dict(+tally.set_aside), seen=seen)


def _digests(model: str | Collection[str] | None) -> Collection[str] | None:
    return (model,) if isinstance(model, str) else model


def _read(each: files.Found, signature: Signature, *, sample: "_Sample", tally: Tally, into: Path) -> None:
    if not each.size:
        tally.set_aside["empty files"] += 1
        return
    if each.size > files.FILE_BYTES:
        tally.set_aside["files too large to read"] += 1
        return
    try:
        with files.opened(each, into=into) as source:
            name = "/".join(each.location.uri.split("/")[-3:])
            for part in read_file(source, signature, name=name, choose=sample.choose, tally=tally):
                sample.add(part)
    except OSError:
        tally.set_aside["files that cannot be read"] += 1


@dataclass
class _Wanted:
    """Which rows belong to the span."""

    start: int
    end: int
    now: int
    models: Collection[str] | None
    among: Collection[str] | None
    tally: Tally

    def __call__(self, part: Part) -> Mask:
        seconds = part.times.astype("datetime64[us]").astype(np.int64) / 1e6
        future = seconds > self.now + FUTURE_SECONDS
        inside = (seconds >= self.start) & (seconds < self.end) & ~future
        self._count("rows of the future", future)
        if self.models is not None:
            ours = np.isin(part.models.astype(str), list(self.models))
            self._count("rows of another model", inside & ~ours)
            inside &= ours
        if self.among is not None:
            inside &= np.fromiter((each in self.among for each in part.request_ids), np.bool_, len(part))
        return np.asarray(inside)

    def _count(self, reason: str, mask: Mask) -> None:
        if mask.any():
            self.tally.set_aside[reason] += int(mask.sum())


class _Sample:
    """Keeps the rows whose hash is smallest: a random sample in which the same row cannot be twice."""

    def __init__(self, size: int, seed: int, wanted: _Wanted) -> None:
        self._size, self._seed, self._wanted = size, seed, wanted
        self._parts: list[Part] = []
        self._limit = np.uint64(np.iinfo(np.uint64).max)
        self._held = self._bytes = 0
        self.seen = 0

    def choose(self, part: Part) -> Mask:
        """Return which rows may still be of the sample."""
        mask = self._wanted(part)
        self.seen += int(mask.sum())
        return np.asarray(mask & (self._ranked(part) <= self._limit))

    def add(self, part: Part) -> None:
        """Take rows that were chosen."""
        self._parts.append(part)
        self._held += len(part)
        self._bytes += _bytes_of(part)
        if self._held > 2 * self._size or self._bytes > 2 * POOL_BYTES:
            self._shrink()

    def finish(self) -> Part | None:
        """Return the sample in the order of time; None when there is no row."""
        if not self._parts:
            return None
        self._shrink()
        part = self._parts[0]
        return part.take(np.lexsort((part.rows, part.request_ids.astype(str), part.times)))

    def _shrink(self) -> None:
        parts = _of_one_shape(self._parts, self._wanted.tally)
        ranks = np.concatenate([self._ranked(part) for part in parts])
        first = np.unique(ranks, return_index=True)[1]
        doubled = len(ranks) - len(first)
        if doubled:
            self._wanted.tally.set_aside["doubled rows"] += doubled
            self.seen -= doubled
        each = max(1, sum(map(_bytes_of, parts)) // len(ranks))
        kept = first[: min(self._size, POOL_BYTES // each)]
        if len(kept) < len(first):
            self._limit = np.uint64(ranks[kept[-1]]) if len(kept) else np.uint64(0)
        part = joined(parts).take(kept)
        self._parts = [part]
        self._held, self._bytes = len(part), _bytes_of(part)

    def _ranked(self, part: Part) -> NDArray[np.uint64]:
        """Return a number for each row that looks random and is the same for the same request and row."""
        known = {name: _hash(name, self._seed) for name in set(part.request_ids.tolist())}
        mixed = np.fromiter((known[name] for name in part.request_ids), np.uint64, len(part))
        mixed = mixed + part.rows.astype(np.uint64) * _SPREAD
        for shift, factor in zip((30, 27), _MIX, strict=True):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _hash(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")


def _bytes_of(part: Part) -> int:
    return sum(values.nbytes for values in part.tensors.values()) + 256 * len(part)


def _of_one_shape(parts: list[Part], tally: Tally) -> list[Part]:
    """Return the parts whose rows have the shapes that most rows have; a model may leave sizes free."""
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
    """Return the rows of a part, with inputs and outputs by their own names."""
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
