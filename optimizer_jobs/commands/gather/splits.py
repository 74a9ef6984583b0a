"""Split labelled rows by time, without leaks between the splits. Pure.

A model is judged on the newest rows, so on a time that it has not seen. Of the older ones, blocks of time that are
spread over all of them are for validation: were they the newest, a model would learn nothing of that time, and what it
learns would be old when it goes live. They only compare candidates with each other; the test decides. The rows of a
request stay together. If the same row appears in several splits, it is kept only in test, or else in validation.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.times import NAMES, SHARES
from optimizer_jobs.production.windows import Captured

Array = NDArray[Any]

_BLOCKS = 25
"""Blocks of time of as many rows each, which are dealt to the splits: 15, 5 and 5 of them, as `SHARES` are."""
_DECIDING = np.arange(round(SHARES[1] * _BLOCKS), _BLOCKS)
_VALIDATING = np.arange(1, _DECIDING[0], 4)
_TEACHING = np.setdiff1d(np.arange(_DECIDING[0]), _VALIDATING)
_ROUNDING = 1e-9
_NONE = np.empty(0, np.int64)

RARE = 0.01
"""A class with a smaller share of the rows may be missing in a split."""


@dataclass(frozen=True)
class Splits:
    """Rows by split."""

    indices: Mapping[str, Array]
    """Indices of the rows by split."""
    repeated: int
    """Number of rows that were left out because another split has them, too."""


def split(rows: Captured) -> Splits:
    """Split captured rows: the newest are for the test, and blocks of time among the others for validation."""
    requests, sizes = _requests(rows)
    parts = _by_time(requests, np.cumsum(sizes) / max(1, len(rows)))
    digests = fingerprints(rows.inputs)
    indices, taken, repeated = {}, set[bytes](), 0
    for name in reversed(NAMES):
        kept = [index for index in parts[name].tolist() if digests[index] not in taken]
        repeated += len(parts[name]) - len(kept)
        taken |= {digests[index] for index in kept}
        indices[name] = np.asarray(kept, dtype=np.int64)
    return Splits({name: indices[name] for name in NAMES}, repeated)


def _by_time(requests: list[Array], ends: NDArray[np.float64]) -> Mapping[str, Array]:
    """Return the indices of the rows of each split.

    Args:
        requests: Indices of each request's rows, the oldest request first.
        ends: Which share of all rows each request ends at.
    """
    blocks = np.minimum(np.ceil(ends * _BLOCKS - _ROUNDING).astype(np.int64) - 1, _BLOCKS - 1)
    chosen = {"training": _TEACHING, "validation": _VALIDATING, "test": _DECIDING}
    return {
        name: np.concatenate([*(requests[place] for place in np.flatnonzero(np.isin(blocks, numbers))), _NONE])
        for name, numbers in chosen.items()
    }


def in_time(splits: Splits) -> tuple[Array, Array]:
    """Return the indices of all rows but the test's as older ones (N,) and newer ones (M,), in the order of time."""
    before = np.sort(np.concatenate([splits.indices["training"], splits.indices["validation"]]))
    cut = round(len(before) * SHARES[0] / SHARES[1])
    return before[:cut], before[cut:]


def fingerprints(inputs: Mapping[str, Array]) -> list[bytes]:
    """Return a digest of each row's inputs, so that equal rows have equal digests.

    Args:
        inputs: Values by input name, with shape (N, ...).

    Returns:
        N digests.
    """
    count = len(next(iter(inputs.values())))
    return [_fingerprint([values[index] for values in inputs.values()]) for index in range(count)]


def imbalance(labels: Mapping[str, Array]) -> str | None:
    """Return which class is missing in which split, in words without a full stop.

    Args:
        labels: Labels (N,) by split.

    Returns:
        None when no class is missing in any split, apart from rare classes.
    """
    classes, counts = np.unique(np.concatenate(list(labels.values())), return_counts=True)
    least = RARE * sum(map(len, labels.values()))
    common = [label for label, count in zip(classes, counts, strict=True) if count >= least]
    for name, values in labels.items():
        missing = [str(label) for label in common if not (values == label).any()]
        if missing:
            return f"no row of class {', '.join(missing[:5])} is in the {name} rows"
    return None


def rare_label(labels: Mapping[str, Array]) -> str | None:
    """Return which of several labels no row of a split has, though other splits do, in words without a full stop.

    Args:
        labels: Zeros and ones (N, L) by split.

    Returns:
        None when every label but rare ones is in every split.
    """
    common = np.concatenate(list(labels.values())).mean(axis=0) >= RARE
    for name, values in labels.items():
        missing = np.flatnonzero(common & ~values.astype(np.bool_).any(axis=0))
        if len(missing):
            return f"no row of label {', '.join(map(str, missing[:5]))}, counted from 0, is in the {name} rows"
    return None


def without(rows: Rows, excluded: set[bytes]) -> Rows:
    """Return the rows whose fingerprints are not excluded."""
    kept = [fingerprint not in excluded for fingerprint in fingerprints(rows.inputs)]
    return rows.take(np.asarray(kept, dtype=np.bool_))


def _requests(rows: Captured) -> tuple[list[Array], Array]:
    """Return the indices of each request's rows, the oldest request first, and the number of rows of each request."""
    _, first, inverse = np.unique(rows.request_ids.astype(str), return_index=True, return_inverse=True)
    began = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(began, inverse, rows.times.astype("datetime64[us]").astype(np.int64))
    by_request = np.argsort(inverse, kind="stable")
    groups = np.split(by_request, np.cumsum(np.bincount(inverse))[:-1])
    ordered = [groups[number] for number in np.argsort(began, kind="stable")]
    return ordered, np.asarray([len(group) for group in ordered])


def _fingerprint(row: list[Array]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for values in row:
        if values.dtype == object or np.ndim(values) == 0:
            digest.update(repr(np.asarray(values).tolist()).encode())
        else:  # adding 0 turns -0.0 into 0.0, which is equal
            digest.update(np.ascontiguousarray(values + 0 if values.dtype.kind == "f" else values).tobytes())
    return digest.digest()
