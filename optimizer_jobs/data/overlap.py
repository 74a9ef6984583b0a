"""How many rows of the test set are copies of rows that a search may see: what is judged on them proves nothing.

Rows are compared by digest, inputs and label together, so that another order or another file hides nothing. Data of few
different values repeat by chance: what a set repeats within itself is not held against it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optimizer_jobs.data.datasets import Array, Rows

_TOLERATED = 0.05
"""Share of copied test rows above which a test set is refused, where its rows do not repeat by chance."""


@dataclass(frozen=True)
class Overlap:
    """Test rows that another set has too."""

    copies: int
    """Test rows that are also in the other set."""
    rows: int
    """Test rows."""
    by_chance: float
    """Share of test rows that rows of this kind may have in common with the other set by chance."""

    @property
    def share(self) -> float:
        """Share of test rows that are copies, from 0 to 1."""
        return self.copies / self.rows

    @property
    def is_leak(self) -> bool:
        """Whether so many rows are copies that quality on them would deceive."""
        return self.share > _TOLERATED + 2 * self.by_chance


def overlap(test: Rows, other: Rows) -> Overlap:
    """Return how many rows of `test` are rows of `other`, inputs and label alike.

    By chance, a row has a twin in the other set as often as in its own, times the other set's size relative to it.
    """
    digests, known = list(_digests(test)), set(_digests(other))
    repeated = (len(digests) - len(set(digests))) / len(digests)
    copies = sum(digest in known for digest in digests)
    return Overlap(copies, len(digests), by_chance=min(1.0, repeated * max(1.0, len(other) / len(test))))


def _digests(rows: Rows) -> Iterator[bytes]:
    """Yield the digest of each row's inputs and label; sets read for one model have the same element types."""
    columns = [*rows.inputs.values(), *([] if rows.labels is None else [rows.labels])]
    for place in range(len(rows)):
        digest = hashlib.blake2b(digest_size=16)
        for values in columns:
            digest.update(_as_bytes(values, place))
        yield digest.digest()


def _as_bytes(values: Array, place: int) -> bytes:
    row = values[place]
    return row.tobytes() if values.dtype.kind in "biuf" else repr(np.asarray(row, dtype=object).tolist()).encode()
