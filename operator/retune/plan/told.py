"""What is told of the target's newest value, and of the field that has it, by others than the target's numbers of pods.

Each is a frozen fact with a sentence for a person.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Abort:
    """That the target's own controller has given the newest value up, or an agent in one of its pods cannot follow."""

    message: str
    by_analysis: bool
    """Whether an analysis that the target's owner has written has failed, or what the agent saw is the version's."""
    reason: str = "RolloutAborted"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why there is no field that could be owned."""

    word: str
    """Reason of a condition."""
    message: str
    """A sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class Agent:
    """What the agent in a pod tells of the bundle that its server serves, or why it tells nothing."""

    pod: str
    """Name of the pod."""
    ready: bool = False
    """Whether what is wanted serves and has been proved, or nothing is wanted."""
    wanted: str | None = None
    """URI of the bundle that it knows to be wanted."""
    served: str | None = None
    """Digest of the bundle that golden requests have proved."""
    fault: str | None = None
    """Why the server does not serve what is wanted, on one line."""
    reason: str | None = None
    """The same as a word, which a newer agent may have others of."""
    silent: str | None = None
    """Why it could not be asked."""
