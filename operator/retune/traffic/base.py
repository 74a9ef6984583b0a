"""What every way of sharing requests can do. A new one is a module that keeps this, and a line in the registry.

A share is never larger than was asked for where the pods that there are allow that, and what it really is is told.
"""

from dataclasses import dataclass
from typing import Protocol

ALL = 100
"""The whole of the requests, in percent."""


@dataclass(frozen=True)
class Split:
    """How many pods serve which version."""

    canary: int
    """Pods of the new version, at least 0."""
    target: int
    """Pods of the target, at least 0."""


class TrafficKind(Protocol):
    """One way to give the canary its share of the requests."""

    name: str
    """As in spec.rollout.canary.traffic.kind."""

    def pods(self, weight: int, *, wanted: int, most: int) -> int:
        """Return how many pods the canary needs for a share, one at least.

        Args:
            weight: The share, in percent, from 0 to 100.
            wanted: Pods that the target wants, at least 1.
            most: Pods that the canary may have, at least 1.
        """

    def effective(self, weight: int, ready: Split) -> int:
        """Return which share of the requests the canary gets, in percent, rounded.

        Args:
            weight: The share that is asked for, in percent; where a route gives it, the one that is there.
            ready: How many pods answer.
        """
