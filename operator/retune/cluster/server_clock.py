"""By how much this machine's clock differs from the API server's, as the Date of its answers shows.

Windows and deadlines are held against this machine's clock, and their data is stamped by others. Nothing is corrected:
whoever looks after the nodes has to hear of it.
"""

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

WORTH_TELLING_SECONDS = 5.0
"""Difference from which on it is logged."""

log = logging.getLogger("retune")


class ServerClock:
    """What the answers of the API server say of the time.

    Args:
        wall: Seconds since 1970 by this machine's clock.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self.ahead = 0.0
        """Seconds by which this machine's clock is ahead at least; negative where it is behind."""
        self._told = False

    def heard(self, date: str | None, *, sent: float) -> None:
        """Take in the Date of an answer that came just now. It says whole seconds.

        Args:
            date: Value of the header, if there was one.
            sent: When the request was sent, by this machine's clock.
        """
        received = self.wall()
        try:
            server = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = sent - (server + 1.0), received - server
        self.ahead = least if least > 0 else min(most, 0.0)
        self._tell()

    def _tell(self) -> None:
        differs = abs(self.ahead) >= WORTH_TELLING_SECONDS
        if differs and not self._told:
            side = "ahead of" if self.ahead > 0 else "behind"
            log.warning("this machine's clock is %.0f s %s the API server's: set it", abs(self.ahead), side)
        self._told = differs
