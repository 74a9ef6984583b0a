"""Divide one dated table in the order of time: training, then validation, then test, as files beside it.

The same table always gives the same files. Nothing that is there is overwritten with something else.
"""

import filecmp
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Array, format_of
from optimizer_jobs.data.horizons import reach_of, reaching
from optimizer_jobs.data.readers import Columns, UnreadableDataError
from optimizer_jobs.data.subsets import write_subsets
from optimizer_jobs.data.times import NAMES, Times, by_time, shown, times_of
from optimizer_jobs.data.uris import resolve, sibling
from optimizer_jobs.errors import JobError
from retune.api.model import Dataset
from retune.contract.results import Reason

_NEXT = "Correct --time, or give files named train..., val... and test... instead."


@dataclass(frozen=True)
class Divided:
    """A dated table as three data sets."""

    data: Mapping[str, Dataset]
    """The data sets by split."""
    words: str
    """How it was divided, without a full stop."""


def divided(whole: Dataset, columns: Columns, labels: Array | None) -> Divided:
    """Write the splits of a dated table into a folder beside it, and return them.

    Args:
        whole: The table, which names the column with the time of each row.
        columns: The table, open.
        labels: Numbers (N,) or (N, K) to predict; None for other labels, or where there are none. Where they are steps
            to come, rows before a border whose labels reach over it are left out.

    Raises:
        JobError: DataInvalid when it cannot be divided, or other files have the names of the splits.
    """
    with _told(whole):
        times = times_of(columns, str(whole.time_column))
        splits = by_time(times)
        if splits is None:
            raise UnreadableDataError(f"time column {whole.time_column!r} has fewer than {len(NAMES)} different times.")
        kept = _without_reaching(splits, times, labels)
        folder = _written(whole, kept, rows=len(times))
    data = {split: whole.model_copy(update={"uri": f"{folder}/{name}"}) for split, name in _files(whole).items()}
    return Divided(data, _words(folder, times, splits, kept))


def _without_reaching(
    splits: Mapping[str, NDArray[np.int64]], times: Times, labels: Array | None
) -> dict[str, NDArray[np.int64]]:
    """Return the splits without the rows whose labels reach into the times of the next split."""
    numbers = None if labels is None or labels.ndim != 2 else labels.astype(np.float64)
    reach = reach_of(numbers, times)
    if reach is None:
        return dict(splits)
    kept = dict(splits)
    for before, after in pairwise(NAMES):
        rows = splits[before]
        kept[before] = rows[~reaching(times[rows], reach, times[splits[after]].min())]
        if not len(kept[before]):
            raise UnreadableDataError(f"the labels of all {len(rows)} {before} rows reach into the {after} rows.")
    return kept


def _files(whole: Dataset) -> dict[str, str]:
    """Return the file names of the splits."""
    suffix = Path(whole.uri).suffix.lower()
    return {split: f"{'train' if split == 'training' else split}{suffix}" for split in NAMES}


def _written(whole: Dataset, splits: Mapping[str, NDArray[np.int64]], *, rows: int) -> str:
    """Write the files where they are not there yet; return the URI of their folder."""
    source = resolve(whole.uri).local
    uri = sibling(whole.uri, f"{source.stem}-by-time")
    folder = resolve(uri).local
    with tempfile.TemporaryDirectory(prefix="divide-") as scratch:
        targets = {Path(scratch) / name: splits[split] for split, name in _files(whole).items()}
        write_subsets(source, targets, rows=rows, format_=format_of(whole), csv_format=whole.csv)
        for made in targets:
            there = folder / made.name
            if there.exists() and not filecmp.cmp(made, there, shallow=False):
                raise UnreadableDataError(f"{uri}/{made.name} is there already and holds something else: remove it.")
        folder.mkdir(exist_ok=True)
        for made in targets:
            (folder / made.name).write_bytes(made.read_bytes())
    return uri


@contextmanager
def _told(whole: Dataset) -> Iterator[None]:
    """Tell what stands against dividing a table as a fault of the data."""
    try:
        yield
    except (UnreadableDataError, OSError) as error:
        sentence = str(error) if isinstance(error, UnreadableDataError) else f"it cannot be divided ({error})."
        raise JobError(Reason.DATA_INVALID, whole.uri, sentence, _NEXT) from error


def _words(
    folder: str, times: Times, splits: Mapping[str, NDArray[np.int64]], kept: Mapping[str, NDArray[np.int64]]
) -> str:
    spans = ", ".join(f"{split} until {shown(times[rows].max())}" for split, rows in splits.items())
    left = {split: len(rows) - len(kept[split]) for split, rows in splits.items()}
    without = " and ".join(f"{count} {split} rows" for split, count in left.items() if count)
    words = f"divided by time into files in {folder.rpartition('/')[2]}: {spans}"
    return (
        f"{words}; {without} are left out, because their labels reach into the split that follows" if without else words
    )
