"""The time of each row, and what is wrong with splits whose times overlap.

A forecast is judged on what came after everything it was learned from. Rows are never moved or dropped here: it is the
owner who splits, and who is told.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.readers import Columns, UnreadableDataError

Times = NDArray[np.datetime64]

SHARES = (0.6, 0.8)
"""Where training and validation end, as shares (0..1) of all rows in the order of time."""
NAMES = ("training", "validation", "test")
"""The splits in the order of time, the oldest first."""
_ROUNDING = 1e-9
_COUNTS = 1_000_000
"""Numbers below which times are counted, such as years or steps: as seconds, they would be days of January 1970."""
ORDER = (("training", "validation"), ("training", "test"), ("calibration", "test"), ("validation", "test"))
"""Splits of which the first must end before the second begins."""


def times_of(columns: Columns, name: str) -> Times:
    """Return the time (N,) of each row: dates, ISO 8601 text, or numbers, which are seconds or any other count.

    Raises:
        UnreadableDataError: The column is missing, or a cell is no time.
    """
    if name not in columns.names:
        raise UnreadableDataError(f"time column {name!r} is missing; found: {', '.join(columns.names[:20])}.")
    values = columns.read(name)
    if values.ndim != 1:
        raise UnreadableDataError(f"time column {name!r} has shape {values.shape}; it needs one time a row.")
    times = np.asarray([_time(value) for value in values.tolist()] if values.dtype.kind in "OUS" else _of(values))
    missing = np.flatnonzero(np.isnat(times))
    if len(missing):
        place = columns.place(int(missing[0]))
        raise UnreadableDataError(
            f"time column {name!r} holds no time in {len(missing)} of {len(values)} rows, the first in {place}: write "
            "ISO 8601, such as 2026-01-31T12:00, or numbers."
        )
    return times.astype("datetime64[us]")


def _of(values: NDArray[np.generic]) -> Times:
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    numbers = values.astype(np.float64)
    counts = np.where(np.isfinite(numbers), np.round(np.nan_to_num(numbers) * 1e6), 0).astype(np.int64)
    times = counts.astype("datetime64[us]")
    times[~np.isfinite(numbers)] = np.datetime64("NaT")
    return times


def _time(cell: object) -> np.datetime64:
    text = cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return np.datetime64("NaT", "us")
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


def shown(moment: np.datetime64) -> str:
    """Return a time for a sentence: to the second, a date alone at midnight, and a count such as a year as a number."""
    seconds = moment.astype("datetime64[us]").astype(np.int64) / 1e6
    if abs(seconds) < _COUNTS:
        return f"{seconds:.10g}"
    return str(moment.astype("datetime64[s]")).removesuffix("T00:00:00")


def overlaps(times: Mapping[str, Times]) -> Iterator[str]:
    """Yield, in words, which splits overlap in time, and by how many rows.

    Args:
        times: Times (N,) of the rows of each split that has them.
    """
    for before, after in ORDER:
        if before not in times or after not in times:
            continue
        end = times[before].max()
        early = int((times[after] <= end).sum())
        if early:
            yield (
                f"{early} of {len(times[after])} {after} rows are not later than the last {before} row ({shown(end)}): "
                f"quality on them says little of a time to come; split by time, {before} before {after}"
            )


def backwards(times: Mapping[str, Times]) -> str | None:
    """Return, in words, that the whole test split is earlier than the whole training split, or None."""
    if "training" not in times or "test" not in times or times["test"].max() >= times["training"].min():
        return None
    end, begin = shown(times["test"].max()), shown(times["training"].min())
    return (
        f"all {len(times['test'])} test rows are earlier than every training row (they end at {end}, and training "
        f"begins at {begin}), so a model that learned from later rows would be judged on a time that is past"
    )


def by_time(times: Times) -> dict[str, NDArray[np.int64]] | None:
    """Return the indices of the rows of each split, in the order of time; rows of one time are in one split.

    The splits end at `SHARES` of the rows, or with the next time. None where there are fewer times than splits.

    Args:
        times: Time (N,) of each row.
    """
    moments, counts = np.unique(times, return_counts=True)
    if len(moments) < len(NAMES):
        return None
    shares = np.cumsum(counts) / len(times)
    first = min(int(np.searchsorted(shares, SHARES[0] - _ROUNDING)) + 1, len(moments) - 2)
    second = min(max(int(np.searchsorted(shares, SHARES[1] - _ROUNDING)) + 1, first + 1), len(moments) - 1)
    order = np.argsort(times, kind="stable")
    cuts = np.searchsorted(times[order], moments[[first, second]])
    return dict(zip(NAMES, np.split(order, cuts), strict=True))
