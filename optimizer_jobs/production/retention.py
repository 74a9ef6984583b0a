"""Remove captured files after their retention, where that is asked for. Never touches what Retune has not written.

A captured file has a mark in its metadata. One that was never finished has none, but a name that only the writer gives;
in a bucket there are none of those.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import parquet

from optimizer_jobs.errors import store_access
from optimizer_jobs.production import files, layout
from optimizer_jobs.production.bucket_retention import prune_bucket
from retune.api.production import Production

_UNFINISHED = re.compile(r"\.[A-Za-z0-9_.-]{1,200}-[0-9a-f]{8}-[0-9]{6,12}\.parquet")
"""What the writer calls a file until it is complete: host, process and number."""


def prune(production: Production, *, now: int) -> int:
    """Remove the files of all hours that ended longer ago than the retention.

    Args:
        production: URI and retention of the captured requests.
        now: Current time in seconds since 1970.

    Returns:
        The number of removed files.

    Raises:
        JobError: A file on a volume cannot be removed; what a bucket refuses is told instead.
    """
    kept, base = production.kept_seconds, files.folder(production.uri)
    if kept is None:
        return 0
    if base.remote:
        return prune_bucket(base, is_marked, before=now - kept, seed=now)
    with store_access(production.uri):
        return sum(_remove(folder) for folder in _ended(base.local, before=now - kept))


def _ended(base: Path, *, before: float) -> Iterator[Path]:
    """Yield the folders of all hours that ended at or before `before`, in seconds since 1970."""
    for day in _folders(base):
        for hour in _folders(day):
            begins = layout.hour_of(f"{day.name}/{hour.name}")
            if begins is not None and begins + layout.HOUR <= before:
                yield hour


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _remove(hour: Path) -> int:
    """Remove our files of one hour, then its folder and the day's folder if they are empty."""
    removed = 0
    with os.scandir(hour) as entries:
        regular = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for path in (hour / name for name in regular if name.endswith(layout.SUFFIX)):
        with suppress(FileNotFoundError):
            if _is_ours(path):
                path.unlink()
                removed += 1
    with suppress(OSError):  # not empty: other files in it stay
        hour.rmdir()
        hour.parent.rmdir()
    return removed


def _is_ours(path: Path) -> bool:
    """Whether our writer has written a file; what cannot be read stays."""
    if _UNFINISHED.fullmatch(path.name):
        return True
    with suppress(OSError, ValueError, pa.ArrowException):
        return is_marked(path)
    return False


def is_marked(file: Path | IO[bytes] | pa.NativeFile) -> bool:
    """Whether a Parquet file has the writer's mark; raises OSError, ValueError or ArrowException where it is none."""
    written = parquet.read_schema(file).metadata or {}
    return all(written.get(name.encode()) == value.encode() for name, value in layout.FORMAT.items())
