"""Contain a technique that breaks: whatever it raises becomes a few words, and the search goes on.

What is raised on purpose passes: a budget that is spent, a store that cannot be written, and a worker that is stopped.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from optimizer_jobs.errors import JobError, printable, store_error
from optimizer_jobs.technique import StoppedEarlyError
from retune.contract.results import Reason

_OF_THE_STORE = {Reason.STORE_FULL, Reason.STORE_NOT_WRITABLE}


class BrokenTechniqueError(Exception):
    """A technique raised something; the message is what, in words without a full stop."""

    def __init__(self, names: tuple[str, ...], error: BaseException) -> None:
        words = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
        super().__init__(printable(words, limit=300).rstrip("."))
        self.names = names
        """Names of the techniques in the spec or the recipe; several that train together cannot be told apart."""


@contextmanager
def contained(*names: str) -> Iterator[None]:
    """Raise BrokenTechniqueError for whatever the block raises, except what is raised on purpose.

    Args:
        *names: Names of the techniques that work in the block.
    """
    try:
        yield
    except (StoppedEarlyError, BrokenTechniqueError):
        raise
    except (Exception, SystemExit) as error:
        if _on_purpose(error):
            raise
        raise BrokenTechniqueError(names, error) from error


def _on_purpose(error: BaseException) -> bool:
    match error:
        case SystemExit():
            return error.code == 128 + signal.SIGTERM
        case JobError():
            return error.reason in _OF_THE_STORE
        case OSError():
            return store_error(error, uri="") is not None
    return False
