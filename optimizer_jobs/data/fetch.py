"""Bring one file from a claim into the Job's scratch folder, bounded in size and held to its digest.

The copy is private, so that what was verified is what is parsed. Streams: never holds a file in memory.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from optimizer_jobs.data.uris import Location, resolve
from optimizer_jobs.errors import JobError
from retune.contract.results import Reason

What = Literal["Model", "Data"]

_CHUNK = 1 << 20
_UNREADABLE = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Fetched:
    """A verified private copy: its path, `sha256:...` digest and size in bytes."""

    path: Path
    digest: str
    size: int


def fetch(uri: str, *, limit_bytes: int, into: Path, what: What, digest: str | None = None) -> Fetched:
    """Copy the file at `uri` into the folder `into` under its own name.

    Raises:
        JobError: ModelNotFound, ModelForbidden, ModelTooLarge (or their Data twins), or DigestMismatch.
    """
    location = resolve(uri, refused=_reason(what, "FORBIDDEN"))
    into.mkdir(parents=True, exist_ok=True)
    target = into / location.local.name
    _check_kind(location, limit_bytes=limit_bytes, what=what)
    try:
        found, size = _copy(location, target, limit_bytes=limit_bytes, what=what)
        _check_digest(uri, expected=digest, found=found)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Fetched(path=target, digest=found, size=size)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as `sha256:` and 64 hexadecimal digits."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _check_kind(location: Location, *, limit_bytes: int, what: What) -> None:
    """Refuse what is absent, not a regular file, or said to be too large, before a byte is read."""
    try:
        info = location.fs.info(location.path)
    except OSError as error:
        raise _read_error(error, uri=location.uri, what=what) from error
    if info["type"] != "file":
        raise JobError(
            _reason(what, "NOT_FOUND"), location.uri, "this is not a regular file.", "Name the file, not its folder."
        )
    if info["size"] > limit_bytes:
        raise _too_large(location.uri, size=info["size"], limit_bytes=limit_bytes, what=what)


def _copy(location: Location, target: Path, *, limit_bytes: int, what: What) -> tuple[str, int]:
    try:
        source = location.fs.open(location.path, "rb")
    except OSError as error:
        raise _read_error(error, uri=location.uri, what=what) from error
    digest, size = hashlib.sha256(), 0
    with source, target.open("wb") as copy:
        for chunk in _chunks(source, uri=location.uri, what=what):
            size += len(chunk)
            if size > limit_bytes:
                raise _too_large(location.uri, size=size, limit_bytes=limit_bytes, what=what)
            digest.update(chunk)
            _write(copy, chunk, uri=location.uri, what=what)
    return f"sha256:{digest.hexdigest()}", size


def _chunks(source: IO[bytes], *, uri: str, what: What) -> Iterator[bytes]:
    try:
        while chunk := source.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise _read_error(error, uri=uri, what=what) from error


def _write(copy: IO[bytes], chunk: bytes, *, uri: str, what: What) -> None:
    """Write at once, so that a full scratch volume is reported for the file that did not fit."""
    try:
        copy.write(chunk)
        copy.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise JobError(
            _reason(what, "TOO_LARGE"),
            uri,
            "the file does not fit the Job's scratch volume.",
            "Give a smaller file, or raise the Job's scratch size.",
        ) from error


def _reason(what: What, kind: Literal["NOT_FOUND", "FORBIDDEN", "TOO_LARGE"]) -> Reason:
    return Reason[f"{what.upper()}_{kind}"]


def _read_error(error: OSError, *, uri: str, what: What) -> JobError:
    if error.errno in _UNREADABLE:
        return JobError(
            _reason(what, "FORBIDDEN"),
            uri,
            "the Job's user (65532) may not read this file.",
            "Make the file readable for group 65532 or for all (chmod a+r) and its folders searchable (chmod a+x).",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return JobError(
            _reason(what, "NOT_FOUND"), uri, "there is no such file.", "Check the claim's name and the path inside it."
        )
    raise error


def _too_large(uri: str, *, size: int, limit_bytes: int, what: What) -> JobError:
    return JobError(
        _reason(what, "TOO_LARGE"),
        uri,
        f"the file has at least {size} bytes; the limit is {limit_bytes}.",
        "Give a smaller file.",
    )


def _check_digest(uri: str, *, expected: str | None, found: str) -> None:
    if expected in {None, found}:
        return
    raise JobError(
        Reason.DIGEST_MISMATCH,
        uri,
        f"the file has digest {found}, but {expected} was promised.",
        "Restore the file, or give its new digest in the spec.",
    )
