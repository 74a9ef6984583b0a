"""The ways to make a training set of recent and original rows. Pure; the same rows and seed give the same set.

RecentOnly has the recent rows alone: right where all has changed and they are many. Mixed gives them a share beside the
original rows, and repeats the smaller part: right where the old is still true, or the new is little. Weighted has all
recent rows, and of the original ones those that resemble them, as often as they do: right where a part has changed.
Original rows are drawn by their weights, not weighed, so that whatever trains can learn from the set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.gather import similarity
from optimizer_jobs.commands.gather.mixing import mix, newest
from optimizer_jobs.commands.gather.tables import Tables
from optimizer_jobs.data.datasets import Rows, joined

FEWEST_ROWS = 50
"""Rows of each part from which a classifier can tell the parts from each other."""
_CLASSIFIED = 50_000
"""Most rows of each part that the classifier looks at; other original rows are left out, evenly."""


class Policy(StrEnum):
    """A way to make a training set; the words are those of spec.refresh.policy."""

    MIXED = "Mixed"
    RECENT_ONLY = "RecentOnly"
    WEIGHTED = "Weighted"


@dataclass(frozen=True)
class Parts:
    """What training sets are made of. No row of validation or test is among it."""

    recent: Rows
    """Recent rows in the order of time."""
    original: Rows | None
    """Original rows of the same shapes; None where there are none."""
    share: float
    """Wanted share of recent rows in a mixture, between 0 and 1."""
    limit: int
    """Most rows of a training set."""
    seed: int


@dataclass(frozen=True)
class TrainingSet:
    """The rows to learn from under one policy."""

    policy: Policy
    rows: Rows
    original: int
    """How many different original rows are among them."""


def recent_only(parts: Parts) -> TrainingSet:
    """Return the newest of the recent rows."""
    kept = parts.recent.take(newest(len(parts.recent), limit=parts.limit))
    return TrainingSet(Policy.RECENT_ONLY, kept, original=0)


def mixed(parts: Parts) -> TrainingSet | None:
    """Return recent and original rows in their shares; None without original rows."""
    recent, old = parts.recent, parts.original
    if old is None:
        return None
    recent_rows, old_rows = mix(len(recent), len(old), share=parts.share, limit=parts.limit, seed=parts.seed)
    rows = joined([recent.take(recent_rows), old.take(old_rows)])
    return TrainingSet(Policy.MIXED, rows, original=len(np.unique(old_rows)))


def weighted(parts: Parts) -> TrainingSet | None:
    """Return recent rows, and original ones as often as they resemble them; None where no classifier can say."""
    old = parts.original
    if old is None or min(len(parts.recent), len(old)) < FEWEST_ROWS:
        return None
    recent, old = evenly(parts.recent, _CLASSIFIED), evenly(old, _CLASSIFIED)
    weights = _weights(_labelled(old), _labelled(recent), seed=parts.seed)
    if weights is None:
        return None
    kept = parts.recent.take(newest(len(parts.recent), limit=parts.limit))
    count = min(round(float(weights.sum())), parts.limit - len(kept))
    if count < 1:
        return TrainingSet(Policy.WEIGHTED, kept, original=0)
    chosen = similarity.drawn(weights, count, seed=parts.seed)
    return TrainingSet(Policy.WEIGHTED, joined([kept, old.take(chosen)]), original=len(np.unique(chosen)))


def _weights(old: Rows, recent: Rows, *, seed: int) -> NDArray[np.float64] | None:
    """Return the weight (N,) of each old row; None where rows are too wide, or no classifier learns from them."""
    tables = Tables.of(recent)
    if tables is None:
        return None
    try:
        return similarity.weights(tables.table(old), tables.table(recent), categories=tables.is_category, seed=seed)
    except (ValueError, MemoryError):
        return None


def all_sets(parts: Parts) -> Mapping[Policy, TrainingSet]:
    """Return the training set of every policy that is possible, the usual one first."""
    made = (mixed(parts), recent_only(parts), weighted(parts))
    return {each.policy: each for each in made if each is not None}


def evenly(rows: Rows, limit: int) -> Rows:
    """Return at most `limit` rows, spread evenly over all."""
    if len(rows) <= limit:
        return rows
    return rows.take(np.linspace(0, len(rows) - 1, limit).astype(np.int64))


def _labelled(rows: Rows) -> Rows:
    """Return rows with the label as one more input; as text, as which it is one category or another."""
    label = rows.answers.reshape(len(rows), -1)
    if label.dtype.kind != "f":
        label = label.astype(str).astype(object)
    name = f"{next(iter(rows.inputs))} label"
    return Rows({**rows.inputs, name: label}, None, rows.digest)
