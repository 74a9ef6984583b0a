"""Shares by the weights of a route: whatever the number of pods, a proxy gives each side what its weight says."""

from retune.traffic.base import ALL, Split


class HTTPRoute:
    """Rules of an HTTPRoute give the canary's Service a part of what the target's Service gets."""

    name = "HTTPRoute"

    def pods(self, weight: int, *, wanted: int, most: int) -> int:
        """Return as many pods as the share needs, so that each of them gets no more requests than the target's did."""
        return max(1, min(-(-wanted * weight // ALL), most))

    def effective(self, weight: int, ready: Split) -> int:
        """Return the weight, which counts whatever the number of pods is; without a pod nobody answers."""
        return weight if ready.canary else 0
