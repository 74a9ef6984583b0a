"""How soon a resource's metrics may be read again, so that all such reading takes a bounded share of one processor.

What is cheap to read is read whenever it is due. Resources whose pods say much share what there is evenly: one of
them alone may take all of it, and among many each waits accordingly longer. So nobody keeps the operator from others.
"""

from collections.abc import Callable

SHARE = 0.1
"""Share of one processor that reading dear metrics may take."""
CHEAP_SECONDS = 0.01
"""Processor time of one read up to which a resource is read whenever it is due."""
MOST_SECONDS = 600.0
"""Longest that a resource waits; its cost is forgotten then."""


class Allowance:
    """What each resource has cost last, and when it may be read again.

    Args:
        clock: Seconds, of any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reads: dict[str, tuple[float, float]] = {}
        """Of dear resources: when they were read and what that cost, in seconds."""

    def charge(self, key: str, cost: float) -> None:
        """Note that reading a resource has just taken `cost` seconds of processor time."""
        if cost > CHEAP_SECONDS:
            self._reads[key] = (self._clock(), cost)
        else:
            self.forget(key)

    def wait(self, key: str) -> float:
        """Return the seconds until a resource may be read again."""
        now = self._clock()
        self._reads = {other: read for other, read in self._reads.items() if 0 <= now - read[0] < MOST_SECONDS}
        if key not in self._reads:
            return 0.0
        at, cost = self._reads[key]
        return max(0.0, at + min(MOST_SECONDS, cost * len(self._reads) / SHARE) - now)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        self._reads.pop(key, None)
