"""Exit codes of every Job command."""

from enum import IntEnum


class Exit(IntEnum):
    """What the operator reads from a container's exit code. Anything else is retried by the Job's policy."""

    DONE = 0
    BAD_INPUT = 64
    """The input is wrong. Trying again with the same input cannot help."""
    INFEASIBLE = 65
    """The input is fine, but the outcome is not, such as wrong answers of a live pod."""
