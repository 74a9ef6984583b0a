"""Copy one file from a volume or a server into the Job's scratch folder, within a size limit, and verify its digest.

The copy is private, so that the file that was verified is the file that is parsed. Never holds a whole file in memory.
"""

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from optimizer_jobs.data.faults import What, local_fault, reason, remote_fault, unreachable
from optimizer_jobs.data.transfer import TIME_LIMIT_SECONDS
from optimizer_jobs.data.uris import Location, resolve
from optimizer_jobs.errors import JobError
from retune.contract.paths import SCRATCH_VARIABLE
from retune.contract.results import Reason

_CHUNK, _GIB = 1 << 20, 1 << 30
_COPIES_OF_A_MODEL = 3


@dataclass(frozen=True)
class Fetched:
    """A verified private copy: its path, `sha256:...` digest and size in bytes."""

    path: Path
    digest: str
    size: int


def fetch(
    uri: str,
    *,
    limit_bytes: int,
    into: Path,
    what: What,
    digest: str | None = None,
    limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Fetched:
    """Copy the file at `uri` into the folder `into` under its own name.

    Args:
        uri: URI of a file on a volume or a server.
        limit_bytes: Largest size of the file.
        into: Folder for the copy; made if absent.
        what: What the file is, for the failure's reason.
        digest: `sha256:` and 64 hexadecimal digits that the file must have; None accepts any.
        limit_seconds: Longest time of the copy.

    Raises:
        JobError: ModelNotFound, ModelForbidden, ModelTooLarge (or their Data twins), SourceUnreachable, or
            DigestMismatch.
    """
    location = resolve(uri, refused=reason(what, "FORBIDDEN"), remote=True)
    return bring(location, limit_bytes=limit_bytes, into=into, what=what, digest=digest, limit_seconds=limit_seconds)


def bring(
    location: Location,
    *,
    limit_bytes: int,
    into: Path,
    what: What,
    digest: str | None = None,
    name: str | None = None,
    limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Fetched:
    """Do what `fetch` does for a URI that is resolved already; `name` is the copy's where it is not the file's own."""
    into.mkdir(parents=True, exist_ok=True)
    target = into / (name or location.name)
    size = _checked_size(location, limit_bytes=limit_bytes, what=what)
    _check_room(location.uri, size=size, beside=into, what=what)
    try:
        actual, size = _copy(location, target, limit_bytes=limit_bytes, limit_seconds=limit_seconds, what=what)
        check_digest(location.uri, expected=digest, actual=actual)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Fetched(path=target, digest=actual, size=size)


def is_there(location: Location, *, what: What) -> bool:
    """Return whether a file is there; raises JobError where that cannot be known."""
    try:
        with _reading(location, what):
            return bool(location.fs.info(location.path)["type"] == "file")
    except JobError as error:
        if error.reason is not reason(what, "NOT_FOUND"):
            raise
        return False


def digest_of(
    location: Location, *, limit_bytes: int, what: What, limit_seconds: float = TIME_LIMIT_SECONDS
) -> tuple[str, int]:
    """Return digest and size in bytes of a file, of which no copy is kept; raises JobError as `fetch` does."""
    _checked_size(location, limit_bytes=limit_bytes, what=what)
    return _copy(location, Path(os.devnull), limit_bytes=limit_bytes, limit_seconds=limit_seconds, what=what)


def _checked_size(location: Location, *, limit_bytes: int, what: What) -> int:
    """Return the declared size; refuses a file that is absent, not regular, or too large, before a byte is read."""
    with _reading(location, what):
        info = location.fs.info(location.path)
    if info["type"] != "file":
        raise JobError(
            reason(what, "NOT_FOUND"), location.uri, "this is not a regular file.", "Name the file, not its folder."
        )
    size = int(info["size"] or 0)
    if size > limit_bytes:
        raise _too_large(location.uri, size=size, limit_bytes=limit_bytes, what=what)
    return size


def _check_room(uri: str, *, size: int, beside: Path, what: What) -> None:
    """Refuse a file that fills the scratch folder: the pod would be evicted in the middle of its work, again and again.

    Args:
        uri: The file.
        size: Its size in bytes.
        beside: Folder that it is copied to, with the other files of the same model.
        what: What it is: a model is copied, rewritten or converted, and copied into a bundle.
    """
    room = int(os.environ.get(SCRATCH_VARIABLE, "0"))
    together = size + sum(entry.stat().st_size for entry in os.scandir(beside) if entry.is_file())
    needed = together * (_COPIES_OF_A_MODEL if what == "Model" else 1)
    if not room or needed <= room:
        return
    raise JobError(
        reason(what, "TOO_LARGE"),
        uri,
        f"with it, {together} bytes need about {needed} in the scratch folder, which has {room}.",
        f"Set spec.execution.scratchSize to {-(-needed // _GIB)}Gi or more.",
    )


def _copy(location: Location, target: Path, *, limit_bytes: int, limit_seconds: float, what: What) -> tuple[str, int]:
    digest, size, end = hashlib.sha256(), 0, time.monotonic() + limit_seconds
    with _reading(location, what):
        source = location.fs.open(location.path, "rb")
    with source, target.open("wb") as copy:
        for chunk in _chunks(source, location, what=what):
            size += len(chunk)
            if size > limit_bytes:
                raise _too_large(location.uri, size=size, limit_bytes=limit_bytes, what=what)
            if time.monotonic() > end:
                raise unreachable(location.uri, f"after {limit_seconds:g} s, only {size} bytes of it have come.")
            digest.update(chunk)
            _write(copy, chunk, uri=location.uri, what=what)
    return f"sha256:{digest.hexdigest()}", size


def _chunks(source: IO[bytes], location: Location, *, what: What) -> Iterator[bytes]:
    while True:
        with _reading(location, what):
            chunk = source.read(_CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def _reading(location: Location, what: What) -> Iterator[None]:
    """Turn errors of reading into a `JobError`; an error that is not about the file passes unchanged."""
    try:
        yield
    except Exception as error:  # each file system has errors of its own
        fault = (remote_fault if location.remote else local_fault)(error, uri=location.uri, what=what)
        if fault is None:
            raise
        raise fault from error


def _write(copy: IO[bytes], chunk: bytes, *, uri: str, what: What) -> None:
    """Write at once, so that a full scratch volume is reported for the file that did not fit."""
    try:
        copy.write(chunk)
        copy.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise JobError(
            reason(what, "TOO_LARGE"),
            uri,
            "the file does not fit the Job's scratch folder.",
            "Raise spec.execution.scratchSize, or give a smaller file.",
        ) from error


def _too_large(uri: str, *, size: int, limit_bytes: int, what: What) -> JobError:
    return JobError(
        reason(what, "TOO_LARGE"),
        uri,
        f"the file has at least {size} bytes; the limit is {limit_bytes}.",
        "Give a smaller file.",
    )


def check_digest(uri: str, *, expected: str | None, actual: str) -> None:
    """Refuse another digest than the promised one; raises JobError, DigestMismatch."""
    if expected in {None, actual}:
        return
    raise JobError(
        Reason.DIGEST_MISMATCH,
        uri,
        f"the digest is {actual}, but {expected} was promised.",
        "Restore what was there, or give the new digest in the spec.",
    )
