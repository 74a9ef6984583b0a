"""Split labelled rows in the order of time, without a way for one split to know another. Pure.

The oldest rows are for learning, the newest decide: a model is judged on a time it has not seen. The rows of a request
stay together, and a row that comes again later is left out where it is older.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.production.windows import Captured

Array = NDArray[Any]

SHARES = (0.6, 0.8)
"""Where training and validation end, as shares of all rows."""

RARE = 0.01
"""Share of the rows below which a class may be absent from a split."""

NAMES = ("training", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Places of rows by split, and how many were left out because they come again later."""

    places: Mapping[str, Array]
    repeated: int


def split(rows: Captured) -> Splits:
    """Return which rows belong to which split."""
    order, sizes = _requests(rows)
    ends = np.cumsum(sizes)
    cuts = [int(np.searchsorted(ends, share * len(rows), side="right")) for share in SHARES]
    parts = [np.concatenate([*block, np.empty(0, np.int64)]) for block in _blocks(order, cuts)]
    prints = fingerprints(rows.inputs)
    places, later, repeated = {}, set[bytes](), 0
    for name, part in zip(reversed(NAMES), reversed(parts), strict=True):
        kept = [place for place in part.tolist() if prints[place] not in later]
        repeated += len(part) - len(kept)
        later |= {prints[place] for place in kept}
        places[name] = np.asarray(kept, dtype=np.int64)
    return Splits({name: places[name] for name in NAMES}, repeated)


def fingerprints(inputs: Mapping[str, Array]) -> list[bytes]:
    """Return a digest of each row's inputs; equal rows have equal ones."""
    count = len(next(iter(inputs.values())))
    return [_fingerprint([values[place] for values in inputs.values()]) for place in range(count)]


def imbalance(labels: Mapping[str, Array]) -> str | None:
    """Return which class is missing where, in words without a full stop; None when each split has all but rare ones."""
    counted = np.unique(np.concatenate(list(labels.values())), return_counts=True)
    least = RARE * sum(map(len, labels.values()))
    common = [kind for kind, count in zip(*counted, strict=True) if count >= least]
    for name, found in labels.items():
        missing = [str(kind) for kind in common if not (found == kind).any()]
        if missing:
            return f"no row of class {', '.join(missing[:5])} is in the {name} rows"
    return None


def without(rows: Rows, known: set[bytes]) -> Rows:
    """Return the rows whose inputs are not among the known ones."""
    return rows.take(np.asarray([each not in known for each in fingerprints(rows.inputs)], dtype=np.bool_))


def _requests(rows: Captured) -> tuple[list[Array], Array]:
    """Return the places of each request's rows, the oldest request first, and how many each has."""
    _, first, inverse = np.unique(rows.request_ids.astype(str), return_index=True, return_inverse=True)
    began = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(began, inverse, rows.times.astype("datetime64[us]").astype(np.int64))
    by_request = np.argsort(inverse, kind="stable")
    groups = np.split(by_request, np.cumsum(np.bincount(inverse))[:-1])
    ordered = [groups[place] for place in np.argsort(began, kind="stable")]
    return ordered, np.asarray([len(group) for group in ordered])


def _blocks(order: list[Array], cuts: list[int]) -> tuple[list[Array], ...]:
    return order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]


def _fingerprint(values: list[Array]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for each in values:
        if each.dtype == object or np.ndim(each) == 0:
            digest.update(repr(np.asarray(each).tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(each + 0 if each.dtype.kind == "f" else each).tobytes())
    return digest.digest()
