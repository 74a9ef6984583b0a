"""A store in a folder: on a volume that all share, or on a person's own disk.

An object is written to a temporary file, flushed, and then linked to its name, which the file system refuses where the
name is taken. So it works on every volume with hard links, NFS among them.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from optimizer_jobs.stores.base import AbsentError, Kind, Stat, StoreError, checked, checked_prefix

WRITING = ".writing"
"""Folder of what is not finished; no key can lead there, because names of keys begin with no dot."""
_CHUNK = 1 << 20
_STALE_SECONDS = 86_400
_FULL = {errno.ENOSPC, errno.EDQUOT}


class FolderStore:
    """Objects as files below a folder."""

    def __init__(self, folder: Path, *, uri: str | None = None) -> None:
        """Open the store.

        Args:
            folder: The folder, which is made with the first object if it is absent.
            uri: Its address for messages; None names the folder.
        """
        self._folder = Path(os.path.realpath(folder))
        self.uri = uri or f"file://{self._folder}"
        self._swept = False

    def read(self, key: str, *, limit: int) -> bytes:
        """Return a small object."""
        with self._faults(key), self._open(key) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise self._too_large(key, limit)
        return content

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """Copy a large object into the file `path`; a copy on this machine is not resumed but begun anew."""
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            with self._faults(key), self._open(key) as source:
                size = os.fstat(source.fileno()).st_size
                if size > limit:
                    raise self._too_large(key, limit)
                with part.open("wb") as copy:
                    shutil.copyfileobj(source, copy, _CHUNK)
                copied = part.stat().st_size
            if copied != size:
                raise StoreError(
                    Kind.DAMAGED, f"{self.uri}/{key}", f"{copied} of {size} bytes could be read.", "Try again."
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def create(self, key: str, content: bytes | Path) -> bool:
        """Write an object unless there is one."""
        try:
            self._write(key, content, os.link)
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, content: bytes | Path) -> None:
        """Write an object, whether there is one or not."""
        self._write(key, content, os.replace)

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """Yield the objects whose keys begin with `prefix`, in order."""
        checked_prefix(prefix)
        above = prefix.rpartition("/")[0]
        with self._faults(prefix):
            for key, about in _files(self._folder / above, f"{above}/" if above else ""):
                if key.startswith(prefix) and (after is None or key > after):
                    yield Stat(key, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and folders that are empty then."""
        for key in keys:
            with self._faults(key):
                path = self._path(key)
                path.unlink(missing_ok=True)
                self._prune(path.parent)

    def _prune(self, folder: Path) -> None:
        with suppress(OSError):  # not empty, or gone, or filled by another writer meanwhile
            while folder != self._folder:
                folder.rmdir()
                folder = folder.parent

    def _path(self, key: str) -> Path:
        """Return the file of a key; a symbolic link on the way that leaves the folder is refused."""
        path = self._folder / checked(key)
        if Path(os.path.realpath(path.parent)) != path.parent:
            raise StoreError(
                Kind.KEY, f"{self.uri}/{key}", "a symbolic link is in its path.", "Remove the link from the store."
            )
        return path

    @contextmanager
    def _open(self, key: str) -> Iterator[IO[bytes]]:
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AbsentError(key) from error
        with os.fdopen(descriptor, "rb") as file:
            if path.is_dir():
                raise AbsentError(key)
            yield file

    def _write(self, key: str, content: bytes | Path, place: Callable[[Path, Path], None]) -> None:
        path = self._path(key)
        with self._faults(key):
            written = self._written(content)
            try:
                self._placed(written, path, place)
            finally:
                written.unlink(missing_ok=True)

    def _written(self, content: bytes | Path) -> Path:
        """Return a flushed temporary file with this content."""
        writing = self._folder / WRITING
        _make(writing)
        self._sweep()
        path = writing / uuid.uuid4().hex
        try:
            with path.open("wb") as file:
                _fill(file, content)
                file.flush()
                os.fsync(file.fileno())
            path.chmod(0o644)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _placed(self, written: Path, path: Path, place: Callable[[Path, Path], None]) -> None:
        for _ in range(3):
            _make(path.parent)
            try:
                place(written, path)
            except FileNotFoundError:  # another one has deleted the last object of the folder in this moment
                continue
            _sync(path.parent)
            return
        raise FileNotFoundError(errno.ENOENT, "its folder was removed again and again", str(path))

    def _sweep(self) -> None:
        """Remove what writers that were killed a day ago have left half written; once is enough."""
        if self._swept:
            return
        self._swept = True
        for entry in os.scandir(self._folder / WRITING):
            with suppress(FileNotFoundError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS:
                    Path(entry.path).unlink()

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        """Turn the errors of a file system into a StoreError; that a name is taken passes unchanged."""
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            raise self._fault(error, key) from error

    def _fault(self, error: OSError, key: str) -> StoreError:
        uri, words = f"{self.uri}/{key}", error.strerror or str(error)
        if error.errno in _FULL:
            return StoreError(
                Kind.QUOTA, uri, "the store has no space left.", "Free space there, or enlarge the volume."
            )
        if error.errno == errno.EROFS:
            return StoreError(Kind.READ_ONLY, uri, "the store cannot be written.", "Mount the claim read-write.")
        if isinstance(error, PermissionError):
            who = f"user {os.geteuid()} or group {os.getegid()}"
            return StoreError(Kind.FORBIDDEN, uri, f"it is refused ({words}).", f"Let {who} read and write there.")
        if error.errno == errno.ELOOP:
            return StoreError(Kind.KEY, uri, "it is a symbolic link.", "Remove the link from the store.")
        if isinstance(error, NotADirectoryError):
            return StoreError(Kind.KEY, uri, "a part of its path is an object.", "Remove that object from the store.")
        return StoreError(
            Kind.NETWORK, uri, f"the volume does not answer as it should ({words}).", "It is tried again."
        )

    def _too_large(self, key: str, limit: int) -> StoreError:
        return StoreError(
            Kind.TOO_LARGE, f"{self.uri}/{key}", f"it has more than {limit} bytes.", "Remove it from the store."
        )


def _fill(file: IO[bytes], content: bytes | Path) -> None:
    if isinstance(content, bytes):
        file.write(content)
        return
    with content.open("rb") as source:
        shutil.copyfileobj(source, file, _CHUNK)


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the keys of regular files below a folder in order of the keys, as if `/` were any letter of a name."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    named = [(f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry) for entry in entries]
    for name, entry in sorted(named, key=lambda one: one[0]):
        if name.startswith("."):
            continue
        if name.endswith("/"):
            yield from _files(Path(entry.path), f"{prefix}{name}")
        elif entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):
                yield f"{prefix}{name}", entry.stat(follow_symlinks=False)


def _make(folder: Path) -> None:
    """Make a folder with those above it; raises NotADirectoryError where one of them is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from error


def _sync(folder: Path) -> None:
    with suppress(FileNotFoundError):  # removed with its last object by another writer
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
