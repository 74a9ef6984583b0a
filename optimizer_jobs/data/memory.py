"""Tell that memory ran out from that a file is broken: libraries say both by errors of the same classes.

A file that did not fit must never be set aside as broken, and nobody must be asked to correct it.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from optimizer_jobs.errors import JobError
from retune.contract.results import Reason

_NUMBERS = frozenset({errno.ENOMEM, errno.EAGAIN})
"""What the kernel answers where there is no memory, also for another thread's stack."""
_WORDS = "annot allocate memory"


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise a plain MemoryError for whatever says that memory ran out; other errors pass unchanged.

    Arrow's own error of that kind is also one of its errors for broken files.
    """
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NUMBERS and _WORDS not in str(error):
            raise
        raise MemoryError(str(error)) from error


@contextmanager
def room_for(uri: str) -> Iterator[None]:
    """Turn a MemoryError into the JobError that names the file at `uri`, which did not fit."""
    try:
        yield
    except MemoryError as error:
        raise JobError(
            Reason.DATA_TOO_LARGE,
            uri,
            "reading it takes more memory than the Job may use.",
            "Raise spec.execution.resources.limits.memory, or give fewer rows or columns.",
        ) from error
