"""What breaks in one part of a check costs no other part: it is told in words, and stands for nothing.

Rows of production may hold anything, and the libraries that look at them break in ways that nobody has listed.
"""

from collections.abc import Callable
from typing import TypeVar

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.progress import say

FAILED = "ComparisonFailed"
"""Reason of a verdict Unknown or Untrusted where a part of the check broke."""
_LIMIT = 240

Found = TypeVar("Found")


def guarded(work: Callable[[], Found], broken: Callable[[str], Found], *, what: str) -> Found:
    """Return what a part of a check finds; where it breaks, what stands in its place.

    Args:
        work: Does the part.
        broken: Takes what broke as words without a full stop, and returns what stands for the part.
        what: What could not be done, such as `segments could not be judged`.

    Raises:
        JobError: A person must mend it, or it may pass by itself, such as a store that cannot be reached now.
        MemoryError: With more memory, it would have been done.
    """
    try:
        return work()
    except (JobError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one bad part must not sink the others
        words = printable(f"{what} ({type(error).__name__}: {error})", limit=_LIMIT)
        say(f"  {words}")
        return broken(words)
