"""Shares by numbers of pods: a Service sends each request to any of its ready pods, whoever made them."""

from retune.traffic.base import ALL, Split


class Replicas:
    """The Services of the target send requests to the canary's pods and to the target's alike."""

    name = "Replicas"

    def pods(self, weight: int, *, wanted: int, most: int) -> int:
        """Return the largest number of pods whose share is not above the weight; where none is, one."""
        fitting = wanted * weight // (ALL - weight)
        return max(1, min(fitting, most))

    def effective(self, weight: int, ready: Split) -> int:
        """Return the canary's part of the pods that answer, whatever was asked for."""
        answering = ready.canary + ready.target
        return round(ALL * ready.canary / answering) if answering else 0
