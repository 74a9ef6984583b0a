"""The error of a Job that cannot do its work, with everything that a person needs to act.

Text from models, data and servers ends up in conditions and terminals, so it is cleaned and shortened here.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from retune.contract.exits import Exit
from retune.contract.paths import claim_of
from retune.contract.results import Failure, Reason

RETRY_EXIT = 1
"""Exit code of a failure that may pass by itself; the Job's own policy tries again."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MESSAGE_LIMIT = 800
_NAME_LIMIT = 400


@dataclass(eq=False)
class JobError(Exception):
    """The Job cannot do its work."""

    reason: Reason
    object: str
    """The thing that is wrong, such as a URI, a column or a pod."""
    message: str
    """What is wrong with it, as a sentence."""
    next_step: str
    """What a person should do, as a sentence."""
    exit: int = Exit.BAD_INPUT
    """Exit code of the process."""

    def __post_init__(self) -> None:
        super().__init__(self.reason, self.object, self.message, self.next_step, self.exit)

    def __str__(self) -> str:
        return self.failure().sentence

    def failure(self) -> Failure:
        """Return the failure as a result document, in printable text and short enough for a termination message."""
        return Failure(
            reason=self.reason,
            object=printable(self.object, limit=_NAME_LIMIT),
            message=printable(self.message, limit=_MESSAGE_LIMIT),
            next_step=printable(self.next_step, limit=_NAME_LIMIT),
        )


def printable(text: str, *, limit: int) -> str:
    """Return `text` on one line without control characters, at most `limit` characters."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit])
    words = " ".join(clean.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def store_error(error: OSError, *, uri: str) -> JobError | None:
    """Return the JobError for a failed write to the store, or None when it is not about space or permission."""
    if error.errno in _FULL:
        return JobError(Reason.STORE_FULL, uri, "the store has no space left.", _room_for(uri))
    if error.errno in _REFUSED:
        return JobError(
            Reason.STORE_NOT_WRITABLE,
            uri,
            f"the store cannot be written ({error.strerror}).",
            f"Let user {os.geteuid()} or group {os.getegid()} write to that folder, and mount the claim read-write.",
        )
    return None


def _room_for(uri: str) -> str:
    claim = claim_of(uri)
    return f"Enlarge volume claim {claim}, or free space on it." if claim else "Free space on its disk."


def scratch_error(error: OSError, *, store: str | None) -> JobError | None:
    """Return the JobError for a scratch folder whose disk is full, or None where that is not what went wrong.

    Args:
        error: What went wrong; a failed write names no file, and then the disk with less space is the full one.
        store: Folder of the store on this machine, which may as well be full; None where there is none.
    """
    scratch = os.path.realpath(tempfile.gettempdir())
    path = os.path.realpath(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    if path is None:
        is_scratch = store is None or _free_bytes(scratch) < _free_bytes(store)
    else:
        is_scratch = path.startswith(f"{scratch}/") and not (store and path.startswith(store))
    if error.errno not in _FULL or not is_scratch:
        return None
    cure = "Use a node with more free disk space for the Job, or give a smaller model or less data."
    place = f"scratch folder {scratch}"
    return JobError(Reason.UNEXPECTED, place, "there is no space left on its disk.", cure, RETRY_EXIT)


def _free_bytes(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


@contextmanager
def store_access(uri: str) -> Iterator[None]:
    """Turn a full or read-only store into a `JobError` that names `uri`; other errors pass unchanged."""
    try:
        yield
    except OSError as error:
        known = store_error(error, uri=uri)
        if known is None:
            raise
        raise known from error
