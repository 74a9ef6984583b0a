"""How far the labels of a dated row reach into the time after it, as the steps of a forecast do.

Nothing in a table says that its labels are steps to come. It shows where rows follow one another: what is the second
step of one row is the first step of the next. Where it does not show, nothing is claimed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.times import ORDER, Times, shown

Array = NDArray[Any]
Span = np.timedelta64

_PAIRS, _ROWS = 100, 1000
"""Pairs of neighbouring times, and rows at each of them, that are looked at."""
_MOST = 0.5
"""Share of rows above which their steps come again in the rows of the next time."""


def reach_of(labels: Array | None, times: Times) -> Span | None:
    """Return how long after its row the last label lies; None where labels do not show that they are steps to come.

    Args:
        labels: Numbers (N, K) of each row; others show nothing.
        times: Time (N,) of each row.
    """
    if labels is None or labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind != "f":
        return None
    moments, place = np.unique(times, return_inverse=True)
    if len(moments) < 3:
        return None
    gaps = np.diff(moments)
    usual = np.median(gaps.astype(np.int64)).astype(np.int64)
    rows = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    neighbours = np.flatnonzero(gaps.astype(np.int64) == usual)
    chosen = neighbours[np.unique(np.linspace(0, len(neighbours) - 1, _PAIRS).astype(int))]
    pairs = [(labels[rows[at][:_ROWS]], labels[rows[at + 1][:_ROWS]]) for at in chosen]
    steps = labels.shape[1]
    shift = next((by for by in range(1, steps) if _comes_again(pairs, by)), None)
    return None if shift is None else Span(int(np.ceil(usual * steps / shift)), "us")


def _comes_again(pairs: list[tuple[Array, Array]], by: int) -> bool:
    """Whether the labels of most rows, but for the first `by`, begin a row of the next time, and not the reverse."""
    forward = sum(_shared(before[:, by:], after[:, :-by]) for before, after in pairs)
    backward = sum(_shared(before[:, :-by], after[:, by:]) for before, after in pairs)
    return forward > _MOST * sum(len(before) for before, _ in pairs) and forward > 2 * backward


def _shared(ends: Array, starts: Array) -> int:
    """Return how many rows of `ends` are rows of `starts`."""
    known = {row.tobytes() for row in np.ascontiguousarray(starts)}
    return sum(row.tobytes() in known for row in np.ascontiguousarray(ends))


def reaching(times: Times, reach: Span, border: np.datetime64) -> NDArray[np.bool_]:
    """Return which rows (N,) before a border have labels that reach up to it or over it."""
    return np.asarray((times < border) & (times + reach >= border))


def overlaps(times: Mapping[str, Times], labels: Mapping[str, Array | None]) -> Iterator[str]:
    """Yield, in words, which splits have labels that reach into the times of a later split, and in how many rows.

    Args:
        times: Times (N,) of the rows of each split that has them.
        labels: Labels (N, K) of each split; None where there are none.
    """
    for before, after in ORDER:
        if before not in times or after not in times:
            continue
        reach = reach_of(labels.get(before), times[before])
        if reach is None:
            continue
        border = times[after].min()
        rows = int(reaching(times[before], reach, border).sum())
        if rows:
            yield (
                f"the labels of {rows} of {len(times[before])} {before} rows reach into the times of the {after} rows, "
                f"which begin at {shown(border)}: these judge what was learned from; leave those rows out"
            )
