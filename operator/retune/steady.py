"""The time that deadlines are held against: it follows the machine's clock, but never jumps with it.

A wall clock that is set forward by an hour must not end a bake or a deadline at once. Within the process time passes as
the monotonic clock says; what the wall clock is ahead or behind by is made up for slowly.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

log = logging.getLogger(__name__)

JUMP_SECONDS = 2.0
"""Difference from which on a clock has jumped; less is the usual correction of a clock, and is followed at once."""
RATE = 0.1
"""Share of the time that passes by which a jump is made up for."""


class SteadyClock:
    """A clock without jumps.

    Args:
        wall: Seconds since 1970; they may jump.
        monotonic: Seconds that never jump.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._shown, self._read = wall(), monotonic()
        self.jump = 0.0
        """By how many seconds the wall clock is ahead; 0 while it is followed."""

    def now(self) -> datetime:
        """Return the moment."""
        read, wall = self._monotonic(), self._wall()
        passed, self._read = read - self._read, read
        ahead = wall - (self._shown + passed)
        if abs(ahead) <= JUMP_SECONDS:
            self._shown, self.jump = max(self._shown, wall), 0.0
            return datetime.fromtimestamp(self._shown, UTC)
        if not self.jump:
            log.warning("the clock of this machine has jumped by %+.0f s; deadlines do not follow at once", ahead)
        made_up = min(abs(ahead), RATE * passed)
        self._shown += passed + (made_up if ahead > 0 else -made_up)
        self.jump = wall - self._shown
        return datetime.fromtimestamp(self._shown, UTC)
