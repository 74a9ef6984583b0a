"""Copies of captured rows, labels and what a store says of a version, from a bucket to a folder of this machine.

Names come from a bucket that others write to: only plain ones are copied, into folders made here, and no more than a
person's machine has room for. Nothing is ever written to the bucket.
"""

import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from retune.api.production import CaptureFormat
from retune.cli import buckets
from retune.cli.access import AccessError

FILES_LIMIT, BYTES_LIMIT = 2000, 2 << 30
"""Most files, and most bytes, that are copied of captured rows or of labels."""
MANIFEST = "bundle.json"
"""Name of a bundle's manifest in its folder."""
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,250}\.(parquet|json(\.[0-9]{1,12})?)")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,250}")
_DATE, _HOUR = re.compile(r"date=(\d{4}-\d{2}-\d{2})"), re.compile(r"hour=(\d{2})")
_DEPTH = 3
_CLOCKS = 3600
"""Seconds by which clocks of servers differ, as the Jobs allow for."""


@dataclass(frozen=True)
class _File:
    uri: str
    below: str
    """Its path below the folder that is copied."""
    size: int
    changed: float


def captured(uri: str, into: Path, *, form: CaptureFormat, span: float, now: datetime) -> str:
    """Copy the captured files of the last `span` seconds before the newest hour, and return what was left out.

    Args:
        uri: Folder in a bucket.
        into: Folder that is made.
        form: Who writes the files.
        span: Seconds.
        now: Hours after it are wrong.

    Returns:
        A sentence, or nothing.

    Raises:
        AccessError: The bucket cannot be read.
    """
    if form is CaptureFormat.RETUNE:
        files = list(_of_hours(uri, span=span, now=now.timestamp()))
    else:
        since = now.timestamp() - span - _CLOCKS
        files = [file for file in _walked(uri, _DEPTH) if not 0 < file.changed < since]
    if not files:
        raise AccessError(f"{uri} has no captured files of this time: see production.uri, or give a longer --since")
    return _copied(files, into, what="captured rows")


def labels(uri: str, into: Path) -> str:
    """Copy files of labels, the newest ones where they are too many; arguments and errors are those of `captured`."""
    files = sorted(_walked(uri, _DEPTH), key=lambda file: -file.changed)
    return _copied(files, into, what="labels", newest=True)


def artifacts(store: str, digest: str, into: Path) -> str:
    """Copy a bundle's manifest and its reference out of a store in a bucket, and return what could not be copied.

    Args:
        store: Address of the resource's folder in the store.
        digest: The bundle's digest.
        into: Folder that is made.
    """
    name = digest.removeprefix("sha256:")
    for below in (f"bundles/{name}/{MANIFEST}", f"references/{name}.parquet"):
        path = into / below
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            buckets.save(f"{store}/{below}", path)
        except AccessError as error:
            path.unlink(missing_ok=True)
            return f"Of the version that serves, {below.partition('/')[0]} could not be read: {error}"
    return ""


def _of_hours(uri: str, *, span: float, now: float) -> Iterator[_File]:
    """Yield the files of our own layout, from the newest hour back; older days are not even listed."""
    since: float | None = None
    for date in sorted(_matching(uri, _DATE), reverse=True):
        for hour in sorted(_matching(f"{uri}/{date}", _HOUR), reverse=True):
            begins = _begins(date, hour)
            if begins is None or begins > now + _CLOCKS:
                continue
            folder = f"{date}/{hour}"
            found = list(_files(f"{uri}/{folder}", folder))
            if found and since is None:
                since = begins - span - _CLOCKS
            if since is not None and begins < since:
                return
            yield from found


def _begins(date: str, hour: str) -> float | None:
    with suppress(ValueError):
        return datetime.strptime(f"{date} {hour}", "date=%Y-%m-%d hour=%H").replace(tzinfo=UTC).timestamp()
    return None


def _matching(uri: str, pattern: re.Pattern[str]) -> list[str]:
    return [entry.name for entry in buckets.entries(uri) if entry.size is None and pattern.fullmatch(entry.name)]


def _walked(uri: str, depth: int, below: str = "") -> Iterator[_File]:
    folders = []
    for entry in buckets.entries(f"{uri}/{below}".rstrip("/")):
        if entry.size is None and _FOLDER.fullmatch(entry.name):
            folders.append(f"{below}/{entry.name}".lstrip("/"))
        elif entry.size and _FILE.fullmatch(entry.name):
            path = f"{below}/{entry.name}".lstrip("/")
            yield _File(f"{uri}/{path}", path, entry.size, entry.changed)
    for folder in folders if depth else ():
        yield from _walked(uri, depth - 1, folder)


def _files(uri: str, below: str) -> Iterator[_File]:
    for entry in buckets.entries(uri):
        if entry.size and _FILE.fullmatch(entry.name):
            yield _File(f"{uri}/{entry.name}", f"{below}/{entry.name}", entry.size, entry.changed)


def _copied(files: Sequence[_File], into: Path, *, what: str, newest: bool = False) -> str:
    """Copy as many files as there is room for, a random part or the first ones, and say how many were left out."""
    into.mkdir(parents=True, exist_ok=True)
    order = list(files) if newest else random.Random(0).sample(files, len(files))  # noqa: S311 - a sample, no secret
    room, left_out = BYTES_LIMIT, 0
    for number, file in enumerate(order):
        if number >= FILES_LIMIT or file.size > room:
            left_out += 1
            continue
        room -= file.size
        path = into / file.below
        path.parent.mkdir(parents=True, exist_ok=True)
        buckets.save(file.uri, path)
        if file.changed:
            os.utime(path, (file.changed, file.changed))
    return (
        f"{left_out} of {len(files)} files of {what} were not read: they are too many or too large." if left_out else ""
    )
