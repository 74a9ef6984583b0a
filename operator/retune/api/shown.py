"""What has shown that a version serves, or that nothing has."""

from enum import StrEnum


class Shown(StrEnum):
    """What has shown that a version serves."""

    DIGEST = "Digest"
    """Every pod named the version's bundle in its answers."""
    ANSWERS = "Answers"
    """Every pod answered golden requests as this version does, and as the version before does not."""
    NOTHING = "Nothing"
    """Nothing: its pods are ready, which a server that ignores the variable is too."""
