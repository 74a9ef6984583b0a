"""Remove captured files after their retention. Never touches a file or folder that is not named by the capture format.

Only volumes are cleaned. A bucket has its own lifecycle rules, and the Job's credentials need no right to delete there.
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
    """Remove the files of all hours that ended longer ago than the retention.

    Args:
        production: URI and retention of the captured requests.
        now: Current time in seconds since 1970.

    Returns:
        The number of removed files.

    Raises:
        JobError: A file cannot be removed.
    """
    retention = seconds(production.retention)
    base = files.folder(production.uri)
    if not retention or base.remote:
        return 0
    with store_access(production.uri):
        return sum(_remove(folder) for folder in _ended(base.local, before=now - retention))


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
    """Remove the files of one hour, then its folder and the day's folder if they are empty."""
    removed = 0
    with os.scandir(hour) as entries:
        regular = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for name in filter(_FILE.fullmatch, regular):
        with suppress(FileNotFoundError):
            (hour / name).unlink()
            removed += 1
    with suppress(OSError):  # not empty: other files in it stay
        hour.rmdir()
        hour.parent.rmdir()
    return removed
