"""The error of a Job that cannot do its work, with everything that a person needs to act.

Text from models, data and servers ends up in conditions and terminals, so it is cleaned and shortened here.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from retune.contract.exits import Exit
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
        return JobError(
            Reason.STORE_FULL, uri, "the store has no space left.", "Free space in its claim or enlarge the claim."
        )
    if error.errno in _REFUSED:
        return JobError(
            Reason.STORE_NOT_WRITABLE,
            uri,
            f"the store cannot be written ({error.strerror}).",
            f"Let user {os.geteuid()} or group {os.getegid()} write to that folder, and mount the claim read-write.",
        )
    return None


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
