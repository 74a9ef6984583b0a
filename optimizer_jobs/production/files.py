"""List and open files in a folder that others write to, on a volume or a server.

Names and content are hostile input: no symbolic link is followed, only regular files are opened, and the number and
size of files are limited.
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
"""Most files that are read; of more files, a random sample."""

NAMES_LIMIT = 500_000
"""Most names in one folder that are considered."""

FILE_BYTES = 1 << 30
"""Largest file that is read."""

PARQUET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,250}\.parquet")
"""Names of the files that are listed where nothing else is asked for."""

_DEPTH = 3


@dataclass(frozen=True)
class ListedFile:
    """A file in a folder's listing."""

    location: Location
    size: int
    """Bytes."""
    changed: float
    """When it was last changed, in seconds since 1970; 0 when the server does not say."""


def in_folders(uri: str, folders: Iterable[str]) -> Iterator[ListedFile]:
    """Yield the Parquet files that lie directly in these folders.

    Args:
        uri: URI of the folder that contains them.
        folders: Paths below it; one that does not exist is skipped.

    Raises:
        JobError: The folders cannot be listed.
    """
    base = folder(uri)
    for name in folders:
        if base.remote:
            yield from _listed(Location(base.fs, f"{base.path.rstrip('/')}/{name}", f"{uri.rstrip('/')}/{name}"))
        else:
            yield from _scanned(folder(f"{uri.rstrip('/')}/{name}"))


def under(uri: str, *, depth: int = _DEPTH, names: re.Pattern[str] = PARQUET) -> Iterator[ListedFile]:
    """Yield the files in a folder and in the folders below it.

    Args:
        uri: URI of the folder.
        depth: How many levels of folders below it are searched.
        names: Pattern of the files' whole names.

    Raises:
        JobError: The folder cannot be listed.
    """
    base = folder(uri)
    if base.remote:
        yield from _listed_under(base, depth, names)
    else:
        yield from _scanned_under(base, depth, names)


def folder(uri: str) -> Location:
    """Return where a folder's URI leads; raises JobError when the scheme cannot list folders."""
    if uri.startswith("https:"):
        raise JobError(
            Reason.REQUEST_INVALID,
            uri,
            "https:// has no way to list a folder.",
            "Give a folder on pvc://, s3://, gs:// or az://.",
        )
    return resolve(uri, refused=Reason.DATA_FORBIDDEN, remote=True)


def sample(listed: Sequence[ListedFile], *, limit: int, seed: int) -> list[ListedFile]:
    """Return at most `limit` files, drawn at random, in the order of their URIs."""
    chosen = listed if len(listed) <= limit else random.Random(seed).sample(listed, limit)
    return sorted(chosen, key=lambda file: file.location.uri)


@contextmanager
def opened(listed: ListedFile, *, into: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading. A file on a server is copied into the folder `into`, and removed afterwards.

    Raises:
        OSError: The file cannot be opened, or is no regular file any more.
        JobError: The server cannot be read.
    """
    if not listed.location.remote:
        with _regular(listed.location.local) as file:
            yield file
        return
    copy = bring(listed.location, limit_bytes=FILE_BYTES, into=into, what="Data").path
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


def _scanned(place: Location, names: re.Pattern[str] = PARQUET) -> Iterator[ListedFile]:
    try:
        with os.scandir(place.local) as entries:
            for entry in islice(entries, NAMES_LIMIT):
                if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield from _listed_entry(entry, place)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise local_fault(error, uri=place.uri, what="Data") or error from error


def _listed_entry(entry: os.DirEntry[str], place: Location) -> Iterator[ListedFile]:
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # removed since it was listed
    uri = f"{place.uri.rstrip('/')}/{entry.name}"
    yield ListedFile(Location(place.fs, entry.path, uri), info.st_size, info.st_mtime)


def _scanned_under(place: Location, depth: int, names: re.Pattern[str]) -> Iterator[ListedFile]:
    yield from _scanned(place, names)
    if not depth:
        return
    try:
        with os.scandir(place.local) as entries:
            folders = [entry.name for entry in islice(entries, NAMES_LIMIT) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(folders):
        below = Location(place.fs, f"{place.path}/{name}", f"{place.uri.rstrip('/')}/{name}")
        yield from _scanned_under(below, depth - 1, names)


def _listed(place: Location) -> Iterator[ListedFile]:
    try:
        entries = place.fs.ls(place.path, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:
        raise remote_fault(error, uri=place.uri, what="Data") from error
    yield from _remote_files(place, entries)


def _listed_under(place: Location, depth: int, names: re.Pattern[str]) -> Iterator[ListedFile]:
    try:
        entries = place.fs.find(place.path, maxdepth=depth + 1, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:
        raise remote_fault(error, uri=place.uri, what="Data") from error
    yield from _remote_files(place, entries.values(), names)


def _remote_files(
    place: Location, entries: Iterable[dict[str, object]], names: re.Pattern[str] = PARQUET
) -> Iterator[ListedFile]:
    scheme = place.uri.partition("://")[0]
    for entry in islice(entries, NAMES_LIMIT):
        path = str(entry["name"])
        if entry["type"] == "file" and names.fullmatch(path.rpartition("/")[2]):
            location = Location(place.fs, path, f"{scheme}://{path}")
            yield ListedFile(location, int(str(entry["size"] or 0)), _changed(entry))


def _changed(entry: dict[str, object]) -> float:
    """Return when a file was changed according to the server, in seconds since 1970; 0 when it does not say."""
    moment = entry.get("LastModified") or entry.get("mtime") or entry.get("updated")
    return float(moment.timestamp()) if hasattr(moment, "timestamp") else 0.0
