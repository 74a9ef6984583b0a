"""A store in a bucket of S3's, Google's or Azure's protocol."""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from optimizer_jobs.stores.base import AbsentError, Kind, Stat, StoreError, checked, checked_prefix, pause
from optimizer_jobs.stores.buckets import Bucket, Version
from optimizer_jobs.stores.faults import ABSENT, GONE_UPLOADS, answer_of, fault, missing_bucket, read_only

_BLOCK = 8 << 20
"""Bytes that are asked for at once: what is lost at most when a connection breaks."""
_TRIES = 4
"""How often one step is tried that the libraries' own retries did not bring through."""
_CONFLICT = 409
"""Status of a conditional write that met another one in the same moment, and is to be repeated."""

_T = TypeVar("_T")


class ObjectStore:
    """Objects in a bucket, below a prefix."""

    def __init__(self, bucket: Bucket, *, uri: str, prefix: str = "") -> None:
        """Open the store.

        Args:
            bucket: The bucket.
            uri: The store's address, for messages.
            prefix: What the store's keys begin with in the bucket: a plain path, without a slash at its end, or empty.
        """
        self._bucket, self.uri = bucket, uri.rstrip("/")
        self._prefix = f"{checked(prefix)}/" if prefix else ""
        self._known = False
        """Whether the bucket has answered, so that what is absent is an object and not the bucket."""

    def read(self, key: str, *, limit: int) -> bytes:
        """Return a small object, in one request."""
        name = self._name(key)
        content = self._reading(key, lambda: self._bucket.get(name, 0, limit + 1))
        if len(content) > limit:
            raise self._too_large(key, limit)
        return content

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """Copy a large object into the file `path`, and resume a copy that broke off."""
        version = self._head(key)
        if version.size > limit:
            raise self._too_large(key, limit)
        with _part(path, version) as (part, file):
            try:
                self._copy(key, file, version)
            except AbsentError:
                part.unlink(missing_ok=True)
                raise
            if self._head(key) != version:
                part.unlink(missing_ok=True)
                raise self._damaged(key, "it was replaced while it was read.")
            os.fsync(file.fileno())
            part.replace(path)
        return version.size

    def _head(self, key: str) -> Version:
        name = self._name(key)
        return self._reading(key, lambda: self._bucket.head(name))

    def _copy(self, key: str, file: IO[bytes], version: Version) -> None:
        """Append what is missing, block by block; only blocks that bring nothing count as failed tries."""
        name, failures, offset = self._name(key), 0, file.seek(0, os.SEEK_END)
        while offset < version.size:
            end = min(version.size, offset + _BLOCK)
            try:
                block = self._reading(key, partial(self._bucket.get, name, offset, end))
            except StoreError as error:
                failures += 1
                if failures >= _TRIES or not error.passing:
                    raise
                pause(failures)
                continue
            if not 0 < len(block) <= end - offset:
                raise self._damaged(key, f"{len(block)} bytes came instead of {end - offset}.")
            file.write(block)
            file.flush()
            failures, offset = 0, offset + len(block)

    def create(self, key: str, content: bytes | Path) -> bool:
        """Write an object unless there is one."""
        return self._write(key, content, create=True)

    def replace(self, key: str, content: bytes | Path) -> None:
        """Write an object, whether there is one or not."""
        self._write(key, content, create=False)

    def _write(self, key: str, content: bytes | Path, *, create: bool) -> bool:
        """Write an object, and return False where one is there that may not be replaced."""
        name = self._name(key)
        for attempt in range(_TRIES):
            try:
                self._bucket.put(name, content, create=create)
            except Exception as error:
                answer = answer_of(error)
                if create and (isinstance(error, FileExistsError) or answer.status == 412):
                    return False
                if attempt + 1 < _TRIES and (answer.status == _CONFLICT or answer.code in GONE_UPLOADS):
                    pause(attempt)
                    continue
                raise self._explained(error, key, writing=True) from error
            self._known = True
            return True
        raise AssertionError

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """Yield the objects whose keys begin with `prefix`, in order."""
        last = None if after is None else self._name(after)
        pages = self._bucket.list(f"{self._prefix}{checked_prefix(prefix)}", last)
        while (page := self._reading(prefix, lambda: next(pages, None))) is not None:
            for stat in page:
                key = stat.key.removeprefix(self._prefix)
                if _plain(key):
                    yield Stat(key, stat.size, stat.modified)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        names = [self._name(key) for key in keys]
        try:
            self._bucket.delete(names)
        except Exception as error:
            raise self._explained(error, names[0].removeprefix(self._prefix), writing=True) from error

    def _name(self, key: str) -> str:
        return f"{self._prefix}{checked(key)}"

    def _reading(self, key: str, ask: Callable[[], _T]) -> _T:
        """Ask for something, and turn the libraries' errors into AbsentError and StoreError."""
        try:
            answer = ask()
        except Exception as error:
            known = answer_of(error)
            if known.status == 416:
                return b""  # type: ignore[return-value]  # only ranges are answered so, where an object is empty
            if known.status == 404 and known.code in {"", *ABSENT}:
                self._require_bucket()
                raise AbsentError(key) from error
            raise self._explained(error, key, writing=False) from error
        self._known = True
        return answer

    def _require_bucket(self) -> None:
        """Raise StoreError (BUCKET) where it is not the object that is missing; asks until the bucket has answered."""
        if self._known:
            return
        try:
            next(self._bucket.list(self._prefix, None), None)
        except Exception as error:
            if answer_of(error).status == 404:
                raise missing_bucket(self.uri) from error
            raise self._explained(error, "", writing=False) from error
        self._known = True

    def _explained(self, error: Exception, key: str, *, writing: bool) -> StoreError:
        found = fault(error, uri=f"{self.uri}/{key}".rstrip("/"), writing=writing)
        return read_only(found.object) if writing and found.kind is Kind.FORBIDDEN and self._readable() else found

    def _readable(self) -> bool:
        try:
            next(self._bucket.list(self._prefix, None), None)
        except Exception:  # noqa: BLE001 - whatever it is, reading does not work
            return False
        return True

    def _too_large(self, key: str, limit: int) -> StoreError:
        return StoreError(
            Kind.TOO_LARGE, f"{self.uri}/{key}", f"it has more than {limit} bytes.", "Remove it from the store."
        )

    def _damaged(self, key: str, what: str) -> StoreError:
        return StoreError(Kind.DAMAGED, f"{self.uri}/{key}", what, "Try again when nobody writes there.")


@contextmanager
def _part(path: Path, version: Version) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open the unfinished copy of this very version, which stays for the next call where this one breaks off.

    Another process that copies the same at the same time gets an unfinished copy of its own, which does not stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = hashlib.sha256(f"{version.size} {version.tag}".encode()).hexdigest()[:16]
    shared = path.with_name(f".{path.name}.{tag}.part")
    with shared.open("ab") as file:
        if _is_ours_alone(file, shared):
            yield shared, file
            return
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with own.open("ab") as file:
            yield own, file
    finally:
        own.unlink(missing_ok=True)


def _is_ours_alone(file: IO[bytes], path: Path) -> bool:
    """Lock an open file until it is closed; False where another has it, or has finished and renamed it."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except OSError:
        return False


def _plain(key: str) -> bool:
    """Return whether a listed object is one of a store; others may lie in the bucket, and are none of ours."""
    try:
        return bool(checked(key))
    except StoreError:
        return False
