"""Find and open files in a folder that others write to, on a volume or a server.

Names and content are hostile: no symbolic link is followed, nothing that is no regular file is opened, and neither a
folder of millions of files nor a file of terabytes costs more than its bound.
"""

import os
import random
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from optimizer_jobs.data.faults import local_fault, remote_fault
from optimizer_jobs.data.fetch import bring
from optimizer_jobs.data.uris import Location, resolve
from optimizer_jobs.errors import JobError
from retune.contract.results import Reason

FILES_LIMIT = 20_000
"""Files that are read at most; of more, some."""

NAMES_LIMIT = 500_000
"""Names in one folder that are looked at."""

FILE_BYTES = 1 << 30
"""Bytes of a file that is read."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,250}\.parquet")
_DEPTH = 3


@dataclass(frozen=True)
class Found:
    """A file: where it lies, its bytes, and when it was changed, in seconds since 1970."""

    location: Location
    size: int
    changed: float


def below(uri: str, folders: Iterable[str]) -> Iterator[Found]:
    """Yield the Parquet files in some folders below `uri`; a folder that is not there has none.

    Raises:
        JobError: The folders cannot be listed.
    """
    base = folder(uri)
    for name in folders:
        if base.remote:
            yield from _listed(Location(base.fs, f"{base.path.rstrip('/')}/{name}", f"{uri.rstrip('/')}/{name}"))
        else:
            yield from _scanned(folder(f"{uri.rstrip('/')}/{name}"))


def anywhere(uri: str, *, depth: int = _DEPTH) -> Iterator[Found]:
    """Yield the Parquet files in a folder and in those below it, `depth` folders deep. Raises as `below` does."""
    base = folder(uri)
    if base.remote:
        yield from _found(base, depth)
    else:
        yield from _walked(base, depth)


def folder(uri: str) -> Location:
    """Return where a folder lies; raises JobError for one that cannot be listed."""
    if uri.startswith("https:"):
        raise JobError(
            Reason.REQUEST_INVALID,
            uri,
            "https:// has no way to list a folder.",
            "Give a folder on pvc://, s3:// or gs://.",
        )
    return resolve(uri, refused=Reason.DATA_FORBIDDEN, remote=True)


def some(found: Sequence[Found], *, limit: int, seed: int) -> list[Found]:
    """Return all files in the order of their names, or a random `limit` of them where there are more."""
    chosen = found if len(found) <= limit else random.Random(seed).sample(found, limit)
    return sorted(chosen, key=lambda each: each.location.uri)


@contextmanager
def opened(found: Found, *, into: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; from a server, a copy in the folder `into` that is gone afterwards.

    Raises:
        OSError: The file cannot be opened, or is none any more.
        JobError: The server cannot be read.
    """
    if not found.location.remote:
        with _regular(found.location.local) as file:
            yield file
        return
    copy = bring(found.location, limit_bytes=FILE_BYTES, into=into, what="Data").path
    try:
        with copy.open("rb") as file:
            yield file
    finally:
        copy.unlink(missing_ok=True)


def _regular(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _scanned(place: Location) -> Iterator[Found]:
    try:
        with os.scandir(place.local) as entries:
            for entry in islice(entries, NAMES_LIMIT):
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield from _seen(entry, place)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise local_fault(error, uri=place.uri, what="Data") or error from error


def _seen(entry: os.DirEntry[str], place: Location) -> Iterator[Found]:
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # removed since it was listed
    uri = f"{place.uri.rstrip('/')}/{entry.name}"
    yield Found(Location(place.fs, entry.path, uri), info.st_size, info.st_mtime)


def _walked(place: Location, depth: int) -> Iterator[Found]:
    yield from _scanned(place)
    if not depth:
        return
    try:
        with os.scandir(place.local) as entries:
            names = [entry.name for entry in islice(entries, NAMES_LIMIT) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names):
        yield from _walked(Location(place.fs, f"{place.path}/{name}", f"{place.uri.rstrip('/')}/{name}"), depth - 1)


def _listed(place: Location) -> Iterator[Found]:
    try:
        entries = place.fs.ls(place.path, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:
        raise remote_fault(error, uri=place.uri, what="Data") from error
    yield from _remote_files(place, entries)


def _found(place: Location, depth: int) -> Iterator[Found]:
    try:
        entries = place.fs.find(place.path, maxdepth=depth + 1, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:
        raise remote_fault(error, uri=place.uri, what="Data") from error
    yield from _remote_files(place, entries.values())


def _remote_files(place: Location, entries: Iterable[dict[str, object]]) -> Iterator[Found]:
    scheme = place.uri.partition("://")[0]
    for entry in islice(entries, NAMES_LIMIT):
        path = str(entry["name"])
        if entry["type"] == "file" and _NAME.fullmatch(path.rpartition("/")[2]):
            yield Found(Location(place.fs, path, f"{scheme}://{path}"), int(str(entry["size"] or 0)), _changed(entry))


def _changed(entry: dict[str, object]) -> float:
    """Return when a server says that a file was changed; 0 when it does not say."""
    when = entry.get("LastModified") or entry.get("mtime") or entry.get("updated")
    return float(when.timestamp()) if hasattr(when, "timestamp") else 0.0
