"""Remove captured files that are older than they are kept. Touches nothing that the layout does not name.

A bucket has rules of its own for this, and the Job's credentials only need to read it; so volumes alone are tidied.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from optimizer_jobs.errors import store_access
from optimizer_jobs.production import files, layout
from retune.api.base import seconds
from retune.api.monitoring import Production

_FILE = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,250}\.parquet")


def prune(production: Production, *, now: int) -> int:
    """Remove the files of whole hours that ended longer ago than the retention; return how many files are gone.

    Raises:
        JobError: A file cannot be removed.
    """
    kept = seconds(production.retention)
    base = files.folder(production.uri)
    if not kept or base.remote:
        return 0
    with store_access(production.uri):
        return sum(_remove(folder) for folder in _ended(base.local, before=now - kept))


def _ended(base: Path, *, before: float) -> Iterator[Path]:
    """Yield the folders of hours that ended before a moment, in seconds since 1970."""
    for day in _folders(base):
        for hour in _folders(day):
            begins = layout.hour_of(f"{day.name}/{hour.name}")
            if begins is not None and begins + layout.HOUR <= before:
                yield hour


def _folders(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _remove(hour: Path) -> int:
    """Remove an hour's files, and the folders that are empty then."""
    removed = 0
    with os.scandir(hour) as entries:
        regular = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for name in filter(_FILE.fullmatch, regular):
        with suppress(FileNotFoundError):
            (hour / name).unlink()
            removed += 1
    with suppress(OSError):  # something else is in it, and stays
        hour.rmdir()
        hour.parent.rmdir()
    return removed
